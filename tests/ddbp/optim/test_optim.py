"""Optimizers: ten steps against PyTorch, or against slow twins where PyTorch has no such
optimizer.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import ddbp
from ddbp.optim.muon import orthogonal_factor
from layers import Layer, Linear, Parameter

STEPS = 10
WEIGHT, BIAS = (60, 50), (70,)


class Given(Layer):
    """A layer whose gradients are given, so that an optimizer can be fed the same as its oracle."""

    def __init__(self, dtype: type) -> None:
        rng = np.random.default_rng(0)
        self.weight = Parameter(rng.standard_normal(WEIGHT).astype(dtype))
        self.bias = Parameter(rng.standard_normal(BIAS).astype(dtype), regularized=False)
        self.gradients: list[np.ndarray] = []

    def forward(self, call, x):
        return np.zeros((), self.weight.dtype)

    def backward(self, call, dy):
        for parameter, gradient in zip((self.weight, self.bias), self.gradients, strict=True):
            call.gradient(parameter)[...] += gradient
        return (None,)


def gradients(step: int, dtype: type) -> list[np.ndarray]:
    """Return the gradients of a step, of different sizes, with exact zeros among them."""
    rng = np.random.default_rng(100 + step)
    weight, bias = rng.standard_normal(WEIGHT), 0.01 * rng.standard_normal(BIAS)
    weight[rng.random(WEIGHT) < 0.1] = 0
    return [weight.astype(dtype), bias.astype(dtype)]


def ours(optimizer: ddbp.Optimizer, dtype: type, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias after ten steps."""
    layer = Given(dtype)
    trainer = ddbp.Trainer(layer, optimizer=optimizer, batch_size=1, quiet=True, **options)
    x = np.zeros((1, 1), dtype)
    for step in range(STEPS):
        layer.gradients = gradients(step, dtype)
        trainer.step(layer(trainer.batch(x, x).x))
    return layer.weight.value, layer.bias.value


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare, allowing ten steps of a few roundings each of the largest element."""
    tolerance = 4 * STEPS * np.finfo(found.dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


class Case(NamedTuple):
    """Our optimizer, and PyTorch's with the same meaning; `decay` is that of the weight, the bias
    has none.
    """

    name: str
    ours: Callable[[], ddbp.Optimizer]
    theirs: Callable[..., Any]
    decay: float = 0.0


def cases() -> list[Case]:
    """Return the table; a function, because PyTorch may be missing."""
    torch = pytest.importorskip(
        "torch", reason="PyTorch, the oracle, is not installed: pip install 'ddbp[oracle]'"
    )
    o = torch.optim
    return [
        Case("SGD", lambda: ddbp.SGD(0.1), lambda p: o.SGD(p, 0.1)),
        Case("SGD, decay", lambda: ddbp.SGD(0.1, weight_decay=0.2), lambda p: o.SGD(p, 0.1), 0.2),
        Case(
            "SGD, momentum",
            lambda: ddbp.SGD(0.1, momentum=0.9),
            lambda p: o.SGD(p, 0.1, momentum=0.9),
        ),
        Case(
            "SGD, momentum and decay",
            lambda: ddbp.SGD(0.1, momentum=0.9, weight_decay=0.2),
            lambda p: o.SGD(p, 0.1, momentum=0.9),
            0.2,
        ),
        Case(
            "SGD, Nesterov",
            lambda: ddbp.SGD(0.1, momentum=0.8, nesterov=True),
            lambda p: o.SGD(p, 0.1, momentum=0.8, nesterov=True),
        ),
        Case("RMSProp", lambda: ddbp.RMSProp(0.01), lambda p: o.RMSprop(p, 0.01)),
        Case(
            "RMSProp, momentum and decay",
            lambda: ddbp.RMSProp(0.01, alpha=0.9, epsilon=1e-6, momentum=0.7, weight_decay=0.1),
            lambda p: o.RMSprop(p, 0.01, alpha=0.9, eps=1e-6, momentum=0.7),
            0.1,
        ),
        Case("Adam", lambda: ddbp.Adam(0.01), lambda p: o.Adam(p, 0.01)),
        Case(
            "Adam, decay",
            lambda: ddbp.Adam(0.01, betas=(0.8, 0.95), epsilon=1e-5, weight_decay=0.1),
            lambda p: o.Adam(p, 0.01, betas=(0.8, 0.95), eps=1e-5),
            0.1,
        ),
        Case(
            "AdamW",
            lambda: ddbp.AdamW(0.01, weight_decay=0.3),
            lambda p: o.AdamW(p, 0.01, weight_decay=0),
            0.3,
        ),
        Case(
            "AMSGrad",
            lambda: ddbp.Adam(0.01, betas=(0.8, 0.9), amsgrad=True),
            lambda p: o.Adam(p, 0.01, betas=(0.8, 0.9), amsgrad=True),
        ),
        Case(
            "AMSGrad, decoupled decay",
            lambda: ddbp.AdamW(0.01, betas=(0.8, 0.9), weight_decay=0.3, amsgrad=True),
            lambda p: o.AdamW(p, 0.01, betas=(0.8, 0.9), weight_decay=0, amsgrad=True),
            0.3,
        ),
        Case("RAdam", lambda: ddbp.RAdam(0.01), lambda p: o.RAdam(p, 0.01)),
        Case(
            "RAdam, few gradients and decay",
            lambda: ddbp.RAdam(0.01, betas=(0.8, 0.7), epsilon=1e-4, weight_decay=0.1),
            lambda p: o.RAdam(p, 0.01, betas=(0.8, 0.7), eps=1e-4),
            0.1,
        ),
        Case("AdaGrad", lambda: ddbp.AdaGrad(0.1), lambda p: o.Adagrad(p, 0.1)),
        Case(
            "AdaGrad, initial and decay",
            lambda: ddbp.AdaGrad(0.1, initial=0.5, epsilon=1e-5, weight_decay=0.1),
            lambda p: o.Adagrad(p, 0.1, initial_accumulator_value=0.5, eps=1e-5),
            0.1,
        ),
    ]


NAMES = (
    "SGD",
    "SGD, decay",
    "SGD, momentum",
    "SGD, momentum and decay",
    "SGD, Nesterov",
    "RMSProp",
    "RMSProp, momentum and decay",
    "Adam",
    "Adam, decay",
    "AdamW",
    "AMSGrad",
    "AMSGrad, decoupled decay",
    "RAdam",
    "RAdam, few gradients and decay",
    "AdaGrad",
    "AdaGrad, initial and decay",
)


def theirs(case: Case, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias after ten steps of PyTorch's optimizer."""
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    layer = Given(dtype)
    tensors = [
        torch.nn.Parameter(torch.tensor(parameter.value))
        for parameter in (layer.weight, layer.bias)
    ]
    groups = [
        {"params": [tensors[0]], "weight_decay": case.decay},
        {"params": [tensors[1]], "weight_decay": 0.0},
    ]
    optimizer = case.theirs(groups)
    for step in range(STEPS):
        for tensor, gradient in zip(tensors, gradients(step, dtype), strict=True):
            tensor.grad = torch.tensor(gradient)
        optimizer.step()
    return tuple(tensor.detach().numpy() for tensor in tensors)


def test_table_has_the_names_that_the_tests_use():
    assert tuple(case.name for case in cases()) == NAMES


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_ten_steps_are_those_of_pytorch(number, dtype):
    case = cases()[number]
    for found, expected in zip(ours(case.ours(), dtype), theirs(case, dtype), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ddbp.SGD(0.1, momentum=0.9, weight_decay=0.2),
        lambda: ddbp.SGD(0.1, momentum=0.8, nesterov=True),
        lambda: ddbp.RMSProp(0.01, momentum=0.7),
        lambda: ddbp.Adam(ddbp.WarmUp(0.01, steps=8)),
        lambda: ddbp.AdamW(ddbp.Cosine(0.01, steps=12)),
        lambda: ddbp.LARS(0.5),
        lambda: ddbp.LAMB(ddbp.OneCycle(0.05, steps=12)),
        lambda: ddbp.Adam(0.01, amsgrad=True),
        lambda: ddbp.RAdam(ddbp.CosineRestarts(0.01, steps=3)),
        lambda: ddbp.AdaGrad(0.1, initial=0.5),
        lambda: ddbp.Lion(ddbp.Polynomial(0.01, steps=12), weight_decay=0.1),
        lambda: ddbp.Muon(0.01),
    ],
    ids=[
        "SGD",
        "Nesterov",
        "RMSProp",
        "Adam",
        "AdamW",
        "LARS",
        "LAMB",
        "AMSGrad",
        "RAdam",
        "AdaGrad",
        "Lion",
        "Muon",
    ],
)
@pytest.mark.parametrize("stop", [1, 4])
def test_ten_steps_are_the_same_with_another_optimizer_that_loads_the_state(make, stop):
    layers, snapshot = [], None
    for steps in (range(STEPS), range(stop), range(stop, STEPS)):
        layer = Given(np.float32)
        trainer = ddbp.Trainer(layer, optimizer=make(), batch_size=1, quiet=True)
        if steps.start:
            trainer.load_state(snapshot)
        x = np.zeros((1, 1), np.float32)
        for step in steps:
            layer.gradients = gradients(step, np.float32)
            trainer.step(layer(trainer.batch(x, x).x))
        snapshot = trainer.state()
        layers.append(layer)
    whole, _, last = layers
    assert last.weight.value.tobytes() == whole.weight.value.tobytes()
    assert last.bias.value.tobytes() == whole.bias.value.tobytes()


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


def test_orthogonal_factor_of_zeros_is_zeros():
    assert not orthogonal_factor(np.zeros((3, 4))).any()


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 1.0), (-0.1, 0.9)])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "RAdam", "LAMB", "Lion"])
def test_decay_rates_that_are_none_are_refused(name, betas):
    with pytest.raises(ValueError, match=f"{name}: betas must be"):
        getattr(ddbp, name)(0.1, betas=betas)


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
    trainer = ddbp.Trainer(layer, optimizer=make(), batch_size=1, quiet=True)
    layer.gradients = gradients(0, np.float32)
    x = np.zeros((1, 1), np.float32)
    trainer.step(layer(trainer.batch(x, x).x))
    assert np.isfinite(layer.weight.value).all()
    assert layer.weight.value.any()


@pytest.mark.parametrize(
    "name", ["SGD", "RMSProp", "Adam", "AdamW", "RAdam", "AdaGrad", "Lion", "Muon", "LARS", "LAMB"]
)
def test_decay_does_not_touch_the_bias(name):
    kind = getattr(ddbp, name)
    with_decay, without = (ours(kind(0.01, weight_decay=decay), np.float64) for decay in (0.5, 0.0))
    assert with_decay[1].tobytes() == without[1].tobytes()
    assert with_decay[0].tobytes() != without[0].tobytes()


def test_optimizer_follows_its_schedule():
    schedule = ddbp.StepDecay(0.5, every=5)
    found = ours(ddbp.SGD(schedule), np.float64)[0]
    w = Given(np.float64).weight.value.copy()
    for step in range(STEPS):
        w -= (0.5 if step < 5 else 0.05) * gradients(step, np.float64)[0]
    assert_close(found, w)


def test_binding_to_another_trainer_starts_afresh():
    optimizer = ddbp.Adam(0.01)
    first = ours(optimizer, np.float64)[0].copy()
    assert ours(optimizer, np.float64)[0].tobytes() == first.tobytes()


def test_value_clipping_limits_each_element():
    found = ours(ddbp.SGD(1.0), np.float64, clip_value=0.25)[0]
    w = Given(np.float64).weight.value.copy()
    for step in range(STEPS):
        w -= np.clip(gradients(step, np.float64)[0], -0.25, 0.25)
    assert_close(found, w)


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_norm_clipping_is_that_of_pytorch(limit):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    found = ours(ddbp.SGD(1.0), np.float64, clip_norm=limit)
    layer = Given(np.float64)
    tensors = [
        torch.nn.Parameter(torch.tensor(parameter.value))
        for parameter in (layer.weight, layer.bias)
    ]
    for step in range(STEPS):
        for tensor, gradient in zip(tensors, gradients(step, np.float64), strict=True):
            tensor.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_(tensors, limit)
        for tensor in tensors:
            tensor.data -= tensor.grad
    for one, tensor in zip(found, tensors, strict=True):
        # PyTorch adds 1e-6 to the norm, which is about 50 here.
        np.testing.assert_allclose(
            one,
            tensor.detach().numpy(),
            rtol=0,
            atol=STEPS * limit * 1e-6 / 50 if limit < 1 else 1e-12,
        )


def test_clipped_gradient_has_the_norm_of_the_limit():
    layer = Given(np.float64)
    trainer = ddbp.Trainer(
        layer, optimizer=ddbp.SGD(1.0), batch_size=1, clip_norm=0.125, quiet=True
    )
    before = [layer.weight.value.copy(), layer.bias.value.copy()]
    layer.gradients = gradients(0, np.float64)
    x = np.zeros((1, 1))
    trainer.step(layer(trainer.batch(x, x).x))
    moved = [
        np.square(layer.weight.value - before[0]).sum(),
        np.square(layer.bias.value - before[1]).sum(),
    ]
    assert math.sqrt(sum(moved)) == pytest.approx(0.125, rel=1e-12)


@pytest.mark.parametrize(
    "optimizer", [ddbp.Adam(1e-3, amsgrad=True), ddbp.LAMB(1e-3), ddbp.Muon(1e-3)]
)
def test_all_that_an_optimizer_keeps_begins_at_a_cache_line(optimizer):
    models = [Linear(features, 3, rng=np.random.default_rng(0)) for features in range(1, 9)]
    for model in models:
        ddbp.Trainer(model, optimizer=optimizer, batch_size=1, quiet=True)
        kept = [each for each in vars(optimizer).values() if isinstance(each, np.ndarray)]
        for array in [*optimizer.moments.values(), *kept]:
            assert array.ctypes.data % 64 == 0
