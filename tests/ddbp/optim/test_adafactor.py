"""What Adafactor does beside PyTorch's: matrices of convolutions, steps of given sizes, and moments
that lie on all ranks.
"""

from itertools import pairwise

import numpy as np
import pytest

import ddbp
from layers import Conv2d, Linear, Sequential
from layers.kernels.factored import factor_maxima, factor_sums

from .given import STEPS, WEIGHT, Given, assert_close, gradients, ours


def slow_weight(rate, relative):
    """Return the weight after ten steps of Shazeer and Stern 2018, algorithm 4, in plain NumPy."""
    w, r, c = Given(np.float64).weight.value.copy(), 0, 0
    for step in range(1, STEPS + 1):
        g = gradients(step - 1, np.float64)[0]
        weight = step**-0.8
        r = r + weight * ((g**2).mean(axis=1) - r)
        c = c + weight * ((g**2).mean(axis=0) - c)
        u = g / np.sqrt(np.outer(r, c) / r.mean())
        u /= max(1, np.sqrt((u**2).mean()))
        size = min(rate, step**-0.5) * max(1e-3, np.sqrt((w**2).mean()))
        w = w - (size if relative else rate) * u
    return w


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("relative", [True, False])
def test_ten_steps_are_those_of_the_slow_twin(relative, dtype):
    found = ours(ddbp.Adafactor(0.05, relative=relative), dtype)[0]
    assert_close(found, slow_weight(0.05, relative))


@pytest.mark.parametrize("cuts", [[], [1], [777], [60, 1024, 2048]])
def test_sums_are_the_same_wherever_a_matrix_is_cut(cuts):
    rng = np.random.default_rng(0)
    g = (rng.standard_normal(WEIGHT) * 10 ** rng.uniform(-6, 6, WEIGHT)).astype(np.float32)
    bounds = [0, *cuts, g.size]
    maxima = np.zeros(WEIGHT[0]), np.zeros(WEIGHT[1])
    sums = [each.astype(np.int64) for each in maxima]
    for start, stop in pairwise(bounds):
        factor_maxima(*maxima, g.reshape(-1)[start:stop].copy(), start)
    np.testing.assert_array_equal(maxima[0], np.abs(g).max(axis=1))
    np.testing.assert_array_equal(maxima[1], np.abs(g).max(axis=0))
    scales = [2.0**26 / 2.0 ** np.ceil(np.log2(each)) for each in maxima]
    for start, stop in pairwise(bounds):
        factor_sums(*sums, g.reshape(-1)[start:stop].copy(), start, *scales)
    squares = [g.astype(np.float64) * scale for scale in (scales[0][:, None], scales[1])]
    for axis, (found, each) in enumerate(zip(sums, squares, strict=True)):
        np.testing.assert_array_equal(found, np.floor(each**2).astype(np.int64).sum(axis=1 - axis))


def test_what_is_not_a_number_is_the_largest():
    maxima = np.zeros(2), np.zeros(3)
    factor_maxima(*maxima, np.array([1, np.nan, 2, 5, 4, -np.inf], np.float32), 0)
    np.testing.assert_array_equal(maxima[0], [np.nan, np.inf])
    np.testing.assert_array_equal(maxima[1], [5, np.nan, np.inf])


def test_moments_are_those_of_rows_and_columns_of_what_layers_multiply_by():
    rng = np.random.default_rng(0)
    model = Sequential(Conv2d(3, 8, 5, rng=rng), Linear(30, 20, rng=rng))
    trainer = ddbp.Trainer(model, optimizer="adafactor", batch_size=1, shards=1, quiet=True)
    sizes = {name: array.size for name, array in trainer.optimizer.held.items()}
    assert sizes == {
        **{"row.layers.0.weight": 75, "column.layers.0.weight": 8},
        **{"row.layers.0.bias": 1, "column.layers.0.bias": 8},
        **{"row.layers.1.weight": 20, "column.layers.1.weight": 30},
        **{"row.layers.1.bias": 1, "column.layers.1.bias": 20},
    }


def test_zero_gradients_leave_parameters_alone():
    layer = Given(np.float32)
    before = layer.weight.value.copy()
    trainer = ddbp.Trainer(layer, optimizer=ddbp.Adafactor(), batch_size=1, shards=1, quiet=True)
    layer.gradients = [np.zeros_like(each) for each in gradients(0, np.float32)]
    x = np.zeros((1, 1), np.float32)
    trainer.step(layer(trainer.batch(x, x).x))
    np.testing.assert_array_equal(layer.weight.value, before)


def test_flipped_bit_of_a_moment_is_found(monkeypatch):
    monkeypatch.setenv("DDBP_CHECK_MEMORY", "1")
    layer = Given(np.float32)
    trainer = ddbp.Trainer(layer, optimizer=ddbp.Adafactor(), batch_size=1, shards=1, quiet=True)
    x = np.zeros((1, 1), np.float32)

    def step():
        layer.gradients = gradients(0, np.float32)
        trainer.step(layer(trainer.batch(x, x).x))

    for _ in range(3):
        step()
    trainer.optimizer.held["row.weight"].view(np.uint64)[7] ^= 1 << 40
    with pytest.raises(ddbp.MemoryCorruptionError, match="those of rows and columns, ahead of"):
        step()
