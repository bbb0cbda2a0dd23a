"""What instruments check of gradients: whether that of a bias is the sum that it must be."""

from typing import Any

import numpy as np

from layers import Call, Linear, Module, TapeHook
from layers.engine.memory import matrix
from layers.kernels import reduce
from layers.types import Array


class BiasGauge(TapeHook):
    """Compares the gradient of the last dense layer's bias with the sum of the gradients of what
    that puts out, which it is if nothing else has been added.

    Parameters
    ----------
    model
        The model.
    shards
        How many shards this rank has.

    Attributes
    ----------
    excess
        The norm of the difference over that of the sum, of each shard (S,); NaN where there is no
        such layer.
    """

    def __init__(self, model: Module, shards: int) -> None:
        layers = [layer for _, layer in model.named_layers() if type(layer) is Linear]
        found = [layer for layer in layers if layer.bias is not None]
        biases = [id(layer.bias) for layer in found]
        # A bias that two layers share gets what both contribute.
        self._candidates = {id(each) for each in found if biases.count(id(each.bias)) == 1}
        self.excess = np.full(shards, np.nan)
        self.begin()

    def begin(self) -> None:
        """Begin a step."""
        self.excess[:] = np.nan
        self._head: Linear | None = None
        self._sums = np.zeros((0, 0))

    def on_backward_begin(self, call: Call) -> None:
        layer = call.layer
        if self._head is None and id(layer) in self._candidates and call.tape.rule is None:
            assert isinstance(layer, Linear)
            self._head = layer
            self._sums = np.zeros((call.tape.shards, layer.weight.shape[0]))
        if layer is self._head:
            given: Any = call.output.received
            dy = matrix(given)
            # What came before, for practice, is no part of the gradient.
            adds = layer.bias is not None and not layer.bias.store.stale
            reduce.column_sums(self._sums, dy, call.bounds(len(dy)), adds)

    def on_backward_end(self, call: Call) -> None:
        head = self._head
        if head is None or call.layer is not head or head.bias is None:
            return
        store = head.bias.store
        if store.stale or store.apart is None or not call.trains(head.bias):
            return
        with np.errstate(all="ignore"):
            norms, rest = _norms(self._sums), _norms(store.apart - self._sums)
            self.excess[:] = rest / np.where(norms > 0, norms, np.nan)


def _norms(x: Array) -> Array:
    """Return the norms of the rows of x (S, C), the same for any number of them."""
    squares = np.empty(len(x))
    reduce.row_sums(squares, np.square(x))
    return np.sqrt(squares)
