"""Losses that compare the directions of vectors."""

from typing import Any

import numpy as np

from layers.checks import number
from layers.engine.forward_call import ForwardCall
from layers.engine.memory import flat, matrix
from layers.errors import message
from layers.kernels import margin
from layers.types import Array

from .base import RowLoss, is_nan

_LEAST = 1e-8
"""The least norm of a vector; less counts as this."""


class _OfVectors(RowLoss):
    """A loss of pairs of vectors (N, …, D)."""

    analytic = False

    def cosines(self, call: ForwardCall, a: Array, b: Array) -> tuple[Array, Array, Array]:
        """Return 1 - cos(a, b) of the rows (R, 1), and the gradients of both (R, D)."""
        self.require_shape(b, a)
        if a.ndim < 2:
            must, fix = "predictions must be vectors (N, …, D)", "A single one is x[np.newaxis]."
            raise ValueError(message(self, must, a.shape, fix))
        x = matrix(a)
        t = matrix(b.astype(x.dtype, copy=False))
        losses = call.buffer("losses", (len(x), 1), x.dtype)
        dx, dt = (call.buffer(name, x.shape, x.dtype) for name in ("dx", "dt"))
        margin.cosine_distance(losses[:, 0], dx, dt, x, t, _LEAST)
        return losses, dx, dt


class CosineDistance(_OfVectors):
    """Mean over vectors of 1 - cos, where cos = x t / (|x| |t|). Backward: dx = (cos x / |x| - t /
    |t|) / |x| over the vectors, dt likewise.

    Called with predictions and targets (N, …, D). A norm below 1e-8 counts as that.
    """

    def __repr__(self) -> str:
        return "CosineDistance()"

    def forward(
        self, call: ForwardCall, prediction: Array, target: Any, weights: Any = None
    ) -> Array:
        losses, dx, dt = self.cosines(call, prediction, np.asarray(target))
        shape = prediction.shape
        counts = self.row_weights(call, weights, shape[:-1], prediction)
        gradients = dx.reshape(shape), dt.reshape(shape)
        return self.of_rows(call, losses, gradients, len(prediction), counts)


class CosineEmbedding(_OfVectors):
    """Mean over pairs of 1 - cos(a, b) where the label is 1, and of max(0, cos(a, b) - m) where it
    is -1.

    Called with (a, b, labels), or with ((a, b), labels): vectors (N, …, D) that shall be alike or
    not, and labels (N, …). Backward as of `CosineDistance`.

    Parameters
    ----------
    margin
        m in [-1, 1], above which the cosine of vectors that shall not be alike counts.
    """

    def __init__(self, margin: float = 0.0) -> None:
        fix = "0 to 0.5 is usual."
        margin = number("CosineEmbedding", "margin", margin, fix)
        if not -1 <= margin <= 1:
            must = "margin must be in [-1, 1]"
            raise ValueError(message("CosineEmbedding", must, margin, fix))
        self.margin = margin

    def __repr__(self) -> str:
        return f"CosineEmbedding(margin={self.margin})"

    def forward(
        self, call: ForwardCall, a: Array, b: Array, labels: Any, weights: Any = None
    ) -> Array:
        losses, da, db = self.cosines(call, a, b)
        shape, y = a.shape, np.asarray(labels)
        if y.shape != shape[:-1]:
            must = f"labels must be {shape[:-1]} for vectors {shape}"
            raise ValueError(message(self, must, y.shape, "Each pair has one: 1 or -1."))
        y = flat(y.astype(losses.dtype, copy=False))
        margin.cosine_embedding(losses[:, 0], da, db, y, self.margin)
        counts = self.row_weights(call, weights, shape[:-1], a)
        loss = self.of_rows(call, losses, (da.reshape(shape), db.reshape(shape)), len(a), counts)
        if is_nan(loss):
            wrong = y[np.abs(y) != 1]
            if wrong.size:
                fix = "2 * y - 1 turns 0 and 1 into them."
                raise ValueError(message(self, "labels must be 1 or -1", wrong[0], fix))
        return loss
