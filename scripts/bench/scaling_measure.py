"""What the model of scale needs to know of the machine at hand, and the training steps that it is
compared with.

`scaling_model.py` starts this script as a worker, alone or on ranks; each prints one JSON object.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps, workers

import numpy as np
import reduction
from workloads import WORKLOADS, dense
from workloads.workload import Workload

import ddbp
from ddbp.comm.base import CollectiveKind

GRADIENTS = (2**16, 2**18, 2**20, 2**22, 2**24)
"""Numbers of parameters whose reduction is timed."""
MESSAGES = (64, 2**12, 2**16, 2**18, 2**20, 2**22)
MANY = 8
STREAM = 2**24
BLOCKS, BLOCK_SECONDS = 6, 0.25


def _slowest(value: float) -> float:
    """Return the largest of what the ranks measured; collective."""
    return float(ddbp.communicator().all_gather(np.array([value])).max())


# Workers


def machine() -> dict[str, Any]:
    """Return the seconds of a meeting, of reductions and of a pass over memory, all ranks at the
    same time.
    """
    comm = ddbp.communicator()
    step = reduction.ours(16)[1]
    harness.timed(step, 200)
    # A step without gradients to speak of is two meetings.
    meeting = _slowest(min(harness.timed(step, 500) for _ in range(9))) / 2
    reductions = {}
    if comm.size == 2:
        for count in GRADIENTS:
            gradients, step = reduction.ours(count)
            found = []
            for _ in range(max(25, min(200, 2**25 // count))):
                # As backward does: the numbers come from the core of the rank that wrote them.
                gradients[:] = 1
                comm.all_gather(np.zeros(1))
                found.append(_slowest(harness.timed(step, 1)))
            reductions[count] = median(found)
    return {"meeting": meeting, "reductions": reductions, "stream": _stream(), "ranks": comm.size}


def _stream() -> float:
    """Return the bytes per second at which all ranks together add two arrays into a third, all
    larger than the caches.
    """
    comm = ddbp.communicator()
    a, b, c = (np.ones(STREAM, np.float32) for _ in range(3))
    found = []
    for _ in range(7):
        comm.all_gather(np.zeros(1))
        found.append(_slowest(harness.timed(lambda: np.add(a, b, out=c), 1)))
    return comm.size * 3 * a.nbytes / median(found)


def messages() -> dict[str, Any]:
    """Return the seconds in which two ranks of different hosts exchange messages, by their bytes,
    and several at once.
    """
    comm = ddbp.communicator()
    other = 1 - comm.rank

    def seconds(size: int, count: int) -> float:
        sent, received = (np.zeros((count, size), np.uint8) for _ in range(2))
        sends, receives = ([(other, array[i]) for i in range(count)] for array in (sent, received))
        repeats = max(5, min(200, 2**24 // size))
        sendrecv = lambda: comm.sendrecv((CollectiveKind.EXCHANGE, 0), sends, receives)  # noqa: E731
        harness.timed(sendrecv, 20)
        return _slowest(median(harness.timed(sendrecv, repeats) for _ in range(7)))

    return {
        "one": {size: seconds(size, 1) for size in MESSAGES},
        "many": seconds(MESSAGES[0], MANY),
        "hosts": len(comm.hosts) - 1,
    }


def compute(workload: Workload) -> dict[str, Any]:
    """Return seconds by samples, forward and backward and of whole steps, and of the update, of one
    process on one core.
    """
    passes, whole, updates = {}, {}, []
    full = workload.batches()
    samples = len(full[0][0])
    while samples:
        batches = [(x[:samples], y[:samples]) for x, y in full]
        passes[samples], update = _passes(workload, batches)
        whole[samples] = passes[samples] + update
        updates.append(update)
        samples //= 2
    tiny = dense("tiny", (16, 16), 16)
    overhead = _passes(tiny, tiny.batches())[1]
    return {
        "passes": passes,
        "whole": whole,
        "update": median(updates),
        "overhead": overhead,
        "parameters": sum(parameter.size for parameter in workload.start().parameters()),
    }


def _passes(workload: Workload, batches: list[Any]) -> tuple[float, float]:
    """Return the seconds forward and backward on a batch, and of the update."""
    model, criterion = workload.start(), workload.loss()
    trainer = ddbp.Trainer(
        model,
        loss=criterion,
        optimizer=ddbp.Adam(steps.TIMING_RATE),
        batch_size=len(batches[0][0]),
        seed=0,
        shards="ranks",
        quiet=True,
    )
    following = itertools.cycle(batches)
    times: list[tuple[float, float]] = []

    def step() -> None:
        started = time.perf_counter()
        x, y = next(following)
        batch = trainer.batch(x, y)
        loss = criterion(model(batch.x), batch.y)
        loss.backward()
        middle = time.perf_counter()
        trainer.update(loss)
        times.append((middle - started, time.perf_counter() - middle))

    for _ in range(3):
        trainer.train_step(*next(following))
        step()
    times.clear()
    end = time.perf_counter() + 0.8
    while time.perf_counter() < end or len(times) < 5:
        step()
    forward, update = np.median(times, axis=0)
    return float(forward), float(update)


def training(workload: Workload) -> dict[str, Any]:
    """Return the seconds of a training step in each block, and how long ranks waited for the last
    one at the meeting.
    """
    comm = ddbp.communicator()
    waits: list[float] = []
    gather = comm.gather

    def timed_gather(*arguments: Any, **more: Any) -> bool:
        started = time.perf_counter()
        result = gather(*arguments, **more)
        waits.append(time.perf_counter() - started)
        return result

    step = steps.ours(workload, steps.TIMING_RATE)
    harness.timed(step, 3)
    count = workers.agreed(comm, max(1, round(BLOCK_SECONDS / harness.timed(step, 3))))
    harness.timed(step, count)
    comm.gather = timed_gather  # type: ignore[method-assign]
    blocks = [harness.timed(step, count) for _ in range(BLOCKS)]
    comm.gather = gather  # type: ignore[method-assign]
    everyone = comm.all_gather(np.array(waits))
    if not waits:
        return {"blocks": blocks, "wait_mean": 0.0, "wait_median": 0.0, "wait_quantiles": {}}
    # The last one waits for nobody: its time is that of the meeting itself.
    excess = (everyone - everyone.min(axis=0)).mean(axis=0)
    waited = {"wait_mean": float(excess.mean()), "wait_median": float(np.median(excess))}
    return {
        "blocks": blocks,
        **waited,
        "wait_quantiles": {
            str(q): float(np.quantile(excess, q)) for q in (0.1, 0.5, 0.9, 0.99, 1.0)
        },
    }


# Starting workers


def on_ranks(ranks: int, hosts: int, *arguments: str) -> dict[str, Any]:
    """Run a worker on so many ranks of this machine, which plays so many hosts, and return what the
    first printed.
    """
    played = {"MPIR_CVAR_NUM_CLIQUES": str(hosts)} if hosts > 1 else {}
    result: dict[str, Any] = workers.on_ranks(
        ranks, [str(Path(__file__).resolve()), *arguments], **played
    )
    return result


def at_once(processes: int, *arguments: str) -> list[dict[str, Any]]:
    """Run workers that know nothing of each other at the same time, each on a core of its own, and
    return what they printed.
    """
    return workers.on_cores(processes, [str(Path(__file__).resolve()), *arguments])


def main() -> None:
    """Work as told: machine, messages, compute WORKLOAD or training WORKLOAD, and perhaps --core
    NUMBER.
    """
    if "--core" in sys.argv:
        harness.pin_to_core(int(sys.argv[-1]))
    kind, names = sys.argv[1], [name for name in sys.argv[2:] if name in WORKLOADS]
    work: dict[str, Callable[..., dict[str, Any]]] = {
        "machine": machine,
        "messages": messages,
        "compute": compute,
        "training": training,
    }
    result = work[kind](*(WORKLOADS[name] for name in names))
    if ddbp.communicator().rank == 0:
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
