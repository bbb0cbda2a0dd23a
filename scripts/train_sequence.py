"""Train a recurrent network on sequences: digits read row by row, or the adding or the copying
problem.
"""

import argparse

import numpy as np
from problems.sequences import TASKS

from ddbp import Adam, script
from layers import Linear, Sequential


def main() -> None:
    """Train and print the result."""
    which = argparse.ArgumentParser(add_help=False)
    about = "which problem (%(default)s)"
    which.add_argument("--task", choices=TASKS, default="adding", help=about)
    # The usual values of the other flags are those of the task.
    task = TASKS[which.parse_known_args()[0].task]
    usual = {"epochs": task.epochs, "batch_size": 64, "learning_rate": task.learning_rate}
    flags = script.Flags(__doc__, parents=[which], **usual)
    flags.add_choice("--model", script.RECURRENT, "which recurrent layer")
    flags.add_size("--hidden", 64, "its width")
    flags.add_size("--length", task.length, "of the sequences")
    flags.add_size("--samples", 20_000, "sequences, a tenth of them for the test")
    options = flags.parse_args()
    rng = np.random.default_rng(options.seed)
    training, test = task.data(options.length, options.samples, rng)
    cell, inputs = script.RECURRENT[options.model], training.x.shape[2]
    model = Sequential(
        cell(inputs, options.hidden, rng=rng, last=task.at_the_end),
        Linear(options.hidden, task.outputs, rng=rng),
    )
    optimizer = Adam(script.cosine(options, training))
    more = {"clip_norm": 1.0, "metrics": task.metrics}
    script.run(options, model, task.loss, optimizer, training, test, **more)


if __name__ == "__main__":
    script.start(main)
