"""Time series: what comes next in a column of numbers, or the class (or the number) that each of
many series stands for.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddbp.data.array_dataset import ArrayDataset
from ddbp.data.samples import Ragged
from ddbp.data.series import Series, SeriesReader, windows
from ddbp.data.series_files import (
    read_column,
    read_series_folder,
    read_series_table,
    read_ts,
)
from ddbp.data.skipped import Skipped
from ddbp.data.splits import split as parts_of
from ddbp.export import Bundle
from ddbp.files import expanded
from ddbp.optim.adam import Adam
from ddbp.training import script
from ddbp.training.metrics import accuracy
from layers import MeanSquaredError, SoftmaxCrossEntropy
from layers.errors import message
from layers.types import Array

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
    is_name,
    limit_batch,
    named,
    tell_skipped,
)

_OWNER = "ddbp train series"
_USUAL = Usual(epochs=30, batch_size=64, learning_rate=0.005)
_FORECAST = "series"
"""The task of a bundle that forecasts."""


class SeriesOfNumbers(Recipe):
    """Forecasts a series, or tells what series are."""

    name = "series"
    about = "Train a forecast of a series, or what tells the classes of many."
    kind = "series"
    data = (
        "a table, whose --column is forecast; of many series a table with --series and --label, a"
        " .ts file, a folder with a sub-folder of CSV files for each class, or a name, as"
        " japanese_vowels"
    )
    others: Mapping[str, Sequence[str]] = {**IMAGES, **BUNDLES}
    models: Mapping[str, Usual] = dict.fromkeys(("gru", "lstm", "rnn"), _USUAL)

    def add_flags(self, flags: script.Flags) -> None:
        self.add_reading(flags)
        flags.add_size("--past", 40, "values that a forecast reads")
        flags.add_size("--ahead", 10, "values that it tells")
        flags.add_size("--hidden", 64, "width of the recurrent layer")

    def add_reading(self, parser: argparse.ArgumentParser) -> None:
        about = "of a table: what to forecast (the last one; of a bundle that of its training)"
        parser.add_argument("--column", help=about)
        parser.add_argument("--series", metavar="COLUMN", help="which series a row is of")
        parser.add_argument("--label", metavar="COLUMN", help="what its series stands for")
        parser.add_argument("--time", metavar="COLUMN", help="the order of the rows of a series")

    def prepare(self, options: argparse.Namespace) -> Prepared:
        rng, more = generator(options), {**callbacks(options), "clip_norm": 1.0}
        if _is_table(options) and options.label is None:
            read = _forecast(options)
            model: Any = networks.of_forecast(options.model, options.hidden, options.ahead, rng)
            task = _FORECAST
        else:
            read = _labelled(options)
            reader = read.preprocessing
            outputs, task = (
                (len(reader.classes), "classification") if reader.classes else (1, "regression")
            )
            model = networks.of_series(options.model, reader.channels, options.hidden, outputs, rng)
        limit_batch(options, read.training)
        goal = self.goal(task, read.preprocessing)
        if task == "classification":
            goal = goal._replace(metrics={"accuracy": accuracy})
        optimizer = Adam(script.cosine(options, read.training))
        return Prepared(read, model, optimizer, task, goal, more)

    def goal(self, task: str, preprocessing: Any) -> Goal:
        if task == "classification":
            return Goal(SoftmaxCrossEntropy(), classification.metrics(preprocessing.classes))
        if task == _FORECAST:
            deviation = preprocessing.std[0]
        else:
            zero, one = preprocessing.predictions(np.array([[0.0], [1.0]]))
            deviation = one - zero
        return Goal(MeanSquaredError(), STANDARDISED, partial(in_units, deviation))

    def samples(self, preprocessing: Any, options: argparse.Namespace) -> Any:
        if options.task == _FORECAST:
            values, _, skipped = _column(options, expanded(options.data), preprocessing)
            tell_skipped(skipped)
            (past, _), _ = options.example
            return windows(_standardised(values, preprocessing), past, _ahead(options.model))
        if is_name(options.data):
            return _named(options.data)[1]
        series = _read(options, preprocessing)
        tell_skipped(series.skipped)
        return preprocessing.dataset(series)

    def predict(
        self, bundle: Bundle, preprocessing: Any, options: argparse.Namespace
    ) -> Predictions:
        if bundle.task == _FORECAST:
            return _forecasts(bundle, preprocessing, options)
        names, inputs, skipped = list[str](), list[Array](), list[str]()
        for path in options.files:
            options.data = str(path)
            series = _read(options, preprocessing, labels=False)
            names += series.places
            inputs += preprocessing.transform(series)
            skipped += [f"{each.place}: {each.reason}" for each in series.skipped]
        outputs = bundle.predict(Ragged(inputs), options.batch_size)
        if preprocessing.classes:
            scores = classification.columns(outputs, preprocessing.classes)
        else:
            scores = {"prediction": np.array(preprocessing.predictions(outputs))}
        return Predictions({"series": names, **scores}, skipped)


def _is_table(options: argparse.Namespace) -> bool:
    """Return whether `--data` is a file with a row for each time step."""
    path = expanded(options.data)
    return os.path.isfile(path) and path.suffix != ".ts"


def _read(
    options: argparse.Namespace, reader: SeriesReader | None = None, *, labels: bool = True
) -> Series:
    """Return many series; a table's columns are those that a model was trained on, where flags do
    not name others.
    """
    path = expanded(options.data)
    if path.suffix == ".ts":
        return read_ts(path, skip_bad=options.skip_bad)
    if os.path.isdir(path):
        return read_series_folder(path, skip_bad=options.skip_bad)
    columns = {} if reader is None else dict(reader.columns)
    columns |= _named_columns(options)
    channels = None if reader is None or not reader.names else [*reader.names]
    if channels is not None and not labels:
        # What the series stand for need not be there, nor be right.
        columns.pop("label", None)
    if "series" not in columns:
        must, fix = "a table of many series must have a column for them", "Name it by --series."
        raise ValueError(message("ddbp", must, f"{path} without --series", fix))
    return read_series_table(path, **columns, values=channels, skip_bad=options.skip_bad)


def _named_columns(options: argparse.Namespace) -> dict[str, str]:
    """Return the columns of a table that flags name, but for its channels."""
    given = {name: getattr(options, name) for name in ("series", "label", "time")}
    return {name: column for name, column in given.items() if column is not None}


def _labelled(options: argparse.Namespace) -> Split:
    """Return series with what they stand for."""
    if is_name(options.data):
        training, test = _named(options.data)
        return Split(training, test, training.preprocessing)
    series = _read(options)
    tell_skipped(series.skipped)
    if series.labels is None:
        must, fix = (
            "series must have labels",
            "Name their column by --label, or --column to forecast.",
        )
        raise ValueError(message(_OWNER, must, f"none in {options.data}", fix))
    codes = np.unique(list(map(str, series.labels)), return_inverse=True)[1]
    numbers = ArrayDataset(np.arange(len(codes)), codes)
    fractions = (1 - options.validation, options.validation)
    parts = parts_of(numbers, fractions, seed=options.seed, stratified=bool(series.classes))
    first, second = (_some(series, sorted(part.x.tolist())) for part in parts)
    reader = SeriesReader.fit(first, columns=_named_columns(options))
    return Split(reader.dataset(first), reader.dataset(second), reader)


def _named(name: str) -> Any:
    """Return a set that is known by name, or refuse one of another kind."""
    return named(_OWNER, name, SeriesReader)


def _some(series: Series, numbers: list[int]) -> Series:
    """Return some of many series."""
    labels: Any = series.labels
    return series._replace(
        sequences=tuple(series.sequences[number] for number in numbers),
        labels=tuple(labels[number] for number in numbers),
        places=tuple(series.places[number] for number in numbers),
    )


def _forecast(options: argparse.Namespace) -> Split:
    """Return windows of a series and what follows each, of which the end is for validation."""
    values, name, skipped = _column(options, expanded(options.data))
    tell_skipped(skipped)
    cut, needed = (
        len(values) - round(len(values) * options.validation),
        options.past + options.ahead,
    )
    if min(cut, len(values) - cut) < needed:
        must = f"both parts of the series must have {needed} values, for --past and --ahead"
        got, fix = f"{cut} and {len(values) - cut}", "Take smaller ones, or a longer series."
        raise ValueError(message(_OWNER, must, got, fix))
    known = values[:cut][np.isfinite(values[:cut])]
    if not len(known):
        must, fix = "the series must have numbers to train on", "Mend them."
        raise ValueError(message(_OWNER, must, f"none in {options.data}", fix))
    first = Series((known[:, np.newaxis],), None, (), (options.data,), ())
    reader = SeriesReader.fit(first, names=[name], columns=_named_columns(options))
    training, validation = (
        windows(_standardised(part, reader), options.past, options.ahead)
        for part in (values[:cut], values[cut:])
    )
    return Split(training, validation, reader)


def _column(
    options: argparse.Namespace, path: Path, reader: SeriesReader | None = None
) -> tuple[Array, str, tuple[Skipped, ...]]:
    """Return a column of a table (T,), that which a model was trained on unless one is named, its
    name and the steps that cannot be read, which are NaN.
    """
    named = _named_columns(options)
    for flag in ("series", "label"):
        if flag in named:
            must, got = "a forecast must be of one series", f"--{flag} {named[flag]}"
            fix = "Leave it out, and name a file of one series; --label tells what series are."
            raise ValueError(message("ddbp", must, got, fix))
    known = () if reader is None else reader.names
    name = options.column or (known[0] if known else None)
    time = named.get("time", None if reader is None else reader.columns.get("time"))
    return read_column(path, name, time=time, skip_bad=options.skip_bad)


def _standardised(values: Array, reader: SeriesReader) -> Array:
    return np.asarray((values - reader.mean[0]) / reader.std[0])


def _ahead(model: Any) -> int:
    """Return how many values a model forecasts."""
    return int(model.body[-1].out_features)


def _forecasts(bundle: Bundle, reader: SeriesReader, options: argparse.Namespace) -> Predictions:
    """Return what follows the end of each file."""
    columns: dict[str, list[Any]] = {"file": [], "step": [], "prediction": []}
    sentences = []
    assert bundle.example is not None
    (past, _), _ = bundle.example
    for path in options.files:
        values, *_ = _column(options, path, reader)
        if len(values) < past:
            must = f"a series must have {past} values, which a forecast reads"
            raise ValueError(message("ddbp predict", must, f"{len(values)} in {path}", "Add some."))
        if lost := np.isnan(values[-past:]).sum():
            sentences.append(f"{path}: {lost} of its last {past} steps cannot be read")
            continue
        read = _standardised(values[-past:], reader)[np.newaxis, :, np.newaxis]
        found = bundle.predict(read)[0].astype(np.float64) * reader.std[0] + reader.mean[0]
        columns["file"] += [str(path)] * len(found)
        columns["step"] += range(1, len(found) + 1)
        columns["prediction"] += found.tolist()
    if not columns["file"]:
        must, fix = f"a file must end in {past} steps that can be read", "Mend them."
        raise ValueError(message("ddbp predict", must, sentences[0], fix))
    return Predictions(columns, sentences)
