"""Small recurrent layers of all kinds and shapes: what tests of them share."""

import numpy as np
import pytest

from layers import GRU, LSTM, RNN

from .oracle import torch

N, T, C, H = 6, 5, 4, 9
LENGTHS = np.array([5, 1, 3, 5, 2, 4])
# Relative to the largest element of an array; gradients of weights sum 30 terms, through five steps
# of rounding.
ROUNDINGS = 128
KINDS = {
    "LSTM": (LSTM, {}),
    "GRU": (GRU, {}),
    "RNN": (RNN, {}),
    "RNN relu": (RNN, {"nonlinearity": "relu"}),
}
SHAPES = {
    "one layer": {},
    "without bias": {"bias": False},
    "three layers": {"layers": 3},
    "both directions": {"bidirectional": True},
    "two layers, both directions": {"layers": 2, "bidirectional": True},
}
kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def made(kind, dtype=np.float64, **options):
    """Return a layer of a kind with weights that are not small."""
    make, given = KINDS[kind]
    rng = np.random.default_rng(2)
    layer = make(C, H, rng=rng, dtype=dtype, **given, **options)
    for parameter in layer.parameters():
        parameter.value = rng.standard_normal(parameter.shape) * 0.5
    return layer


def arrays(layer, dtype=np.float64):
    """Return an input, the initial state, and gradients of output and last state."""
    rng = np.random.default_rng(3)
    width = layer.hidden_size * (2 if layer.bidirectional else 1)
    states = layer.cells[0].states

    def state():
        return tuple(
            tuple(rng.standard_normal((N, H)).astype(dtype) for _ in range(states))
            for _ in layer.cells
        )

    x, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((N, T, C), (N, T, width)))
    return x, state(), dy, state()


def assert_close(ours, theirs, what):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape, what
    assert ours.dtype == theirs.dtype, what
    scale = max(1e-30, float(np.abs(theirs).max(initial=0)))
    np.testing.assert_allclose(
        ours / scale,
        theirs / scale,
        rtol=0,
        atol=ROUNDINGS * np.finfo(theirs.dtype).eps,
        err_msg=what,
    )


def total(y, dy, last, dlast):
    """Return the sum of outputs and last states times their gradients."""
    loss = (y * dy).sum()
    for states, gradients in zip(last, dlast, strict=True):
        for state, gradient in zip(states, gradients, strict=True):
            loss = loss + (state * gradient).sum()
    return loss
