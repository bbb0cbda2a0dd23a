"""Replay random steps of runs by `ddbp replay`, on random numbers of ranks, and compare them with
the digests that the runs recorded.

    python scripts/bench/replay.py [--json FILE] [--rounds STEPS]

Runs are those of scripts on one rank, and small ones with dropout, accumulation, averages and
truncation, one of them resumed on more ranks and one in which a rank is killed; all have the same
number of shards. Steps and ranks are drawn by a fixed seed.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib import harness

import numpy as np

from ddbp.commands import launch

SHARDS = 4
RANKS = (1, 2, 3, 4)
HERE = Path(__file__).resolve().parent
_OWN = str(HERE / "lib" / "replayed.py")
_DIGESTS = ["--shards", str(SHARDS), "--checkpoint-every", "25", "--digests", "--quiet"]
Commands = list[list[str]]


def _script(name: str, *flags: str) -> Callable[[str], Commands]:
    command = [sys.executable, str(HERE.parent / name), *flags, *_DIGESTS]
    return lambda folder: [[*command, "--run-dir", folder]]


def _own(network: str, ranks: int, *, resumed: int = 0) -> Callable[[str], Commands]:
    """Return what runs a small run on ranks and, if it is to be resumed, half of it before that."""

    def commands(folder: str) -> Commands:
        command = [_OWN, network, folder]
        mpiexec = launch.find_mpiexec()
        first = launch.command(mpiexec, ranks, command)
        if not resumed:
            return [first]
        again = launch.command(mpiexec, resumed, [*command, "--resume"])
        return [[*first, "--epochs", "3"], again]

    return commands


def _killed(network: str, ranks: int, step: int) -> Callable[[str], Commands]:
    launcher = [sys.executable, "-m", "ddbp", "launch", "--survive", "-n", str(ranks)]
    return lambda folder: [[*launcher, _OWN, network, folder, "--kill", str(step)]]


RUNS: dict[str, Callable[[str], Commands]] = {
    "train_digits.py, MLP": _script("train_digits.py", "--model", "mlp", "--epochs", "4"),
    "train_digits.py, CNN": _script("train_digits.py", "--model", "cnn", "--epochs", "2"),
    "train_sequence.py, LSTM": _script("train_sequence.py", "--model", "lstm", "--epochs", "1"),
    "train_tree.py": _script("train_tree.py", "--epochs", "2"),
    "MLP, dropout, two batches an update, 1 rank": _own("mlp", 1),
    "CNN, batch norm, dropout, average of weights, 2 ranks": _own("cnn", 2),
    "GPT, dropout, clipped, 3 ranks": _own("gpt", 3),
    "LSTM, dropout, truncated, on 2 ranks, resumed on 3": _own("lstm", 2, resumed=3),
    "MLP, 3 ranks, resumed on 1": _own("mlp", 3, resumed=1),
    "GPT, 3 ranks of which one is killed": _killed("gpt", 3, 20),
}


def train(name: str, folder: Path) -> int:
    """Do a run, which keeps checkpoints and digests; return the number of its steps."""
    for command in RUNS[name](str(folder)):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with (folder / "digests.jsonl").open() as lines:
        return 1 + max(json.loads(line)["step"] for line in lines)


def replay(folder: Path, step: int, ranks: int) -> dict[str, Any]:
    """Replay a step; return whether it has the digest that was recorded, and the seconds."""
    command = [sys.executable, "-m", "ddbp", "replay", str(folder), "--json", "--step", str(step)]
    started = time.perf_counter()
    done = subprocess.run([*command, "-n", str(ranks)], check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    found = json.loads(done.stdout) if done.stdout else {}
    equal = done.returncode == 0 and found.get("recorded_sha256") == found["sha256"]
    if not equal:
        print(done.stderr[-3000:], file=sys.stderr)
    return {"step": step, "ranks": ranks, "equal": equal, "seconds": round(seconds, 2)}


def main() -> None:
    """Do the runs, replay steps, print and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 100)
    options = parser.parse_args()
    facts = harness.machine()
    rng = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory(prefix="replays-") as name:
        folders = {each: Path(name, str(n)) for n, each in enumerate(RUNS)}
        steps = {}
        for each, folder in folders.items():
            steps[each] = train(each, folder)
            print(f"{each}: {steps[each]} steps", flush=True)
        for number in range(options.rounds):
            run = [*RUNS][number % len(RUNS)]
            step, ranks = int(rng.integers(steps[run])), int(rng.choice(RANKS))
            rows.append({"run": run, "steps": steps[run], **replay(folders[run], step, ranks)})
            print(rows[-1], flush=True)
    equal = sum(row["equal"] for row in rows)
    print(f"{equal} of {len(rows)} steps have the digests that were recorded")
    harness.write(options.json, facts, rows)
    if equal < len(rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
