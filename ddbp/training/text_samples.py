"""What a language model makes of text, for the report of a run: how likely each token of some
windows was to it, and a text of its own.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.data.samples import Ragged, call, leaves, recorded
from ddbp.data.source import Dataset
from ddbp.reduction.shards import ShardPlan
from layers import Tape
from layers.errors import message, wording
from layers.types import Array, Integers

from .batch import RowBuffers, local_batch
from .callbacks import Callback

if TYPE_CHECKING:
    from .trainer import Trainer

WINDOWS, WIDTH = 4, 256
"""So many windows of the greatest loss are kept, and so many usual ones, of so many tokens."""
_TRIED = 8
"""So many samples are looked at to tell a language model."""
_MOST_WRITTEN = 4000
_FIX = "Pass the characters as a text, or the tokens as a list of texts, in the order of their ids."


class TextSamples(Callback):
    """Say how the tokens of a language model are written, and have it write, for the report.

    Without it the report of a language model shows ids of tokens.

    >>> alphabet = "".join(sorted(set(text)))
    >>> trainer = Trainer(…, callbacks=[TextSamples(alphabet)], run_dir="runs/first")

    Parameters
    ----------
    vocabulary
        The text of each token, in the order of their ids: a text of one character each, or texts;
        None for ids.
    write
        Returns a text, given the model as `fit` leaves it; called once, at the end of `fit` on rank
        0, so that it must call nothing collective. What goes wrong in it is a warning.

    Raises
    ------
    TypeError
        The vocabulary is none of texts, or `write` is no function.
    """

    @wording("TextSamples")
    def __init__(
        self,
        vocabulary: Sequence[str] | None = None,
        write: Callable[[Any], str] | None = None,
    ) -> None:
        owner = "TextSamples"
        texts: list[Any] = [*vocabulary] if isinstance(vocabulary, str | list | tuple) else []
        known = bool(texts) and all(isinstance(each, str) for each in texts)
        if vocabulary is not None and not known:
            must, got = "vocabulary must be of texts", repr(vocabulary)[:80]
            raise TypeError(message(owner, must, got, _FIX))
        given: Any = write
        if given is not None and not callable(given):
            fix = "Pass a function from the model to a text."
            raise TypeError(message(owner, "write must be a function", repr(write), fix))
        self.vocabulary = texts or None
        self.write = write

    def __repr__(self) -> str:
        return "TextSamples()"

    def facts(self, model: Any) -> dict[str, Any]:
        """Return what a report is to know, at the end of a run."""
        written = ""
        if self.write is not None:
            try:
                found = self.write(model)
                got = f"a {type(found).__name__}"
            except Exception as error:
                found, got = None, f"{type(error).__name__}: {error}".rstrip(".")
            if isinstance(found, str):
                written = found[:_MOST_WRITTEN]
            else:
                must, fix = "write must return a text", "The report goes without it."
                warnings.warn(message("TextSamples", must, got, fix), RuntimeWarning, stacklevel=2)
        return {"vocabulary": self.vocabulary, "written": written}


def is_language(data: Dataset, rows: Integers, ignore: int | None) -> bool:
    """Return whether the labels of samples are the tokens that follow those of their only input."""
    tried = data.in_memory(rows[:_TRIED])
    parts = [leaf for _, leaf in leaves("x", tried.x)]
    seen = 0
    for row in range(len(tried)):
        tokens, following = (_tokens(samples, row) for samples in (parts[0], tried.y))
        if (
            len(parts) > 1
            or tokens.dtype.kind not in "iu"
            or following.dtype.kind not in "iu"
            or tokens.ndim != 1
            or tokens.shape != following.shape
        ):
            return False
        counted = following[:-1] != ignore
        if (tokens[1:] != following[:-1])[counted].any():
            return False
        seen += int(counted.sum())
    return seen > 0


def _tokens(samples: Any, row: int) -> Array:
    return np.asarray(samples[[row]].values if isinstance(samples, Ragged) else samples[row])


def windows(
    trainer: "Trainer", data: Dataset, chosen: dict[int, str], ignore: int | None
) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Return of chosen samples, each of some kind, what is to be said of them, and by name arrays
    of their tokens (t + 1,), and of all but the first the probability that the model gave them, its
    own guess and the probability of that (t,); NaN where a token does not count.
    """
    facts: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for sample, kind in chosen.items():
        one = data.in_memory(np.array([sample]))
        batch = local_batch(one, ShardPlan(1, 1, 0), np.array([0]), RowBuffers().take)
        logits = call(trainer.predictor, recorded(Tape(samples=1), batch.x)).array[0]
        following = batch.y[0]
        tokens = np.append(_tokens(next(leaves("x", one.x))[1], 0)[:1], following)
        with np.errstate(all="ignore"):
            powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
            powers /= powers.sum(axis=-1, keepdims=True)
        steps = np.arange(len(following))
        counted = np.ones(len(steps), bool) if ignore is None else following != ignore
        own = np.where(counted, following, 0)
        chances = np.where(counted, powers[steps, own], np.nan)
        guesses = powers.argmax(axis=-1)
        first = _worst_window(chances) if kind == "worst" else 0
        part = slice(first, first + WIDTH)
        name = f"text{len(facts)}"
        arrays[f"{name}.tokens"] = tokens[first : first + WIDTH + 1]
        arrays[f"{name}.chances"] = chances[part].astype(np.float32)
        arrays[f"{name}.guesses"] = guesses[part]
        arrays[f"{name}.sure"] = powers[steps, guesses][part].astype(np.float32)
        facts.append({"sample": sample, "kind": kind, "first": first, "of": len(steps)})
    return facts, arrays


def _worst_window(chances: Array) -> int:
    """Return where the window with the greatest loss begins."""
    if len(chances) <= WIDTH:
        return 0
    with np.errstate(divide="ignore"):
        losses = np.nan_to_num(-np.log(chances), posinf=1e3)
    sums = np.append(0, np.cumsum(losses))
    return int((sums[WIDTH:] - sums[:-WIDTH]).argmax())
