"""Measure what each compression of gradients costs, sends and learns.

    python scripts/bench/compression.py [--seeds 5] [--json FILE]

Costs are seconds of the processor that one rank takes for a step of eight shards of a dense network
of a million parameters: to write the messages, to sum what they say, and to keep what they do not.
Bytes are those that each of two hosts sends in that step. The loss is that of the handwritten
digits of scikit-learn after some epochs with eight shards, the same rate for all.
"""

import time
from statistics import mean, stdev
from typing import Any

from lib import harness

import numpy as np

import ddbp
from ddbp.comm.serial import SerialCommunicator
from ddbp.compression import Rounded, chosen
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

NAMES = (None, "float16", "bfloat16", "int8", "top-k:0.01", "power-sgd:2", "sign")
SHARDS, HOSTS, WIDTH, DEPTH, STEPS, EPOCHS = 8, 2, 500, 4, 10, 20
BYTES = {"float16": 4.0, "bfloat16": 4.0, "int8": 2 * (1 + 1 / 256), None: 8.0}
"""Bytes for each parameter that a rank of as many hosts as shards would send of both sums."""


def cost(name: str | None) -> dict[str, Any]:
    """Return the milliseconds of a step, and the bytes that a host sends in it."""
    model = Sequential(*(Linear(WIDTH, WIDTH, rng=np.random.default_rng(i)) for i in range(DEPTH)))
    plan = ShardPlan(SHARDS, 1, 0)
    reducer = Reducer(model, plan, SerialCommunicator(), compression=chosen(name))
    rng, flat, compressed = np.random.default_rng(0), reducer.flat, reducer.compressed
    drawn = rng.standard_normal(flat.gradients.shape).astype(np.float32)
    gradient, found = np.empty(flat.values.size, np.float32), []
    for step in range(STEPS):
        flat.gradients[...] = drawn
        times = [time.process_time()]
        if compressed is not None:
            compressed.encode(1.0)
        times.append(time.process_time())
        reducer.exchange(step, SHARDS, np.zeros(SHARDS))
        reducer.sum(gradient, 0, 0)
        times.append(time.process_time())
        if compressed is not None:
            compressed.keep(0)
        times.append(time.process_time())
        found.append(np.diff(times))
    # The first has compiled kernels.
    write, add, keep = (1e3 * np.median(found[1:], axis=0)).tolist()
    others = (HOSTS - 1) / HOSTS
    if compressed is not None:
        sent = SHARDS * compressed.nbytes * others
    else:
        sent = BYTES[name] * flat.values.size * others
    return {"write_ms": write, "sum_ms": add, "keep_ms": keep, "bytes": round(sent)}


def loss(name: str | None, seed: int) -> float:
    """Return the loss of the last of the epochs."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    data = ddbp.ArrayDataset(digits.data.astype(np.float32) / 16, digits.target)
    rng = np.random.default_rng(seed)
    model = Sequential(Linear(64, 128, rng=rng), ReLU(), Linear(128, 10, rng=rng))
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.05, momentum=0.9),
        batch_size=64,
        shards=SHARDS,
        seed=seed,
        compression=name,
        quiet=True,
    )
    return float(trainer.fit(data, epochs=EPOCHS)[-1]["loss"])


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--seeds", type=int, default=5, help="of the losses (%(default)s)")
    options = parser.parse_args()
    facts, rows = harness.machine(), []
    for name in NAMES:
        losses = [loss(name, seed) for seed in range(options.seeds)]
        spread = stdev(losses) if len(losses) > 1 else 0.0
        kind = "as it is" if name is None else name
        rounded = name is None or isinstance(chosen(name), Rounded)
        learnt = {"loss": mean(losses), "loss_sd": spread}
        rows.append({"compression": kind, "rounded": rounded, **cost(name), **learnt})
        line = "{compression:14}{write_ms:8.2f}{sum_ms:8.2f}{keep_ms:8.2f}{bytes:10}{loss:9.4f}"
        print(line.format(**rows[-1]), flush=True)
    settings = {"shards": SHARDS, "hosts": HOSTS, "epochs": EPOCHS, "seeds": options.seeds}
    harness.write(options.json, facts, rows, parameters=DEPTH * WIDTH * (WIDTH + 1), **settings)


if __name__ == "__main__":
    main()
