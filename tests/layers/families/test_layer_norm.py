"""Normalisation of features, against PyTorch and at its edges."""

import numpy as np
import pytest

import layers
from layers.gradient_check.mutants import layer_norm as mutants

from .oracle import F, torch


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "shape", [(5, 3), (3, 7), (4, 6, 16), (2, 3, 4, 65), (9, 200), (3, 1000)], ids=str
)
@pytest.mark.parametrize("kind", ["LayerNorm", "LayerNorm without bias", "RMSNorm"])
def test_output_and_gradients_equal_those_of_pytorch(kind, shape, dtype):
    rng = np.random.default_rng(0)
    features = shape[-1]
    if kind == "RMSNorm":
        norm = layers.RMSNorm(features, 1e-5, dtype=dtype)
    else:
        norm = layers.LayerNorm(features, 1e-5, bias="without" not in kind, dtype=dtype)
    for parameter in norm.parameters():
        parameter.value = rng.standard_normal(features)
    x, dy = (rng.standard_normal(shape).astype(dtype) + 1 for _ in range(2))
    value = layers.Tape().input(x)
    y = norm(value)
    y.backward(dy)
    theirs = torch.tensor(x, requires_grad=True)
    parameters = [torch.tensor(p.value, requires_grad=True) for p in norm.parameters()]
    if kind == "RMSNorm":
        expected = F.rms_norm(theirs, (features,), *parameters, eps=1e-5)
    else:
        expected = F.layer_norm(theirs, (features,), *parameters, eps=1e-5)
    expected.backward(torch.tensor(dy))
    tolerance = 64 * np.finfo(dtype).eps
    for ours, their in ((y.array, expected.detach()), (value.grad, theirs.grad)):
        np.testing.assert_allclose(
            ours, their.numpy(), rtol=0, atol=tolerance * max(1, float(their.abs().max()))
        )
    for p, their in zip(norm.parameters(), parameters, strict=True):
        np.testing.assert_allclose(
            p.gradient,
            their.grad.numpy(),
            rtol=0,
            atol=tolerance * max(1, float(their.grad.abs().max())),
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_constant_rows_give_the_bias(dtype):
    norm = layers.LayerNorm(6, dtype=dtype)
    norm.bias.value = np.arange(6)
    assert norm(np.full((3, 6), 1e4, dtype)).tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def test_large_mean_does_not_cost_accuracy():
    x = np.random.default_rng(0).standard_normal((4, 300))
    shifted = (x + 1000).astype(np.float32)
    exact = layers.LayerNorm(300, dtype=np.float64)(shifted.astype(np.float64))
    assert np.abs(layers.LayerNorm(300)(shifted) - exact).max() < 2e-4


@pytest.mark.parametrize("place", [0, 63, 64, 70])
def test_nan_stays_in_its_row(place):
    x = np.ones((3, 71), np.float32)
    x[1, place] = np.nan
    y = layers.LayerNorm(71)(x)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.ones((4, 3), np.float32), ValueError, ["LayerNorm(5, 1e-05)", "(N, ..., 5)", "(4, 3)"]),
        (np.ones(5, np.float32), ValueError, ["(N, ..., 5)", "(5,)", "np.newaxis"]),
        (np.ones((4, 5)), TypeError, ["float32", "float64", "astype"]),
    ],
)
def test_wrong_inputs_are_refused(x, error, words):
    with pytest.raises(error) as caught:
        layers.LayerNorm(5)(x)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("options", [{"features": 0}, {"epsilon": 0}])
@pytest.mark.parametrize("make", [layers.LayerNorm, layers.RMSNorm])
def test_wrong_options_are_refused(make, options):
    with pytest.raises(
        ValueError, match=f"{make.__name__}: {next(iter(options))} must be .*; got "
    ):
        make(**{"features": 4, **options})


@pytest.mark.parametrize("right", mutants.RIGHT)
def test_what_the_mutants_are_made_from_is_right(right):
    rng = np.random.default_rng(0)
    assert layers.gradcheck(right(rng), *mutants.MUTANTS[0].inputs(rng))
