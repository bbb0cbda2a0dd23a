"""Train a small network for many steps while ranks sleep at random places, or break a meeting, or
change a bit on purpose.

Usage: stress.py FOLDER [--delays SEED] [--steps N] [--deed DEED]; every rank writes its parameters
and losses. What the deeds are is said below; the last rank does them, or the first.
"""

import argparse
import random
import time
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np

import ddbp
from ddbp.comm.host_barrier import HostBarrier
from ddbp.reduction.exchange import Exchange
from ddbp.reduction.overlap import Overlap
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from layers import Linear, Sequential, SoftmaxCrossEntropy, Tanh
from layers.kernels import sync

SAMPLES, SHARDS, MIDDLE = 13, 4, 5
# Seconds; several times what a step takes, so that ranks overtake each other in every order.
LONGEST = 1.5e-3
DATA = np.random.default_rng(0)
X, Y = DATA.standard_normal((SAMPLES, 8)).astype(np.float32), DATA.integers(0, 4, SAMPLES)


# What is replaced while the program runs.
REPLACED = ExitStack()


def replace(owner, name, new):
    """Replace an attribute until the end of the program."""
    REPLACED.enter_context(mock.patch.object(owner, name, new))


def delay_everything(rng):
    """Let calls of what a step consists of sleep before or after, now and then."""

    def delayed(owner, name):
        function = getattr(owner, name)

        def wrapper(*arguments, **options):
            for call in (function, None):
                if rng.random() < 0.15:
                    time.sleep(rng.random() * LONGEST)
                if call is not None:
                    result = call(*arguments, **options)
            return result

        replace(owner, name, wrapper)

    for owner, name in (
        (Linear, "forward"),
        (Linear, "backward"),
        (HostBarrier, "gather"),
        (HostBarrier, "meet"),
        (Reducer, "exchange"),
        (Reducer, "sum"),
        (Reducer, "publish"),
        (Overlap, "on_parameter_ready"),
        (Overlap, "progress"),
        (Exchange, "start"),
        (Partition, "fetch"),
        (ddbp.Adam, "update"),
    ):
        delayed(owner, name)


def come_without_waiting():
    """Count the meetings at which parameters are published, but wait for nobody."""

    def meet(barrier):
        barrier.meetings += 1
        sync.meet(barrier.cells, barrier._members, barrier._mine, barrier.meetings, 0)
        return True

    replace(HostBarrier, "meet", meet)


def come_too_early():
    """Come to the exchange before the gradients are complete."""
    exchange = Reducer.exchange

    def early(reduction, *arguments):
        complete = reduction.flat.gradients.copy()
        reduction.flat.gradients[...] = 0
        result = exchange(reduction, *arguments)
        time.sleep(1e-3)
        reduction.flat.gradients[...] = complete
        return result

    replace(Reducer, "exchange", early)


def call_incomplete_complete():
    """Count the gradients of all buckets as complete when backward begins."""
    begin = Overlap.begin

    def early(overlap, attempt):
        begin(overlap, attempt)
        overlap.complete()

    replace(Overlap, "begin", early)
    replace(Overlap, "on_parameter_ready", lambda overlap, parameter: None)


def send_without_looking():
    """Send what is complete here, whatever the other ranks of the host have; and let them be
    late.
    """

    def progress(overlap):
        for number in overlap._complete:
            counts = overlap._counts[number]
            sync.meet(counts, overlap._members, overlap._mine, overlap._attempt, 0)
            overlap._exchange.start(number)
        overlap._complete = []

    replace(Overlap, "progress", progress)


def count_early_starts():
    """Return the list of the buckets that were sent before the exchange."""
    early, start, complete = [], Exchange.start, Overlap.complete

    def counted(exchange, number):
        if not getattr(exchange, "over", False):
            early.append(number)
        start(exchange, number)

    def noted(overlap):
        overlap._exchange.over = True
        complete(overlap)

    begin = Exchange.begin

    def anew(exchange, attempt):
        exchange.over = False
        begin(exchange, attempt)

    replace(Exchange, "start", counted)
    replace(Overlap, "complete", noted)
    replace(Exchange, "begin", anew)
    return early


def change_a_gradient(step):
    """Change one bit of one element of the own gradients, once."""
    exchange = Reducer.exchange

    def changed(reduction, number, *arguments):
        if number == step:
            flip(reduction.flat.gradients[0], 7)
        return exchange(reduction, number, *arguments)

    replace(Reducer, "exchange", changed)


def flip(array, at):
    """Change a bit of a float32 that no rounding hides."""
    array[at : at + 1].view(np.uint32)[0] ^= 1 << 18


def main() -> None:
    """Train."""
    flags = argparse.ArgumentParser()
    flags.add_argument("folder", type=Path)
    flags.add_argument("--delays", type=int)
    flags.add_argument("--steps", type=int, default=200)
    flags.add_argument("--deed", default="nothing")
    options = flags.parse_args()
    comm = ddbp.communicator()
    guilty, deed = comm.rank == comm.size - 1, options.deed
    # Ten blocks of parameters, which may become three buckets.
    rng = np.random.default_rng(1)
    hidden = [
        Linear(8, 200, rng=rng),
        Tanh(),
        Linear(200, 30, rng=rng),
        Tanh(),
        Linear(30, 40, rng=rng),
        Tanh(),
    ]
    model = Sequential(*hidden, Linear(40, 4, rng=rng))
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(0.003),
        batch_size=SAMPLES,
        shards=SHARDS,
        clip_norm=1.0,
        quiet=True,
    )
    early = count_early_starts()
    if options.delays is not None:
        delay_everything(random.Random(f"{options.delays}, {comm.rank}"))
    if guilty and deed == "come without waiting":
        come_without_waiting()
    if guilty and deed == "come too early":
        come_too_early()
    if guilty and deed == "call incomplete complete":
        call_incomplete_complete()
    if comm.rank == 0 and deed == "send without looking":
        send_without_looking()
    if guilty and deed == "change a gradient":
        change_a_gradient(MIDDLE)
    losses = []
    for step in range(options.steps):
        losses.append(trainer.train_step(X, Y))
        changed = {
            "change a parameter": MIDDLE,
            "change a parameter at the end": options.steps - 1,
        }.get(deed)
        if guilty and step == changed:
            flip(model.parameters()[0].value.reshape(-1), 3)
    # Nobody looks before all have done what they do.
    comm.all_gather(np.zeros(1))
    values = np.concatenate([parameter.value.reshape(-1) for parameter in model.parameters()])
    shared = np.diff(comm.hosts)
    np.savez(
        options.folder / f"rank{comm.rank}.npz",
        losses=np.array(losses),
        parameters=values,
        hosts=shared,
        early=early,
    )


if __name__ == "__main__":
    with REPLACED:
        main()
