"""The dense layer and the activation after it as one call: the bits of two calls, for any rows and
shards.
"""

import numpy as np
import pytest

import layers
from layers import GELU, Linear, ReLU, Sequential, Tape
from layers.engine.inference import INFERENCE
from layers.kernels.gemm import BLOCK_K

# Rows that are one block, several with a rest, and none.
ROWS = (0, 1, 37, BLOCK_K, 2 * BLOCK_K + 5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def passes(network, x, shards, training):
    """Return output, gradient of the input, and gradients of the parameters, of two passes that
    accumulate.
    """
    results = []
    for parameter in network.parameters():
        parameter.rebind(parameter.value)
    for _ in range(2):
        tape = Tape(training=training, shards=shards)
        value = tape.input(x)
        y = network(value)
        y.backward(np.cos(np.arange(y.array.size, dtype=x.dtype)).reshape(y.shape))
        results += [y.array.copy(), value.grad.copy()]
    return [
        array.tobytes()
        for array in (*results, *(parameter.gradients for parameter in network.parameters()))
    ], len(tape.calls)


class Apart(layers.Composite):
    """A Linear and an activation, never joined."""

    def __init__(self, linear, activation):
        self.linear, self.activation = linear, activation

    def __call__(self, x):
        return self.activation(self.linear(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("activation", [ReLU(), GELU()], ids=repr)
def test_activation_in_the_same_call_has_the_bits_of_one_afterwards(
    rng, activation, rows, training, dtype
):
    linear = Linear(19, 13, rng=rng, dtype=dtype)
    x = rng.standard_normal((rows, 19)).astype(dtype)
    for shards in (None, (0, rows // 3, rows // 3, rows)):
        joined, calls = passes(Sequential(linear, activation), x, shards, training)
        assert calls == 1
        # Outside of training GELU computes its derivative from its input, by other operations.
        same = len(joined) if training or isinstance(activation, ReLU) else 1
        assert joined[:same] == passes(Apart(linear, activation), x, shards, training)[0][:same]
    assert Sequential(linear, activation)(x).tobytes() == activation(linear(x)).tobytes()


def test_nothing_is_kept_for_backward_where_nothing_is_recorded(rng, monkeypatch):
    asked = []
    monkeypatch.setattr(
        type(INFERENCE),
        "buffer",
        lambda self, name, shape, dtype: asked.append(name) or np.empty(shape, dtype),
    )
    Sequential(Linear(3, 2, rng=rng), GELU())(np.ones((4, 3), np.float32))
    assert asked == ["y"]
