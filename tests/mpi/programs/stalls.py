"""All ranks train, and something is wrong with the time that rank 1 takes.

Usage: stalls.py DEED FOLDER; every rank writes its process id.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import ddbp
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

GUILTY, STEP, STEPS = 1, 5, 8
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5)).astype(np.float32), RNG.integers(0, 3, 12)


def loop() -> None:
    """Never end."""
    while True:
        pass


def hold_the_interpreter() -> None:
    """Never return from a library that lets no other thread run."""
    ctypes.PyDLL(None).sleep(600)


def wait_for_a_disk() -> None:
    """Wait for what a file never has."""
    path = Path(sys.argv[2], "fifo")
    os.mkfifo(path)
    path.read_bytes()


def stop() -> None:
    """Be stopped."""
    os.kill(os.getpid(), signal.SIGSTOP)


DEEDS = {
    "sleep": lambda: time.sleep(600),
    "loop": loop,
    "hold the interpreter": hold_the_interpreter,
    "wait for a disk": wait_for_a_disk,
    "stop": stop,
}


class Sleepy(ReLU):
    """Does the deed in forward, once."""

    def forward(self, call, x):
        if call.tape.training and call.tape.step == STEP and ddbp.communicator().rank == GUILTY:
            DEEDS[sys.argv[1].removesuffix(" in a layer")]()
        return super().forward(call, x)


def main() -> None:
    """Train; on rank 1 something happens before or within step 5."""
    deed = sys.argv[1]
    rank = ddbp.communicator().rank
    Path(sys.argv[2], f"pid{rank}").write_text(str(os.getpid()))
    rng = np.random.default_rng(0)
    middle = Sleepy() if deed.endswith("in a layer") else ReLU()
    model = Sequential(Linear(5, 4, rng=rng), middle, Linear(4, 3, rng=rng))
    trainer = ddbp.Trainer(
        model, loss=SoftmaxCrossEntropy(), optimizer=ddbp.SGD(0.1), batch_size=12, quiet=True
    )
    for step in range(STEPS):
        if step == STEP and rank == GUILTY and deed in DEEDS:
            DEEDS[deed]()
        trainer.train_step(X, Y)
    print(f"rank {rank} has finished", flush=True)


if __name__ == "__main__":
    main()
