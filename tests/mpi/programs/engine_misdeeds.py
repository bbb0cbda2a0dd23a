"""All ranks train, and rank 1 fails inside the engine: in a meeting, an update, or when memory is
shared.

Usage: engine_misdeeds.py MISDEED FOLDER; every rank writes its process id.
"""

import errno
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from launcher import await_others_at, await_watch

import ddbp
from ddbp.comm import shared_memory
from ddbp.comm.base import CollectiveKind
from ddbp.observers.observer import StepPhase
from layers import Linear, SoftmaxCrossEntropy

GUILTY, STEP = 1, 3
# The parameters and gradients of this model, and nothing else that is shared, are larger than this.
LARGE = 1_000_000
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5)).astype(np.float32), RNG.integers(0, 3, 12)


def die() -> None:
    """End without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def when(owner, name, condition, deed):
    """Do the deed before a call whose arguments meet the condition."""
    function = getattr(owner, name)

    def wrapper(*arguments, **options):
        if condition(*arguments):
            deed()
        return function(*arguments, **options)

    setattr(owner, name, wrapper)


def refuse(number):
    """Return a function that raises the error of that number."""

    def raise_error() -> None:
        raise OSError(number, os.strerror(number))

    return raise_error


def raise_error() -> None:
    """Raise."""
    raise RuntimeError("the misdeed")


def main() -> None:
    """Train; on rank 1 something happens in step 3 (counted from 0), or before the first."""
    misdeed = sys.argv[1]
    # Before MPI starts, ranks know each other by what the launcher says.
    number = int(os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"])
    guilty = number == GUILTY
    if misdeed == "be killed while memory is taken" and guilty:
        when(os, "posix_fallocate", lambda descriptor, start, size: size > LARGE, die)
    if misdeed == "have too little memory" and guilty:
        when(
            os,
            "posix_fallocate",
            lambda descriptor, start, size: size > LARGE,
            refuse(errno.ENOSPC),
        )
    if misdeed == "not see the file" and guilty:
        when(os, "open", lambda path, *rest: "/ddbp-" in str(path), refuse(errno.ENOENT))
    if misdeed == "raise at the start" and guilty:
        when(shared_memory, "attach", lambda *arguments: True, raise_error)
    if misdeed == "find no room for a file" and number == 0:
        when(shared_memory, "create", lambda size: True, refuse(errno.EACCES))
    comm = ddbp.communicator()
    Path(sys.argv[2], f"pid{comm.rank}").write_text(str(os.getpid()))
    large = 1_000_000 if "memory" in misdeed else 500
    model = Linear(5, large, rng=np.random.default_rng(0))
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.1),
        batch_size=12,
        shards="ranks",
        quiet=True,
    )
    gather, barrier = (comm, "gather"), (comm, "host_barrier")
    deeds = {
        "be killed in the exchange": (
            *gather,
            lambda collective, *rest: collective == (CollectiveKind.EXCHANGE, STEP),
            die,
        ),
        "be killed in the update": (
            ddbp.SGD,
            "update",
            lambda optimizer, *rest: optimizer.steps == STEP + 1,
            die,
        ),
        "be killed in publishing": (
            *barrier,
            lambda collective: collective == (CollectiveKind.PUBLISH, STEP),
            die,
        ),
        "be killed while others wait": (
            *gather,
            lambda collective, *rest: collective == (CollectiveKind.EXCHANGE, STEP),
            lambda: (await_others_at(StepPhase.EXCHANGE), die()),
        ),
        "raise in the update": (
            ddbp.SGD,
            "update",
            lambda optimizer, *rest: optimizer.steps == STEP + 1,
            raise_error,
        ),
    }
    if guilty and misdeed in deeds:
        when(*deeds[misdeed])
    if misdeed == "return having waited" and not guilty:
        # The others are the last at each meeting, so that rank 1 waits there and they never do.
        for place in (gather, barrier):
            when(*place, lambda *arguments: True, lambda: time.sleep(0.03))
    await_watch()
    for step in range(10):
        if guilty and misdeed == "return having waited" and step == 8:
            return
        trainer.train_step(X, Y)
    print(f"rank {comm.rank} has finished, {len(comm.hosts) - 1} hosts", flush=True)


if __name__ == "__main__":
    main()
