"""What recipes share: their flags, and what a recipe makes of them and of data."""

import argparse
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddbp import terminal, written
from ddbp.comm.current import communicator
from ddbp.data.images import SUFFIXES
from ddbp.data.named import load, named_sets
from ddbp.data.splits import split as parts_of
from ddbp.export import Bundle
from ddbp.optim.optimizer import Optimizer
from ddbp.training import script
from ddbp.training.metrics import Metric
from ddbp.training.monitors import EarlyStopping
from layers import Module
from layers.errors import message

_OTHERS = "images, table, text and series"
IMAGES = {"an image": SUFFIXES}
TABLES = {"a table": (".csv", ".tsv", ".parquet")}
BUNDLES = {"a bundle": (".ddbp",)}
_PATIENCE = 5
"""Epochs, unless `--early-stopping` says how many."""


class Usual(NamedTuple):
    """What the flags are for a model, unless given."""

    epochs: int
    batch_size: int
    learning_rate: float


class Split(NamedTuple):
    """Data for training and for validation, and what makes numbers of them.

    Attributes
    ----------
    training, validation
        Data sets.
    preprocessing
        What a bundle keeps of it: something with `state` and `transform`.
    """

    training: Any
    validation: Any
    preprocessing: Any


class Goal(NamedTuple):
    """What a model is trained for, and how it is judged.

    Attributes
    ----------
    loss, metrics
        As of a trainer.
    told
        Takes metrics by name; returns those to tell, in the units of the data.
    """

    loss: Callable[..., Any]
    metrics: Mapping[str, Metric]
    told: Callable[[Mapping[str, float]], dict[str, float]] = dict


class Prepared(NamedTuple):
    """All that a run needs.

    Attributes
    ----------
    data
        What to train on.
    model, optimizer
        As of a trainer.
    task
        As of a bundle.
    goal
        Loss and metrics.
    trainer
        Further options of the trainer.
    """

    data: Split
    model: Module
    optimizer: Optimizer
    task: str
    goal: Goal
    trainer: Mapping[str, Any]


class Predictions(NamedTuple):
    """What a model makes of files.

    Attributes
    ----------
    columns
        Lists or arrays (N, …) by name, the first of which says which sample a row is of.
    skipped
        A sentence for each sample that was left out.
    """

    columns: dict[str, Any]
    skipped: Sequence[str] = ()


class Recipe(ABC):
    """How a model is trained on data of a kind.

    Attributes
    ----------
    name, about
        What commands call it, and say of it.
    kind
        Of the preprocessing that it makes.
    data
        What `--data` may be.
    validation
        The part of the data that is not trained on, unless said.
    others
        What files are that it cannot read, as a noun, and how their names end.
    models
        What the flags are unless given, by the names of the models, the first of which is usual.
    """

    name: str
    about: str
    kind: str
    data: str
    models: Mapping[str, Usual]
    validation: float = 0.2
    others: Mapping[str, Sequence[str]] = {}

    def flags(self, command: str, arguments: Sequence[str]) -> script.Flags:
        """Return the parser of a command, with what is usual for the model in the arguments."""
        name = f"ddbp {command} {self.name}"
        usage = f"{name} --data DATA …; --help lists all flags"
        which = argparse.ArgumentParser(add_help=False, prog=name, usage=usage)
        first, *_ = self.models
        about = f"which network: {', '.join(self.models)} (%(default)s)"
        which.add_argument("--model", choices=self.models, default=first, help=about)
        usual = self.models[which.parse_known_args(arguments)[0].model]
        flags = script.Flags(self.about, parents=[which], **usual._asdict())
        flags.prog = name
        flags.add_argument("--data", required=True, metavar="DATA", help=self.data)
        flags.add_argument(
            "--validation",
            type=_fraction,
            default=self.validation,
            metavar="PART",
            help="of the data, where these have no part for it (%(default)s)",
        )
        flags.add_argument(
            "--early-stopping",
            nargs="?",
            const=_PATIENCE,
            type=script.positive_int,
            metavar="EPOCHS",
            help="end after so many epochs in which the validation loss has not fallen"
            " (%(const)s), with the parameters of the best one",
        )
        add_skip_bad(flags)
        self.add_flags(flags)
        return flags

    def require_readable(self, owner: str, paths: Sequence[str | Path]) -> None:
        """Refuse files that are there and are of another recipe, by the ends of their names."""
        for path in map(Path, paths):
            end = path.suffix.lower()
            other = next((what for what, ends in self.others.items() if end in ends), None)
            if other is not None and os.path.isfile(path):
                must, got = f"data must be {self.data}", f"{path}, {other}"
                fix = f"Recipes for others are {_OTHERS}."
                raise ValueError(message(owner, must, got, fix))

    @abstractmethod
    def add_flags(self, flags: script.Flags) -> None:
        """Add the flags of the recipe."""

    @abstractmethod
    def prepare(self, options: argparse.Namespace) -> Prepared:
        """Return what a run needs, by the flags."""

    def use_windows(self, options: argparse.Namespace) -> None:  # noqa: B027
        """Have options ask for data without sequences that are cut into windows of training."""

    def add_reading(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027
        """Add the flags of how data are read that `evaluate` and `predict` have, too."""

    @abstractmethod
    def goal(self, task: str, preprocessing: Any) -> Goal:
        """Return what a model with this preprocessing is judged by."""

    @abstractmethod
    def samples(self, preprocessing: Any, options: argparse.Namespace) -> Any:
        """Return data with their targets, for a model with this preprocessing."""

    @abstractmethod
    def predict(
        self, bundle: Bundle, preprocessing: Any, options: argparse.Namespace
    ) -> Predictions:
        """Return what the model of a bundle makes of files."""


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    """Add the flag that leaves out what cannot be read."""
    about = "leave out what cannot be read: images, rows, lines, series"
    parser.add_argument("--skip-bad", action="store_true", help=about)


def callbacks(options: argparse.Namespace) -> dict[str, Any]:
    """Return the option of a trainer by the flags that ask for callbacks."""
    patience = options.early_stopping
    stopping = EarlyStopping(patience=patience, restore_best_weights=True) if patience else None
    return {"callbacks": [stopping] if stopping else []}


def limit_batch(options: argparse.Namespace, training: Any) -> None:
    """Have a batch be no larger than the training data."""
    options.batch_size = min(options.batch_size, len(training))


def generator(options: argparse.Namespace) -> np.random.Generator:
    """Return what draws the initial weights."""
    return np.random.default_rng(options.seed)


def is_name(text: str) -> bool:
    """Return whether `--data` names a set, and no path."""
    return not os.path.exists(os.path.expanduser(text)) and text.replace("_", "").isalnum()


def named(owner: str, name: str, kind: type) -> Any:
    """Return the two parts of a set that is known by its name, or refuse one of another kind."""
    sets = named_sets()
    if name not in sets:
        must = f"--data must be a path that is there, or one of {', '.join(sets)}"
        fix = f"The folder of this process is {os.getcwd()}."
        raise FileNotFoundError(message(owner, must, f"{name}, which is neither", fix))
    found: Any = load(name)
    if not isinstance(found[0].preprocessing, kind):
        must, got = f"{name} must be made for this recipe", f"{found[0].preprocessing!r}"
        raise ValueError(message(owner, must, got, "Take another set, or another recipe."))
    return found


def split(
    whole: Any, preprocessing: Any, options: argparse.Namespace, *, stratified: bool
) -> Split:
    """Return the parts of data by the flags."""
    fractions = (1 - options.validation, options.validation)
    training, validation = parts_of(whole, fractions, seed=options.seed, stratified=stratified)
    return Split(training, validation, preprocessing)


def example_of(dataset: Any) -> Any:
    """Return an input (1, …) of data, or a `Ragged` of one or more."""
    return dataset.x[:1] if hasattr(dataset, "x") else dataset.take(np.arange(1)).x


def tell_skipped(skipped: Sequence[Any]) -> None:
    """Say on the first rank how many samples were left out, and why the first was."""
    if skipped and communicator().leads:
        first = skipped[0]
        count = f"{len(skipped)} sample{'s' * (len(skipped) > 1)} left out"
        terminal.say(f"{count}, first {first.place}: {first.reason}")


def _fraction(text: str) -> float:
    """Return the part of a whole in a flag's `text`."""
    try:
        value = written.real(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a number in (0, 1); got {text!r}")
    return value
