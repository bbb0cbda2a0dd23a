"""The clinic: patients are functions of their numbers, others' rules hold at their thresholds, and
nothing is told of the runs that are set aside.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "bench"))

from lib import clinic_tables, diseases, doses, healthy, patients, peers, records

sys.path.pop(0)


def _weights(**numbers):
    usual = {
        "norm": 5.0,
        "variance": 0.02,
        "largest": 0.5,
        "tiny": 0.0,
        "gradient_mean": 1e-3,
        "gradient_norm": 0.1,
        "gradient_range": 4e-3,
        "gradient_zeros": 0.0,
        "update": 0.01,
    }
    return records.OfParameter(**usual | numbers)


def _output(kind="ReLU", **numbers):
    usual = {
        "mean": 0.5,
        "deviation": 1.0,
        "finite": True,
        "not_positive": 0.5,
        "silent_units": 0.0,
        "tiny_units": 0.0,
        "beyond": {},
    }
    return records.OfLayer(kind, **usual | numbers)


def _record(parameters=(), layers=(), losses=None, epochs=(), **facts):
    """Return a record of 60 steps that no rule but those asked for objects to."""
    record = records.Record(patients.Options(), classes=2, shares=[0.5, 0.5], **facts)
    record.losses = losses or [math.log(2) * 0.9**i for i in range(60)]
    record.steps = [records.OfStep(i, [*parameters], [*layers]) for i in (0, 20, 40)]
    record.epochs = [*epochs]
    return record


def _epoch(loss=0.5, validation_loss=0.5, accuracy=0.5, validation_accuracy=0.5):
    return records.OfEpoch(20, loss, validation_loss, accuracy, validation_accuracy)


_SQUASHED = dict.fromkeys(("sagemaker", "deepdiagnosis", "deepchecker"), 0.9)
_HOLDING = [
    ("SageMaker Debugger", "VanishingGradient", {"parameters": [_weights(gradient_mean=9e-8)]}),
    ("SageMaker Debugger", "DeadRelu", {"layers": [_output(silent_units=0.51)]}),
    ("SageMaker Debugger", "SaturatedActivation", {"layers": [_output("Tanh", beyond=_SQUASHED)]}),
    (
        "SageMaker Debugger",
        "PoorWeightInitialization",
        {"parameters": [_weights(variance=0.2), _weights(variance=0.019)]},
    ),
    ("SageMaker Debugger", "WeightUpdateRatio", {"parameters": [_weights(update=60.0)]}),
    ("SageMaker Debugger", "AllZero", {"parameters": [_weights(gradient_zeros=1.0)]}),
    ("SageMaker Debugger", "UnchangedTensor", {"parameters": [_weights(update=0.0)]}),
    ("SageMaker Debugger", "LossNotDecreasing", {"losses": [0.7] * 60}),
    ("SageMaker Debugger", "Overfit", {"epochs": [_epoch(validation_loss=0.56)]}),
    ("AUTOTRAINER", "vanish", {"parameters": [_weights(gradient_norm=9e-5), _weights()]}),
    ("AUTOTRAINER", "explode", {"losses": [1e3] * 60, "parameters": [_weights()]}),
    ("AUTOTRAINER", "dying", {"parameters": [_weights(gradient_zeros=0.7)]}),
    ("AUTOTRAINER", "slow", {"epochs": [_epoch(), _epoch(accuracy=0.505)]}),
    ("AUTOTRAINER", "oscillating", {"epochs": [_epoch(accuracy=a) for a in (0.2, 0.5, 0.4, 0.5)]}),
    ("DeepDiagnosis", "dead", {"layers": [_output(not_positive=0.7)]}),
    ("DeepDiagnosis", "saturated", {"layers": [_output("Sigmoid", beyond=_SQUASHED)]}),
    ("DeepDiagnosis", "variance", {"layers": [_output(deviation=3.2)]}),
    ("UMLAUT", "inputs beyond 1", {"inputs": (0.0, -1.1, 1.0)}),
    ("UMLAUT", "overfitting", {"epochs": [_epoch(), _epoch(validation_loss=0.51)]}),
    ("UMLAUT", "accuracy too high", {"epochs": [_epoch(accuracy=0.99, validation_accuracy=0.96)]}),
    ("TheDeepChecker", "initial loss", {"losses": [1.4 * 0.8**i for i in range(60)]}),
    ("TheDeepChecker", "dead", {"layers": [_output(tiny_units=0.51)]}),
    ("TheDeepChecker", "deviation", {"layers": [_output(deviation=0.49)]}),
    ("TheDeepChecker", "vanishing", {"parameters": [_weights(gradient_mean=9e-7)]}),
    ("TheDeepChecker", "update ratio", {"parameters": [_weights(update=0.6)]}),
    ("TheDeepChecker", "loss", {"losses": [0.7 * 0.995**i for i in range(60)]}),
    ("TheDeepChecker", "fluctuating", {"losses": [0.5 + 0.1 * (-1) ** i for i in range(60)]}),
]


@pytest.mark.parametrize(("peer", "rule", "seen"), _HOLDING, ids=lambda each: str(each)[:30])
def test_rule_of_another_diagnoser_holds_at_its_threshold_and_not_without(peer, rule, seen):
    look = peers.PEERS[peer]
    calm = _record([_weights()], [_output()], inputs=(0.0, -1.0, 1.0))
    assert rule in peers.alarms(look(_record(**seen)))
    assert rule not in peers.alarms(look(calm))


def test_alarms_of_others_stand_for_diseases_of_the_clinic():
    for peer, rules in peers.FITS.items():
        for rule, named in rules.items():
            assert named <= diseases.DISEASES.keys(), (peer, rule)


def test_patient_is_a_function_of_its_number():
    for disease, (_, kinds) in diseases.DISEASES.items():
        for kind in kinds:
            assert diseases.patient(disease, kind, 3) == diseases.patient(disease, kind, 3)
            assert diseases.patient(disease, kind, 3) != diseases.patient(disease, kind, 4)
    assert [*map(healthy.healthy, range(40))] == [*map(healthy.healthy, range(40))]


def test_there_are_forty_diseases_and_more():
    assert len(diseases.DISEASES) >= 40


def _case(number, **result):
    options = replace(patients.Options(), seed=number)
    return clinic_tables.Case(
        result.pop("disease", ""),
        "mlp",
        clinic_tables.HALVES[number % 2],
        patients.Result(options, record=records.Record(options), **{"score": 1.0} | result),
    )


def test_nothing_is_told_of_single_runs_that_are_set_aside():
    alarmed = {"findings": ["rate_high"], "steps": [20]}
    assert len([*clinic_tables.lines([_case(2, **alarmed)])]) == 1
    assert not [*clinic_tables.lines([_case(3, **alarmed)])]


def test_first_finding_alone_decides_whether_the_cause_is_named():
    disease = {"disease": "rate too low", "score": 0.1}
    right = _case(0, findings=["rate_low", "overfits"], steps=[60, 80], **disease)
    wrong = _case(2, findings=["overfits", "rate_low"], steps=[60, 80], **disease)
    rows, more = clinic_tables.rows_of([right, wrong, _case(4)])
    (row,) = rows
    assert (row["runs"], row["suffer"], row["found"], row["named"]) == (2, 2, 2, 1)
    (rule,) = (each for each in more["rules"] if each["rule"] == "rate_low" and each["runs"])
    assert (rule["hits"], rule["raised"], rule["right"], rule["false alarms"]) == (1, 1, 1, 0)


def test_healthy_run_without_the_result_asked_of_it_does_not_count():
    alarmed = {"findings": ["rate_high"], "steps": [20]}
    _, more = clinic_tables.rows_of([_case(0), _case(2, **alarmed), _case(4, score=0.1, **alarmed)])
    total = more["totals"][0]
    assert (total["healthy drawn"], total["healthy"], total["alarmed"]) == (3, 2, 1)


def test_interval_is_that_of_wilson():
    # Newcombe 1998, table I: 15 of 148 and 0 of 20.
    assert clinic_tables.wilson(15, 148) == pytest.approx([0.0624, 0.1605], abs=2e-4)
    assert clinic_tables.wilson(0, 20) == pytest.approx([0.0, 0.1611], abs=2e-4)


def test_run_leaves_a_record_that_all_can_judge():
    result = patients.run(replace(diseases.DEFAULTS["mlp"], steps=60))
    assert not result.error
    assert len(result.record.losses) >= 60
    assert result.record.steps[0].layers[-1].finite
    assert all(look(result.record) for look in peers.PEERS.values())


def test_what_is_refused_counts_as_found():
    result = patients.run(diseases.patient("missing values", "mlp", 0))
    case = clinic_tables.Case("missing values", "mlp", "tuning", result)
    assert case.named
    assert "must be finite" in result.error


def test_doses_are_of_diseases_and_options_that_there_are():
    grid = [*doses.doses()]
    assert {disease for disease, _, _ in grid} - {"label noise"} <= diseases.DISEASES.keys()
    assert len({options for _, _, options in grid}) == len(grid)
