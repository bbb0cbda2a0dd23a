"""Time training steps on two hosts that publish parameters, and on hosts that are whole: they
publish sums of gradients, and each updates all parameters.

    python scripts/bench/whole_hosts.py [--rounds R] [--json FILE]

MPICH takes the halves of the ranks of this machine for two hosts. Both kinds take turns, each in
processes of its own. Bytes are those that a host sends in a step, and those of the moments of Adam
that it holds.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps, workers

import numpy as np
from workloads import WORKLOADS, dense

import ddbp
from ddbp import settings
from ddbp.comm.mpi_messages import MPIPendingMessages
from layers.types import Array

HALVES = {"MPIR_CVAR_NUM_CLIQUES": "2"}
KINDS = {"parameters": "0", "sums": "1"}
CHOSEN = {"mlp-wide": dense("mlp-wide", (784, 1024, 1024, 10), batch=1024), **WORKLOADS}
CASES = (("mlp-wide", 2), ("mlp-wide", 4), ("resnet20", 2))


def bytes_sent(step: steps.Step) -> int:
    """Return the bytes that this rank sends to other hosts in a step."""
    comm: Any = ddbp.communicator()
    sent, total = MPIPendingMessages.send, 0

    def count(messages: Sequence[tuple[int, Array]]) -> None:
        nonlocal total
        total += sum(array.nbytes for _, array in messages)

    def send(self: Any, part: int, sends: Sequence[tuple[int, Array]]) -> None:
        count(sends)
        sent(self, part, sends)

    def sendrecv(collective: Any, sends: Any, receives: Any) -> None:
        count(sends)
        type(comm).sendrecv(comm, collective, sends, receives)

    MPIPendingMessages.send, comm.sendrecv = send, sendrecv  # type: ignore[method-assign]
    step()
    MPIPendingMessages.send = sent  # type: ignore[method-assign]
    del comm.sendrecv
    return total


class Attached(ddbp.Callback):
    """Keeps the trainer."""

    def on_attach(self, trainer: ddbp.Trainer) -> None:
        self.trainer = trainer


def worker(name: str) -> None:
    """Measure on one of the ranks; the first prints the seconds per step of each block, and the
    bytes.
    """
    comm, attached = ddbp.communicator(), Attached()
    harness.pin_to_core(comm.rank)
    step = steps.ours(CHOSEN[name], steps.TIMING_RATE, callbacks=[attached])
    times = workers.blocks(step, lambda count: workers.agreed(comm, count))
    moments = attached.trainer.optimizer.moments.values()
    found = [bytes_sent(step), sum(array.nbytes for array in moments)]
    sent, held = comm.all_gather(np.array(found))[: comm.hosts[1]].sum(0).tolist()
    if comm.rank == 0:
        print(json.dumps({"times": times, "sent": sent, "moments": held}))


def row(name: str, ranks: int, rounds: int) -> dict[str, Any]:
    """Measure one workload on so many ranks, in turns."""
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    sizes: dict[str, dict[str, int]] = {}
    script = [str(Path(__file__).resolve()), "--worker", name]
    for turn in harness.turns(KINDS, rounds):
        for kind in turn:
            environment = {**HALVES, settings.WHOLE_HOSTS: KINDS[kind]}
            found = workers.on_ranks(ranks, script, **environment)
            times[kind].append(median(found["times"]))
            sizes[kind] = {key: found[key] for key in ("sent", "moments")}
    count = sum(parameter.size for parameter in CHOSEN[name].start().parameters())
    return {
        "name": name,
        "hosts": 2,
        "ranks": ranks,
        "threads": 1,
        "parameters": count,
        "ms": {kind: harness.spread(values)["median"] for kind, values in times.items()},
        "ratio": harness.ratio(times["sums"], times["parameters"]),
        "bytes": sizes,
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument("--worker", metavar="WORKLOAD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    facts, rows = harness.machine(), []
    for name, ranks in CASES:
        rows.append(row(name, ranks, options.rounds))
        print(json.dumps(rows[-1]), flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
