"""Workers of a benchmark: the script that starts them, in processes of their own, with the JSON
object that each prints.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ddbp.commands import launch

from . import harness

# A worker times so many blocks of about so many seconds.
BLOCKS, BLOCK_SECONDS = 8, 0.15


def blocks(step: Callable[[], Any], agree: Callable[[int], int]) -> list[float]:
    """Return seconds per step of each block; `agree` makes the number of steps the same on all
    ranks.
    """
    harness.timed(step, 3)
    count = agree(max(1, round(BLOCK_SECONDS / harness.timed(step, 3))))
    harness.timed(step, count)
    return [harness.timed(step, count) for _ in range(BLOCKS)]


def agreed(comm: Any, count: int) -> int:
    """Return the number of rank 0."""
    shared = np.array([count], np.float64)
    comm.broadcast(shared)
    return int(shared[0])


def on_ranks(ranks: int, script: Sequence[str], *, timeout: float = 600, **environment: str) -> Any:
    """Run a script and its arguments on so many ranks of ours, and return the object that the first
    printed.
    """
    command = launch.command(launch.find_mpiexec(), ranks, script)
    return printed(at_once([(command, environment)], timeout)[0])


def alone(script: Sequence[str], **environment: str) -> Any:
    """Run a script and its arguments as one process, and return the object that it printed."""
    return printed(at_once([([sys.executable, *script], environment)])[0])


def on_cores(processes: int, script: Sequence[str]) -> list[Any]:
    """Run a script as processes that know nothing of each other, at the same time, and return the
    objects that they printed.

    Each gets `--core` and a number after its arguments, for `harness.pin_to_core`.
    """
    commands = [([sys.executable, *script, "--core", str(core)], {}) for core in range(processes)]
    return [printed(output) for output in at_once(commands)]


def over_gloo(ranks: int, script: Sequence[str], **environment: str) -> Any:
    """Run a script and its arguments as so many processes that PyTorch joins, and return the object
    that the first printed.
    """
    where = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(harness.free_port()),
        "WORLD_SIZE": str(ranks),
    }
    command = [sys.executable, *script]
    # gloo sometimes aborts while it ends, after the measurement.
    return printed(
        at_once(
            [(command, {**environment, **where, "RANK": str(rank)}) for rank in range(ranks)],
            may_abort=True,
        )[0]
    )


def at_once(
    commands: Sequence[tuple[Sequence[str], Mapping[str, str]]],
    timeout: float = 600,
    *,
    may_abort: bool = False,
) -> list[str]:
    """Run commands, each with what its environment adds, at the same time, and return what they
    printed.

    `may_abort` forgives those that abort after the first has printed.
    """
    processes = [
        subprocess.Popen(command, env={**os.environ, **more}, stdout=subprocess.PIPE, text=True)
        for command, more in commands
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    statuses = [process.returncode for process in processes]
    if any(statuses) and not (may_abort and "{" in outputs[0]):
        raise RuntimeError(f"{' '.join(commands[0][0])} failed with {statuses}")
    return outputs


def printed(output: str) -> Any:
    """Return the last JSON object that a worker printed."""
    return json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))
