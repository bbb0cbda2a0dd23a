"""The mistakes in the padded shortcut."""

from typing import Any

import numpy as np

from layers.gradient_check.cases.case import BATCH, real
from layers.shortcut import PaddedShortcut
from layers.types import Array

from .mutant import Gradients, Mutant, of


class _StrideForgotten(PaddedShortcut):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx = np.zeros(call.saved[0])
        dx[:, : dy.shape[1], : dy.shape[2]] = dy[..., : self.in_channels]
        return (dx,)


MUTANTS = (
    Mutant(
        "pixels of a shortcut taken without the stride",
        of(_StrideForgotten, 2, 3, 2),
        real((BATCH, 4, 4, 2)),
    ),
)
