"""What of a page is about samples: confusion matrix, worst samples, residuals, texts."""

import json
import math
from html import escape
from typing import Any

import numpy as np

from layers.types import Array

from . import texts, thin
from .figures import Figure, Series, lines, table, text

_MOST_CLASSES = 24
"""A matrix of more classes is shown as a list of what is confused most."""
_MOST_PAIRS = 20
_LEAST_IMAGE = 8
"""The least side of what is taken for an image."""

Block = str | Figure


def blocks(arrays: dict[str, Array]) -> list[Block]:
    """Return what a page shows of `samples.npz`: HTML and figures.

    Raises
    ------
    ValueError, LookupError, TypeError
        The arrays are not those of a run of this version.
    """
    if not arrays:
        return []
    facts = json.loads(str(arrays["facts"]))
    seen, samples, kind = int(facts["seen"]), int(facts["samples"]), str(facts["data"])
    drawn = "all" if seen == samples else f"{seen:,} of {samples:,}"
    said = f"Of the {kind} data, with the parameters at the end: {drawn} samples"
    said += "." if seen == samples else ", drawn at random."
    result: list[Block] = [f'<p class="note">{escape(said)}</p>']
    tokens = texts.Tokens(facts.get("vocabulary"))
    if facts.get("written"):
        result.append(texts.written(str(facts["written"])))
    if facts.get("texts"):
        result += texts.blocks(facts["texts"], arrays, tokens)
    labels = tokens if facts.get("texts") else texts.Tokens(facts.get("classes"))
    if "pairs" in arrays:
        pairs = np.asarray(arrays["pairs"]).astype(np.int64)
        result += _confusion(pairs, labels, as_matrix=not facts.get("texts"))
    else:
        result += _residuals(arrays["outputs"], arrays["expected"])
    return result if facts.get("texts") else result + _worst(arrays, tokens, labels)


def _confusion(pairs: Array, labels: texts.Tokens, *, as_matrix: bool) -> list[Block]:
    """Return which labels (n, [label, prediction, times]) were taken for which."""
    if pairs.ndim != 2 or not len(pairs):
        return []
    total = int(pairs[:, 2].sum())
    right = int(pairs[pairs[:, 0] == pairs[:, 1], 2].sum())
    said = f"<p>{right:,} of {total:,} are right: {right / total:.2%}.</p>"
    wrong = pairs[pairs[:, 0] != pairs[:, 1]]
    wrong = wrong[np.argsort(-wrong[:, 2], kind="stable")][:_MOST_PAIRS]
    classes = int(pairs[:, :2].max()) + 1
    confused = [
        (f"{labels.quoted(a)} taken for {labels.quoted(b)}", text(count))
        for a, b, count in wrong.tolist()
    ]
    listed = table(("", "times"), confused, caption="Confused most often") if confused else ""
    if classes > _MOST_CLASSES or not as_matrix:
        return [said + listed]
    counts = np.zeros((classes, classes), np.int64)
    counts[pairs[:, 0], pairs[:, 1]] = pairs[:, 2]
    sums = np.maximum(1, counts.sum(axis=1, keepdims=True))
    names = [escape(labels[label].strip()) for label in range(classes)]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = []
    for label, (row, shares) in enumerate(zip(counts, counts / sums, strict=True)):
        cells = "".join(
            f'<td class="{"right" if label == c else "wrong"}" style="--share:{share:.3f}">'
            f"{count or ''}</td>"
            for c, (count, share) in enumerate(zip(row.tolist(), shares.tolist(), strict=True))
        )
        head_of_row = f'<th scope="row">{names[label]}</th>'
        rows.append(f"<tr>{head_of_row}{cells}<td>{shares[label]:.1%}</td></tr>")
    matrix = (
        '<div class="scroll" tabindex="0"><table class="confusion"><caption>Confusion matrix: rows'
        " are labels, columns predictions</caption><thead><tr>"
        f'<th scope="col">label</th>{head}<th scope="col">right</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return [
        said
        + matrix
        + (f"<details><summary>Confusions</summary>{listed}</details>" if listed else "")
    ]


def _residuals(outputs: Array, expected: Array) -> list[Block]:
    residuals = outputs.astype(np.float64) - expected
    result: list[Block | None] = []
    for column in range(outputs.shape[1]):
        name = f" of output {column}" if outputs.shape[1] > 1 else ""
        # What does not count is not known.
        counts = np.isfinite(expected[:, column])
        target, residual = expected[counts, column].astype(np.float64), residuals[counts, column]
        order = np.argsort(target, kind="stable")[:: max(1, len(target) // 1000)]
        result.append(
            lines(
                f"Residuals{name}",
                [Series("predicted - target", target[order], residual[order])],
                note="A cloud around 0 without a slope or a funnel is what is left of noise.",
                x="target",
                kind="points",
            )
        )
        known = residual[np.isfinite(residual)]
        if known.size > 1 and np.ptp(known) > 0:
            heights, edges = np.histogram(known, bins=min(40, max(5, int(math.sqrt(known.size)))))
            middles = (edges[1:] + edges[:-1]) / 2
            series = Series("samples", middles, heights.astype(np.float64))
            title = f"Distribution of the residuals{name}"
            result.append(lines(title, [series], x="predicted - target", kind="bars"))
    return [each for each in result if each is not None]


def _worst(arrays: dict[str, Array], tokens: texts.Tokens, labels: texts.Tokens) -> list[Block]:
    numbers, losses = arrays["numbers"], arrays["losses"]
    cards, pictures = [], []
    for place, sample in enumerate(numbers.tolist()):
        facts = [f"sample {sample}", f"loss {text(float(losses[place]))}"]
        if "targets" in arrays:
            target, predicted = (int(arrays[name][place]) for name in ("targets", "predictions"))
            sure = float(arrays["probabilities"][place])
            name, other = (labels[each].strip() for each in (target, predicted))
            facts.append(f"label {name}, predicted {other} ({sure:.0%})")
        if "worst_expected" in arrays:
            target, predicted = (
                arrays[name][place] for name in ("worst_expected", "worst_outputs")
            )
            counts = np.isfinite(target)
            facts.append(f"target {_numbers(target[counts])}")
            facts.append(f"predicted {_numbers(predicted[counts])}")
        picture = _picture(arrays[f"input{place}"], f"sample {sample}")
        pictures.append(picture)
        shown = '<div class="picture"></div>'
        if not picture:
            shown = _listed(arrays[f"input{place}"], tokens)
        said = "<br>".join(map(escape, facts))
        cards.append(f"<li>{shown}<p>{said}</p></li>")
    data: dict[str, Any] = {"kind": "pictures", "pictures": pictures}
    wrong = "labels" if "targets" in arrays else "targets"
    said = f"Wrong {wrong} are often among them."
    gallery = Figure("Samples of the greatest loss", said, data)
    return [gallery, f'<ul class="gallery">{"".join(cards)}</ul>']


def _numbers(values: Array) -> str:
    return ", ".join(text(float(each)) for each in values.tolist())


def _picture(sample: Array, label: str) -> dict[str, Any] | None:
    """Return what the script draws of a sample: an image or curves; None if it is neither."""
    if sample.dtype.kind not in "fiub":
        return None
    image = _image(sample)
    if image is not None:
        values = image.astype(np.float64)
        known = values[np.isfinite(values)]
        low, span = (known.min(), np.ptp(known) or 1.0) if known.size else (0.0, 1.0)
        levels = np.nan_to_num(255 * (values - low) / span).astype(np.uint8)
        return {
            "kind": "image",
            "label": label,
            "height": image.shape[0],
            "width": image.shape[1],
            "channels": image.shape[2],
            "cells": thin.packed(levels),
        }
    if sample.dtype.kind == "f" and sample.ndim in (1, 2) and len(sample) >= _LEAST_IMAGE:
        columns = sample.reshape(len(sample), -1)[:, :4]
        return {
            "kind": "curves",
            "label": label,
            "values": [thin.shortened(column) for column in columns.T],
        }
    return None


def _image(sample: Array) -> Array | None:
    """Return a sample as an image (H, W, 1 or 3), None if it is none. Pixels of a square image may
    have been given as one row: these are not negative.
    """
    if sample.ndim == 3 and sample.shape[2] in (1, 3) and min(sample.shape[:2]) >= 2:
        return sample
    if sample.ndim == 2 and sample.shape[0] == sample.shape[1] >= _LEAST_IMAGE:
        return sample[..., np.newaxis]
    side = math.isqrt(sample.size)
    square = sample.ndim == 1 and side >= _LEAST_IMAGE and side * side == sample.size
    if square and sample.dtype.kind == "f" and (sample >= 0).all():
        return sample.reshape(side, side, 1)
    return None


def _listed(sample: Array, tokens: texts.Tokens) -> str:
    """Return the first numbers of a sample, as tokens or features."""
    flat = sample.reshape(-1)
    if tokens.known and flat.dtype.kind in "iu":
        return f'<p class="tokens">{escape(tokens.joined(flat.tolist()))}</p>'
    shown = " ".join(text(float(each)) for each in flat[:48].tolist())
    more = f" and {flat.size - 48:,} more" if flat.size > 48 else ""
    return f'<p class="tokens">{escape(shown + more)}</p>'
