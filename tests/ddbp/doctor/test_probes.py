"""What forks of a run tell the doctor, what that costs, and that the run is the same with them."""

import re

import numpy as np
import pytest

import ddbp
from ddbp.doctor import finding, probes
from ddbp.doctor.finding import Finding
from ddbp.doctor.rules import EXACT
from layers import LSTM, BatchNorm, Linear, Sequential, Softmax, SoftmaxCrossEntropy, init

from .patients import HEALTHY, SICK, TRAINING, VALIDATION, dense, run

DATA = ddbp.ArrayDataset(*TRAINING)
SHUFFLED = TRAINING[0], np.random.default_rng(3).permutation(TRAINING[1])


def trained(doctor, model=None, rate=3e-3, epochs=5, **options):
    """Return the trainer of a run that a doctor has watched over."""
    usual = {"loss": SoftmaxCrossEntropy(), "batch_size": 32, "shards": 4, "quiet": True}
    optimizer = options.pop("optimizer", None) or ddbp.Adam(rate)
    callbacks = [ddbp.Instruments(6), doctor]
    trainer = ddbp.Trainer(
        model or dense(), optimizer=optimizer, callbacks=callbacks, **usual | options
    )
    trainer.fit(DATA, epochs=epochs, validation=ddbp.ArrayDataset(*VALIDATION))
    return trainer


def test_two_forks_tell_what_options_would_come_to():
    trainer = trained(ddbp.Doctor(), rate=1e-4, epochs=1)
    trial = probes.compare(trainer, {"learning_rate": 3e-3})
    usual, changed = trainer.fork(40), trainer.fork(40, learning_rate=3e-3)
    assert (trial.usual, trial.changed) == (np.mean(usual[-5:]), np.mean(changed[-5:]))
    assert trial.ratio < 0.6 < 1 < probes.compare(trainer, {"learning_rate": 1e-9}).ratio
    assert probes.compare(trainer, {"learning_rate": 1e38}).ratio == np.inf


@pytest.mark.parametrize(
    ("model", "learns"),
    [
        (dense(), True),
        (dense(last=(Softmax(),)), False),
        (dense(bias_init=init.constant(-5.0)), False),
    ],
)
def test_few_samples_are_learnt_by_heart_unless_the_model_is_at_fault(model, learns):
    # Not the data: no label belongs to its sample.
    trainer = trained(ddbp.Doctor(probes=False), model, rate=1e-9, epochs=1)
    before = trainer.parameters_sha256()
    first, last = probes.overfit(trainer)
    assert (last / first < 0.2) == learns
    assert (last / first > 0.6) != learns
    assert trainer.parameters_sha256() == before


@pytest.mark.parametrize("name", ["clips_always", "epsilon_large", "dropout_high"])
def test_a_remedy_that_helps_is_proven(name, tmp_path):
    doctor = ddbp.Doctor(probes=True)
    options = {key: value for key, value in SICK[name].items() if key != "model"}
    trained(doctor, SICK[name].get("model"), run_dir=tmp_path, **options)
    found = doctor.findings[0]
    assert (found.rule, found.proven) == (name, True)
    assert found.numbers["fork"] < 0.95 * found.numbers["usual_fork"]
    said = (
        r"Set \w+=[\d.e-]+\. Proven: a fork of 40 steps with that came to a loss of [\d.]+ instead"
    )
    assert re.match(said, found.remedy)
    assert finding.read(tmp_path) == doctor.findings


def test_a_remedy_that_does_not_help_is_not_proven():
    doctor = ddbp.Doctor(probes=True)
    # The weights have gone: they do not come back in so few steps.
    trained(doctor, optimizer=ddbp.SGD(0.1, weight_decay=0.3))
    (found,) = doctor.findings
    assert (found.rule, found.proven) == ("decay_high", False)
    assert "Set weight_decay=0.003. Not proven: a fork of 40 steps" in found.remedy


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"shards": 16}, " But not that alone: batch_norm_of_few would be found then."),
        ({"shards": 2}, ""),
        ({"momentum": 0.9, "clip_norm": 1.0}, ""),
        ({"momentum": 0.999}, " But not that alone: momentum_high would be found then."),
    ],
)
def test_a_change_that_would_be_a_disease_itself_is_not_proposed(changes, fault):
    doctor = ddbp.Doctor(probes=False)
    model = dense(middle=(BatchNorm(48),))
    trainer = trained(doctor, model, optimizer=ddbp.SGD(0.1, momentum=0.5), epochs=1)
    found = Finding("another", 20, "b", "c", "Set it.", changes=changes)
    judged = probes.sound(doctor.chart(trainer), found, EXACT)
    assert (judged.changes, judged.remedy) == ({} if fault else changes, f"Set it.{fault}")


def test_what_no_fork_can_try_is_neither():
    for name in ("imbalance", "batch_norm_of_few", "softmax_twice"):
        found = run(**SICK[name]).findings[0]
        assert found.proven is None


def test_a_rate_that_is_a_little_low_is_found_by_forks_alone():
    rate = 2e-4
    doctors = ddbp.Doctor(probes=False), ddbp.Doctor(probes=True)
    for doctor in doctors:
        trained(doctor, rate=rate)
    assert doctors[0].findings == []
    (found,) = doctors[1].findings
    assert (found.rule, found.proven) == ("rate_low", True)
    assert found.changes["learning_rate"] >= 10 * rate


def test_a_rate_at_which_nothing_is_learnt_is_not_blamed_on_the_data():
    found = {}
    for probing in (False, True):
        doctor = ddbp.Doctor(probes=probing)
        trained(doctor, optimizer=ddbp.SGD(3e-3))
        found[probing] = [each.rule for each in doctor.findings]
    # Without forks this comes out when shards agree, which takes more steps.
    assert found == {False: ["learns_nothing", "rate_low"], True: ["rate_low"]}


def test_labels_that_are_shuffled_are_not_blamed_on_the_rate(monkeypatch):
    monkeypatch.setattr(ddbp, "Doctor", lambda: doctor)
    doctor = ddbp.doctor.doctor.Doctor(probes=True)
    assert [each.rule for each in run(data=SHUFFLED).findings] == ["learns_nothing"]
    assert doctor._probes.spent > 0


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_are_not_alarmed_by_forks(name, monkeypatch):
    doctor = ddbp.Doctor(probes=True)
    monkeypatch.setattr(ddbp, "Doctor", lambda: doctor)
    assert run(**HEALTHY[name]).findings == []


@pytest.mark.parametrize(("budget", "spent"), [(0.015, 0), (0.79, 0), (0.8, 80), (5.0, 80)])
def test_forks_take_no_more_steps_than_the_budget_has(budget, spent):
    doctor = ddbp.Doctor(probe_budget=budget)
    trained(doctor, rate=1e-5)
    assert doctor._probes.spent == spent
    assert doctor.findings[0].proven is (True if spent else None)


@pytest.mark.parametrize("probing", [False, True])
def test_the_run_is_the_same_with_forks_and_without(probing):
    expected = trained(ddbp.Doctor(probes=False), rate=1e-6).parameters_sha256()
    assert trained(ddbp.Doctor(probes=probing), rate=1e-6).parameters_sha256() == expected


def test_where_no_fork_can_be_taken_the_doctor_looks_on(capsys):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 12, 3)), rng.standard_normal((64, 12, 2))
    doctor = ddbp.Doctor(probes=True)
    trainer = ddbp.Trainer(
        Sequential(LSTM(3, 8, rng=rng), Linear(8, 2, rng=rng)),
        loss="mse",
        optimizer=ddbp.SGD(1e-2, momentum=0.999),
        batch_size=16,
        truncate=4,
        callbacks=[ddbp.Instruments(3), doctor],
        quiet=True,
    )
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=2)
    assert [(each.rule, each.proven) for each in doctor.findings] == [("momentum_high", None)]
    assert not trainer.forkable


class Plain(ddbp.SGD):
    """An optimizer that cannot be made again from its attributes."""

    def __init__(self, rates):
        super().__init__(rates[0], momentum=0.999)


def test_an_optimizer_of_a_scripts_own_is_left_alone():
    doctor = ddbp.Doctor(probes=True)
    trainer = trained(doctor, optimizer=Plain([1e-3]), epochs=1)
    assert [(each.rule, each.proven) for each in doctor.findings] == [("momentum_high", None)]
    assert not trainer.forkable


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probes": "loud"}, 'probes must be "unsure", True or False'),
        ({"probes": None}, "probes must be"),
        ({"probe_budget": -1}, "probe_budget"),
        ({"probe_budget": float("nan")}, "probe_budget"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ddbp.Doctor(**options)
