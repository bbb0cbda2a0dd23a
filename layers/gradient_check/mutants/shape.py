"""The mistakes in layers that change shapes."""

from typing import Any

import numpy as np

from layers.gradient_check.cases.case import BATCH, real
from layers.shape import ChannelsLast
from layers.types import Array

from .mutant import Gradients, Mutant, of


class _RowsForColumns(ChannelsLast):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.ascontiguousarray(dy.transpose(0, 3, 2, 1)),)


MUTANTS = (Mutant("rows and columns exchanged", of(_RowsForColumns), real((BATCH, 2, 5, 5))),)
