"""What training scripts share: flags, the trainer made from them, and the last line of standard
output, which is one JSON object.

A script adds its own flags, data and model, and needs nothing but the installed package:

>>> flags = script.Flags("Train a classifier.", epochs=40, batch_size=64, learning_rate=0.01)
>>> flags.add_size("--hidden", 128, "width of the hidden layer")
>>> options = flags.parse_args()
>>> optimizer = Adam(script.cosine(options, training))
>>> script.run(options, model, SoftmaxCrossEntropy(), optimizer, training, test)
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, NoReturn

import numba

import layers
from ddbp import compression, settings, terminal, written
from ddbp.checkpoint.folder import IN_RUN, found
from ddbp.comm.current import communicator
from ddbp.comm.threads import advise_other_cores, use_one_thread
from ddbp.data.source import Dataset
from ddbp.instruments.instruments import Instruments
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.schedule import Cosine
from ddbp.reduction.shards import RANKS
from ddbp.seldom.exchange import chosen
from layers import Module
from layers.errors import message, wording
from layers.precision import PRECISIONS

from . import learning, nonfinite, run_log
from .checkpoints import Checkpoints
from .fix import place
from .options import TrainerOptions
from .refusals import start
from .regression import linear_fit, root_mean_square, root_mean_square_errors
from .replay import StepDigests
from .run_folder import load_parameters
from .trace import Trace
from .trainer import Trainer

__all__ = [
    "RECURRENT",
    "Flags",
    "cosine",
    "finish",
    "fit",
    "linear_fit",
    "positive_float",
    "positive_int",
    "root_mean_square",
    "root_mean_square_errors",
    "run",
    "run_folder",
    "start",
    "use_one_thread",
]

_AUTO = "auto"
"""What `--resume` is without a checkpoint."""
RECURRENT = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.RNN}
"""What `--model` means to scripts with a recurrent layer."""


class _Refused(argparse.Action):
    """Refuses a flag that cannot work in a script, with the reason."""

    def __init__(self, reason: str, **options: Any) -> None:
        super().__init__(nargs="*", help=argparse.SUPPRESS, **options)
        self._reason = reason

    def __call__(self, *given: Any) -> NoReturn:
        raise argparse.ArgumentError(self, self._reason)


class Flags(argparse.ArgumentParser):
    """A parser with the flags that all scripts have: `--epochs`, `--batch-size`, `--learning-rate`,
    `--seed`, `--precision`, `--memory`, `--rule`, `--compression`, `--shards`, `--exchange`,
    `--network`, `--run-dir`, `--parameters`, `--checkpoint-every`, `--resume`, `--resume-options`,
    `--trace`, `--digests`, `--instruments`, `--doctor`, `--no-doctor`, `--json` and `--quiet`.

    Parameters
    ----------
    description
        What `--help` begins with.
    epochs, batch_size, learning_rate
        What these flags are unless given.
    parents
        Parsers whose flags are added.
    without
        Flags that cannot work in a script, and why not: `--help` does not show them, and one that
        is given is refused with that reason.
    """

    @wording("Flags")
    def __init__(
        self,
        description: str,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        parents: Sequence[argparse.ArgumentParser] = (),
        without: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._without = dict(without)
        super().__init__(description=description, parents=list(parents))
        self.add_size("--epochs", epochs, "passes over the training data")
        self.add_size("--batch-size", batch_size, "of the global batch, over all ranks")
        self.add_argument(
            "--learning-rate",
            type=positive_float,
            default=learning_rate,
            help="at the beginning (%(default)s)",
        )
        self.add_argument(
            "--seed",
            type=_non_negative_int,
            default=0,
            help="of initial weights and data order (%(default)s)",
        )
        self.add_choice("--precision", PRECISIONS, "what products are computed in")
        self.add_argument(
            "--compression",
            type=_read_by(compression.chosen),
            metavar="NAME",
            help="what hosts send of gradients: top-k:0.01, power-sgd:2, sign, float16, bfloat16 or"
            " int8 (all)",
        )
        self.add_argument(
            "--memory", metavar="SIZE", help="what a step may take beside parameters, as 200MB"
        )
        self.add_argument(
            "--rule",
            type=_read_by(_rule),
            metavar="NAME",
            help=f"learn by another rule than backpropagation: {', '.join(learning.names())}; or"
            " with options, such as 'MeProp(0.1)'",
        )
        self.add_argument(
            "--shards",
            type=_shards,
            help="for the same bits on 1 to SHARDS ranks (8 or more), or 'ranks' for one per rank",
        )
        self.add_argument(
            "--exchange",
            type=_read_by(chosen),
            help="how seldom workers that train apart exchange: LocalSGD(workers=4, every=16) or"
            " DiLoCo(workers=4, every=64)",
        )
        self.add_argument(
            "--network",
            choices=["auto", "data"],
            help="measure the network between hosts and say which exchange is enough for it, or"
            " choose that after some steps on the data",
        )
        self.add_argument(
            "--run-dir",
            type=Path,
            help="folder for configuration, metrics, parameters (a new one in runs/)",
        )
        self.add_argument(
            "--parameters", type=Path, metavar="FILE", help="begin with these: model.safetensors"
        )
        self.add_size("--checkpoint-every", None, "updates from one checkpoint to the next")
        self.add_argument(
            "--resume",
            nargs="?",
            const=_AUTO,
            metavar="CHECKPOINT",
            help="go on from the newest checkpoint in the folder of --run-dir, or from this one",
        )
        self.add_argument(
            "--resume-options",
            nargs="+",
            default=[],
            metavar="NAME",
            help="what may differ from the run that goes on: optimizer (a longer run, another rate)"
            ", clip_norm, ...",
        )
        self.add_argument(
            "--trace",
            action="store_true",
            help="write a timeline of the first 100 steps to trace.json in the run folder, for"
            " https://ui.perfetto.dev",
        )
        self.add_argument(
            "--digests",
            action="store_true",
            help="write a digest of the parameters after each step, which `ddbp replay` compares",
        )
        self.add_argument(
            "--instruments",
            nargs="?",
            const=Instruments().every,
            type=positive_int,
            metavar="STEPS",
            help="measure one step of so many, layer by layer (%(const)s)",
        )
        self.add_argument(
            "--doctor",
            nargs="?",
            const=True,
            choices=["strict"],
            help="say what is wrong with the run (unless --quiet), or end it then",
        )
        self.add_argument(
            "--no-doctor", dest="doctor", action="store_false", help="say nothing of it"
        )
        self.add_argument(
            "--json", type=output_file, metavar="FILE", help="write the last line to a file, too"
        )
        self.add_argument("--quiet", action="store_true", help="show nothing but the last line")
        if self._without:
            must, fix = "without must name flags of all scripts", 'Write {"--rule": "no layers"}.'
            raise ValueError(message("Flags", must, ", ".join(self._without), fix))

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and where all flags are listed; exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help lists all flags.\n")

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """Return what the flags say, as `argparse` does; those that cannot go together are an
        error.
        """
        parsed = super().parse_known_args(*arguments, **options)
        if parsed[0].resume == _AUTO and parsed[0].run_dir is None:
            self.error("argument --resume: needs --run-dir, the folder of the run that goes on")
        return parsed

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add a flag, as `argparse` does, or what refuses it if the script is without it."""
        if (reason := self._without.pop(names[0], None)) is not None:
            default = options.get("default", False if options.get("action") else None)
            options = {"action": _Refused, "reason": reason, "default": default}
        return super().add_argument(*names, **options)

    def add_size(self, name: str, default: int | None, text: str) -> None:
        """Add a flag of a positive integer, with the `text` for `--help`."""
        shown = text if default is None else f"{text} (%(default)s)"
        self.add_argument(name, type=positive_int, default=default, help=shown)

    def add_choice(
        self, name: str, choices: Iterable[str], text: str, default: str | None = None
    ) -> None:
        """Add a flag with one of several words, the first unless given."""
        words = list(choices)
        self.add_argument(
            name, choices=words, default=default or words[0], help=f"{text} (%(default)s)"
        )


@wording("script.cosine")
def cosine(
    options: argparse.Namespace,
    training: Dataset,
    *,
    drop_last: bool = False,
    accumulate: int = 1,
) -> Cosine:
    """Return the schedule from `--learning-rate` down to 0 in the steps of the whole run.

    Parameters
    ----------
    options
        What `Flags` has parsed.
    training
        The training data.
    drop_last, accumulate
        As the script passes them to `fit` or `run`.
    """
    chosen = TrainerOptions(
        batch_size=options.batch_size, drop_last=drop_last, accumulate=accumulate
    )
    return Cosine(options.learning_rate, steps=options.epochs * chosen.steps(len(training)))


def run_folder() -> Path:
    """Return a new folder for a run of this script."""
    return new_folder(Path(sys.argv[0]).stem)


def new_folder(name: str) -> Path:
    """Return a new folder for a run of what has the name."""
    return Path("runs", name, datetime.now().strftime("%Y%m%d-%H%M%S.%f"))


def options_of_steps(options: argparse.Namespace) -> dict[str, Any]:
    """Return those options of a trainer, by the common flags, that each of its steps goes by."""
    names = ("batch_size", "seed", "shards", "precision", "memory", "rule", "exchange")
    return {name: getattr(options, name) for name in (*names, "compression", "quiet")}


def fit(
    options: argparse.Namespace,
    model: Module,
    loss: Callable[[Any, Any], Any],
    optimizer: Optimizer,
    training: Dataset,
    validation: Dataset,
    **trainer_options: Any,
) -> tuple[Trainer, dict[str, Any]]:
    """Train by the common flags.

    Parameters
    ----------
    options
        What `Flags` has parsed.
    model, loss, optimizer
        As of `Trainer`.
    training, validation
        Data; the result holds the loss and the metrics of the latter after the last epoch.
    **trainer_options
        Further ones of `Trainer`.

    Returns
    -------
    The trainer, and the result so far, which a script may add to before `finish` prints it.
    """
    use_one_thread()
    if not (options.quiet or settings.launched()) and (advice := advise_other_cores()):
        terminal.say(advice)
    folder = options.run_dir or run_folder()
    _look_into(folder, options)
    started = time.perf_counter()
    callbacks = [*trainer_options.pop("callbacks", ())]
    if options.checkpoint_every or options.resume:
        callbacks.append(Checkpoints(every_steps=options.checkpoint_every))
    callbacks += [Trace()] * options.trace + [StepDigests()] * options.digests
    if options.instruments:
        callbacks.append(Instruments(options.instruments))
    # A doctor looks at gradients of all workers in each step.
    chooses = options.network == "data"
    watched = not (options.quiet or options.exchange or chooses)
    if options.parameters:
        load_parameters(model, options.parameters)
    trainer = Trainer(
        model,
        loss=loss,
        optimizer=optimizer,
        network=training if chooses else options.network,
        callbacks=callbacks,
        doctor=watched if options.doctor is None else options.doctor,
        run_dir=folder,
        resume=options.resume,
        resume_options=options.resume_options,
        **options_of_steps(options),
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


def _look_into(folder: Path, options: argparse.Namespace) -> None:
    """Say what becomes of what a run folder holds, before it does; or refuse to begin anew over a
    run that is finished where one should go on.
    """
    goes_on = options.resume is not None or settings.resumes()
    if settings.fix() is not None or options.resume not in (None, _AUTO):
        return
    status, saved = run_log.status(folder), found(folder / IN_RUN)
    if status is None and not goes_on:
        return
    if saved:
        # It goes on from them, or is refused.
        return
    said = f"{folder} holds a run, which this one replaces."
    if options.resume and status == "finished":
        must, got = "--resume must find a checkpoint", f"none in {folder}, where a run is finished"
        fix = "Name another --run-dir, or leave out --resume to replace it."
        raise ValueError(message("script.fit", must, got, fix))
    if goes_on:
        said = f"{folder} has no checkpoint yet: the run begins anew."
    if not options.quiet and communicator().leads:
        terminal.say(terminal.plain(said))


def finish(options: argparse.Namespace, trainer: Trainer, result: dict[str, Any]) -> None:
    """Print the result on rank 0 as the last line, and write it to the file of `--json`, with null
    for numbers that are not finite; raise `NotFiniteError` if the validation loss is one of them.

    Parameters
    ----------
    options
        What `Flags` has parsed.
    trainer, result
        What `fit` has returned; the result must be JSON.
    """
    if trainer.comm.leads:
        line = terminal.json_line(result)
        print(line, flush=True)
        path = place(trainer, options.json) if options.json else None
        if path is not None:
            write_line("script.finish", path, line)
    nonfinite.require_finite_end("script.finish", result.get("metrics", {}))


def write_line(owner: str, path: Path, line: str) -> None:
    """Write the last line to the file of `--json`."""
    try:
        path.write_text(line + "\n")
    except OSError as error:
        must, fix = "the file of --json must be writable", "The line is printed above, too."
        raise OSError(message(owner, must, f"{path}: {error.strerror}", fix)) from error


def run(options: argparse.Namespace, *arguments: Any, **trainer_options: Any) -> None:
    """Train and print the result: `fit` with `options`, `arguments` and `trainer_options`, then
    `finish`.
    """
    finish(options, *fit(options, *arguments, **trainer_options))


def _read_by(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the type of a flag that `read` makes of its text, or refuses."""

    def kind(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return kind


def _rule(text: str) -> str:
    # One that is named has the seed of the trainer.
    learning.checked(text, 0)
    return text


def _shards(text: str) -> int | str:
    return text if text == RANKS else positive_int(text)


@wording("script.positive_int")
def positive_int(text: str) -> int:
    """Return the positive integer in a flag's `text`."""
    return _integer(text, 1, "a positive integer")


@wording("script.positive_float")
def positive_float(text: str) -> float:
    """Return the positive finite number in a flag's `text`."""
    try:
        value = written.real(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number; got {text!r}")
    return value


def _non_negative_int(text: str) -> int:
    return _integer(text, 0, "an integer from 0")


def _integer(text: str, least: int, kind: str) -> int:
    """Return the integer in a flag's `text`, which must be of a kind."""
    try:
        value = written.integer(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be {kind}; got {text!r}")
    return value


def output_file(text: str) -> Path:
    """Return the path of a file that can be made: better refused before training than after."""
    path = Path(text).absolute()
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in an existing folder; got {text!r}")
    return path
