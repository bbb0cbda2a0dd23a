"""What is said of a precision, and that a trainer applies it."""

import re

import numpy as np
import pytest

import ddbp
from ddbp.training import precision
from layers import Linear, SoftmaxCrossEntropy


def make(**options):
    return ddbp.Trainer(
        Linear(4, 3, rng=np.random.default_rng(0)),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.1),
        batch_size=8,
        **options,
    )


def test_a_trainer_gives_its_precision_to_its_model():
    assert make(quiet=True, precision="bf16").model.precision.name == "bf16"
    assert make(quiet=True).model.precision.name == "float32"


def test_a_slower_precision_is_told_before_training(capsys, monkeypatch):
    monkeypatch.setattr(precision, "times_float32", {"bf16": 1.25, "bf16-dot": 0.5}.get)
    make(precision="bf16")
    said = "A dense product of 256 x 256 matrices in bf16 takes 1.25 times as long as in float32"
    assert said in capsys.readouterr().err
    monkeypatch.setattr(precision, "times_float32", {"bf16": 0.25}.get)
    make(precision="bf16")
    make(precision="bf16", quiet=True)
    assert "A dense product" not in capsys.readouterr().err


def test_amx_that_is_refused_is_told_with_the_reason(capsys, monkeypatch):
    monkeypatch.setattr(precision, "times_float32", {"bf16": 1, "float32": 1}.get)
    monkeypatch.setattr(precision.amx, "REFUSAL", "Linux says no")
    make(precision="bf16")
    said = "Products in bf16 are made without AMX, to the same bits: Linux says no."
    assert said in capsys.readouterr().err
    make(precision="float32")
    monkeypatch.setattr(precision.amx, "REFUSAL", "")
    make(precision="bf16")
    assert "AMX" not in capsys.readouterr().err


def test_the_time_of_a_product_is_told_against_that_of_float32():
    assert precision.times_float32("float32") == precision.times_float32("float16") == 1
    assert 0 < precision.times_float32("bf16") < 100


def test_operands_are_not_split_where_that_takes_longer(monkeypatch):
    monkeypatch.setattr(precision, "times_float32", {"bf16x3": 1.93}.get)
    refusal = (
        "Trainer: a dense product in bf16x3 must take less time than in float32; got 1.93 times as"
        ' much, of 256 x 256 matrices. Pass precision="float32": it is more exact, too.'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(refusal)}$"):
        make(quiet=True, precision="bf16x3")
    monkeypatch.setattr(precision, "times_float32", {"bf16x3": 0.31}.get)
    assert make(precision="bf16x3").model.precision.name == "bf16x3"


def test_the_time_of_a_product_of_split_operands_is_measured():
    assert 0 < precision.times_float32("bf16x3") < 100
