"""`ddbp replay`: a step once more with the same bits, while all of the run stays as it is."""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ddbp.commands import replay
from ddbp.observers.replay_command import runs_again
from ddbp.training.replay import recorded_digest

from ...conftest import Finished, run_process

PROGRAM = Path(__file__).parents[2] / "mpi" / "programs" / "replayed.py"
STEPS = 24


def train(place, *flags):
    return run_process([sys.executable, PROGRAM, place / "run", *flags], timeout=300)


@pytest.fixture
def replayed(capfd):
    """Return the function that replays a step: status, output and errors of the command."""

    def run(folder, step, *options):
        status = replay.run([*map(str, (folder, "--step", step, *options))])
        return Finished(status, *capfd.readouterr())

    return run


def contents(folder):
    """Return digests of all files in a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a run in it."""
    place = tmp_path_factory.mktemp("replay")
    done = train(place)
    assert done.status == 0, done.err
    return place


@pytest.mark.parametrize(
    ("step", "begins"), [(3, "its beginning"), (20, "the checkpoint of step 20")]
)
def test_a_step_has_the_digest_that_was_recorded_and_nothing_changes(place, replayed, step, begins):
    before = contents(place)
    done = replayed(place / "run", step, "--json")
    assert done.status == 0, done.err
    assert f"replays from {begins}" in done.err
    found = json.loads(done.out)
    assert found["step"] == step
    assert found["sha256"] == found["recorded_sha256"] == recorded_digest(place / "run", step)
    assert len(found["samples"][0]) == 16
    assert len(set(found["samples"][0])) == 16
    assert found["quantities"]["gradient_norm"][0] > 0
    assert contents(place) == before


def test_the_step_that_a_strict_doctor_has_ended_is_shown(replayed, tmp_path):
    done = train(tmp_path, "--strict")
    assert done.status != 0
    assert "DoctorError: rate_high" in done.err
    found = re.search(r"To see this step once more: ddbp replay (\S+) --step (\d+)", done.err)
    folder, step = found.groups()
    done = replayed(folder, step, "--json")
    assert done.status == 0, done.err
    assert "doctor:" not in done.err
    assert json.loads(done.out)["sha256"] == recorded_digest(tmp_path / "run", int(step))


def test_a_layer_is_shown_with_its_arrays_sample_by_sample(place, replayed, tmp_path):
    done = replayed(place / "run", 14, "--layer", "layers.3", "--save", tmp_path)
    assert done.status == 0, done.err
    assert "layers.3.weight" in done.out
    assert "layers.5" not in done.out
    assert "those of the run, to the last bit" in done.out
    with np.load(tmp_path / "rank0.npz") as arrays:
        shapes = {name.partition(", ")[2]: array.shape for name, array in arrays.items()}
        assert all(np.isfinite(array).all() for array in arrays.values())
    # The Linear and the ReLU that follows it are one call.
    assert shapes == {"input 0": (16, 4), "output 0": (16, 8), "gradient of output 0": (16, 8)}
    assert "norms by sample" in done.out


def test_another_digest_is_said_and_is_a_failure(place, replayed, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "digests.jsonl"):
        (run / name).write_bytes((place / "run" / name).read_bytes())
    lines = (run / "digests.jsonl").read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {"sha256": "0" * 64})
    (run / "digests.jsonl").write_text("\n".join(lines))
    done = replayed(run, 2)
    assert done.status == 1
    assert "NOT the recorded ones" in done.out


def test_a_damaged_checkpoint_is_passed_over(place, tmp_path):
    run = tmp_path / "run"
    for name in contents(place / "run"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes((place / "run" / name).read_bytes())
    (part,) = (run / "checkpoints" / "step-000000010").glob("part-*")
    part.write_bytes(part.read_bytes()[:-1])
    found = replay.before(run, 14)
    assert found is not None
    assert found.step == 5


def test_a_step_that_fails_is_shown_with_its_samples_and_the_error_says_how(replayed, tmp_path):
    done = train(tmp_path, "--nan", 12)
    assert done.status != 0
    command = f"ddbp replay {tmp_path / 'run'} --step 12"
    assert f"To see this step once more: {command}" in done.err
    again = replayed(tmp_path / "run", 12)
    assert again.status == 1
    assert "rank 0, samples " in again.out
    assert "the loss must be finite" in again.out
    assert "To see this step once more" not in again.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("24",), "ddbp replay: --step must be below 24, the steps of the run; got 24."),
        (
            ("3", "--layer", "layers.9"),
            "ddbp replay: --layer must name a layer; got layers.9. They",
        ),
    ],
)
def test_what_is_not_there_is_said(place, replayed, options, words):
    done = replayed(place / "run", *options)
    assert done.status == 2
    assert words in done.err


CONFIG = {"python": ["x.py"], "folder": "/", "trainer": 0, "shards": 1}


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (None, "RUN must be a run folder; got"),
        (
            {"python": ["x.py"]},
            "config.json must say how the run was started; got KeyError: 'folder'",
        ),
        (CONFIG | {"python": "x.py"}, "config.json must say how the run was started; got"),
        (CONFIG | {"python": [3]}, "config.json must say how the run was started; got"),
        (CONFIG | {"python": ["-c", "x"]}, "the run must have been that of a script or a module"),
        *(
            (CONFIG | {"python": typed}, "the run must have been that of a script or a module")
            for typed in (
                [],
                ["-"],
                ["-uc", "x"],
                ["-i", "x.py"],
                ["-X", "dev"],
                ["-m", "ipykernel_launcher", "-f", "kernel.json"],
                ["-um", "IPython"],
                ["/usr/bin/ipython"],
            )
        ),
        (CONFIG | {"python": 3}, "config.json must say how the run was started"),
        (CONFIG | {"folder": "/no/such"}, "the folder that the script was started in must be th"),
    ],
)
def test_a_folder_without_a_run_is_refused(tmp_path, capsys, process, words):
    if process is not None:
        (tmp_path / "config.json").write_text(json.dumps({"process": process}))
    assert replay.run([str(tmp_path), "--step", "1"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["x.py", "-c"],
        ["-u", "x.py"],
        ["-X", "dev", "x.py"],
        ["-m", "x"],
        ["-Wd", "-um", "x.y", "-i"],
    ],
)
def test_a_script_is_started_again_whatever_options_python_had(arguments):
    assert runs_again(arguments)


@pytest.mark.parametrize("options", [("--step", "-1"), ("--step", "1", "-n", "0"), ()])
def test_wrong_usage_is_an_error_of_the_command(tmp_path, options):
    with pytest.raises(SystemExit) as caught:
        replay.run([str(tmp_path), *options])
    assert caught.value.code == 2
