"""Compare learning rules: one network, three small data sets, several seeds; and how long their
passes take.

    python scripts/bench/rules.py --seeds 10 --json docs/results/learning_rules.json

The learning rate of a rule on a data set is the best of a few on a part of its training data, with
a seed of its own. The file is written anew after every seed.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter, process_time
from typing import Any, NamedTuple

from lib import harness, rule_data

import numpy as np
from scipy import stats

import ddbp
from ddbp.training import learning
from layers import (
    FlatParameters,
    Linear,
    Module,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Tape,
    Workspace,
)

RULES = {
    "backpropagation": None,
    "sign symmetry, uniform": "SignSymmetry('uniform', seed={seed})",
    "sign symmetry, batchwise": "SignSymmetry('batchwise', seed={seed})",
    "sign symmetry, fixed": "SignSymmetry('fixed', seed={seed})",
    "feedback alignment": "FeedbackAlignment(seed={seed})",
    "direct feedback alignment": "DirectFeedbackAlignment(seed={seed})",
    "direct random target projection": "DirectRandomTargetProjection(seed={seed})",
    "meProp, 5 %": "MeProp(0.05)",
    "meProp, 5 %, of batches": "MeProp(0.05, per='batch')",
    "predictive coding": "PredictiveCoding(20, 0.5)",
    "target propagation": "TargetPropagation(seed={seed})",
    "difference target propagation": "DifferenceTargetPropagation(seed={seed})",
    "forward-forward": "ForwardForward(0.5, seed={seed})",
}
"""By name: what `Trainer(rule=…)` takes. The outputs of tanh are below 1, so is the goodness."""

_BIOTORCH = "biotorch 0.0.16, LeNet"
PUBLISHED = {
    "feedback alignment": (0.91, 1.70, _BIOTORCH),
    "direct feedback alignment": (0.91, 1.61, _BIOTORCH),
    "sign symmetry, uniform": (0.91, 0.94, _BIOTORCH),
    "sign symmetry, batchwise": (0.91, 0.91, _BIOTORCH),
    "sign symmetry, fixed": (0.91, 0.97, _BIOTORCH),
    "meProp, 5 %": (1.80, 1.73, "authors' code, 3x500, 80 of 500 kept"),
    "difference target propagation": (1.86, 1.94, "Lee et al. 2015, 7x240 tanh"),
    "forward-forward": (1.40, 1.36, "Hinton 2022, 4x2000 ReLU"),
}
"""Test errors on all of MNIST in percent, of backpropagation and of the rule, and where they
stand.
"""


class Task(NamedTuple):
    """What is learned: a data set, the widths of the hidden layers, their activation, how many
    epochs, and by which rules.
    """

    data: str
    widths: tuple[int, ...]
    activation: type[Module]
    epochs: int
    rules: Sequence[str] = tuple(RULES)


TASKS = {
    "digits": Task("digits", (256, 256), Tanh, 30),
    "MNIST-5000": Task("MNIST-5000", (256, 256), Tanh, 15),
    "MNIST-1D": Task("MNIST-1D", (256, 256), Tanh, 40),
    "MNIST-5000, 3x500": Task(
        "MNIST-5000",
        (500, 500, 500),
        ReLU,
        100,
        ("backpropagation", "meProp, 5 %", "meProp, 5 %, of batches"),
    ),
}
"""By name. The last is the network of the meProp paper."""
RATES = (1e-3, 3e-3)
BATCH = 64
TUNING_SEED = 1000
# The network of the meProp paper, whose passes are timed.
TIMED = (784, 500, 500, 500, 10)


class Run(NamedTuple):
    """One training."""

    task: str
    rule: str
    rate: float
    seed: int
    epochs: int
    validation: bool = False


def network(widths: tuple[int, ...], activation: type[Module], seed: int) -> Sequential:
    """Return dense layers with an activation between them."""
    rng = np.random.default_rng(seed)
    parts: list[Module] = []
    for inputs, outputs in pairwise(widths):
        parts += [Linear(inputs, outputs, rng=rng), activation()]
    return Sequential(*parts[:-1])


def error(run: Run) -> float:
    """Train a network, and return its test error in percent."""
    task = TASKS[run.task]
    training, test = rule_data.split(task.data, validation=run.validation)
    widths = (training.x.shape[1], *task.widths, 10)
    words = RULES[run.rule]
    trainer = ddbp.Trainer(
        network(widths, task.activation, run.seed),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(run.rate),
        batch_size=BATCH,
        shards=1,
        seed=run.seed,
        rule=words and words.format(seed=run.seed),
        quiet=True,
    )
    trainer.fit(training, epochs=run.epochs)
    return 100 * (1 - trainer.evaluate(test)["accuracy"])


def earlier(path: Path, tasks: list[str]) -> dict[tuple[str, str], float]:
    """Return the learning rate of each task and rule of an earlier result."""
    rows = {row["rule"]: row for row in json.loads(path.read_text())["rows"]}
    return {(name, rule): rows[rule][name]["rate"] for name in tasks for rule in TASKS[name].rules}


def tuned(
    each: Callable[..., Iterator[float]], tasks: list[str], epochs: dict[str, int]
) -> dict[tuple[str, str], float]:
    """Return the learning rate of each task and rule."""
    runs = [
        Run(name, rule, rate, TUNING_SEED, max(1, epochs[name] // 3), validation=True)
        for name in tasks
        for rule in TASKS[name].rules
        for rate in RATES
    ]
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for run, wrong in zip(runs, each(error, runs), strict=True):
        found[run.task, run.rule] = min(
            (wrong, run.rate), found.get((run.task, run.rule), (wrong, run.rate))
        )
        print(f"{run.task:20}{run.rule:34}{run.rate:8}{wrong:8.2f} %", flush=True)
    return {key: rate for key, (_, rate) in found.items()}


def interval(values: list[float]) -> float:
    """Return half of the 95 % confidence interval of a mean (Student's t)."""
    if len(values) < 2:
        return 0.0
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    return quantile * stdev(values) / float(np.sqrt(len(values)))


def passes(words: str | None, model: Sequential) -> Callable[[], tuple[float, float]]:
    """Return a function that makes one pass on a batch, and returns the seconds of the processor
    that it all and its way back took: what other processes take of the core is not counted.
    """
    rule = learning.checked(words and words.format(seed=0), 0)
    flat = FlatParameters(learning.learner(model, rule), shards=1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, TIMED[0]), np.float32)
    labels = rng.integers(0, 10, BATCH)
    loss, workspace, bounds = SoftmaxCrossEntropy(), Workspace(), (0, BATCH)

    def once() -> tuple[float, float]:
        flat.zero_gradients()
        started = process_time()
        tape = Tape(training=True, shards=bounds, workspace=workspace, owner=flat)
        tape.end_notes()  # No pass is replayed.
        value = tape.input(x, gradient=False, copy=False)
        own = None if rule is None else rule.losses(model, loss, value, labels)
        start = loss(model(value), labels) if own is None else own[1]
        back = process_time()
        start.backward(rule=rule)
        ended = process_time()
        tape.release()
        return ended - started, ended - back

    return once


def timed(rounds: int) -> dict[str, dict[str, Any]]:
    """Return the milliseconds of a pass, and of its way back, under each rule, in turn."""
    made = {name: passes(words, network(TIMED, ReLU, 0)) for name, words in RULES.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for turn in harness.turns(made, rounds + 3):
        for name in turn:
            made[name]()
            times[name].append(made[name]())
    found: dict[str, dict[str, Any]] = {}
    for name, pairs in times.items():
        both = {key: [pair[i] for pair in pairs[3:]] for i, key in enumerate(("pass", "backward"))}
        exact = {
            key: [pair[i] for pair in times["backpropagation"][3:]]
            for i, key in enumerate(("pass", "backward"))
        }
        found[name] = {
            key: {**harness.spread(own), "faster": harness.ratio(exact[key], own)["ratio"]}
            for key, own in both.items()
        }
    return found


def main() -> None:
    """Measure, print, and write the result."""
    parser = harness.arguments("Compare learning rules.", rounds=200)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to SEEDS - 1 (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at a time (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument(
        "--epochs",
        type=float,
        default=1.0,
        metavar="F",
        help="times the usual epochs (%(default)s)",
    )
    parser.add_argument(
        "--rates", type=Path, metavar="FILE", help="take the learning rates of an earlier result"
    )
    compare(parser.parse_args())


def compare(options: argparse.Namespace) -> None:
    """Do what the options say."""
    started, facts, tasks = perf_counter(), harness.machine(), list(options.tasks)
    epochs = {name: max(1, round(TASKS[name].epochs * options.epochs)) for name in tasks}
    speeds = timed(options.rounds)
    for name, of in speeds.items():
        print(f"{name:34}{of['pass']['median']:8.2f} ms{of['backward']['median']:8.2f} ms back")
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        if options.rates is None:
            rates = tuned(pool.map, tasks, epochs)
        else:
            rates = earlier(options.rates, tasks)
        errors: dict[tuple[str, str], list[float]] = {key: [] for key in rates}
        for seed in range(options.seeds):
            runs = [Run(*key, rate, seed, epochs[key[0]]) for key, rate in rates.items()]
            for run, wrong in zip(runs, pool.map(error, runs), strict=True):
                errors[run.task, run.rule].append(wrong)
            rows = [row(name, speeds[name], errors, rates) for name in RULES]
            minutes = round((perf_counter() - started) / 60, 1)
            print(f"{seed + 1} seeds, {minutes} minutes", flush=True)
            for each in rows:
                of = [
                    f"{each[name]['mean']:8.2f} ±{each[name]['interval']:5.2f}"
                    for name in each
                    if name in tasks
                ]
                print(f"{each['rule']:34}{''.join(of)}", flush=True)
            more = {"seeds": seed + 1, "minutes": minutes, "epochs": epochs}
            harness.write(options.json, facts, rows, **more)


def row(
    name: str,
    speed: dict[str, Any],
    errors: dict[tuple[str, str], list[float]],
    rates: dict[tuple[str, str], float],
) -> dict[str, Any]:
    """Return what was found of a rule."""
    result: dict[str, Any] = {"rule": name, **speed}
    for (task, rule), found in errors.items():
        if rule != name:
            continue
        gaps = [a - b for a, b in zip(found, errors[task, "backpropagation"], strict=True)]
        result[task] = {
            "mean": round(mean(found), 3),
            "interval": round(interval(found), 3),
            "gap": round(mean(gaps), 3),
            "gap_interval": round(interval(gaps), 3),
            "rate": rates[task, name],
            "errors": [round(value, 3) for value in found],
        }
    if name in PUBLISHED:
        exact, own, where = PUBLISHED[name]
        result["published"] = {"backpropagation": exact, "error": own, "source": where}
    return result


if __name__ == "__main__":
    main()
