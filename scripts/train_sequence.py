"""Train a recurrent network on sequences: digits read row by row, or the adding or the copying
problem.

The adding problem (Hochreiter and Schmidhuber 1997, section 5.4): of a sequence of numbers, add the
two that are marked. Whoever always says 1, the mean, has a mean squared error of 1/6. The copying
problem (the same authors' and Arjovsky, Shah and Bengio 2016, section 5.1): after a delay, repeat
the symbols that the sequence began with.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddbp import Adam, ArrayDataset, script
from ddbp.data import digits
from ddbp.training.metrics import Metric, accuracy
from layers import Composite, Linear, Loss, MeanSquaredError, SoftmaxCrossEntropy
from layers.types import Array

SYMBOLS, COPIED = 8, 10  # of the copying problem: kinds of symbols, and how many are to be copied


class Network(Composite):
    """A recurrent layer, and a linear one of its last output or of all of them."""

    def __init__(
        self,
        cell: str,
        inputs: int,
        hidden: int,
        outputs: int,
        last: bool,
        rng: np.random.Generator,
    ) -> None:
        self.recurrent: Any = script.RECURRENT[cell](inputs, hidden, rng=rng)
        self.head = Linear(hidden, outputs, rng=rng)
        self.last = last

    def __call__(self, x: Any) -> Any:
        h = self.recurrent(x)
        return self.head(h[:, -1] if self.last else h)


def rows_of_digits(
    length: int, samples: int, rng: np.random.Generator
) -> tuple[ArrayDataset, ArrayDataset]:
    """Return the digits as sequences of 8 rows of 8 pixels."""
    return digits(8, 8)


def adding(
    length: int, samples: int, rng: np.random.Generator
) -> tuple[ArrayDataset, ArrayDataset]:
    """Return sequences (N, T, 2) of numbers in [0, 1] with a mark at two of them, one in each half,
    and the sums (N, 1).
    """
    numbers, marks = rng.uniform(0, 1, (samples, length)), np.zeros((samples, length))
    half, everyone = length // 2, np.arange(samples)
    marks[everyone, rng.integers(0, half, samples)] = 1
    marks[everyone, rng.integers(half, length, samples)] = 1
    x, y = np.stack([numbers, marks], axis=2), (numbers * marks).sum(axis=1, keepdims=True)
    return ArrayDataset(x, y).split(0.1)


def copying(
    length: int, samples: int, rng: np.random.Generator
) -> tuple[ArrayDataset, ArrayDataset]:
    """Return sequences of symbols, blanks and a signal, one-hot (N, T, 10), and what is to be said
    at each time (N, T).
    """
    symbols = rng.integers(1, SYMBOLS + 1, (samples, COPIED))
    said, heard = np.zeros((samples, length), np.int64), np.zeros((samples, length), np.int64)
    heard[:, :COPIED], heard[:, -COPIED - 1] = symbols, SYMBOLS + 1
    said[:, -COPIED:] = symbols
    return ArrayDataset(np.eye(SYMBOLS + 2)[heard], said).split(0.1)


def recalled(prediction: Array, y: Array) -> Array:
    """Return the fraction of the copied symbols that are right, for each sample."""
    return (prediction[:, -COPIED:].argmax(axis=2) == y[:, -COPIED:]).mean(axis=1)


@dataclass(frozen=True)
class Task:
    """A problem, and what the flags are unless given."""

    data: Callable[[int, int, np.random.Generator], tuple[ArrayDataset, ArrayDataset]]
    inputs: int
    outputs: int
    last: bool
    loss: Loss
    metrics: dict[str, Metric]
    length: int
    epochs: int
    learning_rate: float


TASKS = {
    "digits": Task(
        rows_of_digits, 8, 10, True, SoftmaxCrossEntropy(), {"accuracy": accuracy}, 8, 40, 0.01
    ),
    "adding": Task(adding, 2, 1, True, MeanSquaredError(), {}, 100, 6, 0.005),
    "copying": Task(
        copying,
        SYMBOLS + 2,
        SYMBOLS + 2,
        False,
        SoftmaxCrossEntropy(),
        {"recalled": recalled},
        40,
        12,
        0.005,
    ),
}


def main() -> None:
    """Train and print the result."""
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument(
        "--task", choices=TASKS, default="adding", help="which problem (%(default)s)"
    )
    task = TASKS[which.parse_known_args()[0].task]
    flags = script.Flags(
        "Train a recurrent network on sequences.",
        parents=[which],
        epochs=task.epochs,
        batch_size=64,
        learning_rate=task.learning_rate,
    )
    flags.add_choice("--model", script.RECURRENT, "which recurrent layer")
    flags.add_size("--hidden", 64, "its width")
    flags.add_size("--length", task.length, "of the sequences")
    flags.add_size("--samples", 20_000, "sequences, a tenth of them for the test")
    options = flags.parse_args()
    rng = np.random.default_rng(options.seed)
    training, test = task.data(options.length, options.samples, rng)
    model = Network(options.model, task.inputs, options.hidden, task.outputs, task.last, rng)
    optimizer = Adam(script.cosine(options, training))
    script.run(
        options, model, task.loss, optimizer, training, test, clip_norm=1.0, metrics=task.metrics
    )


if __name__ == "__main__":
    main()
