"""Each rule fires on a run that has its disease, and all are silent on healthy runs."""

import re
from pathlib import Path

import numpy as np
import pytest

import ddbp
from ddbp.doctor.rules import RULES
from ddbp.observers.observer import StepPhase
from layers import LSTM, Linear, MeanSquaredError, ReLU, Sequential, Tanh, init

from .patients import (
    CHANGES,
    HEALTHY,
    OF_RANKS,
    SICK,
    TRAINING,
    at_random,
    by_number,
    dense,
    recurrence,
    run,
    sequences,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "doctor.md"


def test_every_rule_has_a_patient_and_a_paragraph():
    names = [each.name for each in RULES]
    assert [*SICK] == [name for name in names if name not in OF_RANKS]
    paragraphs = dict(re.findall(r"^### (\w+)\n\n(.*?)\n$", PAGE.read_text(), re.M | re.S))
    assert [*paragraphs] == names
    for each in RULES:
        assert all(text in paragraphs[each.name] for text in (each.cause, each.remedy))


@pytest.mark.parametrize("name", SICK)
def test_a_disease_is_named_by_the_first_finding(name):
    findings = run(**SICK[name]).findings
    assert [each.rule for each in findings[:1]] == [name], findings
    assert all(each.remedy and each.evidence and each.numbers is not None for each in findings)
    assert findings[0].changes == CHANGES.get(name, {})
    # What is said and what is done are the same.
    for option, value in findings[0].changes.items():
        assert f"{option}={value!r}" in findings[0].remedy


@pytest.mark.parametrize("name", ["batch_norm_of_few", "dropout_high"])
def test_the_layer_itself_is_named_also_where_it_runs_as_one_call_with_others(name):
    (finding,) = run(**SICK[name]).findings
    assert finding.layer == "layers.1"


def test_the_second_of_two_linear_maps_is_named_and_not_the_activation_behind_it():
    rng = np.random.default_rng(1)
    maps = Linear(64, 48, rng=rng), Linear(48, 48, rng=rng), ReLU(), Linear(48, 10, rng=rng)
    (finding,) = run(model=Sequential(*maps)).findings
    assert (finding.rule, finding.layer) == ("linear_twice", "layers.1")


def test_decay_apart_from_the_gradient_that_outweighs_the_steps_is_found():
    (finding,) = run(optimizer=ddbp.AdamW(1e-2, weight_decay=10.0)).findings
    assert finding.rule == "decay_high"
    assert finding.changes == {"weight_decay": 0.1}
    assert run(optimizer=ddbp.AdamW(1e-2, weight_decay=0.1)).findings == []


def test_weights_of_zero_in_most_layers_are_found_as_units_that_are_alike():
    (finding,) = run(model=dense(Tanh, weight_init=init.zeros)).findings
    assert finding.rule == "units_alike"


def test_saturated_gates_of_a_recurrence_are_named():
    (finding,) = run(**sequences(recurrence(LSTM, gain=30.0, recurrent=10.0))).findings
    assert (finding.rule, finding.layer) == ("saturated", "layers.0.cells.0")


def test_gradients_that_layers_add_up_are_found_without_a_transform():
    class Keep(ddbp.Callback):
        def on_phase(self, trainer, phase):
            if phase is StepPhase.UPDATE:
                for each in trainer.model.parameters():
                    each.store.stale = False

    # Of several shards the tape itself refuses that.
    findings = run(callbacks=[Keep()], shards=1).findings
    assert findings[0].rule == "gradient_not_cleared"
    assert "the gradient of the last bias is off by" in findings[0].evidence


def test_updates_that_are_lost_in_weights_are_found():
    findings = run(optimizer=ddbp.SGD(1e-9)).findings
    assert findings[0].rule == "underflows"
    assert "of the weights stay as they are" in findings[0].evidence


def test_one_label_for_all_and_tiny_inputs_are_found():
    x, y = TRAINING
    (finding,) = run(data=(x, np.full_like(y, 3))).findings
    assert (finding.rule, finding.evidence) == ("imbalance", "all labels are the same")
    (finding,) = run(data=(x * 3e-5, y)).findings
    assert finding.rule == "inputs_not_normalised"


def test_targets_that_are_numbers_are_looked_at_too():
    x, y = TRAINING[0], TRAINING[0][:, 10:50].mean(axis=1, keepdims=True) * 4
    options = {"model": dense(outputs=1), "loss": MeanSquaredError(), "data": (x, y)}
    assert [each.rule for each in run(order=by_number, **options).findings][:1] == ["data_sorted"]
    assert run(order=at_random, **options).findings == []


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_not_alarmed(name):
    assert run(**HEALTHY[name]).findings == []
