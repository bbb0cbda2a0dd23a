"""Hostile arguments, files and settings end in errors in our own words: no traceback of NumPy or
Numba, no crash, no hang, nothing executed and no more memory than there is.
"""

import inspect
import json
import sys
from pathlib import Path

import pytest
import rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import fault

import ddbp.settings
from layers import errors

from ..conftest import run_process
from ..test_reference import PUBLIC

HERE = Path(__file__).parent
# What scripts do not make, or what takes no arguments of anybody's making.
WITHOUT_ROW = {
    *("layers.Call", "layers.ForwardCall", "layers.Value", "layers.Workspace", "layers.Rule"),
    "layers.KeptGradients",
    *("layers.Module", "layers.Layer", "layers.Composite", "layers.Loss", "layers.TapeHook"),
    *("layers.GradientReport", "layers.BlockReport", "layers.WrongGradientError"),
    *("ddbp.CommunicationError", "ddbp.DoctorError", "ddbp.RankError"),
    *("ddbp.MemoryCorruptionError", "ddbp.Recording", "ddbp.TrainingOver"),
    "ddbp.attribution.Attribution",
    # The first is derived from, the second given.
    *("ddbp.data.augment.Augmentation", "ddbp.data.augment.Keys"),
    *(f"ddbp.data.{name}" for name in ("CIFAR", "EncodedTable", "LabelledLines", "Series")),
    *("ddbp.data.Preprocessing", "ddbp.data.Skipped"),
    # The base of a class of one's own.
    "ddbp.data.Source",
    *("ddbp.export.ArchitectureError", "ddbp.export.BundleError"),
    *("ddbp.StepPhase", "ddbp.Schedule", "ddbp.GlobalGradient", "ddbp.Batch"),
    # They train as `Trainer.fit` does, by the options that `Flags` has parsed.
    *(f"ddbp.training.script.{name}" for name in ("run", "fit", "finish", "start")),
}


def attacked(program, *arguments):
    """Run an attack in a process of its own; return its findings, and how many calls it made."""
    found = run_process(
        [sys.executable, HERE / program, *arguments], timeout=800, OPENBLAS_NUM_THREADS="1"
    )
    assert found.status == 0, found.err[-3000:]
    *faults, count = map(json.loads, found.out.splitlines())
    return faults, count


def test_every_public_callable_has_a_row():
    named = {row.name for part in rows.PARTS.values() for row in part}
    public = {name for name, found in PUBLIC.items() if callable(found)}
    assert public - named == WITHOUT_ROW


@pytest.mark.parametrize(
    ("part", "calls"),
    [
        ("layers", 1000),
        ("functions", 1000),
        ("training", 1000),
        ("attribution", 300),
        ("augmentation", 100),
        ("data", 300),
        ("estimators", 150),
        ("export", 50),
        ("inputs", 1000),
    ],
)
@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.full, id="all"), pytest.param(17, id="some")]
)
def test_hostile_arguments_are_refused_in_our_words(part, calls, stride):
    faults, count = attacked("attack.py", part, stride)
    assert faults == []
    assert count > calls


@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.full, id="all"), pytest.param(97, id="some")]
)
def test_hostile_files_are_refused_in_our_words_and_nothing_is_executed(stride):
    faults, count = attacked("attack_files.py", stride)
    assert faults == []
    assert count > 1000


@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.full, id="all"), pytest.param(7, id="some")]
)
def test_hostile_arguments_of_commands_are_refused_in_our_words(stride):
    faults, count = attacked("attack_commands.py", stride)
    assert faults == []
    assert count > 1000 / stride


NAMES = {
    name: getattr(ddbp.settings, name)
    for name in vars(ddbp.settings)
    if name.isupper() and name[0] != "_" and isinstance(getattr(ddbp.settings, name), str)
}
READERS = [
    found
    for found in vars(ddbp.settings).values()
    if inspect.isfunction(found)
    and found.__module__ == "ddbp.settings"
    and not inspect.signature(found).parameters
    and found.__name__[0] != "_"
    and found.__name__ != "claim_rank"
]
OF_LAUNCHERS = (
    *("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "PMI_SIZE", "PMI_RANK", "PMI_FD", "PMIX_RANK"),
    *("OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"),
)
HOSTILE = ("", " ", "x", "-1", "0", "1", "1.5", "nan", "inf", "-inf", "1e999", "²", "9" * 5000)
TEXTS = st.sampled_from(HOSTILE) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=20
)


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=st.sampled_from(sorted([*NAMES.values(), *OF_LAUNCHERS])), text=TEXTS)
def test_hostile_settings_are_refused_in_our_words(name, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_STEP_ID", "0")
        patch.setenv(name, text)
        assert [found for reader in READERS if (found := fault(reader))] == []


class OwnError(ValueError):
    """An error of a user's class."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (IndexError("out of\nbounds"), ValueError),
        (ZeroDivisionError(), ValueError),
        (AttributeError("no x"), TypeError),
        (MemoryError("no room"), MemoryError),
    ],
)
def test_errors_of_others_are_put_in_our_words(error, kind):
    worded = errors.worded("owner", error)
    assert type(worded) is kind
    assert str(worded).startswith("owner: the arguments must be ones that it can take; got ")
    assert "\n" not in str(worded)


@pytest.mark.parametrize("error", [OwnError("mine"), ValueError("Tape: x must be 1; got 2. Do.")])
def test_errors_of_ours_and_of_users_classes_stay_what_they_are(error):
    assert errors.worded("owner", error) is error
