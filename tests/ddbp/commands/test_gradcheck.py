"""`ddbp gradcheck`: what it prints, what it returns, and how it finds a layer of the user's own."""

import contextlib
import io
import sys

import pytest

import layers.gradient_check.cases
import layers.gradient_check.mutants
from ddbp.commands.cli import main
from layers.gradient_check.cases import CASES
from layers.gradient_check.mutants import MUTANTS

MINE = '''
import numpy as np
import layers


class Scale(layers.Layer):
    """y = gain x, right."""

    def __init__(self, features=3):
        self.gain = layers.Parameter(np.full(features, 2.0, np.float32))

    def forward(self, call, x):
        call.save(x)
        return x * self.gain.value

    def backward(self, call, dy):
        (x,) = call.saved
        for gradient, rows in call.shards(self.gain, dy):
            gradient += (dy[rows] * x[rows]).sum(axis=0)
        return (dy * call.feedback(self.gain),)


class Wrong(Scale):
    """Backward has the wrong sign."""

    def backward(self, call, dy):
        return tuple(-g for g in super().backward(call, dy))


class WithExample(Scale):
    def __init__(self):
        super().__init__(7)

    @staticmethod
    def example_inputs():
        return np.ones((2, 7))


class NeedsArguments(Scale):
    def __init__(self, features):
        super().__init__(features)


class Wide(Scale):
    def __init__(self):
        super().__init__(9)

    def forward(self, call, x):
        if x.shape[-1] != 9:
            raise ValueError(f"Wide(): the last axis must be 9; got {x.shape}. Pass (N, 9).")
        return super().forward(call, x)


instance = Scale(5)
number = 3


def pair():
    return Scale(4), np.ones((6, 4))


def nothing():
    return None


def product(a, b):
    return a @ b
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine_to_check.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "100")
    yield tmp_path
    sys.modules.pop("mine_to_check", None)


# ---- all layers


# Every case and every mutant is checked in tests/layers, by the same functions: here the command
# takes a few.
SOME_CASES = tuple(case for case in CASES if case.name in ("Tanh", "Softmax", "Linear", "ReLU"))
SOME_MUTANTS = tuple(
    mutant for mutant in MUTANTS if mutant.name in ("dropped bias gradient", "wrong sign")
)


@pytest.fixture(scope="module")
def everything():
    """What the command says without arguments, with all details."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers.gradient_check.cases, "CASES", SOME_CASES)
        patch.setattr(layers.gradient_check.mutants, "MUTANTS", SOME_MUTANTS)
        status = main(["gradcheck", "--all"])
    return status, out.getvalue()


def test_layers_are_right_and_mutants_are_caught(everything):
    status, out = everything
    assert status == 0
    assert f"mutation score: {len(SOME_MUTANTS)}/{len(SOME_MUTANTS)} = 100 %" in out
    assert f"gradients: {len(SOME_CASES)}/{len(SOME_CASES)} cases right" in out


def test_table_has_one_line_per_case_with_method_error_order_and_verdict(everything):
    _, out = everything
    header = next(line for line in out.splitlines() if "worst error" in line)
    assert header.split() == [
        "layer",
        "or",
        "case",
        "blocks",
        "method",
        "worst",
        "error",
        "order",
        "verdict",
    ]
    line = next(line for line in out.splitlines() if line.split()[:1] == ["Tanh"])
    assert line.split()[1:3] == ["1", "complex"]
    assert line.split()[4:] == ["2.00", "ok"]


def test_details_tell_every_block_and_what_revealed_each_mutant(everything):
    _, out = everything
    assert "complex step, 84 of 84 entries" in out
    assert "dropped bias gradient" in out
    assert "bias: WRONG" in out


def test_wrong_case_and_uncaught_mutant_make_the_status_one(monkeypatch, capsys):
    wrong = next(m for m in layers.gradient_check.mutants.MUTANTS if m.name == "wrong sign")
    right = layers.gradient_check.cases.CASES[5]
    monkeypatch.setattr(
        layers.gradient_check.mutants,
        "MUTANTS",
        (layers.gradient_check.mutants.Mutant("harmless", right.make, right.inputs),),
    )
    monkeypatch.setattr(layers.gradient_check.cases, "CASES", (right,))
    assert main(["gradcheck"]) == 1
    assert "not caught: harmless" in capsys.readouterr().out
    monkeypatch.setattr(layers.gradient_check.mutants, "MUTANTS", (wrong,))
    assert main(["gradcheck"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(
        layers.gradient_check.cases,
        "CASES",
        (right, layers.gradient_check.cases.Case("broken", wrong.make, wrong.inputs)),
    )
    assert main(["gradcheck"]) == 1
    out = capsys.readouterr().out
    assert "gradients: 1/2 cases right" in out
    assert "wrong sign" in out, "the report of a failed case is printed unasked"


# ---- a layer of the user's own


@pytest.mark.parametrize("target", ["Scale", "WithExample", "pair"])
def test_right_layer_gives_status_zero(folder, capsys, target):
    assert main(["gradcheck", f"mine_to_check:{target}"]) == 0
    out = capsys.readouterr().out
    assert "passed" in out
    assert "gain" in out


@pytest.mark.parametrize("place", ["mine_to_check", "mine_to_check.py"])
def test_wrong_layer_gives_status_one_and_the_hint(folder, capsys, place):
    assert main(["gradcheck", f"{place}:Wrong"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "wrong sign" in out


def test_file_in_another_folder_is_found(folder, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert main(["gradcheck", f"{folder}/mine_to_check.py:Scale"]) == 0
    assert "passed" in capsys.readouterr().out


def test_example_inputs_are_taken_from_the_layer(folder, capsys):
    assert main(["gradcheck", "mine_to_check:WithExample"]) == 0
    assert "input 0 (2, 7)" in capsys.readouterr().out


def test_inputs_are_taken_from_the_pair(folder, capsys):
    assert main(["gradcheck", "mine_to_check:pair"]) == 0
    assert "input 0 (6, 4)" in capsys.readouterr().out


def test_shapes_are_taken_from_the_command_line_one_per_input(folder, capsys):
    assert main(["gradcheck", "mine_to_check:instance", "--shape", "2,5"]) == 0
    assert "input 0 (2, 5)" in capsys.readouterr().out
    assert main(["gradcheck", "mine_to_check:product", "--shape", "2,5", "--shape=5,3"]) == 0
    out = capsys.readouterr().out
    assert "input 0 (2, 5)" in out
    assert "input 1 (5, 3)" in out


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (
            "mine_to_check",
            "the target must be MODULE:NAME; got 'mine_to_check'. Write mymodule:MyLayer",
        ),
        (
            "absent_module:Layer",
            "the module must be importable; got 'absent_module'. Run the command in the folder",
        ),
        ("absent.py:Layer", "the file must exist; got 'absent.py'. The current folder is"),
        (
            "mine_to_check:Absent",
            (
                "mine_to_check must define Absent; got no Absent. Names there are: NeedsArguments,"
                " Scale"
            ),
        ),
        ("mine_to_check:number", "number must be a layer or make one; got int. Name a layer"),
        (
            "mine_to_check:nothing",
            "nothing() must return a layer, and its inputs if any; got NoneType. Return the layer",
        ),
        (
            "mine_to_check:NeedsArguments",
            "NeedsArguments must be constructible without arguments; got TypeError",
        ),
        (
            "mine_to_check:Wide",
            "Wide needs inputs that it accepts; got (4, 3): Wide(): the last axis must be 9",
        ),
    ],
)
def test_what_cannot_be_found_or_made_is_refused_with_the_fix(folder, capsys, target, words):
    assert main(["gradcheck", target]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ddbp gradcheck: ")
    assert words in said


def test_layer_that_no_usual_shape_fits_is_checked_once_the_shape_is_said(folder, capsys):
    assert main(["gradcheck", "mine_to_check:Wide", "--shape", "4,9"]) == 0
    assert "passed" in capsys.readouterr().out


def test_error_inside_the_module_is_not_taken_for_a_missing_module(folder, capsys):
    (folder / "imports_too_much.py").write_text("import surely_not_installed\n")
    assert main(["gradcheck", "imports_too_much:Layer"]) == 2
    assert "No module named 'surely_not_installed'" in capsys.readouterr().err


def test_shape_that_is_none_is_refused(folder, capsys):
    with pytest.raises(SystemExit) as left:
        main(["gradcheck", "mine_to_check:Scale", "--shape", "4,x"])
    assert left.value.code == 2
    assert "a shape must be sizes with commas" in capsys.readouterr().err


def test_help_tells_the_forms_of_the_target(capsys):
    with pytest.raises(SystemExit) as left:
        main(["gradcheck", "--help"])
    assert left.value.code == 0
    assert "example_inputs()" in capsys.readouterr().out
