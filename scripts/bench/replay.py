"""Replay random steps of training scripts by `ddbp replay`, on random numbers of ranks, and compare
them with the digests that the runs recorded.

    python scripts/bench/replay.py [--json FILE] [--rounds STEPS]

Each script runs once, on one rank and for the same number of shards; the steps and ranks are drawn
by a fixed seed.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lib import harness

import numpy as np

SHARDS = 4
RANKS = (1, 2, 3, 4)
SCRIPTS = {
    "digits mlp": ["train_digits.py", "--model", "mlp", "--epochs", "6"],
    "digits cnn": ["train_digits.py", "--model", "cnn", "--epochs", "3"],
    "sequence lstm": ["train_sequence.py", "--model", "lstm", "--epochs", "2"],
    "trees": ["train_tree.py", "--epochs", "2"],
}
HERE = Path(__file__).resolve().parents[1]


def train(name: str, folder: Path) -> int:
    """Run a script, which keeps checkpoints and digests; return the number of its steps."""
    script, *flags = SCRIPTS[name]
    options = ["--shards", str(SHARDS), "--checkpoint-every", "25", "--digests", "--quiet"]
    command = [sys.executable, str(HERE / script), *flags, *options, "--run-dir", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return len((folder / "digests.jsonl").read_text().splitlines())


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
    """Run the scripts, replay steps, print and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 100)
    options = parser.parse_args()
    facts = harness.machine()
    rng = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory(prefix="replays-") as name:
        folders = {each: Path(name, each.replace(" ", "-")) for each in SCRIPTS}
        steps = {each: train(each, folder) for each, folder in folders.items()}
        for number in range(options.rounds):
            script = [*SCRIPTS][number % len(SCRIPTS)]
            step, ranks = int(rng.integers(steps[script])), int(rng.choice(RANKS))
            rows.append({"script": script, **replay(folders[script], step, ranks)})
            print(rows[-1], flush=True)
    equal = sum(row["equal"] for row in rows)
    print(f"{equal} of {len(rows)} steps have the digests that were recorded")
    harness.write(options.json, facts, [{"replayed": len(rows), "equal": equal, "steps": rows}])
    if equal < len(rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
