"""What a network that learns by forward-forward predicts with."""

import math
from typing import Any

import numpy as np

from layers.activation import Activation
from layers.containers import Sequential
from layers.dropout import Dropout
from layers.engine.module import Composite, Module
from layers.engine.operators import sqrt
from layers.engine.value import Value
from layers.errors import message
from layers.linear import Linear
from layers.pool import MaxPool2d
from layers.shape import Flatten, Reshape

from .chain import Chain

BETWEEN = (Activation, MaxPool2d, Dropout, Flatten, Reshape)
"""What may stand between layers with weights."""
_TINY = 1e-6


class Predictor(Composite):
    """What a network that learns by forward-forward predicts with. Its parameters are the
    network's, by the same names.

    Parameters
    ----------
    network
        The network: a `Sequential`.
    """

    def __init__(self, network: Module) -> None:
        chain = Chain("ForwardForward", network, BETWEEN)
        if not isinstance(chain.heads[-1], Linear):
            must, fix = "the last layer must be Linear", "It gives the logits of the classes."
            raise ValueError(message("ForwardForward", must, f"{chain.heads[-1]!r}", fix))
        of: Any = network
        self.layers: tuple[Module, ...] = of.layers
        self.fuse: bool = of.fuse
        *self._blocks, self._classifier = chain.blocks
        self._classes: int = chain.heads[-1].out_features

    def __repr__(self) -> str:
        return f"ForwardForwardPredictor({Sequential(*self.layers, fuse=self.fuse)!r})"

    @property
    def blocks(self) -> list[Sequential]:
        """The hidden layers with weights, each with what follows it."""
        return self._blocks

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self._classes

    def __call__(self, x: Any) -> Any:
        recorded = isinstance(x, Value)
        learns = recorded and x.tape.training
        h = self._even(x) if recorded and not learns else self.labelled(x, 1 / self._classes)
        for block in self._blocks:
            h = block(normalised(h))
        # The classifier's loss is not one of the other layers.
        return self._classifier(normalised(h.detach() if learns else h))

    def _even(self, x: Value) -> Value:
        """Return x with 1 / C in the place of its label, in operations of its tape, so that they
        can be followed: forward into another format, backward to what an output is due to.
        """
        size = self._require_room(x.shape)
        kept = (np.arange(size) >= self.classes).reshape(1, *x.shape[1:])
        even = np.where(kept, 0, 1 / self.classes).astype(x.dtype)
        return x * kept.astype(x.dtype) + even

    def _require_room(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers a sample has, or refuse such without room for a label."""
        _, size = _rows(shape)
        if size <= self.classes:
            must = (
                f"a sample must have more than {self.classes} numbers, as labels take their place"
            )
            fix = "Put columns of zeros before the others."
            raise ValueError(message("ForwardForward", must, size, fix))
        return size

    def labelled(self, x: Any, labels: Any) -> Any:
        """Return x with these numbers (N, C), or this one, in place of the first ones of each
        sample.
        """
        self._require_room(x.shape)
        array = np.array(x.array if isinstance(x, Value) else x, order="C")
        array.reshape(_rows(array.shape))[:, : self.classes] = labels
        if not isinstance(x, Value):
            return array
        return x.tape.input(array, gradient=False)


def normalised(h: Any) -> Any:
    """Return h (N, …) over the root of the mean square of each sample."""
    shape = (len(h),) + (1,) * (h.ndim - 1)
    return h / sqrt(mean_square(h) + _TINY).reshape(shape)


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of samples as rows; there may be no samples."""
    return shape[0], math.prod(shape[1:])


def mean_square(h: Any) -> Any:
    """Return the mean square of each sample (N,)."""
    rows = h.reshape(_rows(h.shape))
    return (rows * rows).mean(axis=1)
