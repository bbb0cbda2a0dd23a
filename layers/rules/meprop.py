"""meProp: of the error of each layer only the largest elements go back."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import one_of
from layers.containers import Sequential, unnested
from layers.conv.base import Convolution
from layers.engine.memory import contiguous, empty, matrix
from layers.engine.module import Module
from layers.engine.rules import KeptGradients
from layers.errors import message
from layers.fusion import Activated, PooledConv2d
from layers.kernels import dense, pool, sparse
from layers.linear import Linear, largest
from layers.recurrent.recurrence import RecurrentPass
from layers.types import Array

from .base import SEQUENTIAL, LearningRule, carrying_weight

if TYPE_CHECKING:
    from layers.engine.call import Call


class MeProp(LearningRule):
    """meProp (Sun, Ren, Ma & Wang 2017, "meProp: Sparsified back propagation for accelerated deep
    learning with reduced overfitting", ICML, arXiv 1706.06197): of the gradient dz (R, C) of what a
    layer's product gives, before the activation, only the k largest magnitudes of each row are
    kept, for weights and inputs alike; of a convolution those of each pixel. The layer with weights
    that ran last has its whole gradient, as in the paper.

    Of a recurrent layer the k largest of each gate are kept at each step of the way back, for the
    weights, the input and what a product brings to the state before; what goes from state to state
    by gates alone, such as c to c, is exact. k is at most the size H of a gate: that of the paper's
    LSTM is 10 of 500. Of a `GRU` what is kept is of what the gates' activations take, so that the
    product of the state before has these columns, too.

    Of equal magnitudes the first columns are kept; what is not finite counts as largest. With `per`
    "batch" the same columns are kept for all rows of a shard, those with the largest sums of
    magnitudes (the paper's unified variant, section 3.3, where a batch is one shard), so that the
    bits do not depend on the number of ranks, and nothing is exchanged; of a recurrent layer for
    all that have the step, which is the same one in the order in which it reads.

    Of a dense layer, what belongs to the other columns is not computed: rows of the weight for dx,
    rows of dW.

    Parameters
    ----------
    k
        How many columns are kept, at most the width of each layer but the last, of a recurrent one
        H; or their share of the width, a fraction in (0, 1], at least one of them.
    per
        "sample" or "batch".
    """

    defined = (Linear, Convolution, *SEQUENTIAL)

    def __init__(self, k: float = 0.05, *, per: str = "sample") -> None:
        super().__init__()
        whole = isinstance(k, int | np.integer) and not isinstance(k, bool)
        if not ((whole and k >= 1) or (isinstance(k, float) and 0 < k <= 1)):
            must = "k must be a number of columns, or a fraction of the width in (0, 1]"
            raise ValueError(message("MeProp", must, repr(k), "k=0.05 keeps 5 %."))
        self.k = int(k) if whole else k
        self.per = one_of("MeProp", "per", per, ("sample", "batch"))
        self._last: Call | None = None

    def __repr__(self) -> str:
        return f"MeProp({self.k!r}, per={self.per!r})"

    def bind(self, model: Module) -> Module | None:
        own = super().bind(model)
        # Those before the last one of a Sequential; of others the first step tells.
        parts = unnested(model, fused=False) if type(model) is Sequential else ()
        heads: list[Any] = [part for part in parts if isinstance(part, Linear | Convolution)]
        for head in heads[:-1]:
            if head.weight.trainable:
                self._columns(
                    head, head.out_features if isinstance(head, Linear) else head.out_channels
                )
        return own

    def begin(self, value: Any, gradient: Any) -> None:
        self._last = None

    def top_k(self, call: "Call", width: int) -> KeptGradients | None:
        if self._last is call:
            return None
        return KeptGradients(self._columns(call.layer, width), self.per == "batch")

    def _columns(self, layer: Any, width: int) -> int:
        """Return how many columns of a layer of this width are kept, or refuse more than it has."""
        k = self.k if isinstance(self.k, int) else max(1, round(self.k * width))
        if k > width:
            must = f"k must be at most the width of {layer!r}, {width}"
            raise ValueError(message("MeProp", must, k, "k=0.05 keeps 5 % of any width."))
        return k

    def backward(self, call: "Call", *dys: Any) -> tuple[Array | None, ...]:
        if carrying_weight(call) is None:
            return super().backward(call, *dys)
        if self._last is None:
            self._last = call
        layer: Any = call.layer
        main = layer.main if isinstance(layer, Activated) else layer
        # A dense layer asks what is kept, and computes no more; a recurrent one at each step.
        asks = isinstance(main, Linear | RecurrentPass)
        top = None if asks else call.top_k(dys[0].shape[-1])
        if top is None:
            return super().backward(call, *dys)
        (dy,) = dys
        result: tuple[Array | None, ...]
        if isinstance(layer, PooledConv2d):
            x, z, algorithm, y = call.saved
            z, y = call.kept("z", z), call.kept("y", y)
            dz, windows = call.pooled("dz", z.shape, z.dtype), layer.pooling.windows(z)
            call.run(pool.maximum_backward, dz, contiguous(dy), y, z, *windows, True)
            result = layer.convolution.gradients(call, _kept(call, top, dz), x, algorithm)
        else:
            gate = None if main is layer else call.saved[1]
            result = main.backward(call, _kept(call, top, dy, gate))
        return result


def _kept(call: "Call", top: KeptGradients, dy: Array, gate: Array | None = None) -> Array:
    """Return the gradient before the activation, a ReLU of the output `gate` if there is one, with
    zeros for what is not kept of each row.
    """
    rows = matrix(dy)
    activation = dense.IDENTITY if gate is None else dense.RECTIFIED
    gates = empty(rows, 2) if gate is None else matrix(gate)
    some = largest(call, top, rows, gates, call.bounds(len(rows)), activation)
    result = call.pooled("sparse", dy.shape, dy.dtype)
    call.run(sparse.spread, matrix(result), *some)
    return result
