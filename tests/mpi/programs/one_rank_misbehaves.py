"""All ranks train, and rank 1 does not do as the others; every rank writes its process id.

Usage: one_rank_misbehaves.py MISDEED FOLDER
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

import ddbp
from layers import Linear, SoftmaxCrossEntropy

GUILTY, STEP = 1, 3
SLEEP = 600.0
RNG = np.random.default_rng(0)
DATA = ddbp.ArrayDataset(RNG.standard_normal((96, 5)), RNG.integers(0, 3, 96))


def raise_error() -> None:
    """Raise."""
    raise RuntimeError("the misdeed")


def raise_in_thread() -> None:
    """Raise beside the main thread, which would go on."""
    threading.Thread(target=raise_error).start()
    time.sleep(SLEEP)


MISDEEDS = {
    "raise": raise_error,
    "raise in a thread": raise_in_thread,
    "exit": lambda: sys.exit(3),
    "exit with success": lambda: sys.exit(0),
    "be killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sleep": lambda: time.sleep(SLEEP),
}


def main() -> None:
    """Train; on rank 1 something happens before step 3 (counted from 0)."""
    misdeed = sys.argv[1]
    rank = ddbp.communicator().rank
    Path(sys.argv[2], f"pid{rank}").write_text(str(os.getpid()))
    if misdeed == "sleep before the start" and rank == GUILTY:
        time.sleep(SLEEP)
    model = Linear(5, 3, rng=np.random.default_rng(0))
    folder = Path(__file__) / "below a file" if misdeed == "have no run folder" else None
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.1),
        batch_size=12,
        run_dir=folder,
        quiet=True,
        exchange=ddbp.DiLoCo(workers=3, every=16) if misdeed.endswith("apart") else None,
    )
    for number, batch in enumerate(trainer.batches(DATA, epochs=4)):
        if number == STEP and rank == GUILTY:
            if misdeed == "return early":
                return
            if misdeed == "skip a step":
                continue
            if misdeed == "take another batch":
                batch = trainer.batch(DATA.x[:7].astype(np.float32), DATA.y[:7])
            if misdeed == "have a wrong label":
                batch.y[2] = 5
            if misdeed.endswith("NaN apart"):
                batch.x.array[...] = np.nan
            if misdeed in MISDEEDS:
                MISDEEDS[misdeed]()
        try:
            trainer.step(trainer.loss(model(batch.x), batch.y))
        except FloatingPointError:
            if misdeed != "pass over NaN apart":
                raise
            return
    if misdeed == "evaluate once more" and rank == GUILTY:
        trainer.evaluate(DATA)
    print(f"rank {rank} has finished", flush=True)


if __name__ == "__main__":
    main()
