"""Problems of sequences: digits row by row, and two of memory, whose early inputs decide the last
outputs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ddbp import ArrayDataset
from ddbp.data import digits
from ddbp.training.metrics import Metric
from layers import Loss, MeanSquaredError, SoftmaxCrossEntropy
from layers.types import Array

Parts = tuple[ArrayDataset, ArrayDataset]
SYMBOLS, COPIED = 8, 10
"""Of the copying problem: kinds of symbols, and how many are to be copied."""


def adding(length: int, samples: int, rng: np.random.Generator) -> Parts:
    """Return the adding problem (Hochreiter and Schmidhuber 1997, section 5.4): sequences (N, T, 2)
    of numbers in [0, 1] with a mark at two of them, one in each half, and the sums (N, 1) of these.

    Whoever always says 1, the mean, has a mean squared error of 1/6.
    """
    numbers, marks = rng.uniform(0, 1, (samples, length)), np.zeros((samples, length))
    half, everyone = length // 2, np.arange(samples)
    marks[everyone, rng.integers(0, half, samples)] = 1
    marks[everyone, rng.integers(half, length, samples)] = 1
    x, y = np.stack([numbers, marks], axis=2), (numbers * marks).sum(axis=1, keepdims=True)
    return ArrayDataset(x, y).split(0.1)


def copying(length: int, samples: int, rng: np.random.Generator) -> Parts:
    """Return the copying problem (the same authors' and Arjovsky, Shah and Bengio 2016, section
    5.1): sequences that begin with symbols, which are to be repeated after a delay of blanks and a
    signal, one-hot (N, T, 10), and what is to be said at each time (N, T).
    """
    symbols = rng.integers(1, SYMBOLS + 1, (samples, COPIED))
    said, heard = np.zeros((samples, length), np.int64), np.zeros((samples, length), np.int64)
    heard[:, :COPIED], heard[:, -COPIED - 1] = symbols, SYMBOLS + 1
    said[:, -COPIED:] = symbols
    return ArrayDataset(np.eye(SYMBOLS + 2)[heard], said).split(0.1)


def recalled(prediction: Array, y: Array) -> Array:
    """Return the fraction of the copied symbols that are right, for each sample (N,)."""
    return (prediction[:, -COPIED:].argmax(axis=2) == y[:, -COPIED:]).mean(axis=1)


class Task(NamedTuple):
    """A problem.

    Attributes
    ----------
    data
        Returns what to train and to test on, for a length, a number of samples and a generator.
    loss, metrics
        How what is said is judged; by the usual metrics of the loss unless given.
    outputs
        How many numbers are said.
    at_the_end
        Whether they are said once, or else at each step.
    length, epochs, learning_rate
        Usual ones.
    """

    data: Callable[[int, int, np.random.Generator], Parts]
    loss: Loss
    outputs: int
    length: int
    epochs: int
    learning_rate: float
    at_the_end: bool = True
    metrics: dict[str, Metric] | None = None


TASKS = {
    "digits": Task(
        lambda length, samples, rng: digits(8, 8),
        SoftmaxCrossEntropy(),
        outputs=10,
        length=8,
        epochs=40,
        learning_rate=0.01,
    ),
    "adding": Task(
        adding, MeanSquaredError(), outputs=1, length=100, epochs=6, learning_rate=0.005
    ),
    "copying": Task(
        copying,
        SoftmaxCrossEntropy(),
        outputs=SYMBOLS + 2,
        length=40,
        epochs=12,
        learning_rate=0.005,
        at_the_end=False,
        metrics={"recalled": recalled},
    ),
}
