"""The mistakes in dropout."""

from typing import Any

import numpy as np

from layers.dropout import Dropout, Dropout2d
from layers.gradient_check.cases.case import BATCH, real
from layers.types import Array

from .mutant import Gradients, Mutant, of

_ROWS = (BATCH, 5)


class _MaskForgotten(Dropout):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (dy,)


class _ScaleForgotten(Dropout):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.where(call.saved[0] > 0, dy, 0),)


class _MaskOfNeighbour(Dropout2d):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (dy * np.roll(call.saved[0], 1, axis=3),)


MUTANTS = (
    Mutant("mask not applied", of(_MaskForgotten, 0.4), real(_ROWS)),
    Mutant("scale of the mask forgotten", of(_ScaleForgotten, 0.4), real(_ROWS)),
    Mutant("mask of the neighbouring channel", of(_MaskOfNeighbour, 0.4), real((BATCH, 2, 2, 8))),
)
