"""Time series: sequences of one or more channels, of one length or not, with a label or a number
for each; and how they become a model's inputs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from layers.errors import message
from layers.types import Array

from .array_dataset import ArrayDataset
from .cells import number_of
from .prepared import PreparedDataset
from .preprocess import Preprocessing, State, checked_classes, several, unscaled
from .samples import Ragged
from .skipped import Skipped, listed, shown
from .statistics import SCALE, SMALL, Statistics, statistics

_FIX = "Series are arrays (T, C), with time first."
_COLUMNS = ("series", "label", "time")


class Series(NamedTuple):
    """Time series.

    Attributes
    ----------
    sequences
        One array (T_n, C) each.
    labels
        The name of the class of each, or a number to predict; None where there are none.
    classes
        The names of classes, in their order.
    places
        Where each stands.
    skipped
        Series that have been left out, with the reason.
    names
        Of the channels, if they have any.
    """

    sequences: tuple[Array, ...]
    labels: tuple[str, ...] | tuple[float, ...] | None
    classes: tuple[str, ...]
    places: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    names: tuple[str, ...] = ()


class SeriesReader(Preprocessing):
    """How time series become a model's inputs: each channel with mean 0 and deviation 1 over the
    time steps of the training data; and targets their labels, or standardised numbers.

    Parameters
    ----------
    mean, std
        Of each of C channels.
    classes
        Names of labels.
    target
        Mean and deviation of numbers to predict.
    names
        Of the channels, such as those of the columns of a table, if they have any. Series whose
        channels have names are put in this order.
    columns
        The other columns of a table that such series are read from, by what `read_series_table`
        calls them: "series", "label" and "time".
    """

    kind = "series"

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        classes: Sequence[str] = (),
        target: tuple[float, float] | None = None,
        names: Sequence[str] = (),
        columns: Mapping[str, str] | None = None,
    ) -> None:
        owner = "SeriesReader"
        self.mean, self.std = (
            _numbers_of(owner, name, each) for name, each in (("mean", mean), ("std", std))
        )
        scale = (0.0, 1.0) if target is None else _numbers_of(owner, "target", target)
        same = len(self.mean) == len(self.std) and len(scale) == 2
        if not same or not self.mean or min(self.std) <= 0 or scale[1] <= 0:
            must = "mean and std must be numbers of each channel, target a pair, deviations above 0"
            got, fix = f"{mean}, {std}, {target}", "Use SeriesReader.fit(series)."
            raise ValueError(message(owner, must, shown(got), fix))
        given, channels = several(names), len(self.mean)
        texts = given is not None and all(isinstance(each, str) for each in given)
        if given is None or not texts or len(given) not in (0, channels):
            must = f"names must be texts, one for each of {channels} channels, or none"
            raise ValueError(message(owner, must, shown(repr(names)), 'Write names=["height"].'))
        self.names = tuple(given)
        others: Any = {} if columns is None else columns
        if not isinstance(others, Mapping) or not all(
            name in _COLUMNS and isinstance(each, str) for name, each in others.items()
        ):
            must = f"columns must be names of columns for {', '.join(_COLUMNS)}"
            fix = 'Write columns={"series": "id"}.'
            raise ValueError(message(owner, must, shown(repr(columns)), fix))
        self.columns = dict(others)
        self._target = None if target is None else Statistics(*scale)
        self.classes = checked_classes(owner, classes)

    def __repr__(self) -> str:
        return f"SeriesReader({self.channels} channels, {len(self.classes)} classes)"

    @property
    def channels(self) -> int:
        """The number of channels C."""
        return len(self.mean)

    @classmethod
    def fit(
        cls,
        series: Series,
        *,
        names: Sequence[str] = (),
        columns: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a reader by the statistics of training data.

        Parameters
        ----------
        series
            What `read_ts`, `read_series_table` or `read_series_folder` returns.
        names
            Of its channels, if these have others than in `series`, or none there.
        columns
            As of a reader.
        """
        if not isinstance(series, Series) or not series.sequences:
            must, fix = "series must be a Series with one sequence or more", "Use read_ts(path)."
            raise TypeError(message("SeriesReader.fit", must, shown(repr(series)), fix))
        channels = [[value for part in column for value in part] for column in _columns(series)]
        found = [statistics(values) for values in channels]
        target = None
        if series.labels and not isinstance(series.labels[0], str):
            scale = statistics([float(label) for label in series.labels])
            target = (scale.mean, scale.deviation)
        mean, std = [each.mean for each in found], [each.deviation for each in found]
        return cls(
            mean,
            std,
            classes=series.classes,
            target=target,
            names=names if names != () else series.names,
            columns=columns,
        )

    def _state(self) -> dict[str, Any]:
        target = None if self._target is None else [*self._target]
        scale = {"mean": [*self.mean], "std": [*self.std], "target": target}
        return {**scale, "names": [*self.names], "columns": self.columns}

    @classmethod
    def _from_state(cls, state: State) -> Self:
        mean, std = state.optional_numbers("mean"), state.optional_numbers("std")
        target: Any = state.optional_numbers("target")
        names = state.texts("names") if "names" in state else ()
        columns = state.json("columns") if "columns" in state else None
        return cls(mean or (), std or (), target=target, names=names, columns=columns)

    def transform(self, raw: Series | Iterable[Any]) -> Ragged:
        """Return the inputs of sequences (T_n, C), or of a `Series`, whose channels are found by
        their names.

        Raises
        ------
        ValueError
            A sequence has another number of channels or lacks one, has no step, or what is not
            finite.
        """
        owner = "SeriesReader"
        sequences = self._arranged(raw) if isinstance(raw, Series) else several(raw)
        if sequences is None:
            must = "sequences must be a list of arrays (T, C)"
            raise TypeError(message(owner, must, shown(repr(raw)), _FIX))
        mean, std = np.array(self.mean), np.array(self.std)
        result = []
        for number, given in enumerate(sequences):
            sequence = _sequence(owner, f"sequence {number}", given)
            if sequence.shape[1] != self.channels:
                must = f"sequences must have {self.channels} channels"
                fix = "The model has been trained on as many."
                got = f"{sequence.shape[1]} in sequence {number}"
                raise ValueError(message(owner, must, got, fix))
            with np.errstate(over="ignore"):
                result.append(((sequence - mean) / std).astype(np.float32))
            if not np.isfinite(result[-1]).all():
                place = raw.places[number] if isinstance(raw, Series) else f"sequence {number}"
                must, got = f"standardised numbers {SMALL}", f"others in {place}"
                raise ValueError(message(owner, must, got, SCALE))
        return Ragged(result)

    def _arranged(self, series: Series) -> Sequence[Array]:
        """Return sequences with the channels of this reader in its order, if all have names."""
        names = series.names
        if not names or not self.names or names == self.names:
            return series.sequences
        absent = [name for name in self.names if name not in names]
        if absent:
            must = f"series must have the channels {listed(self.names, 20)}"
            got, fix = f"none called {listed(absent)}", "The model has been trained on these."
            raise ValueError(message("SeriesReader", must, got, fix))
        order = [names.index(name) for name in self.names]
        return [sequence[:, order] for sequence in series.sequences]

    def dataset(self, series: Series) -> PreparedDataset:
        """Return series with their labels (N,), or their numbers (N, 1), as samples."""
        if not isinstance(series, Series) or series.labels is None:
            must, fix = "series must have labels", "Without them, use transform(series.sequences)."
            raise ValueError(message("SeriesReader.dataset", must, shown(repr(series)), fix))
        x = self.transform(series)
        if self._target is None:
            return PreparedDataset(x, self.labels(series.labels, series.places), self)
        mean, deviation = self._target
        if any(isinstance(label, str) for label in series.labels):
            must, fix = "labels must be numbers", "The model has been trained to predict a number."
            raise ValueError(message("SeriesReader.dataset", must, series.labels[0], fix))
        values = [(float(label) - mean) / deviation for label in series.labels]
        y = np.array(values, np.float64).astype(np.float32)[:, np.newaxis]
        return PreparedDataset(x, y, self)

    def predictions(self, outputs: Any) -> list[Any]:
        """Return what outputs of a model mean: classes of scores (N, K), or numbers of (N, 1)."""
        if self._target is None:
            return super().predictions(outputs)
        return unscaled("SeriesReader", outputs, self._target)


def windows(values: Array, past: int, ahead: int) -> ArrayDataset:
    """Return all windows (N, past, 1) of a series (T,), and the values that follow each (N, ahead),
    but for those with a step that is NaN.

    Raises
    ------
    ValueError
        The series is too short for one, or none is without NaN.
    """
    if len(values) < past + ahead:
        must, fix = f"a series must have {past + ahead} values", "Take a longer one."
        raise ValueError(message("windows", must, len(values), fix))
    whole = np.lib.stride_tricks.sliding_window_view(values, past + ahead)
    whole = whole[~np.isnan(whole).any(axis=1)]
    if not len(whole):
        must, fix = f"a series must have {past + ahead} numbers in a row", "Mend some steps."
        raise ValueError(message("windows", must, "none", fix))
    return ArrayDataset(whole[:, :past, np.newaxis].copy(), whole[:, past:].copy())


def _columns(series: Series) -> Iterable[list[list[float]]]:
    """Yield for each channel its values in every sequence."""
    for channel in range(series.sequences[0].shape[1]):
        yield [sequence[:, channel].tolist() for sequence in series.sequences]


def _numbers_of(owner: str, name: str, given: Any) -> tuple[float, ...]:
    values = several(given) or [None]
    numbers = [number_of(each) for each in values if not isinstance(each, str)]
    if None in numbers or len(numbers) != len(values):
        must, fix = f"{name} must be finite numbers", "Use SeriesReader.fit(series)."
        raise TypeError(message(owner, must, shown(repr(given)), fix))
    return tuple(number for number in numbers if number is not None)


def _sequence(owner: str, name: str, given: Any) -> Array:
    """Return a sequence (T, C) in float64."""
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        must = f"{name} must be numbers (T, C)"
        raise ValueError(message(owner, must, shown(repr(given)), _FIX)) from error
    array = array[:, np.newaxis] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        got = f"shape {array.shape}" if array.ndim != 2 or not array.size else "NaN or infinity"
        raise ValueError(message(owner, f"{name} must be finite numbers (T, C)", got, _FIX))
    return array
