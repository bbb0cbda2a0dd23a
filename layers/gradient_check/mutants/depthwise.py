"""The mistakes in depthwise convolutions."""

from typing import Any

import numpy as np

from layers.conv.algorithms import Depthwise
from layers.conv.conv import Conv2d
from layers.engine.module import Module
from layers.gradient_check.cases.case import BATCH, Generator, real
from layers.types import Array, Integers

from .mutant import Mutant


class _TapsNotTurned(Depthwise):
    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        self._correlate(call, self._backward, dx, dy, weight, bias, rectified, transposed=False)


class _NeighboursWeights(Depthwise):
    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        super().adjoint(
            call, dx, dy, np.ascontiguousarray(np.roll(weight, 1, axis=3)), bias, rectified
        )


class _NeighboursPixels(Depthwise):
    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        super().gradient(call, dw, dy, np.ascontiguousarray(np.roll(x, 1, axis=2)), bounds, add)


class _OutputsOfAChannelApart(Depthwise):
    """The outputs of a channel are looked for C apart instead of one after the other."""

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        order = np.arange(self.shape.channels[1]).reshape(-1, self.shape.channels[0]).T.reshape(-1)
        super().adjoint(call, dx, np.ascontiguousarray(dy[..., order]), weight, bias, rectified)


def _by(algorithm: type[Depthwise], outputs: int = 3, **options: Any) -> Any:
    class Mutated(Conv2d):
        def algorithm_for(self, x: Array) -> Any:
            right = super().algorithm_for(x)
            return algorithm(right.shape, right.dtype)

    def make(rng: Generator) -> Module:
        return Mutated(3, outputs, 3, groups=3, rng=rng, **options)

    return make


_IMAGES = real((BATCH, 5, 4, 3))

MUTANTS = (
    Mutant("depthwise: taps of the adjoint not turned", _by(_TapsNotTurned, padding=1), _IMAGES),
    Mutant("depthwise: weights of the neighbour", _by(_NeighboursWeights), _IMAGES),
    Mutant(
        "depthwise: weight gradient of the pixel beside", _by(_NeighboursPixels, padding=1), _IMAGES
    ),
    Mutant(
        "depthwise: outputs of a channel apart", _by(_OutputsOfAChannelApart, 6, stride=2), _IMAGES
    ),
)
