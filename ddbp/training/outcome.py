"""What a model makes of samples at the end of a run, for its report: `samples.npz` in the run
folder, with which labels were taken for which, the samples of the greatest loss, what was predicted
for numbers, and how likely the tokens of texts were.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ddbp import files
from ddbp.data.samples import Ragged, call, leaves, recorded
from ddbp.data.source import Dataset
from ddbp.reduction.shards import ShardPlan
from layers import (
    BinaryCrossEntropy,
    CosineDistance,
    Hinge,
    KLDivergence,
    PoissonNLL,
    SoftmaxCrossEntropy,
    Tape,
)
from layers.types import Array, Integers

from .batch import RowBuffers, local_batch
from .text_samples import WINDOWS, TextSamples, is_language, windows

if TYPE_CHECKING:
    from .trainer import Trainer

MOST_SAMPLES = 2000
"""So many samples are looked at, drawn at random."""
_SECONDS = 2.0
"""After so long no further batch of them is."""
WORST = 12
_OUTPUTS = 4
"""So many numbers of each sample are kept, where there are more."""
_NO_NUMBERS = BinaryCrossEntropy, CosineDistance, Hinge, KLDivergence, SoftmaxCrossEntropy
"""What losses of these take is no number in the units of the targets."""
_SIDE, _STEPS = 64, 256
"""The greatest side of an image, and length of a sequence, that is kept."""


class _Labelled(NamedTuple):
    """Of samples (n,): their losses, and of all positions that count the labels, what they were
    taken for and the probability of that; and of each sample the first such position.
    """

    losses: Array
    pairs: Integers
    target: Integers
    predicted: Integers
    probability: Array


def write(trainer: "Trainer", training: Dataset, validation: Dataset | None, folder: Path) -> None:
    """Write `samples.npz` from samples for validation, or for training if there are no others;
    nothing where targets are neither labels nor numbers, or the model puts out something else.

    On one rank; the model's states stay as they are.
    """
    data, kind = (training, "training") if validation is None else (validation, "validation")
    data = data.astype(trainer._flat.dtype)
    order = data.order(0, 0)[:MOST_SAMPLES]
    began, size = time.monotonic(), trainer.options.batch_size
    parts: list[tuple[Integers, Any, Any, Any]] = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = local_batch(data, ShardPlan(1, 1, 0), rows, RowBuffers().take)
        tape = Tape(samples=len(rows))
        output = call(trainer.predictor, recorded(tape, batch.x))
        if not hasattr(output, "array") or type(batch.y) is not np.ndarray:
            return
        parts.append((rows, output.array, batch.y, batch.weights))
        if time.monotonic() - began > _SECONDS:
            break
    seen = np.concatenate([rows for rows, *_ in parts])
    facts: dict[str, Any] = {"data": kind, "samples": len(data), "seen": len(seen)}
    if names := [*map(str, training.classes)]:
        facts["classes"] = names
    ignore = getattr(trainer.loss, "ignore", None)
    loss: Any = trainer.loss
    binary = isinstance(loss, BinaryCrossEntropy)
    _, prediction, target, _ = parts[0]
    alike = target.shape == prediction.shape
    of_classes = alike and isinstance(loss, SoftmaxCrossEntropy)
    if binary and alike and prediction[0].size == 1:
        arrays = _of_labels([_two_classes(*part[1:]) for part in parts])
    elif target.dtype.kind in "iu" and target.shape == prediction.shape[:-1] != prediction.shape:
        arrays = _of_labels([_labelled(*part[1:], ignore) for part in parts])
    elif of_classes and all(_is_one_hot(y) for *_, y, _ in parts):
        arrays = _of_labels([_labelled(x, y.argmax(-1), w, ignore) for _, x, y, w in parts])
    elif alike and target.dtype.kind in "fiu" and not isinstance(loss, _NO_NUMBERS):
        if isinstance(loss, PoissonNLL) and loss.log_input:
            with np.errstate(over="ignore"):
                parts = [(rows, np.exp(x), y, w) for rows, x, y, w in parts]
        arrays = _of_numbers(parts)
    else:
        return
    places, usual = arrays.pop("places"), arrays.pop("usual")
    numbers = seen[places]
    if target.ndim == 2 and "pairs" in arrays and is_language(data, seen, ignore):
        worst = dict.fromkeys(numbers[:WINDOWS].tolist(), "worst")
        chosen = dict.fromkeys(seen[usual].tolist(), "usual") | worst
        facts["texts"], windows_of = windows(trainer, data, chosen, ignore)
        arrays |= windows_of
    for callback in trainer.callbacks:
        if isinstance(callback, TextSamples):
            facts |= callback.facts(trainer.predictor)
    first, leaf = next(iter(leaves("x", data.in_memory(numbers).x)))
    inputs = {f"input{n}": _small(leaf, n) for n in range(len(numbers))}
    facts["input"] = first
    arrays |= {"numbers": numbers, "facts": np.array(json.dumps(facts)), **inputs}
    with files.whole(folder / "samples.npz") as place, place.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _labelled(logits: Array, labels: Integers, weights: Any, ignore: int | None) -> _Labelled:
    """Return what logits (N, …, C) make of labels (N, …)."""
    rows = len(labels)
    classes = logits.shape[-1]
    counted = _counted(labels.shape, weights)
    if ignore is not None:
        counted &= labels != ignore
    counted = counted.reshape(rows, -1)
    labels = np.where(counted, labels.reshape(rows, -1), 0)
    logits = logits.reshape(rows, -1, classes).astype(np.float64)
    with np.errstate(all="ignore"):
        shifted = logits - logits.max(axis=-1, keepdims=True)
        sums = np.exp(shifted).sum(axis=-1)
        own = np.take_along_axis(shifted, labels[..., np.newaxis], axis=-1)[..., 0]
        losses = np.where(counted, np.log(sums) - own, 0)
        predicted = logits.argmax(axis=-1)
        means = losses.sum(axis=1) / np.maximum(1, counted.sum(axis=1))
    # Of a sample the position of the greatest loss stands for it.
    place = np.nan_to_num(losses, nan=np.inf).argmax(axis=1)[:, np.newaxis]
    chosen = [np.take_along_axis(each, place, axis=1)[:, 0] for each in (labels, predicted, sums)]
    pairs = np.stack((labels[counted], predicted[counted]), axis=1)
    return _Labelled(means, pairs, chosen[0], chosen[1], 1 / chosen[2])


def _two_classes(logits: Array, targets: Array, weights: Any) -> _Labelled:
    """Return what logits of one output make of targets 0 and 1."""
    rows = len(logits)
    both = np.stack((np.zeros(rows), logits.reshape(rows)), axis=-1)
    return _labelled(both, (targets.reshape(rows) > 0.5).astype(np.int64), weights, None)


def _of_labels(parts: list[_Labelled]) -> dict[str, Any]:
    every = _Labelled(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    pairs, counts = np.unique(every.pairs, axis=0, return_counts=True)
    places = _worst(every.losses)
    return {
        "places": places,
        "usual": _usual(every.losses),
        "pairs": np.column_stack((pairs, counts)),
        "losses": every.losses[places],
        "targets": every.target[places],
        "predictions": every.predicted[places],
        "probabilities": every.probability[places],
    }


def _of_numbers(parts: list[tuple[Integers, Any, Any, Any]]) -> dict[str, Any]:
    """Return what was predicted for numbers; those that do not count are NaN."""
    width = min(_OUTPUTS, max(y[0].size for _, _, y, _ in parts))
    every: dict[str, list[Array]] = {"outputs": [], "expected": []}
    means = []
    for _, prediction, target, weights in parts:
        counted = _counted(target.shape, weights).reshape(len(target), -1)
        x, t = (each.reshape(counted.shape).astype(np.float64) for each in (prediction, target))
        squares = np.where(counted, np.square(x - t), 0)
        means.append(squares.sum(axis=1) / np.maximum(1, counted.sum(axis=1)))
        for found, numbers in zip(every.values(), (x, np.where(counted, t, np.nan)), strict=True):
            kept = np.full((len(t), width), np.nan, np.float32)
            kept[:, : numbers.shape[1]] = numbers[:, :width]
            found.append(kept)
    losses = np.concatenate(means)
    places = _worst(losses)
    arrays = {name: np.concatenate(found) for name, found in every.items()}
    return {
        **arrays,
        **{f"worst_{name}": found[places] for name, found in arrays.items()},
        "places": places,
        "usual": _usual(losses),
        "losses": losses[places],
    }


def _counted(shape: tuple[int, ...], weights: Any) -> Array:
    """Return which targets of a shape (N, …) count, given weights of samples or of further axes."""
    counted = np.ones(shape, bool)
    if weights is not None:
        weights = np.asarray(weights)
        counted &= weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)) > 0
    return counted


def _is_one_hot(targets: Array) -> bool:
    """Return whether targets (N, …, C) are rows of zeros and a one."""
    return bool(((targets == 0) | (targets == 1)).all() and (targets.sum(axis=-1) == 1).all())


def _worst(losses: Array) -> Integers:
    """Return the places of the greatest losses, NaN first."""
    return np.argsort(-np.nan_to_num(losses, nan=np.inf), kind="stable")[:WORST]


def _usual(losses: Array) -> Integers:
    """Return the places of the losses next to the median."""
    known = losses[np.isfinite(losses)]
    median = np.median(known) if known.size else 0.0
    apart = np.nan_to_num(np.abs(losses - median), nan=np.inf)
    return np.argsort(apart, kind="stable")[:WINDOWS]


def _small(samples: Any, number: int) -> Array:
    """Return a sample, of a large one some rows and columns, or its first steps."""
    sample = samples[[number]].values if isinstance(samples, Ragged) else samples[number]
    sample = np.asarray(sample)
    if sample.ndim < 2:
        return sample[:4096] if sample.ndim else sample
    if sample.ndim == 2 and sample.shape[0] != sample.shape[1]:
        return sample[:_STEPS, :_OUTPUTS]
    steps = [max(1, -(-side // _SIDE)) for side in sample.shape[:2]]
    return sample[:: steps[0], :: steps[1]][:_SIDE, :_SIDE]
