"""Vectors of tokens."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import positive_int
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import flat, matrix
from .engine.parameter import Parameter
from .errors import message
from .init import Initializer, normal
from .initial import drawn
from .kernels import index
from .types import Array, Integers

if TYPE_CHECKING:
    from .engine.call import Call

STANDARD_NORMAL = normal(1)


class Embedding(Layer):
    """Row of a table for each token number: y = W[ids]. Backward: dW[v] = sum of dy over the
    positions where ids = v.

    Parameters
    ----------
    tokens, features
        Sizes V and D. The weight has shape (V, D), that of a `Linear(features, tokens)`: an output
        layer that shares it is made by `head.weight = embedding.weight`.
    rng
        Draws the initial weight.
    padding
        Number of a token whose vector is 0, whatever its row of the weight holds; it has no
        gradient.
    weight_init
        See `layers.init`.

    Notes
    -----
    Inputs are integers (N, …) in 0..V-1, outputs (N, …, D). To record a call, pass
    `tape.input(ids)`; ids have no gradient.

    Only rows that occur are added to. The first contribution of a step has to clear the others, as
    the contents of a gradient are undefined before it: 4 V D bytes are written once per step and
    shard.
    """

    analytic = True
    replayable = True

    def __init__(
        self,
        tokens: int,
        features: int,
        *,
        rng: np.random.Generator,
        padding: int | None = None,
        weight_init: Initializer = STANDARD_NORMAL,
        dtype: Any = np.float32,
    ) -> None:
        self.tokens = positive_int("Embedding", "tokens", tokens)
        self.features = positive_int("Embedding", "features", features)
        if padding is not None and not (
            isinstance(padding, int | np.integer) and 0 <= padding < self.tokens
        ):
            fix = "Pass the number of the token that fills short sequences up."
            raise ValueError(
                message(
                    "Embedding",
                    f"padding must be None or in 0..{self.tokens - 1}",
                    repr(padding),
                    fix,
                )
            )
        self.padding = None if padding is None else int(padding)
        self.weight = Parameter(
            drawn("Embedding", weight_init, rng, (self.tokens, self.features), dtype)
        )

    def __repr__(self) -> str:
        padding = "" if self.padding is None else f", padding={self.padding}"
        return f"Embedding({self.tokens}, {self.features}{padding})"

    def forward(self, call: ForwardCall, ids: Any) -> Array:
        ids = np.asarray(ids)
        rows = self._rows(ids)
        weight = self.weight.value
        padding = -1 if self.padding is None else self.padding
        call.save(rows, padding)
        if weight.dtype.kind == "c":
            # The complex step of the gradient check.
            self._require_rows(ids)
            return np.where((ids == padding)[..., np.newaxis], 0, weight[ids])
        result, y = call.matrix_buffer("y", (*ids.shape, self.features), weight.dtype)
        if not call.returns(rows.size, index.take_rows, y, weight, rows, padding):
            self._require_rows(ids)
        return result

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        rows, padding = call.saved
        dw, accumulate = call.gradient_buffer(self.weight)
        bounds = call.bounds(rows.size)
        call.run(index.add_rows, dw, matrix(dy), rows, padding, bounds, accumulate)
        return (None,)

    def _rows(self, ids: Array) -> Integers:
        """Return the ids as (R,)."""
        if ids.dtype.kind not in "iu":
            raise TypeError(
                message(
                    self,
                    "the ids must be integers",
                    ids.dtype,
                    "Convert them with ids.astype(np.int64).",
                )
            )
        if ids.ndim < 1:
            raise ValueError(
                message(
                    self,
                    "the ids must have shape (N, …)",
                    ids.shape,
                    "Add a batch axis: ids[np.newaxis].",
                )
            )
        return flat(ids if ids.dtype == np.int64 else ids.astype(np.int64))

    def _require_rows(self, ids: Array) -> None:
        """Raise if an id has no row in the table."""
        outside = np.argwhere((ids < 0) | (ids >= self.tokens))
        if outside.size:
            place = tuple(map(int, outside[0]))
            fix = "Number the tokens from 0, and give the table a row for each."
            raise ValueError(
                message(
                    self, f"ids must be in 0..{self.tokens - 1}", f"{ids[place]} at {place}", fix
                )
            )
