"""Time what `ddbp launch --survive` costs a step, against the same ranks under mpirun, and how long
a run takes from the death of a rank to the next completed step and to that with a newcomer.

    python scripts/bench/survive.py [--rounds R] [--kills K] [--json FILE]

Launchers take turns, in processes of their own. Ranks are killed by themselves, at places of steps
that are drawn by lot, some of them a little later by a timer of the system; a newcomer replaces
each before the next one is killed.
"""

import ctypes
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps, workers

import numpy as np
from workloads import WORKLOADS, dense

import ddbp
from ddbp.observers.observer import StepPhase, TrainingOver
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy, TapeHook

CHOSEN = {"mlp-wide": dense("mlp-wide", (784, 1024, 1024, 10), batch=1024), **WORKLOADS}
CASES = (("mlp", 2), ("lenet", 2), ("mlp-wide", 2))
RANKS = (2, 4, 8)
PLACES = ("forward", "backward", "exchange", "update", "publish")
PHASES = {StepPhase.EXCHANGE: "exchange", StepPhase.UPDATE: "update", StepPhase.PUBLISH: "publish"}
BETWEEN = 6
"""Steps with all ranks before one is killed."""


def surviving(ranks: int, script: Sequence[str]) -> list[str]:
    """Return the command that runs a script and its arguments on ranks that survive each other."""
    return [sys.executable, "-m", "ddbp", "launch", "--survive", "-n", str(ranks), *script]


class Kills(ddbp.Callback, TapeHook):
    """Kills a rank whenever there are as many as at the beginning, and notes when steps were
    completed on the ranks that were left, and on all again.
    """

    def __init__(self, folder: Path, ranks: int, kills: int) -> None:
        self._folder = folder
        self._ranks = ranks
        self._kills = kills
        self._comm: Any = ddbp.communicator()
        self._file = (folder / f"slot{self._comm.slot}").open("a", buffering=1)
        self._since: int | None = None
        self._place = ""
        self._later = 0
        self._new = False

    def __repr__(self) -> str:
        return "Kills()"

    def _note(self, event: str, ns: int) -> None:
        self._file.write(json.dumps([event, ns]) + "\n")

    def on_regroup(self, trainer: ddbp.Trainer, newcomers: bool) -> None:
        self._since = None
        self._new = True

    def on_step_begin(self, trainer: ddbp.Trainer, step: int) -> None:
        comm = self._comm
        self._place = ""
        if comm.newcomer or comm.size < self._ranks:
            return
        if self._since is None:
            self._since = step
        if step != self._since + BETWEEN:
            return
        if max(comm.slots) + 1 - self._ranks >= self._kills:
            raise TrainingOver
        # The same on all ranks.
        rng = np.random.default_rng(step)
        victim, place = comm.slots[rng.integers(self._ranks)], PLACES[rng.integers(len(PLACES))]
        self._later = int(rng.choice([0, 10_000, 50_000]))
        self._place = place if victim == comm.slot else ""

    def _come_to(self, place: str) -> None:
        if place != self._place:
            return
        self._place = ""
        self._note("killed", time.monotonic_ns() + self._later)
        if not self._later:
            os.kill(os.getpid(), signal.SIGKILL)
        libc, timer = ctypes.CDLL(None), ctypes.c_void_p()
        event = (ctypes.c_int * 16)(0, 0, signal.SIGKILL, 0)
        libc.timer_create(1, event, ctypes.byref(timer))
        libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, self._later), None)

    def on_forward_begin(self, call: Any) -> None:
        if call.index == 2:
            self._come_to("forward")

    def on_backward_begin(self, call: Any) -> None:
        if call.index == 1:
            self._come_to("backward")

    def on_phase(self, trainer: ddbp.Trainer, phase: StepPhase) -> None:
        self._come_to(PHASES[phase])

    def on_step_end(self, trainer: ddbp.Trainer, step: int, loss: float) -> None:
        if self._new:
            self._new = False
            self._note("whole" if self._comm.size == self._ranks else "left", time.monotonic_ns())


def killed(folder: Path, ranks: int, kills: int) -> None:
    """Train while ranks are killed, as one of them."""
    rng = np.random.default_rng(0)
    layers = Linear(64, 128, rng=rng), ReLU(), Linear(128, 128, rng=rng), Linear(128, 10, rng=rng)
    trainer = ddbp.Trainer(
        Sequential(*layers),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(1e-4),
        batch_size=64,
        shards=8,
        callbacks=[Kills(folder, ranks, kills)],
        quiet=True,
    )
    data = ddbp.ArrayDataset(rng.standard_normal((6400, 64)), rng.integers(0, 10, 6400))
    trainer.fit(data, epochs=10_000)


def stepped(name: str) -> None:
    """Measure on one of the ranks; the first prints the seconds per step of each block."""
    comm = ddbp.communicator()
    harness.pin_to_core(comm.rank)
    step = steps.ours(CHOSEN[name], steps.TIMING_RATE)
    times = workers.blocks(step, lambda count: workers.agreed(comm, count))
    if comm.rank == 0:
        print(json.dumps({"times": times}))


def cost(name: str, ranks: int, rounds: int) -> dict[str, Any]:
    """Measure a workload under both launchers, in turns."""
    times: dict[str, list[float]] = {"mpirun": [], "survive": []}
    script = [str(Path(__file__).resolve()), "--step", name]
    for turn in harness.turns(times, rounds):
        for kind in turn:
            if kind == "mpirun":
                found = workers.on_ranks(ranks, script)
            else:
                found = workers.printed(workers.at_once([(surviving(ranks, script), {})])[0])
            # Others have the cores in some blocks.
            times[kind].append(min(found["times"]))
    return {
        "name": name,
        "ranks": ranks,
        "ms": {kind: harness.spread(values) for kind, values in times.items()},
        "ratio": harness.ratio(times["survive"], times["mpirun"]),
        "ratio_of_least": round(min(times["survive"]) / min(times["mpirun"]), 3),
    }


def recovery(ranks: int, kills: int) -> dict[str, Any]:
    """Return how long recoveries and replacements take, in ms, from the death of a rank."""
    with tempfile.TemporaryDirectory() as folder:
        script = [str(Path(__file__).resolve()), "--killed", folder, str(ranks), str(kills)]
        workers.at_once([(surviving(ranks, script), {})])
        notes = [
            (ns, event, path.name)
            for path in Path(folder).glob("slot*")
            for event, ns in map(json.loads, path.read_text().splitlines())
        ]
    deaths = sorted(ns for ns, event, _ in notes if event == "killed")
    left, whole = [], []
    for death, following in zip(deaths, [*deaths[1:], float("inf")], strict=True):
        # Of the slowest of the ranks.
        for event, found in (("left", left), ("whole", whole)):
            after = [ns for ns, kind, _ in notes if kind == event and death < ns < following]
            found += [(max(after) - death) / 1e6] if after else []
    return {
        "ranks": ranks,
        "kills": len(deaths),
        "to_completed_step_ms": {"median": round(median(left), 2), "most": round(max(left), 2)},
        "to_newcomer_in_step_ms": {"median": round(median(whole)), "most": round(max(whole))},
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument("--kills", type=int, default=15, metavar="K", help="per number of ranks")
    parser.add_argument("--step", metavar="WORKLOAD", help="be a rank")
    parser.add_argument("--killed", nargs=3, metavar=("FOLDER", "RANKS", "KILLS"), help="be one")
    options = parser.parse_args()
    if options.step:
        stepped(options.step)
        return
    if options.killed:
        folder, ranks, kills = options.killed
        killed(Path(folder), int(ranks), int(kills))
        return
    facts, rows = harness.machine(), []
    for ranks in RANKS:
        rows.append(recovery(ranks, options.kills))
        print(json.dumps(rows[-1]), flush=True)
    for name, ranks in CASES:
        rows.append(cost(name, ranks, options.rounds))
        print(json.dumps(rows[-1]), flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
