"""Runs that are disturbed come to the bits of the undisturbed one, and a campaign that disturbs
them finds those that do not.
"""

import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "scripts" / "bench"

# Each was once the end of a run, or a hang.
KNOWN = [
    # The name of the folder of checkpoints was not on the disk.
    "alone 1: power disk step=6 amount=2; power disk step=9 amount=9; power disk step=14 amount=16",
    "survive 3: kill update rank=1 step=3 amount=20000; kill publish rank=2 step=6; two data",
]
WAITING = [
    # Rank 0 waited ten minutes for the part of a rank whose disk was full.
    "restart 2 waits: enospc disk rank=1 step=3 amount=2; launcher update rank=1 step=7",
]


# Residuals, workers, feedback weights and plans come back, too.
WAYS = [
    "alone 1 power-sgd: kill after step=8",
    "alone 1 diloco: kill after step=7; term after step=12",
]
MORE_WAYS = [
    "alone 1 memory: kill after step=7",
    "alone 1 dfa: kill after step=7",
    "alone 1 meprop: kill forward step=7 amount=3000",
    "restart 2 top-k: kill update rank=1 step=5 amount=20000; launcher data rank=0 step=9",
    "restart 3 local-sgd: kill publish rank=2 step=4 amount=3000; kill data rank=1 step=8",
    "survive 3 sign: kill update rank=1 step=3 amount=20000; two data rank=0 step=9",
    "survive 3 dfa: kill backward rank=2 step=4 amount=20000",
    "survive 3 memory: kill update rank=1 step=3 amount=20000; two data rank=0 step=9",
    "survive 4 network: two backward rank=2 step=4; kill after rank=1 step=12",
]


@pytest.fixture
def chaos(run_python, launcher):
    """Return the function that runs a campaign, and returns what it writes."""

    def run(folder, *arguments, timeout=600, **environment):
        path = folder / "chaos.json"
        command = [BENCH / "chaos.py", "--json", path, *arguments]
        finished = run_python(*command, timeout=timeout, TMPDIR=str(folder), **environment)
        return finished, json.loads(path.read_text())

    return run


@pytest.mark.parametrize(
    "jobs",
    [
        [*KNOWN, *WAYS],
        pytest.param([*WAITING, *MORE_WAYS], marks=pytest.mark.full),
    ],
)
def test_disturbed_runs_come_to_the_same_bits(jobs, chaos, tmp_path):
    finished, found = chaos(tmp_path, "--replay", *jobs)
    assert finished.status == 0, finished.out
    assert found["verdicts"] == {"same bits": len(jobs)}
    assert found["faults"] == sum(job.count(";") + 1 for job in jobs)
    assert found["missed"] == 0


def test_faults_drawn_from_a_seed_leave_the_bits(chaos, tmp_path):
    finished, found = chaos(tmp_path, "--modes", "alone", "--faults", 12, "--seed", 3)
    assert finished.status == 0, finished.out
    assert found["faults"] >= 10


NEVER = [
    # There is no such place; and the run is over by then.
    "alone 1: kill nowhere step=3; kill after step=7",
    "alone 1: kill start amount=90000000000",
]


def test_faults_that_did_not_happen_are_no_success(chaos, tmp_path):
    finished, found = chaos(tmp_path, "--replay", *NEVER)
    assert finished.status == 1, finished.out
    assert found["verdicts"] == {"same bits": 2}
    assert (found["faults"], found["missed"]) == (0, 3)
    assert {row["fault"]: row["did not happen"] for row in found["rows"]} == {
        "SIGKILL, after": 1,
        "SIGKILL, nowhere": 1,
        "SIGKILL, start": 1,
    }
    assert "did not happen: kill nowhere step=3" in finished.out
    assert "did not happen: 3 of 3, of which 0 may" in finished.out


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2])
def test_ranks_are_disturbed_in_all_modes(chaos, tmp_path, seed):
    finished, found = chaos(tmp_path, "--faults", 60, "--seed", seed, timeout=800)
    assert finished.status == 0, finished.out
    assert found["faults"] > 50


CONTROLS = {
    "LOST CHECKPOINT": (
        "alone 1: power disk step=12 amount=1; kill after step=18",
        "from ddbp.checkpoint import folder; folder._settle = lambda path: None",
    ),
    "WRONG": (
        "alone 1: kill after step=7; kill after step=12",
        "from ddbp.optim.optimizer import Optimizer; Optimizer.load_state = lambda *_: None",
    ),
    "HANG": (
        "alone 1: kill after step=7",
        "from ddbp.checkpoint import folder; folder.recover = lambda path: time.sleep(60)",
    ),
    "UNCLEAR": (
        "alone 1: kill after step=9; damage flip",
        "import ddbp.training.checkpoints as c; c.print = lambda *_, **__: None",
    ),
}


@pytest.mark.parametrize("verdict", CONTROLS)
def test_campaign_finds(verdict, run_python, tmp_path):
    job, broken = CONTROLS[verdict]
    code = f"""
import os, sys, time
sys.path.insert(0, {str(BENCH)!r})
from pathlib import Path
from faults.jobs import Runner
from faults.plan import Job
runner = Runner(Path({str(tmp_path)!r}))
job = Job.of({job!r})
runner.expected(__import__("faults.training").training.epochs(job))
runner.limit = {6 if verdict == "HANG" else 180}
{broken}
print(runner.run(job).verdict)
"""
    assert run_python("-c", code).out.strip() == verdict
