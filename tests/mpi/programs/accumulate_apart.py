"""Count the messages of no_sync, or leave it out on rank 1. Usage: accumulate_apart.py DEED."""

import sys
from contextlib import nullcontext

import numpy as np

import ddbp
from layers import Linear, SoftmaxCrossEntropy

RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((12, 5)).astype(np.float32), RNG.integers(0, 3, 12)

comm = ddbp.communicator()
model = Linear(5, 3, rng=np.random.default_rng(0))
trainer = ddbp.Trainer(
    model, loss=SoftmaxCrossEntropy(), optimizer=ddbp.SGD(0.1), batch_size=12, quiet=True
)
trainer.train_step(X, LABELS)

sent = []
if sys.argv[1] == "send nothing":
    for name in ("exchange", "publish", "all_gather", "broadcast"):
        setattr(comm, name, lambda *arguments: sent.append(arguments))
for _ in range(3):
    with (
        nullcontext() if sys.argv[1] == "forget a context" and comm.rank == 1 else trainer.no_sync()
    ):
        trainer.train_step(X, LABELS)
if sys.argv[1] == "send nothing":
    for name in ("exchange", "publish", "all_gather", "broadcast"):
        delattr(comm, name)
trainer.train_step(X, LABELS)
if comm.rank == 0:
    print(sent or "nothing was sent")
