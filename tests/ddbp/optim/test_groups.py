"""Parameter groups: options of their own, by patterns of names, for every optimizer."""

import numpy as np
import pytest

import ddbp
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

from .given import STEPS, Given, assert_close, gradients, ours

RNG = np.random.default_rng(4)
DATA = ddbp.ArrayDataset(RNG.standard_normal((24, 20)), RNG.integers(0, 4, 24))
MAKERS = {
    "SGD": lambda **options: ddbp.SGD(0.1, momentum=0.9, weight_decay=0.01, **options),
    "Nesterov": lambda **options: ddbp.SGD(0.1, momentum=0.9, nesterov=True, **options),
    "RMSProp": lambda **options: ddbp.RMSProp(0.01, momentum=0.5, **options),
    "Adam": lambda **options: ddbp.Adam(0.01, weight_decay=0.1, **options),
    "AMSGrad": lambda **options: ddbp.Adam(0.01, amsgrad=True, **options),
    "RAdam": lambda **options: ddbp.RAdam(0.01, **options),
    "AdaGrad": lambda **options: ddbp.AdaGrad(0.01, initial=0.1, **options),
    "Lion": lambda **options: ddbp.Lion(0.001, weight_decay=0.1, **options),
    "Muon": lambda **options: ddbp.Muon(0.01, **options),
    "Adafactor": lambda **options: ddbp.Adafactor(0.01, **options),
    "AdamW": lambda **options: ddbp.AdamW(0.01, **options),
    "LARS": lambda **options: ddbp.LARS(2.0, **options),
    "LAMB": lambda **options: ddbp.LAMB(0.02, **options),
}


def network() -> Sequential:
    """Return a network whose parameters fill several blocks."""
    rng = np.random.default_rng(1)
    return Sequential(
        Linear(20, 120, rng=rng), ReLU(), Linear(120, 120, rng=rng), ReLU(), Linear(120, 4, rng=rng)
    )


def trained(optimizer: ddbp.Optimizer, model=None, **options) -> ddbp.Trainer:
    """Return a trainer after two epochs."""
    usual = {"loss": SoftmaxCrossEntropy(), "batch_size": 8, "shards": 4, "quiet": True}
    trainer = ddbp.Trainer(model or network(), optimizer=optimizer, **{**usual, **options})
    trainer.fit(DATA, epochs=2)
    return trainer


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_groups_without_options_of_their_own_change_no_bit(name, clip_norm):
    expected = trained(MAKERS[name](), clip_norm=clip_norm).parameters_sha256()
    groups = {"layers.2.*": {}, ("*.4.bias", "*.0.weight"): {}}
    found = trained(MAKERS[name](groups=groups), clip_norm=clip_norm).parameters_sha256()
    assert found == expected


@pytest.mark.parametrize("name", MAKERS)
def test_group_has_the_bits_of_an_optimizer_with_its_options(name):
    rates = {"learning_rate": 0.03, "weight_decay": 0}
    arrays = {}
    # In the first step gradients are the same.
    for key, groups in (("mixed", {"layers.4.*": rates}), ("apart", {"*": rates}), ("plain", {})):
        trainer = ddbp.Trainer(
            network(),
            loss=SoftmaxCrossEntropy(),
            optimizer=MAKERS[name](groups=groups),
            batch_size=24,
            quiet=True,
        )
        trainer.train_step(DATA.x.astype(np.float32), DATA.y)
        arrays[key] = [parameter.value.tobytes() for parameter in trainer.model.parameters()]
    assert arrays["mixed"] == arrays["plain"][:4] + arrays["apart"][4:]
    assert arrays["plain"][4:] != arrays["apart"][4:]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ten_steps_are_those_of_parameter_groups_of_pytorch(dtype):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    groups = {"bias": {"learning_rate": 0.2, "momentum": 0.5}, "weight": {"weight_decay": 0.3}}
    found = ours(ddbp.SGD(0.1, momentum=0.9, groups=groups), dtype)
    layer = Given(dtype)
    tensors = [torch.nn.Parameter(torch.tensor(p.value)) for p in (layer.weight, layer.bias)]
    optimizer = torch.optim.SGD(
        [
            {"params": [tensors[0]], "weight_decay": 0.3},
            {"params": [tensors[1]], "lr": 0.2, "momentum": 0.5},
        ],
        lr=0.1,
        momentum=0.9,
    )
    for step in range(STEPS):
        for tensor, gradient in zip(tensors, gradients(step, dtype), strict=True):
            tensor.grad = torch.tensor(gradient)
        optimizer.step()
    for array, tensor in zip(found, tensors, strict=True):
        assert_close(array, tensor.detach().numpy())


def test_group_with_a_moment_that_the_others_have_not():
    expected = ours(ddbp.SGD(0.1, momentum=0.9), np.float32)[0]
    found = ours(ddbp.SGD(0.1, groups={"weight": {"momentum": 0.9}}), np.float32)
    assert found[0].tobytes() == expected.tobytes()
    assert found[1].tobytes() == ours(ddbp.SGD(0.1), np.float32)[1].tobytes()


def test_each_group_follows_its_own_schedule():
    schedules = ddbp.StepDecay(0.1, every=3), ddbp.Cosine(0.2, steps=9)
    optimizer = ddbp.SGD(schedules[0], groups={"bias": {"learning_rate": schedules[1]}})
    found = ours(optimizer, np.float32)
    assert found[0].tobytes() == ours(ddbp.SGD(schedules[0]), np.float32)[0].tobytes()
    assert found[1].tobytes() == ours(ddbp.SGD(schedules[1]), np.float32)[1].tobytes()


def test_every_plateau_is_told_once_of_each_epoch():
    plateaus = {"learning_rate": ddbp.Plateau(0.2, patience=0, threshold=0.9, factor=0.5)}
    groups = {"layers.0.*": plateaus, "layers.2.*": {"weight_decay": 0.1}}
    first = ddbp.Plateau(0.1, patience=0, threshold=0.9, factor=0.5)
    trainer = trained(ddbp.SGD(first, groups=groups))
    # The first epoch is the best so far, the second one is no better.
    assert [schedule.rate(0) for schedule in trainer.optimizer.schedules] == [0.05, 0.1]


def test_state_holds_the_schedules_of_groups():
    plateau = {"learning_rate": ddbp.Plateau(0.02, patience=0, threshold=0.9, factor=0.5)}
    first, second = (trained(ddbp.Adam(0.01, groups={"layers.0.*": plateau})) for _ in range(2))
    second.load_state(first.state())
    assert first.state().values["optimizer.groups.1.schedule.rate"] == 0.01
    for trainer in (first, second):
        trainer.fit(DATA, epochs=2)
    assert first.parameters_sha256() == second.parameters_sha256()


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        (
            {"head.*": {"weight_decay": 0}},
            ValueError,
            "'head.*' of groups must match .* layers.0.w",
        ),
        (
            {"*.weight": {}, "layers.0.*": {}},
            ValueError,
            r"must be in one group; got layers.0.weight in '\*.weight' and in 'layers.0.\*'",
        ),
        ({"*.bias": {"rate": 1}}, ValueError, "got 'rate'. It has learning_rate, betas"),
        ({"*.bias": {"weight_decay": 0.1}}, ValueError, "must apply to a parameter; got only bias"),
        ({"*.bias": {"learning_rate": -1}}, ValueError, "learning rate must be finite and not neg"),
        ({"*.bias": 0.1}, TypeError, "must be a dictionary; got 0.1"),
        ([{"*.bias": {}}], TypeError, "groups must be a dictionary of options"),
        ({1: {}}, TypeError, "must be patterns of parameters' names"),
    ],
    ids=str,
)
def test_groups_that_fit_nothing_are_refused(groups, error, words):
    with pytest.raises(error, match=words):
        trained(ddbp.Adam(0.01, groups=groups))


def test_schedule_with_a_state_begins_anew_for_every_optimizer_and_trainer():
    plateau = ddbp.Plateau(0.1, patience=0, threshold=0.9, factor=0.5)
    optimizer = ddbp.SGD(plateau)
    digests = {
        trained(each).parameters_sha256()
        for each in (
            optimizer,
            optimizer,
            ddbp.SGD(plateau),
            ddbp.SGD(ddbp.WarmUp(plateau, steps=1, start=1)),
        )
    }
    assert optimizer.schedule.rate(0) == 0.05
    assert plateau.rate(0) == 0.1
    assert len(digests) == 1


def test_every_optimizer_is_among_those_that_have_groups_here():
    kinds = {
        kind
        for kind in vars(ddbp).values()
        if isinstance(kind, type)
        and issubclass(kind, ddbp.Optimizer)
        and kind is not ddbp.Optimizer
    }
    assert {type(make()) for make in MAKERS.values()} == kinds
