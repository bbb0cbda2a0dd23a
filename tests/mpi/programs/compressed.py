"""Train a network with gradients compressed in each way, in eight shards and in seven.

Usage: compressed.py FOLDER; every rank writes parameters and losses of each run; and of a step of a
plain network for each way the bytes that it has sent to other hosts, what ranks say when they meet
apart, the elements of the flat arrays and the bytes of a message.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import BatchNorm, Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy

COMPRESSIONS = {
    "none": None,
    "top-k": ddbp.TopK(0.05),
    "power-sgd": ddbp.PowerSGD(2),
    "sign": ddbp.Sign(),
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int8": "int8",
}
OPTIONS = {
    "top-k": {"clip_norm": 0.5, "accumulate": 2},
    "power-sgd": {"l2": 1e-3, "clip_value": 0.1},
    "sign": {"shards": 7, "optimizer": ddbp.SGD(0.02, momentum=0.9)},
    "int8": {"shards": 7, "clip_norm": 0.5},
}
STEPS = 12
RNG = np.random.default_rng(0)
# In batches of 19: the last batch has 6, less than the shards.
X, Y = RNG.standard_normal((44, 20)).astype(np.float32), RNG.integers(0, 4, 44)


def network(*middle) -> Sequential:
    """Return a network whose parameters fill several blocks, so that every rank owns some."""
    rng = np.random.default_rng(1)
    return Sequential(
        Linear(20, 90, rng=rng), *middle, Linear(90, 70, rng=rng), Linear(70, 4, rng=rng)
    )


def make(model, name, **options) -> ddbp.Trainer:
    """Return a quiet trainer that compresses in the way of that name."""
    usual = {"shards": 8, "optimizer": ddbp.Adam(0.01)}
    return ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        batch_size=19,
        compression=COMPRESSIONS[name],
        quiet=True,
        **(usual | options),
    )


def sent(name) -> list[int]:
    """Return what is said of a step of a plain network."""
    trainer = make(network(), name)
    comm, topology = trainer.comm, trainer.comm.topology
    for _ in range(3):
        before = comm.sent
        trainer.train_step(X[:19], Y[:19])
    # 64 words of each rank of this host.
    meeting = 512 * (topology.last - topology.first) * len(topology.send_to)
    compressed = trainer._update.reducer.compressed
    nbytes = 0 if compressed is None else compressed.nbytes
    return [comm.sent - before - meeting, trainer._flat.values.size, nbytes]


def main() -> None:
    """Run all."""
    results, messages = {}, {}
    for name in COMPRESSIONS:
        options = OPTIONS.get(name, {})
        if options.get("shards", 8) < ddbp.communicator().size:
            continue
        model = network(BatchNorm(90, synchronized=True), ReLU(), Dropout(0.1))
        trainer, losses = make(model, name, **options), []
        while trainer.step_count < STEPS:
            losses += [
                trainer.train_step(X[rows], Y[rows]) for rows in np.split(np.arange(44), (19, 38))
            ]
        results[name] = np.concatenate([each.value.reshape(-1) for each in model.parameters()])
        results[f"{name} losses"] = np.array(losses)
        messages[name] = sent(name)
    comm = ddbp.communicator()
    results |= {"sizes": np.array([*messages.values()]), "hosts": np.diff(comm.hosts)}
    np.savez(Path(sys.argv[1]) / f"rank{comm.rank}.npz", **results)


if __name__ == "__main__":
    main()
