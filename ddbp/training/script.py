"""What all training scripts share: flags, trainer, and the last line of standard output, which is
one JSON object.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np

import layers
from ddbp import settings
from ddbp.comm.threads import advise_other_cores, use_one_thread
from ddbp.optim.optimizer import Optimizer
from layers import Module
from layers.types import Array

from .data import ArrayDataset
from .trainer import Trainer

RECURRENT = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.RNN}
"""What --model means to scripts with a recurrent layer."""


def root_mean_square(error: Array) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(error**2)))


def parser(
    description: str,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> argparse.ArgumentParser:
    """Return a parser with the common flags, the script's defaults for them, and the flags of
    `parents`.
    """
    result = argparse.ArgumentParser(description=description, parents=parents)
    result.add_argument(
        "--epochs",
        type=positive,
        default=epochs,
        help="passes over the training data (%(default)s)",
    )
    result.add_argument(
        "--batch-size",
        type=positive,
        default=batch_size,
        help="of the global batch, over all ranks (%(default)s)",
    )
    result.add_argument(
        "--learning-rate",
        type=positive_number,
        default=learning_rate,
        help="at the beginning (%(default)s)",
    )
    result.add_argument(
        "--seed", type=natural, default=0, help="of initial weights and data order (%(default)s)"
    )
    result.add_argument(
        "--shards", type=positive, help="for the same bits on 1 to SHARDS ranks (one per rank)"
    )
    result.add_argument(
        "--run-dir",
        type=Path,
        help="folder for configuration, metrics, parameters (a new one in runs/)",
    )
    result.add_argument(
        "--json", type=output_file, metavar="FILE", help="write the last line to a file, too"
    )
    result.add_argument("--quiet", action="store_true", help="show nothing but the last line")
    return result


def whole_steps(options: argparse.Namespace, samples: int) -> int:
    """Return the number of steps of the whole run, for learning-rate schedules."""
    return int(options.epochs * -(-samples // options.batch_size))


def run_folder() -> Path:
    """Return a new folder for a run of this script."""
    return Path("runs", Path(sys.argv[0]).stem, datetime.now().strftime("%Y%m%d-%H%M%S.%f"))


def fit(
    options: argparse.Namespace,
    model: Module,
    loss: Callable[[Any, Any], Any],
    optimizer: Optimizer,
    training: ArrayDataset,
    validation: ArrayDataset,
    **trainer_options: Any,
) -> tuple[Trainer, dict[str, Any]]:
    """Train by the common flags, and further options of the trainer; return it and the result so
    far, for `finish`.
    """
    use_one_thread()
    if not (options.quiet or settings.launched_under_mpi()) and (advice := advise_other_cores()):
        print(advice, file=sys.stderr)
    started = time.perf_counter()
    trainer = Trainer(
        model,
        loss=loss,
        optimizer=optimizer,
        batch_size=options.batch_size,
        seed=options.seed,
        shards=options.shards,
        run_dir=options.run_dir or run_folder(),
        quiet=options.quiet,
        **trainer_options,
    )
    history = trainer.fit(training, epochs=options.epochs, validation=validation)
    last = history[-1]
    metrics = {name: last[f"validation_{name}"] for name in trainer.metrics}
    return trainer, {
        "loss": last["loss"],
        "metrics": {"validation_loss": last["validation_loss"], **metrics},
        "samples_per_second": median(record["samples_per_second"] for record in history),
        "ranks": trainer.comm.size,
        "threads": numba.get_num_threads(),
        "seconds": time.perf_counter() - started,
        "parameters_sha256": trainer.parameters_sha256(),
    }


def finish(options: argparse.Namespace, trainer: Trainer, result: dict[str, Any]) -> None:
    """Print the result on rank 0 as the last line, and write it to the file of --json."""
    if trainer.comm.rank == 0:
        line = json.dumps(result)
        if options.json:
            options.json.write_text(line + "\n")
        print(line, flush=True)


def positive(text: str) -> int:
    """Return the positive integer in a flag."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer; got {text!r}")
    return int(text)


def natural(text: str) -> int:
    """Return the integer from 0 in a flag."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer from 0; got {text!r}")
    return int(text)


def positive_number(text: str) -> float:
    """Return the positive finite number in a flag."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number; got {text!r}")
    return value


def output_file(text: str) -> Path:
    """Return the path in a flag, of a file that can be made: better refused before training than
    after.
    """
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in an existing folder; got {text!r}")
    return path
