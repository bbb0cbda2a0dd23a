"""How scripts end that refuse what they are given, and those that fail."""

import sys
from pathlib import Path

import pytest

from ddbp import script
from ddbp.comm.base import CommunicationError
from layers.errors import message

SCRIPTS = Path(__file__).parents[3] / "scripts"
USUAL = ("--quiet", "--epochs", "1")


@pytest.mark.parametrize(
    ("name", "flags", "told"),
    [
        ("train_digits", ("--memory", "banana"), "Trainer: memory must be a size "),
        (
            "train_digits",
            ("--compression", "top-k:99999999"),
            "TopK: count must be at most the number of parameters that are trained; got 99999999",
        ),
        (
            "train_digits",
            ("--exchange", "LocalSGD(7,2)"),
            "Trainer: batch_size must be a multiple of the 7 workers; got 64.",
        ),
        ("train_char_lm", ("--memory", "10MB"), "Trainer: memory= needs whole sequences; got"),
        ("train_digits", ("--parameters", "no.safetensors"), "load_parameters: path must be a"),
    ],
)
def test_a_script_tells_in_a_line_what_it_refuses(name, flags, told, run_python, tmp_path):
    given = (*USUAL, "--run-dir", tmp_path / "run", *flags)
    finished = run_python(SCRIPTS / f"{name}.py", *given)
    assert finished.status == 1
    assert finished.err.startswith(told)
    assert finished.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "flags", "reason"),
    [
        ("optimise_physics", ("--compression", "sign"), "the constants are in float64"),
        ("optimise_physics", ("--precision", "bf16"), "the constants are in float64"),
        ("image_waves", ("--rule", "sign_symmetry"), "the model has no layers"),
        ("train_tree", ("--memory", "10MB"), "the model is no Sequential"),
        ("train_forecast", ("--memory", "10MB"), "the model is no Sequential"),
    ],
)
def test_a_script_has_no_flags_that_cannot_work(name, flags, reason, run_python):
    finished = run_python(SCRIPTS / f"{name}.py", *flags)
    assert finished.status == 2
    assert finished.err.startswith(f"{name}.py: error: argument {flags[0]}: {reason}\n")


def test_each_rank_tells_a_line(mpirun, tmp_path):
    path = SCRIPTS / "train_digits.py"
    finished = mpirun(2, path, *USUAL, "--run-dir", tmp_path / "run", "--memory", "1kB")
    assert finished.status == 1
    assert "Traceback" not in finished.err
    assert "Trainer: a step must fit into memory; got memory=1 kB." in finished.err


def test_what_may_be_true_of_one_rank_alone_keeps_its_traceback():
    def waits():
        raise CommunicationError(message("rank 0", "all must come", "nothing from rank 1", "Wait."))

    with pytest.raises(CommunicationError):
        script.start(waits)


def test_errors_that_refuse_nothing_keep_their_traceback():
    def divides():
        raise ValueError("math domain error")

    with pytest.raises(ValueError, match="domain"):
        script.start(divides)


def test_a_script_that_ends_well_goes_on(monkeypatch):
    monkeypatch.setattr(sys, "exit", lambda status: pytest.fail("it has ended"))
    script.start(lambda: None)
