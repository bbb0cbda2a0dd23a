"""What recipes for classes share: metrics of each class, and scores in words."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ddbp.training.metrics import Metric, Values, accuracy, per_sample
from layers.errors import message
from layers.types import Array

MOST_CLASSES = 100
"""Of more classes nothing is said one by one."""


def require_classes(owner: str, classes: Sequence[str]) -> Sequence[str]:
    """Return the names of classes, or refuse data that have none."""
    if len(classes) < 2:
        must, got = "the data must have two classes or more", f"{len(classes)}"
        raise ValueError(message(owner, must, got, "Give each class a folder, or name a column."))
    return classes


def metrics(classes: Sequence[str]) -> dict[str, Metric]:
    """Return accuracy and, of not too many classes, what is told of each."""
    found: dict[str, Metric] = {"accuracy": accuracy}
    for number in range(len(classes) if len(classes) <= MOST_CLASSES else 0):
        for kind in _KINDS:
            found[_name(kind, number)] = partial(_of_class, kind, number)
    return found


def of_classes(
    found: dict[str, float], classes: Sequence[str], samples: int
) -> dict[str, dict[str, Any]]:
    """Return what metrics say of each class, by its name, which are taken out of them."""
    told = {}
    for number, name in enumerate(classes):
        if _name("share", number) not in found:
            break
        share, recall, precision = (found.pop(_name(kind, number)) for kind in _KINDS)
        told[name] = {
            "samples": round(share * samples),
            "recall": None if np.isnan(recall) else recall,
            "precision": None if np.isnan(precision) else precision,
        }
    return told


def probabilities(logits: Array) -> Array:
    """Return the softmax of logits (N, C), float64."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def columns(logits: Array, classes: Sequence[str]) -> dict[str, Any]:
    """Return the likeliest class of each sample, its probability and those of all classes."""
    chances = probabilities(logits)
    best = chances.argmax(axis=1)
    each = {f"p({name})": chances[:, number] for number, name in enumerate(classes)}
    return {
        "prediction": [classes[number] for number in best],
        "probability": chances[np.arange(len(best)), best],
        **each,
    }


_KINDS = ("share", "recall", "precision")


def _name(kind: str, number: int) -> str:
    return f"{kind} {number}"


def _of_class(
    kind: str, number: int, prediction: Array, target: Array, weights: Array | None = None
) -> Values:
    """Return what makes the share of a class among the samples, its recall or its precision."""
    true, found = target == number, prediction.argmax(axis=-1) == number
    if kind == "share":
        return per_sample("evaluate", true, weights)
    return per_sample("evaluate", true & found, weights, true if kind == "recall" else found)
