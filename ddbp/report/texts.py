"""What of a page is about text: windows with the probability of each token, and what a model has
written.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from layers.types import Array

from .figures import Figure, table, text

Block = str | Figure
_LEVELS = 8
"""Shades of tokens."""
_LISTED = 6
"""So many tokens that were least expected are listed."""
_KINDS = {"worst": "Windows of the greatest loss", "usual": "Usual windows"}
_NOTE = (
    "The colour of a token is the stronger, the less likely the model held it after those before"
    " it; below 1 in 64 it is underlined, too. The first token only stands before the others."
)


class Tokens:
    """The texts of tokens.

    Parameters
    ----------
    vocabulary
        Those of a run folder, in the order of their ids, or anything else if there are none.
    """

    def __init__(self, vocabulary: Any) -> None:
        listed = isinstance(vocabulary, list) and all(isinstance(each, str) for each in vocabulary)
        self.known = listed
        self._texts: list[str] = vocabulary if listed else []

    def __getitem__(self, token: int) -> str:
        """Return the text of a token; its id where there is none."""
        if 0 <= token < len(self._texts):
            return _visible(self._texts[token])
        return f"{token} " if not self.known else f"<{token}>"

    def quoted(self, token: int) -> str:
        """Return a token for people: its text in quotation marks, or its id."""
        return f"\u201c{self[token]}\u201d" if self.known else str(token)

    def joined(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, which may have spaces between them or bring their own."""
        single = all(len(each) == 1 for each in self._texts)
        spaced = single or any(each[:1] in " \u0120\u2581" for each in self._texts if len(each) > 1)
        return ("" if spaced else " ").join(self[token] for token in tokens)


def _visible(token: str) -> str:
    """Return a token with marks for what cannot be seen."""
    return "".join(
        "\u23ce\n" if each == "\n" else each if each.isprintable() else "\ufffd" for each in token
    )


def written(sample: str) -> str:
    """Return in HTML what a model has written."""
    shown = "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in sample)
    return (
        '<div><h3>Written by the model</h3><p class="note">Drawn token by token, at the end.</p>'
        '<pre class="text" tabindex="0" aria-label="Written by the model">'
        f"{escape(shown)}</pre></div>"
    )


def blocks(facts: list[dict[str, Any]], arrays: dict[str, Array], tokens: Tokens) -> list[Block]:
    """Return what a page shows of windows of text.

    Raises
    ------
    ValueError, LookupError, TypeError
        They are not those of a run of this version.
    """
    shades = "".join(
        f'<i class="q{n}">{"1" if n == 0 else f"1/{2**n}"}</i> ' for n in range(_LEVELS)
    )
    result: list[Block] = [
        f'<p class="note">{escape(_NOTE)}</p><p class="text">Probability: {shades}or less</p>'
    ]
    for kind, title in _KINDS.items():
        shown = [
            _window(fact, *(arrays[f"text{n}.{name}"] for name in _ARRAYS), tokens=tokens)
            for n, fact in enumerate(facts)
            if fact["kind"] == kind
        ]
        if shown:
            result.append(f"<h3>{title}</h3>")
            result += shown
    return result


_ARRAYS = ("tokens", "chances", "guesses", "sure")


def _window(
    fact: dict[str, Any],
    ids: Array,
    chances: Array,
    guesses: Array,
    sure: Array,
    *,
    tokens: Tokens,
) -> str:
    first, steps = int(fact["first"]), len(chances)
    known = chances[np.isfinite(chances)].astype(np.float64)
    with np.errstate(divide="ignore"):
        loss = float(-np.log(known).mean()) if known.size else math.nan
    place = f", tokens {first} to {first + steps} of {int(fact['of'])}" if first else ""
    said = f"sample {int(fact['sample'])}{place}: loss {text(loss)} per token"
    parts = [escape(tokens[int(ids[0])])]
    for token, chance in zip(ids[1:].tolist(), chances.tolist(), strict=True):
        shown = escape(tokens[token])
        if math.isfinite(chance):
            shown = f'<i class="q{_level(chance)}" title="{chance:.2g}">{shown}</i>'
        parts.append(shown)
    order = np.argsort(np.nan_to_num(chances, nan=np.inf), kind="stable")[:_LISTED]
    rows = [
        (
            f"{tokens.quoted(int(ids[n + 1]))} at {first + n + 1}",
            f"{chances[n]:.2g}",
            tokens.quoted(int(guesses[n])),
            f"{sure[n]:.2g}",
        )
        for n in np.sort(order).tolist()
        if math.isfinite(chances[n])
    ]
    heads = ("token", "probability", "the model\u2019s guess", "probability of that")
    least = table(heads, rows, caption="Least expected")
    return (
        f'<div class="window"><p class="note">{escape(said)}</p>'
        f'<p class="text">{"".join(parts)}</p>'
        f"<details><summary>Least expected tokens</summary>{least}</details></div>"
    )


def _level(chance: float) -> int:
    """Return the shade of a probability: how often it is halved from 1."""
    return min(_LEVELS - 1, int(-math.log2(chance))) if chance > 0 else _LEVELS - 1
