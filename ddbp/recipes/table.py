"""Tables: a column of a CSV or Parquet file from the others, a class or a number."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ddbp import terminal
from ddbp.comm.current import communicator
from ddbp.data.array_dataset import ArrayDataset
from ddbp.data.cells import is_missing, name_of, number_of
from ddbp.data.skipped import listed, shown
from ddbp.data.splits import split as parts_of
from ddbp.data.table import Table, read_table
from ddbp.data.table_encoder import TASKS, EncodedTable, TableEncoder, task_of
from ddbp.export import Bundle
from ddbp.optim.adam import AdamW
from ddbp.training import script
from ddbp.training.metrics import accuracy
from layers import MeanSquaredError, Sequential, SoftmaxCrossEntropy
from layers.errors import message

from . import classification, networks
from .numbers import STANDARDISED, in_units
from .recipe import (
    BUNDLES,
    IMAGES,
    Goal,
    Predictions,
    Prepared,
    Recipe,
    Split,
    Usual,
    callbacks,
    generator,
    limit_batch,
    tell_skipped,
)

_OWNER = "ddbp train table"
_ROLES = {"ignore": "ignore", "categories": "category", "numbers": "number", "dates": "date"}
"""What columns are that a flag names."""


class Tables(Recipe):
    """Predicts a column of a table."""

    name = "table"
    about = "Train a network that predicts a column of a table."
    kind = "table"
    data = "a CSV or Parquet file with the names of its columns"
    others: Mapping[str, Sequence[str]] = {**IMAGES, "series": (".ts",), **BUNDLES}
    models: Mapping[str, Usual] = {
        "mlp": Usual(epochs=60, batch_size=64, learning_rate=0.003),
        "linear": Usual(epochs=60, batch_size=64, learning_rate=0.01),
    }

    def add_flags(self, flags: script.Flags) -> None:
        flags.add_argument("--target", metavar="COLUMN", help="what to predict (the last column)")
        about = "what it is; unless given, texts and few different integers are classes"
        flags.add_argument("--task", choices=TASKS, help=about)
        for flag, role in _ROLES.items():
            about = f"columns that are {'left out' if role == 'ignore' else flag}"
            flags.add_argument(f"--{flag}", nargs="+", default=[], metavar="COLUMN", help=about)
        about = "a category at prediction that training did not have: in none of them, or an error"
        flags.add_choice("--unknown", ("zero", "refuse"), about)
        flags.add_size("--hidden", 64, "width of the hidden layers")
        flags.add_size("--depth", 2, "hidden layers")
        flags.add_argument(
            "--dropout",
            type=script.positive_float,
            default=0.0,
            help="of the hidden layers (%(default)s)",
        )

    def prepare(self, options: argparse.Namespace) -> Prepared:
        read = self._read(options)
        limit_batch(options, read.training)
        encoder: TableEncoder = read.preprocessing
        classes = len(encoder.classes)
        outputs = classes if encoder.task == "classification" else 1
        hidden = (options.hidden, 0 if options.model == "linear" else options.depth)
        layers = networks.dense(
            read.training.x.shape[1], *hidden, outputs, options.dropout, generator(options)
        )
        optimizer = AdamW(script.cosine(options, read.training), weight_decay=0.01)
        goal = self._goal(encoder, {"accuracy": accuracy})
        return Prepared(
            read, Sequential(*layers), optimizer, encoder.task, goal, callbacks(options)
        )

    def goal(self, task: str, preprocessing: Any) -> Goal:
        return self._goal(preprocessing, classification.metrics(preprocessing.classes))

    def _goal(self, encoder: TableEncoder, of_classes: dict[str, Any]) -> Goal:
        if encoder.task == "classification":
            return Goal(SoftmaxCrossEntropy(), of_classes)
        zero, one = encoder.predictions(np.array([[0.0], [1.0]]))
        return Goal(MeanSquaredError(), STANDARDISED, partial(in_units, one - zero))

    def _read(self, options: argparse.Namespace) -> Split:
        table = read_table(options.data, skip_bad=options.skip_bad)
        named = [name for flag in _ROLES for name in getattr(options, flag)]
        table = table.including([options.target or "", *named])
        if table.index:
            names = listed([name or "the column without a name" for name in table.index])
            _say(f"{names}: left out, as the index that pandas has written")
        target = options.target or [*table.columns][-1]
        if target not in table.columns:
            must = f"--target must be a column of {table.origin}"
            raise ValueError(message(_OWNER, must, target, f"They are {', '.join(table.columns)}."))
        roles = _roles(table, target, options)
        task = task_of(table, target, options.task)
        first, second = _split(table, target, options)
        if task == "classification":
            _require_classes(table, first, target, options)
        encoder = TableEncoder.fit(
            first,
            target=target,
            roles=roles | _empty(first, {*roles, target}),
            task=task,
            unknown=options.unknown,
            skip_bad=options.skip_bad,
        )
        parts = [encoder.encode(part, skip_bad=options.skip_bad) for part in (first, second)]
        tell_skipped([*table.skipped, *(each for part in parts for each in part.skipped)])
        training, validation = (part.dataset() for part in parts)
        return Split(training, validation, encoder)

    def samples(self, preprocessing: Any, options: argparse.Namespace) -> Any:
        table = read_table(options.data, skip_bad=options.skip_bad)
        found = preprocessing.encode(table, skip_bad=options.skip_bad)
        tell_skipped(found.skipped)
        _tell_unknown(table, found)
        return found.dataset()

    def predict(
        self, bundle: Bundle, preprocessing: Any, options: argparse.Namespace
    ) -> Predictions:
        found = []
        for path in options.files:
            table = read_table(path, skip_bad=options.skip_bad)
            rows = preprocessing.encode(table, targets=False, skip_bad=options.skip_bad)
            _tell_unknown(table, rows)
            outputs = bundle.predict(rows.x, options.batch_size)
            places = rows.rows if table.rows is None else np.array(table.rows)[rows.rows]
            found.append((str(path), places, outputs, rows.skipped))
        outputs = np.concatenate([each[2] for each in found])
        if bundle.task == "classification":
            scores = classification.columns(outputs, preprocessing.classes)
        else:
            scores = {"prediction": np.array(preprocessing.predictions(outputs))}
        # Rows count from 1, below the names of the columns, with those that are left out.
        columns = {
            "file": [path for path, places, *_ in found for _ in places],
            "row": np.concatenate([places + 1 for _, places, *_ in found]),
        }
        skipped = [f"{each.place}: {each.reason}" for *_, left in found for each in left]
        return Predictions({**columns, **scores}, skipped)


def _roles(table: Table, target: str, options: argparse.Namespace) -> dict[str, str]:
    """Return the roles that the flags give, one for each column."""
    flags: dict[str, str] = {}
    for flag in _ROLES:
        for name in getattr(options, flag):
            if name == target or flags.get(name, flag) != flag:
                other = "--target" if name == target else f"--{flags[name]}"
                must, got = f"column {shown(name)} must have one role", f"{other} and --{flag}"
                raise ValueError(message(_OWNER, must, got, "Leave one of them out."))
            flags[name] = flag
    return {name: _ROLES[flag] for name, flag in flags.items()}


def _empty(table: Table, others: set[str]) -> dict[str, str]:
    """Return columns without a cell as ones to ignore, and say so."""
    found = [
        name
        for name, cells in table.columns.items()
        if name not in others and all(map(is_missing, cells))
    ]
    if found:
        _say(f"{listed(found)}: left out, as no row to train on has a value there")
    return dict.fromkeys(found, "ignore")


def _require_classes(
    table: Table, training: Table, target: str, options: argparse.Namespace
) -> None:
    """Refuse a target with a class that has too few rows for one to be trained on."""
    counts, learned = (
        Counter(name_of(cell) for cell in part.columns[target] if not is_missing(cell))
        for part in (table, training)
    )
    lacking = [name for name in counts if name not in learned]
    # Rows of a class that is not learned are left out as other bad ones.
    if not lacking or (options.skip_bad and len(learned) > 1):
        return
    rare = lacking[0]
    must = f"every class of {shown(target)} must have rows for training and for validation"
    got = f"{counts[rare]} of {shown(rare)} in {table.origin}, none of which is for training"
    fix = "Add rows of it, or remove it"
    numbers = "" if None in map(number_of, counts) else "; for a number write --task regression"
    raise ValueError(message(_OWNER, must, got, f"{fix}{numbers}."))


def _tell_unknown(table: Table, found: EncodedTable) -> None:
    """Say which categories the model does not know, a line for each column that has such."""
    for name, counts in found.unknown.items():
        values = [each or "missing" for each, _ in counts.most_common()]
        _say(
            f"{table.origin}: column {shown(name)}: {counts.total()} of {len(found.rows)} rows have"
            f" categories that training did not have: {listed(values)}"
        )


def _say(sentence: str) -> None:
    if communicator().leads:
        terminal.say(terminal.plain(sentence))


def _split(table: Table, target: str, options: argparse.Namespace) -> list[Table]:
    """Return the rows for training and those for validation, in which classes are as frequent."""
    cells = [name_of(cell) for cell in table.columns[target]]
    kinds, codes, counts = np.unique(cells, return_inverse=True, return_counts=True)
    stratified = len(kinds) <= classification.MOST_CLASSES and counts.min() > 1
    numbers = ArrayDataset(np.arange(len(table)), codes)
    fractions = (1 - options.validation, options.validation)
    parts = parts_of(numbers, fractions, seed=options.seed, stratified=bool(stratified))
    return [table.subset(sorted(part.x.tolist())) for part in parts]
