"""Small data sets on which learning rules are compared: digits of 8 x 8 and 28 x 28 pixels, and
MNIST-1D. Features have mean 0 and standard deviation 1 over the training data.
"""

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ddbp import ArrayDataset
from ddbp.data.named import mnist5k
from layers.types import Array

LABELLED = 10
"""Zeros before the features of a sample, which forward-forward puts the label in place of."""

# MNIST-1D (Greydanus and Kobak 2024, "Scaling down deep learning with MNIST-1D", ICML, arXiv
# 2011.14439): what is drawn of a digit by hand, 12 points each, and how it is made harder; the
# numbers are those of the data set that its authors publish.
_TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
_PADDING = (36, 60)
_POINTS, _TRANSLATION, _SCALE, _SHEAR = 40, 48, 0.4, 0.75
_CORRELATED_NOISE, _SMOOTHED, _WHITE_NOISE = 0.25, 2, 0.02


def mnist_1d(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return samples (count, 40) of MNIST-1D, as many of each class, and their labels.

    A template is stretched (by zeros behind it, and all to one length), scaled, and shifted around;
    where it is not there is smooth noise; then come white noise, a slope, and 40 points of it all.
    """
    templates = np.array(_TEMPLATES)
    templates = (templates - templates.mean(1, keepdims=True)) / templates.std(1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6
    length = templates.shape[1] + _PADDING[1]
    labels = np.arange(count) % len(templates)
    samples = np.empty((count, _POINTS))
    for sample, label in zip(samples, labels, strict=True):
        width = templates.shape[1] + rng.integers(_PADDING[0], _PADDING[1] + 1)
        at = np.linspace(0, width - 1, length)
        points = np.arange(templates.shape[1])
        signal = np.interp(at, np.append(points, points[-1] + 1), np.append(templates[label], 0))
        there = at < points[-1] + 1
        signal *= 1 + _SCALE * (rng.random() - 0.5)
        shift = rng.integers(_TRANSLATION)
        signal, there = np.roll(signal, shift), np.roll(there, shift)
        noise = gaussian_filter1d(_CORRELATED_NOISE * rng.standard_normal(length), _SMOOTHED)
        signal = np.where(there, signal, noise) + _WHITE_NOISE * rng.standard_normal(length)
        signal -= _SHEAR * (rng.random() - 0.5) * np.linspace(-0.5, 0.5, length)
        sample[:] = np.interp(np.linspace(0, length - 1, _POINTS), np.arange(length), signal)
    return samples, labels


@cache
def _of(name: str) -> tuple[Array, Array]:
    if name == "MNIST-1D":
        return mnist_1d(5000, np.random.default_rng(42))
    if name == "digits":
        return load_digits(return_X_y=True)
    return mnist5k()


def split(name: str, *, validation: bool = False) -> tuple[ArrayDataset, ArrayDataset]:
    """Return training and test data, four fifths and one, always the same; with `validation` the
    training data, cut in the same way.
    """
    x, y = _of(name)
    for _ in range(1 + validation):
        x, other, y, labels = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    mean, deviation = x.mean(), x.std()
    zeros = ((0, 0), (LABELLED, 0))
    made = [np.pad((each - mean) / deviation, zeros).astype(np.float32) for each in (x, other)]
    return ArrayDataset(made[0], y), ArrayDataset(made[1], labels)
