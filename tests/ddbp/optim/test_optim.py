"""Optimizers: ten steps against PyTorch, and what all of them keep."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import ddbp
from layers import Linear

from .given import STEPS, Given, assert_close, gradients, ours


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
        Case("Adafactor", lambda: ddbp.Adafactor(), o.Adafactor),
        Case(
            "Adafactor, all options",
            lambda: ddbp.Adafactor(
                0.5,
                beta2_decay=-0.5,
                epsilons=(1e-3, 0.1),
                clip_threshold=1.2,
                weight_decay=0.1,
            ),
            lambda p: o.Adafactor(p, 0.5, beta2_decay=-0.5, eps=(1e-3, 0.1), d=1.2),
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
    "Adafactor",
    "Adafactor, all options",
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
        lambda: ddbp.RAdam(0.01, state_bits=8),
        lambda: ddbp.Adafactor(0.01),
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
        "RAdam in 8 bits",
        "Adafactor",
    ],
)
@pytest.mark.parametrize("stop", [1, 4])
def test_ten_steps_are_the_same_with_another_optimizer_that_loads_the_state(make, stop):
    layers, snapshot = [], None
    for steps in (range(STEPS), range(stop), range(stop, STEPS)):
        layer = Given(np.float32)
        trainer = ddbp.Trainer(layer, optimizer=make(), batch_size=1, shards=1, quiet=True)
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


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 1.0), (-0.1, 0.9)])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "RAdam", "LAMB", "Lion"])
def test_decay_rates_that_are_none_are_refused(name, betas):
    with pytest.raises(ValueError, match=f"{name}: betas must be"):
        getattr(ddbp, name)(0.1, betas=betas)


@pytest.mark.parametrize(
    "name",
    [
        *("SGD", "RMSProp", "Adam", "AdamW", "RAdam", "AdaGrad", "Adafactor", "Lion", "Muon"),
        *("LARS", "LAMB"),
    ],
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
        layer, optimizer=ddbp.SGD(1.0), batch_size=1, shards=1, clip_norm=0.125, quiet=True
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
    "optimizer",
    [
        ddbp.Adam(1e-3, amsgrad=True),
        ddbp.Adam(1e-3, state_bits=8),
        ddbp.LAMB(1e-3),
        ddbp.Muon(1e-3),
    ],
)
def test_all_that_an_optimizer_keeps_begins_at_a_cache_line(optimizer):
    models = [Linear(features, 3, rng=np.random.default_rng(0)) for features in range(1, 9)]
    for model in models:
        ddbp.Trainer(model, optimizer=optimizer, batch_size=1, shards=1, quiet=True)
        kept = [each for each in vars(optimizer).values() if isinstance(each, np.ndarray)]
        for array in [*optimizer.moments.values(), *kept]:
            assert array.ctypes.data % 64 == 0


@pytest.mark.parametrize(
    "made", [ddbp.SGD(0.1), ddbp.Adam(ddbp.Exponential(0.1, factor=0.9))], ids=repr
)
def test_learning_rate_is_there_to_be_read_and_not_to_be_assigned(made):
    before = repr(made)
    with pytest.raises(AttributeError, match=r"got \.learning_rate = 0\.5\. Give it a schedule"):
        made.learning_rate = 0.5
    assert made.learning_rate is made.given
    assert repr(made) == before
