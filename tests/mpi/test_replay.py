"""A step of a run on two ranks, replayed on others."""

import json
import sys

import pytest

from ..conftest import run_process


@pytest.fixture(scope="module")
def folder(mpirun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay") / "run"
    finished = mpirun(2, "replayed.py", folder)
    assert finished.status == 0, finished.err
    return folder


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_step_has_its_bits_on_any_number_of_ranks(folder, ranks):
    command = [sys.executable, "-m", "ddbp", "replay", folder, "--step", 13, "--json"]
    done = run_process([*command, "-n", ranks], timeout=300)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["sha256"] == found["recorded_sha256"]
    assert found["ranks"] == ranks == len(found["samples"])
    samples = [sample for each in found["samples"] for sample in each]
    assert len(samples) == len({*samples}) == 16
