"""Schedules: against PyTorch where it has the same, else against their equations."""

import math

import numpy as np
import pytest

import ddbp
from layers import Linear, MeanSquaredError

STEPS = 30


def torch_rates(make, losses=None):
    """Return the rates of thirty steps of a PyTorch scheduler, made by make(optimizer,
    lr_scheduler).
    """
    torch = pytest.importorskip(
        "torch", reason="PyTorch, the oracle, is not installed: pip install 'ddbp[oracle]'"
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5)
    scheduler = make(optimizer, torch.optim.lr_scheduler)
    rates = []
    for step in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([] if losses is None else [losses[step]]))
    return rates


def rates(schedule):
    """Return the rates of thirty steps."""
    return [schedule.rate(step) for step in range(STEPS)]


def test_number_is_a_constant():
    assert rates(ddbp.Constant(0.25)) == [0.25] * STEPS


def test_step_decay_is_that_of_pytorch():
    expected = torch_rates(lambda o, s: s.StepLR(o, 7, gamma=0.3))
    assert rates(ddbp.StepDecay(0.5, every=7, factor=0.3)) == pytest.approx(expected, rel=1e-12)


def test_step_decay_at_given_steps_is_that_of_pytorch():
    expected = torch_rates(lambda o, s: s.MultiStepLR(o, [4, 20], gamma=0.3))
    assert rates(ddbp.StepDecay(0.5, at=(20, 4), factor=0.3)) == pytest.approx(expected, rel=1e-12)


def test_exponential_is_that_of_pytorch():
    expected = torch_rates(lambda o, s: s.ExponentialLR(o, 0.9))
    assert rates(ddbp.Exponential(0.5, factor=0.9)) == pytest.approx(expected, rel=1e-12)


def test_exponential_reaches_its_factor_after_its_steps():
    assert ddbp.Exponential(0.5, factor=0.1, steps=20).rate(20) == pytest.approx(0.05, rel=1e-12)


def test_cosine_is_that_of_pytorch():
    expected = torch_rates(lambda o, s: s.CosineAnnealingLR(o, STEPS - 1, eta_min=0.01))
    assert rates(ddbp.Cosine(0.5, steps=STEPS - 1, final=0.01)) == pytest.approx(
        expected, rel=1e-12
    )


def test_cosine_stays_at_its_end():
    schedule = ddbp.Cosine(0.5, steps=10, final=0.01)
    assert schedule.rate(10) == schedule.rate(1000) == pytest.approx(0.01)


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_cosine_with_restarts_is_that_of_pytorch(growth):
    expected = torch_rates(
        lambda o, s: s.CosineAnnealingWarmRestarts(o, 4, T_mult=growth, eta_min=0.01)
    )
    found = rates(ddbp.CosineRestarts(0.5, steps=4, growth=growth, final=0.01))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_polynomial_is_that_of_pytorch(power):
    expected = torch_rates(lambda o, s: s.PolynomialLR(o, total_iters=20, power=power))
    found = rates(ddbp.Polynomial(0.5, steps=20, power=power))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_schedule_by_epoch_changes_with_epochs_only():
    schedule = ddbp.WarmUp(ddbp.ByEpoch(ddbp.StepDecay(0.5, every=2, factor=0.5)), steps=3)
    found = []
    for epoch in range(5):
        schedule.begin_epoch(epoch)
        found += [schedule.rate(3 + step) for step in range(10)]
    assert found == [0.5] * 20 + [0.25] * 20 + [0.125] * 10


@pytest.mark.parametrize("own_loop", [False, True])
def test_epochs_of_fit_and_of_batches_are_told_to_the_schedule(own_loop):
    seen = []

    class Recorded(ddbp.Schedule):
        def rate(self, step):
            seen.append(epochs.rate(step))
            return 0.1

        def begin_epoch(self, epoch):
            epochs.begin_epoch(epoch)

    epochs = ddbp.ByEpoch(ddbp.StepDecay(1.0, at=(1, 2), factor=0.5))
    model, loss = Linear(2, 1, rng=np.random.default_rng(0)), MeanSquaredError()
    optimizer = ddbp.SGD(Recorded())
    trainer = ddbp.Trainer(model, loss=loss, optimizer=optimizer, batch_size=2, quiet=True)
    data = ddbp.ArrayDataset(np.zeros((4, 2)), np.zeros((4, 1)))
    if own_loop:
        for batch in trainer.batches(data, epochs=3):
            trainer.step(loss(model(batch.x), batch.y))
    else:
        trainer.fit(data, epochs=3)
    assert seen == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_one_cycle_is_that_of_pytorch():
    expected = torch_rates(
        lambda o, s: s.OneCycleLR(o, 0.5, total_steps=STEPS + 1, cycle_momentum=False)
    )
    assert rates(ddbp.OneCycle(0.5, steps=STEPS + 1)) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_peaks_at_its_rate():
    assert max(rates(ddbp.OneCycle(0.5, steps=STEPS, rise=0.5))) == pytest.approx(0.5)


def test_warm_up_rises_in_a_line_and_then_follows_the_schedule():
    cosine = ddbp.Cosine(0.5, steps=20)
    found = rates(ddbp.WarmUp(cosine, steps=5))
    assert found[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert found[5:] == [cosine.rate(step) for step in range(STEPS - 5)]


@pytest.mark.parametrize(
    "schedule",
    [
        ddbp.Cosine(0.5, steps=20),
        ddbp.OneCycle(0.5, steps=20),
        ddbp.WarmUp(ddbp.OneCycle(0.5, steps=20), steps=5),
        ddbp.ByEpoch(ddbp.WarmUp(0.5, steps=5)),
        ddbp.Plateau(0.5, patience=0),
    ],
)
def test_a_schedule_knows_the_rate_that_it_was_made_with(schedule):
    for value in (1.0, 2.0):
        schedule.observe(value)
    assert schedule.base_rate == 0.5


def test_warm_up_begins_above_the_given_fraction():
    assert ddbp.WarmUp(0.5, steps=4, start=0.5).rate(0) == pytest.approx(0.5 * (0.5 + 0.5 / 4))


@pytest.mark.parametrize("patience", [0, 2])
def test_plateau_is_that_of_pytorch(patience):
    losses = [3.0, 2.0, 2.0, 1.9999, 2.5, 1.0, *[1.0] * 12, 0.5, *[0.6] * 11]
    expected = torch_rates(
        lambda o, s: s.ReduceLROnPlateau(o, factor=0.5, patience=patience, min_lr=0.01), losses
    )
    schedule = ddbp.Plateau(0.5, factor=0.5, patience=patience, minimum=0.01)
    found = []
    for step, loss in enumerate(losses):
        found.append(schedule.rate(step))
        schedule.observe(loss)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[-1] < found[0]


def test_plateau_counts_nan_as_no_progress():
    schedule = ddbp.Plateau(0.5, factor=0.5, patience=0)
    schedule.observe(math.nan)
    assert schedule.rate(1) == 0.25


def test_warm_up_tells_its_schedule_of_the_loss():
    schedule = ddbp.WarmUp(ddbp.Plateau(0.5, factor=0.5, patience=0), steps=2)
    for _ in range(2):
        schedule.observe(1.0)
    assert schedule.rate(5) == 0.25


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("stop", range(8))
def test_plateau_goes_on_from_its_state(stop, wrapped):
    def make():
        plateau = ddbp.Plateau(0.5, factor=0.5, patience=1)
        return ddbp.WarmUp(plateau, steps=2) if wrapped else plateau

    losses = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.5, 1.2, 1.1]
    whole, other = make(), make()
    for number, loss in enumerate(losses):
        if number == stop:
            other.load_state(whole.state())
        whole.observe(loss)
        if number >= stop:
            other.observe(loss)
            assert other.rate(9) == whole.rate(9)
    assert whole.rate(9) == 0.0625
    assert repr(whole) == repr(make())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ddbp.OneCycle(0.5, steps=9), ddbp.OneCycle(0.5, steps=9, final_factor=10.0)),
        (ddbp.WarmUp(0.5, steps=3), ddbp.WarmUp(0.5, steps=3, start=0.1)),
        (ddbp.Plateau(0.5), ddbp.Plateau(0.5, minimum=0.1)),
        (ddbp.CosineRestarts(0.5, steps=3), ddbp.CosineRestarts(0.5, steps=3, growth=2)),
        (ddbp.Polynomial(0.5, steps=3), ddbp.Polynomial(0.5, steps=3, power=2.0)),
        (ddbp.ByEpoch(ddbp.Plateau(0.5)), ddbp.ByEpoch(ddbp.Plateau(0.4))),
        (ddbp.Constant(0.1), ddbp.Constant(0.1 + 1e-9)),
    ],
)
def test_schedules_that_differ_say_so(one, other):
    assert repr(one) != repr(other)


def test_linear_scaling_multiplies_the_rate_as_the_batch():
    assert ddbp.linear_scaling(0.1, 1024) == pytest.approx(0.4)
    assert ddbp.linear_scaling(0.1, 64, base_batch_size=128) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "schedule",
    [
        ddbp.Constant(0.5),
        ddbp.StepDecay(0.5, every=7),
        ddbp.StepDecay(0.5, at=(3, 9)),
        ddbp.Exponential(0.5, factor=0.9),
        ddbp.Cosine(0.5, steps=9),
        ddbp.CosineRestarts(0.5, steps=3, growth=2),
        ddbp.Polynomial(0.5, steps=9),
        ddbp.OneCycle(0.5, steps=9),
        ddbp.WarmUp(0.5, steps=3),
        ddbp.ByEpoch(ddbp.Cosine(0.5, steps=9)),
        ddbp.Plateau(0.5),
    ],
    ids=repr,
)
def test_rate_is_a_function_of_the_step_alone(schedule):
    backwards = [schedule.rate(step) for step in reversed(range(STEPS))]
    assert backwards[::-1] == rates(schedule)
