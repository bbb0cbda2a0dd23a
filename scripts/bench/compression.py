"""Measure what each compression of gradients costs, sends and learns, and which bits it has.

    python scripts/bench/compression.py [--seeds 5] [--json FILE]
    python scripts/bench/compression.py --bits [--json FILE]

Costs are seconds of the processor that one rank takes for a step of eight shards of a dense network
of a million parameters: to write the messages, to sum what they say, and to keep what they do not.
Bytes are those that each of two hosts sends in that step. The loss is that of the handwritten
digits of scikit-learn after some epochs with eight shards, the same rate for all. Bits, which
--bits measures anew and nothing else, are digests of the parameters after two of these epochs on
one to eight ranks, and on ranks of two hosts, which this machine plays.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from lib import harness, workers

import numpy as np

import ddbp
from ddbp.comm.serial import SerialCommunicator
from ddbp.compression import Rounded, chosen
from ddbp.compression.bits import Bits
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

NAMES = (None, "float16", "bfloat16", "int8", "top-k:0.01", "power-sgd:2", "sign")
SHARDS, HOSTS, WIDTH, DEPTH, STEPS, EPOCHS = 8, 2, 500, 4, 10, 20
EXCHANGES = (
    "LocalSGD(workers=8, every=4)",
    "DiLoCo(workers=8, every=4, bits=8)",
    "DiLoCo(workers=8, every=4, fragments=2, bits=4)",
)
PLACES = [*((ranks, 1) for ranks in range(1, 9)), (2, 2), (4, 2), (8, 2)]
"""Ranks and hosts."""
BYTES = {"float16": 4.0, "bfloat16": 4.0, "int8": 2 * (1 + 1 / 256), None: 8.0}
"""Bytes for each parameter that a rank of as many hosts as shards would send of both sums."""


def cost(name: Any) -> dict[str, Any]:
    """Return the milliseconds of a step by a compression or its name, and the bytes that a host
    sends in it.
    """
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


def trained(seed: int, epochs: int, **options: Any) -> tuple[float, ddbp.Trainer]:
    """Return the loss of the last of some epochs on the digits, and the trainer."""
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
        drop_last="exchange" in options,
        quiet=True,
        **options,
    )
    return float(trainer.fit(data, epochs=epochs)[-1]["loss"]), trainer


def digests() -> dict[str, str]:
    """Return the digest of the parameters after two epochs with each compression and exchange."""
    ways: list[dict[str, Any]] = [{"compression": name} for name in NAMES]
    ways += [{"exchange": text} for text in EXCHANGES]
    return {
        next(iter(way.values())) or "as it is": trained(0, 2, **way)[1].parameters_sha256()
        for way in ways
    }


def bits() -> list[dict[str, Any]]:
    """Return the digests of each compression and exchange at all places."""
    script, found = [str(Path(__file__).resolve()), "--worker"], {}
    for ranks, hosts in PLACES:
        played = {"MPIR_CVAR_NUM_CLIQUES": str(hosts)} if hosts > 1 else {}
        place = f"{ranks} on {hosts} hosts" if hosts > 1 else str(ranks)
        found[place] = (
            workers.on_ranks(ranks, script, **played) if ranks > 1 else workers.alone(script)
        )
        print(place, len({*found[place].values()} - {*found["1"].values()}), "differ", flush=True)
    return [
        {"way": way, "digests": {place: each[way] for place, each in found.items()}}
        for way in found["1"]
    ]


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--seeds", type=int, default=5, help="of the losses (%(default)s)")
    parser.add_argument("--bits", action="store_true", help="measure the bits, and only these")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        found = digests()
        if ddbp.communicator().rank == 0:
            print(json.dumps(found), flush=True)
        return
    before = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    if options.bits:
        facts, rows, more = before.pop("machine", harness.machine()), before.pop("rows", []), before
        harness.write(options.json, facts, rows, **{**more, "bits": bits()})
        return
    facts, rows = harness.machine(), []
    for name in NAMES:
        losses = [trained(seed, EPOCHS, compression=name)[0] for seed in range(options.seeds)]
        spread = stdev(losses) if len(losses) > 1 else 0.0
        kind = "as it is" if name is None else name
        rounded = name is None or isinstance(chosen(name), Rounded)
        learnt = {"loss": mean(losses), "loss_sd": spread}
        rows.append({"compression": kind, "rounded": rounded, **cost(name), **learnt})
        line = "{compression:14}{write_ms:8.2f}{sum_ms:8.2f}{keep_ms:8.2f}{bytes:10}{loss:9.4f}"
        print(line.format(**rows[-1]), flush=True)
    settings = {"shards": SHARDS, "hosts": HOSTS, "epochs": EPOCHS, "seeds": options.seeds}
    settings["codes"] = [{"compression": f"{n} bits", **cost(Bits(n))} for n in (8, 4)]
    if "bits" in before:
        settings["bits"] = before["bits"]
    harness.write(options.json, facts, rows, parameters=DEPTH * WIDTH * (WIDTH + 1), **settings)


if __name__ == "__main__":
    main()
