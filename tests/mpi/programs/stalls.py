"""All ranks train, and something is wrong with the time that rank 1 takes, or with its end.

Usage: stalls.py DEED FOLDER; every rank writes its process id. "DEED in a layer" is in forward;
before "DEED without a look" the watchdog of rank 1 has never looked.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from launcher import await_others_at, await_watch

import ddbp
from ddbp.observers import slow_rank, watchdog
from ddbp.observers.observer import StepPhase
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

GUILTY, STEP, STEPS = 1, 5, 8
SLEEP = 600.0
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5)).astype(np.float32), RNG.integers(0, 3, 12)


def loop() -> None:
    """Never end."""
    while True:
        pass


def hold_the_interpreter() -> None:
    """Never return from a library that lets no other thread run."""
    ctypes.PyDLL(None).sleep(int(SLEEP))


def wait_for_a_disk() -> None:
    """Wait for what a file never has."""
    path = Path(sys.argv[2], "fifo")
    os.mkfifo(path)
    path.read_bytes()


def want_memory() -> None:
    """Want more than a control group of a test has, bit by bit."""
    held = [np.ones(2**22) for _ in range(512)]
    print(len(held))


def leave_the_loop() -> None:
    """Do something else for long, as if training were over."""
    time.sleep(SLEEP)


def kill(number: signal.Signals) -> None:
    """Have a signal come."""
    os.kill(os.getpid(), number)


DEEDS = {
    "nothing": lambda: None,
    "sleep": lambda: time.sleep(SLEEP),
    "loop": loop,
    "hold the interpreter": hold_the_interpreter,
    "wait for a disk": wait_for_a_disk,
    "leave the loop": leave_the_loop,
    "stop": lambda: kill(signal.SIGSTOP),
    "stop without a look": lambda: kill(signal.SIGSTOP),
    "want memory": want_memory,
    "crash": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "be killed": lambda: kill(signal.SIGKILL),
    "leave": lambda: os._exit(3),
    "raise": lambda: 1 / 0,
}


def do(deed: str) -> None:
    """Do a deed once the others wait for this rank."""
    await_others_at(StepPhase.EXCHANGE)
    DEEDS[deed]()


class Doing(ReLU):
    """Does the deed in forward."""

    def forward(self, call, x):
        if call.tape.training and call.tape.step == STEP and ddbp.communicator().slot == GUILTY:
            do(sys.argv[1].removesuffix(" in a layer"))
        return super().forward(call, x)


def trainer_of(middle, *callbacks, **options):
    """Return a trainer of a small model."""
    rng = np.random.default_rng(0)
    model = Sequential(Linear(5, 4, rng=rng), middle, Linear(4, 3, rng=rng))
    loss, sgd = SoftmaxCrossEntropy(), ddbp.SGD(0.1)
    usual = {"loss": loss, "optimizer": sgd, "batch_size": 12, "quiet": True}
    return ddbp.Trainer(model, callbacks=callbacks, **usual, **options)


def never_look() -> None:
    """Have the watchdog of rank 1 look never, as if it had had no time to."""
    look = watchdog.Watchdog._look_once
    watchdog.Watchdog._look_once = lambda own: None if own._comm.slot == GUILTY else look(own)


def misbehave(deed: str) -> None:
    """Train; on rank 1 something happens before or within step 5."""
    own = trainer_of(Doing() if deed.endswith("in a layer") else ReLU())
    await_watch()
    for step in range(STEPS):
        if step == STEP and own.comm.rank == GUILTY and deed in DEEDS:
            do(deed)
        own.train_step(X, Y)


def slowly(seconds):
    """Return a metric that takes so many seconds."""

    def metric(prediction, target):
        time.sleep(seconds)
        return np.zeros(len(target))

    return metric


def take_time() -> None:
    """Have everything take longer than the limit that may, but get on."""
    folder = Path(sys.argv[2], "checkpoints")
    checkpoints = ddbp.Checkpoints(path=folder, every_steps=100, background=False)
    own = trainer_of(ReLU(), checkpoints, shards="ranks")
    for _ in range(STEPS):
        own.train_step(X, Y)
    # A disk that is slow.
    fsync = os.fsync
    os.fsync = lambda descriptor: (time.sleep(0.7), fsync(descriptor))
    checkpoints.write(own)
    os.fsync = fsync
    own.metrics = {"slow": slowly(4.0)}
    own.evaluate(ddbp.ArrayDataset(X, Y))
    own.train_step(X, Y)
    # The whole job is suspended, then one rank, each until it goes on.
    pids = [str(pid) for pid in own.comm.all_gather(np.array([os.getpid()]))[:, 0]]
    for stopped, seconds in ((pids, 5), (pids[1:2], 1)):
        every, suspends = " ".join(stopped), None
        if own.comm.rank == 0:
            line = f"kill -STOP {every}; sleep {seconds}; kill -CONT {every}"
            suspends = subprocess.Popen(["sh", "-c", line], start_new_session=True)
        over = False
        while not over:
            own.train_step(X, Y)
            ended = suspends is not None and suspends.poll() is not None
            over = own.comm.all_gather(np.array([ended])).any()
    # One rank is slow: by more than it costs another one to be without a core for a while.
    slow_rank._SECONDS, slow_rank._STEPS = 2.0, 5
    print(f"slow from step {own.step_count}", flush=True)
    for _ in range(8):
        time.sleep(0.75 if own.comm.rank == GUILTY else 0.05)
        own.train_step(X, Y)


if __name__ == "__main__":
    if sys.argv[1].endswith("without a look"):
        never_look()
    own_rank = ddbp.communicator().rank
    Path(sys.argv[2], f"pid{own_rank}").write_text(str(os.getpid()))
    if sys.argv[1] == "take time":
        take_time()
    else:
        misbehave(sys.argv[1])
    print(f"rank {own_rank} has finished", flush=True)
