"""Frozen parameters in a trainer: they stay, cost nothing, and may change from step to step; and
trainers that share a graph.
"""

import copy
import hashlib
from itertools import pairwise

import numpy as np
import pytest

import ddbp
from layers import (
    BatchNorm,
    Composite,
    Linear,
    MeanSquaredError,
    Parameter,
    ReLU,
    Sequential,
    Tape,
    TapeHook,
    gradcheck,
)

from .small import DATA, LABELS, X, make, network

OPTIMIZERS = {
    "SGD": lambda: ddbp.SGD(0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda: ddbp.Adam(0.01, weight_decay=0.1),
    "Adam in 8 bits": lambda: ddbp.Adam(0.01, weight_decay=0.1, state_bits=8),
    "LAMB": lambda: ddbp.LAMB(0.01),
    "Adafactor": lambda: ddbp.Adafactor(0.01),
    "Muon": lambda: ddbp.Muon(0.01),
}


def values(model):
    """Return the bytes of all parameters, by name."""
    return {name: parameter.value.tobytes() for name, parameter in model.named_parameters()}


def deep(*middle):
    """Return a network of three layers."""
    rng = np.random.default_rng(1)
    return Sequential(
        Linear(6, 16, rng=rng),
        ReLU(),
        *middle,
        Linear(16, 16, rng=rng),
        ReLU(),
        Linear(16, 3, rng=rng),
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shards", [1, 4])
def test_frozen_parameters_stay_and_the_others_learn(name, shards):
    model = deep()
    before = values(model)
    model[0].freeze()
    model[2].bias.trainable = False
    trainer = make(model, optimizer=OPTIMIZERS[name](), shards=shards, l1=0.01, l2=0.01)
    trainer.fit(DATA, epochs=1)
    after = values(model)
    same = [name for name in before if before[name] == after[name]]
    assert same == ["layers.0.weight", "layers.0.bias", "layers.2.bias"]
    moments = {name for name in trainer.state().arrays if name.startswith("optimizer.")}
    assert not any(name.endswith(tuple(same)) for name in moments)
    assert trainer._flat.gradients.size < shards * sum(p.size for p in model.parameters()) / 1.2


def test_first_step_is_that_of_all_parameters_without_the_frozen_ones():
    x, y = X[:20].astype(np.float32), LABELS[:20]
    whole, part = deep(), deep()
    part[2].freeze()
    make(whole).train_step(x, y)
    make(part).train_step(x, y)
    before, of_whole, of_part = values(deep()), values(whole), values(part)
    for name in before:
        assert of_part[name] == (before if "layers.2" in name else of_whole)[name]


def test_norm_and_penalties_leave_frozen_parameters_out():
    model = deep()
    model[0].freeze()
    head = make(model, clip_norm=0.1, l2=0.1)
    tail = Sequential(*copy.deepcopy(model).layers[1:])
    alone = make(tail.unfreeze(), clip_norm=0.1, l2=0.1)
    x = X[:20].astype(np.float32)
    for _ in range(3):
        hidden = model[0](x)
        assert head.train_step(x, LABELS[:20]) == alone.train_step(hidden, LABELS[:20])
    assert [*values(model).values()][2:] == [*values(tail).values()]


def test_no_gradient_work_is_done_below_what_is_trained():
    class Backwards(TapeHook):
        def __init__(self):
            self.layers = []
            self.ready = []

        def on_backward_begin(self, call):
            self.layers.append(repr(call.layer))

        def on_parameter_ready(self, parameter):
            self.ready.append(parameter)

    model, hook = deep(), Backwards()
    model[0].freeze()
    model[2].freeze()
    make(model, callbacks=[hook]).train_step(X[:20].astype(np.float32), LABELS[:20])
    assert len(hook.layers) == 2
    assert "Linear(16, 3)" in hook.layers[1]
    assert set(map(id, hook.ready)) == set(map(id, model[4].parameters()))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_freezing_between_fits_keeps_the_moments_of_the_others(name, shards):
    model = deep()
    trainer = make(model, optimizer=OPTIMIZERS[name](), shards=shards)
    trainer.fit(DATA, epochs=1)
    before, moments = values(model), trainer.state().arrays
    model[2].freeze()
    held = trainer.state().arrays
    assert all(
        moments[name].tobytes() == array.tobytes()
        for name, array in held.items()
        if name.startswith("optimizer.")
    )
    trainer.fit(DATA, epochs=1)
    after = values(model)
    assert [name for name in before if before[name] == after[name]] == [
        "layers.2.weight",
        "layers.2.bias",
    ]
    model.unfreeze()
    trainer.fit(DATA, epochs=1)
    assert not any(value == after[name] for name, value in values(model).items())
    assert trainer.optimizer.steps == trainer.step_count == 15


def test_schedule_goes_on_where_parameters_are_frozen():
    plateau = ddbp.Plateau(0.1, patience=0, threshold=0.9, factor=0.5)
    trainer = make(deep(), optimizer=ddbp.SGD(plateau, groups={"*.bias": {"weight_decay": 0}}))
    trainer.fit(DATA, epochs=2)
    trainer.model[0].freeze()
    trainer.fit(DATA, epochs=1)
    assert trainer.optimizer.schedule.rate(0) == 0.025
    assert len(trainer.optimizer.schedules) == 1


def test_freezing_and_unfreezing_between_steps_changes_nothing():
    digests = []
    for toggled in (False, True):
        trainer = make(deep(), optimizer=ddbp.Adam(0.01))
        for batch in trainer.batches(DATA, epochs=2):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
            if toggled:
                trainer.model.freeze()
                trainer.model.unfreeze()
        digests.append(trainer.parameters_sha256())
    assert digests[0] == digests[1]


def test_digest_does_not_depend_on_what_is_frozen():
    one, other = deep(), deep()
    other[0].freeze()
    trainer = make(one)
    assert trainer.parameters_sha256() == make(other).parameters_sha256()
    assert trainer.parameters_sha256() == hashlib.sha256(trainer._flat.values.tobytes()).hexdigest()


def test_layers_thaw_one_after_the_other_during_a_fit():
    class Thaw(ddbp.Callback):
        """Has one more layer trained from epoch to epoch."""

        def on_epoch_begin(self, trainer, epoch):
            trainer.model[(4, 2, 0)[epoch - 1]].unfreeze()

    model, seen = deep(), []

    class Look(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            seen.append(values(trainer.model))

    model[0].freeze()
    model[2].freeze()
    seen.append(values(model))
    make(model, callbacks=[Thaw(), Look(), ddbp.ExponentialMovingAverage()]).fit(DATA, epochs=3)
    changed = [
        {name.split(".")[1] for name in now if now[name] != before[name]}
        for before, now in pairwise(seen)
    ]
    assert changed == [{"4"}, {"2", "4"}, {"0", "2", "4"}]


def test_hook_may_freeze_when_a_step_begins():
    class Alternate(ddbp.Callback):
        """Trains one layer in even steps, and another one in odd ones."""

        def on_step_begin(self, trainer, step):
            trainer.model[0 if step % 2 else 4].freeze()
            trainer.model[4 if step % 2 else 0].unfreeze()

    model, changed = deep(), []
    trainer = make(model, callbacks=[Alternate()])
    for _ in range(4):
        before = values(model)
        trainer.train_step(X[:20].astype(np.float32), LABELS[:20])
        after = values(model)
        changed.append({name[7] for name in before if before[name] != after[name]})
    assert changed == [{"0", "2"}, {"2", "4"}] * 2


def test_moving_average_goes_on_where_parameters_are_frozen_and_unfrozen():
    model = deep()
    average = ddbp.ExponentialMovingAverage(0.5, warm_up=False)
    trainer = make(model, callbacks=[average])
    expected = {}
    for step in range(6):
        model[0].unfreeze() if step % 4 < 2 else model[0].freeze()
        trainer.train_step(X[:20].astype(np.float32), LABELS[:20])
        for name, parameter in model.named_parameters():
            value = parameter.value.astype(np.float64)
            expected[name] = value if not step else (expected[name] + value) / 2
            if "layers.0" in name and step in (2, 3):
                # Frozen ones are not averaged.
                expected[name] = value
    model.unfreeze()
    trainer.train_step(X[:20].astype(np.float32), LABELS[:20])
    values_now = {name: p.value.astype(np.float64) for name, p in model.named_parameters()}
    with average.applied(trainer):
        for name, parameter in model.named_parameters():
            whole = (expected[name] + values_now[name]) / 2
            np.testing.assert_allclose(parameter.value, whole, rtol=1e-5, atol=1e-6)


def test_shared_weight_that_is_frozen_stays_wherever_it_is_used():
    class Tied(Composite):
        """Uses the first layer's weight a second time."""

        def __init__(self):
            rng = np.random.default_rng(2)
            self.first = Linear(6, 6, rng=rng)
            self.second = Linear(6, 6, rng=rng)
            self.second.weight = self.first.weight
            self.last = Linear(6, 3, rng=rng)

        def __call__(self, x):
            return self.last(self.second(self.first(x)))

    model = Tied()
    model.second.weight.trainable = False
    before = values(model)
    make(model, shards=2).fit(DATA, epochs=1)
    after = values(model)
    same = {name for name in before if before[name] == after[name]}
    assert same == {"first.weight", "second.weight"}


def test_frozen_batch_norm_keeps_gain_and_bias_and_learns_its_statistics():
    model = deep(BatchNorm(16, synchronized=True))
    model[2].freeze()
    norm = model[2]
    before = [a.value.copy() for a in (norm.weight, norm.bias, norm.running_mean)]
    make(model).fit(DATA, epochs=1)
    after = [norm.weight.value, norm.bias.value, norm.running_mean.value]
    assert [a.tobytes() == b.tobytes() for a, b in zip(before, after, strict=True)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_state_of_a_frozen_model_goes_on_in_another_trainer(accumulate):
    def fresh():
        model = deep()
        model[0].freeze()
        return make(model, optimizer=ddbp.Adam(0.01), accumulate=accumulate, shards=2)

    whole, first, second = fresh(), fresh(), fresh()
    for trainer, batches in ((whole, 9), (first, 5)):
        for number, batch in enumerate(trainer.batches(DATA, epochs=2), 1):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
            if number == batches:
                break
    second.load_state(first.state())
    for number, batch in enumerate(second.batches(DATA, epochs=2), 6):
        second.step(second.loss(second.model(batch.x), batch.y))
        if number == 9:
            break
    assert second.parameters_sha256() == whole.parameters_sha256()


def test_state_has_what_it_has_frozen_frozen_and_says_so(capsys):
    model = deep()
    model[0].freeze()
    first = make(model, optimizer=ddbp.Adam(0.01))
    first.train_step(DATA.x[:20], DATA.y[:20])
    other = deep()
    other[2].freeze()
    second = make(other, optimizer=ddbp.Adam(0.01))
    second.load_state(first.state())
    assert [p.trainable for p in other.parameters()] == [p.trainable for p in model.parameters()]
    said = capsys.readouterr().err
    assert "goes on from, now frozen: layers.0.weight, layers.0.bias\n" in said
    assert "goes on from, now trained: layers.2.weight, layers.2.bias\n" in said
    for trainer in (first, second):
        trainer.train_step(DATA.x[20:40], DATA.y[20:40])
        trainer.model.unfreeze()
        trainer.train_step(DATA.x[20:40], DATA.y[20:40])
    assert second.parameters_sha256() == first.parameters_sha256()


def test_state_that_is_refused_freezes_nothing(capsys):
    model, other = deep(), deep()
    model[0].freeze()
    second = make(other, l1=0.1)
    with pytest.raises(ValueError, match="the same l1"):
        second.load_state(make(model).state())
    assert all(parameter.trainable for parameter in other.parameters())
    assert second.train_step(DATA.x[:20], DATA.y[:20]) > 0
    assert not capsys.readouterr().err
    with pytest.raises(ValueError, match="the same parameters"):
        make(network()).load_state(make(model).state())


class Thaw(ddbp.Callback):
    """Has the first layer frozen at first, then another one for an epoch."""

    def on_epoch_begin(self, trainer, epoch):
        trainer.model.unfreeze()
        if epoch <= 2:
            trainer.model[0].freeze()
        elif epoch == 3:
            trainer.model[2].freeze()


class StopError(Exception):
    """The run ends here."""


class Stop(ddbp.Callback):
    """Ends the run after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer, step, loss):
        if step == self.step:
            raise StopError


# Of the steps of five epochs 1 to 10 are those with the first layer frozen, 11 to 15 the other.
@pytest.mark.parametrize("step", [3, 10, 11, 13, 16, 18])
def test_run_that_freezes_and_thaws_goes_on_to_the_same_bits(tmp_path, step):
    def train(name, *callbacks, resume=None):
        average = ddbp.ExponentialMovingAverage(0.9)
        kept = ddbp.Checkpoints(every_steps=2, background=False)
        trainer = make(
            deep(),
            optimizer=ddbp.Adam(0.01),
            run_dir=tmp_path / name,
            callbacks=[Thaw(), average, kept, *callbacks],
            resume=resume,
        )
        trainer.fit(DATA, epochs=5)
        average.apply(trainer)
        return trainer.parameters_sha256()

    expected = train("whole")
    with pytest.raises(StopError):
        train("stopped", Stop(step))
    assert train("stopped", resume="auto") == expected


def test_files_hold_frozen_parameters(tmp_path):
    model, copied = deep(), deep()
    model[0].freeze()
    model[0].weight.value = np.full((16, 6), 2)
    ddbp.save_parameters(model, tmp_path / "model.safetensors")
    ddbp.load_parameters(copied, tmp_path / "model.safetensors")
    assert values(copied) == values(model)


def test_frozen_parameter_says_so_and_takes_nothing_but_true_and_false():
    parameter = Parameter(np.zeros(3))
    assert "trainable" not in repr(parameter)
    parameter.trainable = False
    assert repr(parameter) == "Parameter(shape=(3,), dtype=float64, trainable=False)"
    assert not copy.deepcopy(parameter).trainable
    with pytest.raises(TypeError, match="trainable must be True or False; got 0"):
        parameter.trainable = 0


def test_gradient_check_leaves_frozen_parameters_out():
    model = deep()
    model[0].freeze()
    report = gradcheck(model, X[:5])
    report.raise_if_wrong()
    assert "layers.0" not in str(report)
    assert "layers.2.weight" in str(report)


def test_model_of_frozen_parameters_only_is_refused():
    with pytest.raises(
        ValueError, match=r"must be trainable; got frozen ones only\. Call model\.unf"
    ):
        make(deep().freeze())


def test_freezing_while_batches_accumulate_is_refused():
    trainer = make(accumulate=2)
    batches = trainer.batches(DATA)
    batch = next(batches)
    trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    trainer.model[0].freeze()
    with pytest.raises(RuntimeError, match="between two updates; got a change after 1 batches"):
        next(batches)


def test_freezing_between_a_batch_and_its_step_is_refused():
    trainer = make()
    batch = trainer.batch(X[:20].astype(np.float32), LABELS[:20])
    trainer.model[0].freeze()
    with pytest.raises(RuntimeError, match="between two steps; got a change since the batch"):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))


def test_frozen_parameter_that_is_not_finite_is_named():
    model = deep()
    model[0].freeze()
    model[0].weight.value = np.full((16, 6), np.nan)
    with pytest.raises(FloatingPointError, match=r"layers\.0\.weight is not finite"):
        make(model).train_step(X[:20].astype(np.float32), LABELS[:20])


def test_training_a_part_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    model = deep()
    theirs = torch.nn.Sequential(
        torch.nn.Linear(6, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 3),
    )
    with torch.no_grad():
        for number in (0, 2, 4):
            theirs[number].weight.copy_(torch.tensor(model[number].weight.value))
            theirs[number].bias.copy_(torch.tensor(model[number].bias.value))
    model[2].freeze()
    for parameter in theirs[2].parameters():
        parameter.requires_grad_(False)
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1, momentum=0.9)
    trainer = make(model)
    x, y = X[:20].astype(np.float32), LABELS[:20]
    for _ in range(10):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
        trainer.train_step(x, y)
    for number in (0, 2, 4):
        expected = theirs[number].weight.detach().numpy()
        np.testing.assert_allclose(model[number].weight.value, expected, rtol=0, atol=1e-5)


# ---- trainers that share a graph


def adversaries(shards=1):
    """Return a generator and a discriminator, and their trainers."""
    rng = np.random.default_rng(7)
    generator = Sequential(Linear(3, 8, rng=rng), ReLU(), Linear(8, 6, rng=rng))
    critic = Sequential(Linear(6, 8, rng=rng), ReLU(), Linear(8, 1, rng=rng))
    options = {"batch_size": 20, "shards": shards, "quiet": True}
    return (
        ddbp.Trainer(generator, optimizer=ddbp.SGD(0.1), **options),
        ddbp.Trainer(critic, optimizer=ddbp.SGD(0.1), **options),
    )


NOISE = np.random.default_rng(8).standard_normal((20, 3)).astype(np.float32)
REAL, ONES = X[:20].astype(np.float32), np.ones((20, 1), np.float32)
ERROR = MeanSquaredError()


def generate(trainer, critic):
    """Take a step of the generator, through the critic."""
    batch = trainer.batch(NOISE, ONES)
    return trainer.step(ERROR(critic.model(trainer.model(batch.x)), batch.y))


def judge(trainer, generator):
    """Take a step of the critic on what is real and what is not."""
    batch = trainer.batch(REAL, ONES)
    false = trainer.model(batch.x.tape.input(generator.model(NOISE), gradient=False))
    return trainer.step(ERROR(trainer.model(batch.x) - false, batch.y))


@pytest.mark.parametrize("shards", [1, 4])
def test_step_of_one_trainer_leaves_nothing_in_the_gradients_of_another(shards):
    generator, critic = adversaries(shards)
    alone = adversaries(shards)[1]
    frozen = copy.deepcopy(generator.model)
    for _ in range(3):
        generate(generator, critic)
        assert all(parameter.store.stale for parameter in critic.model.parameters())
        generator.model[0].weight.value = frozen[0].weight.value
        generator.model[0].bias.value = frozen[0].bias.value
        generator.model[2].weight.value = frozen[2].weight.value
        generator.model[2].bias.value = frozen[2].bias.value
        assert judge(critic, generator) == judge(alone, generator)
    assert critic.parameters_sha256() == alone.parameters_sha256()


def test_step_of_a_trainer_changes_its_own_parameters_only():
    generator, critic = adversaries()
    before = values(critic.model)
    generate(generator, critic)
    assert values(critic.model) == before


def test_loss_of_a_batch_of_another_trainer_is_refused():
    generator, critic = adversaries()
    batch = critic.batch(REAL, ONES)
    with pytest.raises(
        ValueError, match="must be computed from a batch of this trainer; got a batch of"
    ):
        generator.step(ERROR(critic.model(batch.x), batch.y))
    tape = Tape()
    with pytest.raises(ValueError, match="got a tape of its own"):
        critic.step(ERROR(critic.model(tape.input(REAL)), ONES))


@pytest.mark.parametrize("early", [True, False])
def test_gradients_of_a_tape_of_its_own_do_not_join_the_next_step(early):
    x = X[:20].astype(np.float32)
    clean, other = make(), make()
    for trainer in (clean, other):
        for _ in range(3):
            if early:
                batch = trainer.batch(x, LABELS[:20])
            if trainer is other:
                tape = Tape()
                trainer.loss(trainer.model(tape.input(x)), LABELS[:20]).backward()
                assert trainer.model[0].weight.gradient.any()
            if not early:
                batch = trainer.batch(x, LABELS[:20])
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    assert clean.parameters_sha256() == other.parameters_sha256()


def test_tape_of_its_own_may_not_add_to_gradients_that_wait_for_an_update():
    trainer = make(accumulate=2)
    x = X[:20].astype(np.float32)
    trainer.train_step(x, LABELS[:20])
    with pytest.raises(
        ValueError, match=r"wait for an update of a trainer; got .* layers\.2\.weight"
    ):
        trainer.loss(trainer.model(Tape().input(x)), LABELS[:20]).backward()
    trainer.model.freeze()
    values_of = Tape().input(x)
    trainer.loss(trainer.model(values_of), LABELS[:20]).backward()
    assert values_of.grad.any()
