"""The mistakes in convolutions of volumes, and in borders that are made from the image."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from layers.conv.conv import Conv2d, Conv3d
from layers.conv.frames import places
from layers.gradient_check.cases.case import BATCH, real
from layers.types import Array

from .conv import Convolution, plain, with_bias
from .mutant import Gradients, Mutant


class _Circular(Convolution):
    """A right convolution whose padding is the opposite border, but for its gradient."""

    def padded(self, x: Array) -> Array:
        p = self.padding
        return np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), "wrap")


class _OwnPixelsOverwritten(_Circular):
    """Puts what lies in the padding where it came from, in place of what is there."""

    def cut(self, padded: Array) -> Array:
        p = self.padding
        dx = super().cut(padded).copy()
        dx[:, -p:], dx[:, :p] = padded[:, :p, p:-p], padded[:, -p:, p:-p]
        dx[:, :, -p:] += padded[:, p:-p, :p]
        dx[:, :, :p] += padded[:, p:-p, -p:]
        return dx


class _CornersForgotten(_Circular):
    """Brings the padding back to the borders, but for what is padding of both axes."""

    def cut(self, padded: Array) -> Array:
        p = self.padding
        dx = super().cut(padded).copy()
        dx[:, -p:] += padded[:, :p, p:-p]
        dx[:, :p] += padded[:, -p:, p:-p]
        dx[:, :, -p:] += padded[:, p:-p, :p]
        dx[:, :, :p] += padded[:, p:-p, -p:]
        return dx


class _BorderReplicated(Conv2d):
    """Takes the gradient of a reflected border to the pixels beside it."""

    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        rows = places("replicate", call.saved[0].shape[1], 1, 1)
        _exchange_frames(call, rows=rows)
        return super().backward(call, dy, rectified)


class _SlicesReversed(Conv3d):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        slices = call.saved[2].frames.slices
        _exchange_frames(call, slices=np.ascontiguousarray(slices[:, ::-1]))
        return super().backward(call, dy, rectified)


class _LastSliceForgotten(Conv3d):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        slices = call.saved[2].frames.slices
        _exchange_frames(call, slices=np.where(slices == slices.max(), -1, slices))
        return super().backward(call, dy, rectified)


class _DepthStrideForgotten(Conv3d):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        slices = call.saved[2].frames.slices
        _exchange_frames(call, slices=slices[0] + np.arange(len(slices))[:, np.newaxis])
        return super().backward(call, dy, rectified)


def _exchange_frames(call: Any, **changed: Any) -> None:
    """Have backward take other frames than forward did."""
    x, y, algorithm = call.saved
    wrong = copy.copy(algorithm)
    wrong.frames = replace(algorithm.frames, **changed)
    call.save(x, y, wrong)


_IMAGE, _VOLUME = real((BATCH, 5, 4, 2)), real((BATCH, 3, 3, 2, 2))

MUTANTS = (
    Mutant("border that wraps around is cut off", plain(_Circular), _IMAGE),
    Mutant("border that wraps around overwrites", plain(_OwnPixelsOverwritten), _IMAGE),
    Mutant("corners that wrap around forgotten", plain(_CornersForgotten), _IMAGE),
    Mutant(
        "reflected border replicated",
        with_bias(_BorderReplicated, 2, 3, 3, padding=1, padding_mode="reflect"),
        _IMAGE,
    ),
    Mutant("slices of a volume reversed", with_bias(_SlicesReversed, 2, 3, 2), _VOLUME),
    Mutant("last slice of a volume forgotten", with_bias(_LastSliceForgotten, 2, 3, 2), _VOLUME),
    Mutant(
        "stride along the depth forgotten",
        with_bias(_DepthStrideForgotten, 2, 3, 2, stride=2),
        real((BATCH, 4, 3, 3, 2)),
    ),
)
