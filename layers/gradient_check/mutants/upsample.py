"""The mistakes in larger images."""

from typing import Any

import numpy as np

from layers.gradient_check.cases.case import BATCH, real
from layers.types import Array
from layers.upsample import Upsample

from .mutant import Gradients, Mutant, of


class _OneOfFour(Upsample):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.ascontiguousarray(dy[:, ::2, ::2]),)


class _MeanOfFour(Upsample):
    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        return (None if dx is None else dx / 4,)


class _NearestInstead(Upsample):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return Upsample(self.scale).backward(call, dy)


class _CornersInstead(Upsample):
    def backward(self, call: Any, dy: Array) -> Gradients:
        other = Upsample(self.scale, mode="bilinear", align_corners=True)
        return other.backward(call, dy)


_IMAGES = real((BATCH, 3, 4, 2))

MUTANTS = (
    Mutant("gradient of one of four pixels", of(_OneOfFour, 2), _IMAGES),
    Mutant("mean instead of the sum of a pixel's gradients", of(_MeanOfFour, 2), _IMAGES),
    Mutant(
        "nearest pixels in backward of an interpolation",
        lambda rng: _NearestInstead(2, mode="bilinear"),
        _IMAGES,
    ),
    Mutant(
        "corners aligned in backward only", lambda rng: _CornersInstead(2, mode="bilinear"), _IMAGES
    ),
)
