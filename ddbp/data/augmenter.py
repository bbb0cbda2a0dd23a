"""What applies augmentations to the samples of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from layers.errors import message
from layers.kernels import augmentation as kernels
from layers.kernels import underflow
from layers.types import Array, Integers

from .augment import Augmentation, Keys, MixUp, rounded, rows_of

_FIRST_DRAW = 2**31
"""Draws below are those of layers."""
Read = Callable[[Integers], tuple[Any, Any, Any]]
"""What reads samples by their numbers: x, y and weights."""


class Augmenter:
    """Applies augmentations to samples, in buffers that are used again.

    Parameters
    ----------
    steps
        The augmentations, in their order.
    seed
        Of the run.
    """

    def __init__(self, steps: Sequence[Augmentation], seed: int) -> None:
        self._steps = [*steps]
        self._seed = seed
        self._buffers: dict[str, Array] = {}

    def __call__(
        self, given: tuple[Any, Any, Any], numbers: Integers, epoch: int, read: Read, of: int
    ) -> tuple[Array, Any, Any]:
        """Return samples, targets and weights as they are trained on, of a data set of so many."""
        x, y, weights = given
        numbers = np.ascontiguousarray(numbers, np.int64)
        # A thread that makes batches has a mode of its own.
        mode = underflow.flush()
        try:
            x = array_of(x)
            for place, step in enumerate(self._steps):
                keys = self._keys(place, numbers, epoch)
                step.require(x)
                if isinstance(step, MixUp):
                    x, y, weights = self._mix(step, keys, place, (x, y, weights), read, of)
                else:
                    x = self._applied(step, keys, place, x, "x")
        finally:
            underflow.restore(mode)
        return x, y, weights

    def _keys(self, place: int, numbers: Integers, epoch: int) -> Keys:
        # Two draws for each.
        return Keys(numbers, epoch, self._seed, _FIRST_DRAW + 2 * place)

    def _buffer(self, name: str, like: Array) -> Array:
        buffer = self._buffers.get(name)
        if (
            buffer is None
            or buffer.shape[1:] != like.shape[1:]
            or buffer.dtype != like.dtype
            or len(buffer) < len(like)
        ):
            buffer = self._buffers[name] = np.empty_like(like)
        return buffer[: len(like)]

    def _applied(self, step: Augmentation, keys: Keys, place: int, x: Array, name: str) -> Array:
        y = self._buffer(f"{name}{place % 2}", x)
        step.apply(y, x, keys)
        return y

    def _mix(
        self,
        mix: MixUp,
        keys: Keys,
        place: int,
        mine: tuple[Array, Any, Any],
        read: Read,
        of: int,
    ) -> tuple[Array, Any, Any]:
        (x, y, weights), shares = mine, mix.shares(keys)
        partners = mix.partners(keys, of)
        # A rank may have no sample of a batch.
        other, theirs, their_weights = read(partners) if len(x) else mine
        other = array_of(other)
        for before, step in enumerate(self._steps[:place]):
            of_partners = self._keys(before, partners, keys.epoch)
            other = self._applied(step, of_partners, before, other, "partner")
        result = self._buffer(f"x{place % 2}", x)
        rounded(kernels.mix, rows_of(result), rows_of(x), rows_of(other), shares)
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
        y, theirs = mix.targets(y, dtype), mix.targets(theirs, dtype)
        if weights is not None:
            if weights.ndim != 1:
                must, fix = "weights must be those of samples (N,)", "Leave MixUp out."
                raise ValueError(message("MixUp", must, f"shape {weights.shape}", fix))
            part = shares * their_weights
            total = (1 - shares) * weights + part
            shares = np.divide(part, total, out=shares, where=total > 0)
            weights = total.astype(weights.dtype)
        mixed = np.empty_like(y)
        kernels.mix(rows_of(mixed), rows_of(array_of(y)), rows_of(array_of(theirs)), shares)
        return result, mixed, weights


def array_of(x: Any) -> Array:
    """Return samples as an array that kernels take."""
    if not isinstance(x, np.ndarray):
        must, fix = "augment needs samples that are one array", "Leave augment out."
        raise ValueError(message("Trainer", must, f"a {type(x).__name__}", fix))
    return np.require(x, requirements=("C", "W"))
