"""Optimizers that PyTorch has not, or not with the same meaning: ten steps against slow twins."""

import math

import numpy as np
import pytest

import ddbp
from ddbp.optim.muon import orthogonal_factor
from layers import Conv2d, GlobalAveragePool, MeanSquaredError, Sequential

from .given import STEPS, WEIGHT, Given, assert_close, gradients, ours


def slow_lars(rate, momentum, decay, coefficient):
    """Return weight and bias after ten steps of You, Gitman and Ginsburg 2017, algorithm 1, in
    plain NumPy.
    """
    layer = Given(np.float64)
    result = []
    for index, parameter in enumerate((layer.weight, layer.bias)):
        w, m = parameter.value.copy(), 0
        for step in range(STEPS):
            g, local = gradients(step, np.float64)[index], rate
            if parameter.regularized:
                local = (
                    rate
                    * coefficient
                    * math.sqrt((w**2).sum())
                    / (math.sqrt((g**2).sum()) + decay * math.sqrt((w**2).sum()))
                )
                g = g + decay * w
            m = momentum * m + local * g
            w = w - m
        result.append(w)
    return result


def slow_lamb(rate, beta1, beta2, epsilon, decay):
    """Return weight and bias after ten steps of You et al. 2020, algorithm 2 with the identity as
    scaling, in plain NumPy.
    """
    layer = Given(np.float64)
    result = []
    for index, parameter in enumerate((layer.weight, layer.bias)):
        w, m, v = parameter.value.copy(), 0, 0
        for step in range(STEPS):
            g = gradients(step, np.float64)[index]
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            u = m / (1 - beta1 ** (step + 1)) / (np.sqrt(v / (1 - beta2 ** (step + 1))) + epsilon)
            trust = 1.0
            if parameter.regularized:
                u = u + decay * w
                trust = math.sqrt((w**2).sum()) / math.sqrt((u**2).sum())
            w = w - rate * trust * u
        result.append(w)
    return result


def slow_lion(rate, beta1, beta2, decay):
    """Return weight and bias after ten steps of Chen et al. 2023, algorithm 2, in plain NumPy."""
    layer = Given(np.float64)
    result = []
    for index, parameter in enumerate((layer.weight, layer.bias)):
        w, m = parameter.value.copy(), 0
        for step in range(STEPS):
            g = gradients(step, np.float64)[index]
            w = w - rate * (
                np.sign(beta1 * m + (1 - beta1) * g) + decay * parameter.regularized * w
            )
            m = beta2 * m + (1 - beta2) * g
        result.append(w)
    return result


def test_ten_steps_of_lion_are_those_of_its_slow_twin():
    optimizer = ddbp.Lion(0.01, betas=(0.8, 0.95), weight_decay=0.2)
    for found, expected in zip(
        ours(optimizer, np.float64), slow_lion(0.01, 0.8, 0.95, 0.2), strict=True
    ):
        assert_close(found, expected)


def slow_muon(rate, momentum, nesterov, decay):
    """Return the weight after ten steps of Jordan et al. 2024, in plain NumPy."""
    w, m = Given(np.float64).weight.value.copy(), 0
    for step in range(STEPS):
        g = gradients(step, np.float64)[0]
        m = momentum * m + (1 - momentum) * g
        x = momentum * m + (1 - momentum) * g if nesterov else m
        x = x / math.sqrt((x**2).sum())
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        w = (1 - rate * decay) * w - rate * 0.2 * math.sqrt(max(WEIGHT)) * x
    return w


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("nesterov", [False, True])
def test_ten_steps_of_muon_are_those_of_its_slow_twin(nesterov, dtype):
    optimizer = ddbp.Muon(0.01, momentum=0.8, nesterov=nesterov, weight_decay=0.2)
    weight, bias = ours(optimizer, dtype)
    assert_close(weight, slow_muon(0.01, 0.8, nesterov, 0.2))
    assert bias.tobytes() == ours(ddbp.AdamW(0.01), dtype)[1].tobytes()


def test_ten_steps_of_muon_are_those_of_pytorch_as_far_as_its_halves_go():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    found = ours(ddbp.Muon(0.01, weight_decay=0.3), np.float32)[0]
    start = Given(np.float32).weight.value
    tensor = torch.nn.Parameter(torch.tensor(start.copy()))
    optimizer = torch.optim.Muon([tensor], 0.01, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    for step in range(STEPS):
        tensor.grad = torch.tensor(gradients(step, np.float32)[0])
        optimizer.step()
    expected = tensor.detach().numpy()
    # PyTorch multiplies in bfloat16, of 8 bits.
    assert np.abs(found - expected).max() < 2**-6 * np.abs(expected - start).max()


def test_weights_that_muon_is_to_leave_alone_are_those_of_adamw():
    found = ours(ddbp.Muon(0.01, excluded="weight", weight_decay=0.3), np.float64)
    expected = ours(ddbp.AdamW(0.01, weight_decay=0.3), np.float64)
    assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]


def test_pattern_of_muon_that_matches_nothing_is_refused():
    must = r"Muon: each excluded pattern must match a parameter; got 'embed\*'\. .* weight, bias"
    with pytest.raises(ValueError, match=must):
        ours(ddbp.Muon(excluded=["bias", "embed*"]), np.float64)


@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (20, 20), (1, 5), (5, 1)])
def test_orthogonal_factor_has_singular_values_near_one(shape):
    matrix = np.random.default_rng(0).standard_normal(shape)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    values = left.T @ orthogonal_factor(matrix) @ right.T
    singular = np.diag(values)
    assert singular.min() > 0.6
    assert singular.max() < 1.25
    assert np.abs(values - np.diag(singular)).max() < 1e-12


def test_step_of_muon_for_a_convolution_is_orthogonal_in_its_filters():
    rng = np.random.default_rng(0)
    model = Sequential(Conv2d(3, 8, 5, rng=rng), GlobalAveragePool())
    trainer = ddbp.Trainer(
        model,
        loss=MeanSquaredError(),
        optimizer=ddbp.Muon(1.0, weight_decay=0),
        batch_size=4,
        quiet=True,
    )
    weight = model[0].weight
    before = weight.value.astype(np.float64)
    x, y = rng.standard_normal((4, 9, 9, 3)), rng.standard_normal((4, 8))
    trainer.train_step(x.astype(np.float32), y.astype(np.float32))
    step = (before - weight.value).reshape(75, 8) / (0.2 * math.sqrt(75))
    singular = np.linalg.svd(step, compute_uv=False)
    assert singular[0] < 1.25
    # Those that the gradient hardly has are left small.
    assert singular[3] > 0.6


def test_orthogonal_factor_of_zeros_is_zeros():
    assert not orthogonal_factor(np.zeros((3, 4))).any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ten_steps_of_lars_are_those_of_its_slow_twin(dtype):
    optimizer = ddbp.LARS(2.0, momentum=0.8, weight_decay=0.01, coefficient=0.01)
    for found, expected in zip(
        ours(optimizer, dtype), slow_lars(2.0, 0.8, 0.01, 0.01), strict=True
    ):
        assert_close(found, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ten_steps_of_lamb_are_those_of_its_slow_twin(dtype):
    optimizer = ddbp.LAMB(0.05, betas=(0.8, 0.95), epsilon=1e-5, weight_decay=0.02)
    for found, expected in zip(
        ours(optimizer, dtype), slow_lamb(0.05, 0.8, 0.95, 1e-5, 0.02), strict=True
    ):
        assert_close(found, expected)


@pytest.mark.parametrize(
    "make", [lambda: ddbp.LARS(0.1), lambda: ddbp.LAMB(0.1)], ids=["LARS", "LAMB"]
)
def test_zero_weights_get_a_finite_step(make):
    layer = Given(np.float32)
    layer.weight.value = np.zeros(WEIGHT)
    trainer = ddbp.Trainer(layer, optimizer=make(), batch_size=1, shards=1, quiet=True)
    layer.gradients = gradients(0, np.float32)
    x = np.zeros((1, 1), np.float32)
    trainer.step(layer(trainer.batch(x, x).x))
    assert np.isfinite(layer.weight.value).all()
    assert layer.weight.value.any()
