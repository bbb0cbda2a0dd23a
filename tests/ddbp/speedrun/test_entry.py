"""Entries of speedruns: written, read from hostile files, compared."""

import json
import math

import pytest

from ddbp.commands import speedrun
from ddbp.speedrun import entry
from ddbp.speedrun.tasks import TASKS

FOUND = {
    "reached": True,
    "ranks": 2,
    "seconds": 12.5,
    "samples_per_second": 3200.0,
    "steps": 124,
    "epochs": [
        {"loss": 0.5, "validation_loss": 0.2, "validation_accuracy": 0.97},
        {"loss": 0.2, "validation_loss": 0.1, "validation_accuracy": 0.986},
    ],
    "data": {"x": "(4000, 28, 28, 1) float32 1234abcd", "test x": "(1000, 28, 28, 1) float32 0"},
    "sha256": "0123456789abcdef" * 4,
}
DIGITS = TASKS["digits"]


def made(**changes):
    return entry.made(DIGITS, "Ada", DIGITS.numbers({"epochs": 9}), FOUND | changes)


@pytest.fixture
def written(tmp_path):
    """Return what writes an entry with changes to a file."""

    def write(**changes):
        path = tmp_path / "entry.json"
        path.write_text(json.dumps(made()._asdict() | changes))
        return path

    return write


def test_entry_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "entry.json"
    made().write(path)
    assert entry.read(path) == made()
    assert entry.read(path).value == 0.986
    assert "/" not in made().environment["python"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "version 2, where this ddbp knows 1"),
        ({"task": "imagenet"}, "the task 'imagenet'; tasks are digits, characters, throughput"),
        ({"task": ["digits"]}, "the task"),
        ({"numbers": {}}, "numbers other than epochs, seed"),
        (
            {"numbers": DIGITS.numbers({}) | {"epochs": 10**9}},
            "epochs must be an integer from 1 to 200",
        ),
        ({"numbers": DIGITS.numbers({}) | {"width": 16.5}}, "width must be an integer"),
        (
            {"numbers": DIGITS.numbers({}) | {"learning_rate": "1"}},
            "learning_rate must be a number",
        ),
        (
            {"numbers": DIGITS.numbers({}) | {"learning_rate": True}},
            "learning_rate must be a number",
        ),
        ({"ranks": 0}, "ranks 0"),
        ({"ranks": True}, "ranks True"),
        ({"seconds": -1}, "seconds -1"),
        ({"seconds": 10**400}, "seconds 1000"),
        ({"steps": 2.0}, "steps 2.0"),
        ({"epochs": []}, r"epochs \[\]"),
        ({"epochs": [{"loss": 0.1}] * 10}, "epochs"),
        ({"epochs": [{"loss": "0.1"}]}, "epochs"),
        ({"epochs": [{"loss": 0.1, "__class__": 1}]}, "epochs"),
        ({"epochs": [{"loss": 0.1}]}, "validation_accuracy .*not the target"),
        ({"epochs": [{"loss": 0.1, "validation_accuracy": 0.98}]}, "0.98, which is not the target"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"sha256": "0" * 64 + "\n"}, "sha256"),
        ({"date": "yesterday"}, "date 'yesterday'"),
        ({"by": "\x1b[2J"}, r"by '\\x1b\[2J'"),
        ({"by": "a\u202eb"}, "by "),
        ({"by": "a" * 201}, "by "),
        ({"data": {"x": 3}}, "data"),
        ({"environment": {}}, "environment"),
        ({"environment": {"cpu": "x\ny"}}, "environment"),
        ({"script": "import os"}, "'script', which entries do not have"),
    ],
    ids=repr,
)
def test_what_is_no_entry_is_refused_by_what_is_wrong(written, changes, says):
    with pytest.raises(ValueError, match=rf"ddbp speedrun: FILE must be an entry.*{says}"):
        entry.read(written(**changes))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", '"x"', "[" * 100_000, '{"version": NaN}', "\x00\xff"),
        " " * (2**20 + 1),
    ],
    ids=lambda text: f"{len(text)} letters {text[:9]!r}",
)
def test_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "entry.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="FILE must be an entry of a speedrun; got"):
        entry.read(path)


def test_missing_file_folder_and_pipe_are_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="FILE must be an entry of a speedrun; got"):
            entry.read(path)


def test_same_bits_differ_in_nothing_whatever_the_time_and_the_ranks():
    assert entry.differences(made(), made(ranks=1, seconds=99.0)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": FOUND["data"] | {"x": "other"}}, "the data: x is other here"),
        (
            {"epochs": [FOUND["epochs"][0], FOUND["epochs"][1] | {"loss": 0.3}]},
            "epoch 2: loss is 0.3",
        ),
        ({"epochs": FOUND["epochs"][:1]}, "epochs: 1, not 2"),
        ({"steps": 99}, "updates: 99, not 124"),
        ({"sha256": "f" * 64}, "parameters: ffffffffffffffff, not 0123456789abcdef"),
    ],
    ids=repr,
)
def test_first_thing_that_differs_is_named(changes, says):
    lines = entry.differences(made(), made(**changes))
    assert says in lines[0]
    other = made(**changes)
    other.environment["numba"] = "1.0"
    assert any(line.startswith("numba is 1.0 here") for line in entry.differences(made(), other))


# The command, where the run is somebody else's


def test_entry_is_printed_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speedrun, "_race", lambda task, numbers, options: FOUND)
    path = tmp_path / "mine.json"
    assert speedrun.run(["digits", "--set", "epochs=9", "--by", "Ada", "--out", str(path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert entry.read(path)._asdict() == printed
    assert printed["numbers"]["epochs"] == 9


def test_run_that_has_not_reached_the_target_is_no_entry(tmp_path, monkeypatch, capsys):
    missed = FOUND | {"reached": False}
    monkeypatch.setattr(speedrun, "_race", lambda task, numbers, options: missed)
    assert speedrun.run(["digits", "--out", str(tmp_path / "mine.json")]) == 1
    assert "validation_accuracy must come to 0.985; got 0.986 after 2" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_verify_runs_the_numbers_of_the_entry_and_says_what_differs(written, monkeypatch, capsys):
    asked = []

    def race(task, numbers, options):
        asked.append((task.name, numbers))
        return FOUND

    monkeypatch.setattr(speedrun, "_race", race)
    assert speedrun.run(["--verify", str(written())]) == 0
    assert "the same bits: data, 2 epochs, parameters 0123456789abcdef" in capsys.readouterr().out
    assert asked == [("digits", DIGITS.numbers({"epochs": 9}))]
    assert speedrun.run(["--verify", str(written(sha256="a" * 64))]) == 1
    assert "differs: parameters: 0123456789abcdef, not aaaa" in capsys.readouterr().out
    assert speedrun.run(["--verify", str(written(version=3))]) == 2
    assert "FILE must be an entry" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["marathon"],
        ["digits", "-n", "9"],
        ["digits", "--verify", "x"],
        ["digits", "--by", "a\nb"],
        ["--verify", "x", "--set", "epochs=3"],
        ["digits", "--out", "no-such-folder/mine.json"],
    ],
    ids=repr,
)
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        speedrun.run(arguments)
    assert ended.value.code == 2
    assert "usage: ddbp speedrun" in capsys.readouterr().err


@pytest.mark.parametrize("chosen", ["epochs", "epochs=x", "rate=1", "epochs=0", "epochs=[1]"])
def test_numbers_that_cannot_be_chosen_are_refused(chosen, capsys):
    assert speedrun.run(["digits", "--set", chosen]) == 2
    assert "ddbp speedrun: " in capsys.readouterr().err


def test_numbers_of_a_task_are_named(capsys):
    assert speedrun.run(["characters", "--set", "help"]) == 0
    assert "learning_rate=0.01  from 1e-06 to 1" in capsys.readouterr().out


def test_targets_are_reached_from_the_right_side():
    assert DIGITS.reached(0.985)
    assert not DIGITS.reached(0.984)
    assert not DIGITS.reached(math.nan)
    assert TASKS["characters"].reached(1.0)
    assert not TASKS["characters"].reached(9.0)
    assert not TASKS["throughput"].reached(1e9)
