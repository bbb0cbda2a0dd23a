"""Each rule fires on a run that has its disease, and all are silent on healthy runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from ddbp.doctor.rules import RULES
from layers import Linear, ReLU, Sequential

from .patients import HEALTHY, SICK, run

PAGE = Path(__file__).resolve().parents[3] / "docs" / "doctor.md"


def test_every_rule_has_a_patient_and_a_paragraph():
    names = [each.name for each in RULES]
    assert [*SICK] == names
    paragraphs = dict(re.findall(r"^### (\w+)\n\n(.*?)\n$", PAGE.read_text(), re.M | re.S))
    assert [*paragraphs] == names
    for each in RULES:
        assert all(text in paragraphs[each.name] for text in (each.cause, each.remedy))


@pytest.mark.parametrize("name", SICK)
def test_a_disease_is_named_by_the_first_finding(name):
    findings = run(**SICK[name]).findings
    assert [each.rule for each in findings[:1]] == [name], findings
    assert all(each.remedy and each.evidence and each.numbers is not None for each in findings)


@pytest.mark.parametrize("name", ["batch_norm_of_few", "dropout_high"])
def test_the_layer_itself_is_named_also_where_it_runs_as_one_call_with_others(name):
    (finding,) = run(**SICK[name]).findings
    assert finding.layer == "layers.1"


def test_the_second_of_two_linear_maps_is_named_and_not_the_activation_behind_it():
    rng = np.random.default_rng(1)
    maps = Linear(64, 48, rng=rng), Linear(48, 48, rng=rng), ReLU(), Linear(48, 10, rng=rng)
    (finding,) = run(model=Sequential(*maps)).findings
    assert (finding.rule, finding.layer) == ("linear_twice", "layers.1")


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_not_alarmed(name):
    assert run(**HEALTHY[name]).findings == []
