"""How rows of tables become a model's inputs and targets, by statistics of the training data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from layers.checks import boolean, one_of
from layers.errors import message
from layers.types import Array, Integers

from .cells import days_of, in_order, is_missing, name_of, number_of
from .columns import (
    FEW,
    READERS,
    Column,
    category_of,
    column_of,
    column_state,
    fitted,
    inferred,
    require_points,
    require_single,
    scaled,
)
from .prepared import PreparedDataset
from .preprocess import Preprocessing, State, unscaled
from .skipped import BadSamples, Skipped, listed, shown
from .statistics import SCALE, SMALL, UNIT, Statistics, is_too_large, statistics
from .table import Table

ROLES = ("number", "category", "date", "target", "weight", "ignore")
TASKS = ("classification", "regression")
_OWNER = "TableEncoder"
_NO_INPUTS = ("target", "weight", "ignore")
_WORDS = {"number": "a number", "date": "a date as 2026-01-31"}


class EncodedTable(NamedTuple):
    """What a table has become.

    Attributes
    ----------
    x
        Inputs (N, F); with `encoding="index"` a pair of numbers (N, F) and codes (N, C).
    y
        Labels (N,), or numbers (N, 1), standardised; None without targets.
    weights
        (N,), if a column has them.
    rows
        The rows of the table that these are (N,).
    skipped
        The others, with the reason.
    preprocessing
        What has encoded it.
    unknown
        Rows by category by column, of those that the training data did not have.
    """

    x: Any
    y: Array | None
    weights: Array | None
    rows: Integers
    skipped: tuple[Skipped, ...]
    preprocessing: "TableEncoder"
    unknown: Mapping[str, Counter[str]]

    def dataset(self) -> PreparedDataset:
        """Return the samples with their targets, which there must be."""
        return PreparedDataset(self.x, self.y, self.preprocessing, weights=self.weights)


class TableEncoder(Preprocessing):
    """How rows of a table become a model's inputs: made by `TableEncoder.fit`.

    Parameters
    ----------
    state
        What such an encoder's `state()` has returned.

    Attributes
    ----------
    features
        What the columns of the inputs are.
    sizes
        With `encoding="index"`, the number of codes of each column of categories.
    target
        The name of the target's column, or None.
    task
        "classification" or "regression".
    """

    kind = "table"

    def __init__(self, state: Any) -> None:
        state = state if isinstance(state, State) else State(_OWNER, state)
        self._columns = tuple(column_of(part) for part in state.parts("columns"))
        self.target = state.optional_text("target")
        self.task = one_of(_OWNER, "task", state.text("task"), TASKS)
        self.weight = state.optional_text("weight")
        self.missing = one_of(_OWNER, "missing", state.text("missing"), ("mean", "refuse"))
        self.unknown = one_of(_OWNER, "unknown", state.text("unknown"), ("zero", "refuse"))
        self.encoding = one_of(_OWNER, "encoding", state.text("encoding"), ("one-hot", "index"))
        self._scale = Statistics(state.number("target_mean"), state.number("target_deviation"))
        for each in (self._scale, *(column.statistics for column in self._columns)):
            if each.deviation <= 0:
                raise state.refused("deviation", "above 0", each.deviation)

    def __repr__(self) -> str:
        return f"TableEncoder({len(self._columns)} columns, {self.task} of {self.target})"

    @classmethod
    def fit(
        cls,
        table: Any,
        *,
        target: str | None = None,
        roles: Mapping[str, str] | None = None,
        task: str | None = None,
        missing: str = "mean",
        unknown: str = "zero",
        encoding: str = "one-hot",
        skip_bad: bool = False,
    ) -> Self:
        """Return an encoder by the statistics of training data.

        Parameters
        ----------
        table
            A `Table`, a path, columns by name, or a table of pandas, polars or pyarrow.
        target
            The name of the column to predict.
        roles
            What columns are, by name: "number", "category", "date", "target", "weight" or
            "ignore". Those of others are inferred: what is numeric is a number, what is in ISO 8601
            a date, anything else a category.
        task
            "classification" or "regression". Unless given, targets that are texts, booleans or few
            different integers are classes.
        missing
            What missing cells of numbers and dates become: "mean", with one more input that says
            so; or "refuse". Categories that are missing are a category.
        unknown
            What a category becomes that the training data do not have: "zero" in all its inputs
            (code 0), which `encode` counts, or "refuse".
        encoding
            "one-hot", or "index": codes of categories, from 1, apart from the numbers, as an
            `Embedding` takes them.
        skip_bad
            Whether rows that cannot be used are left out of the statistics; `encode` says which.

        Raises
        ------
        ValueError
            A column is not there, or of mixed types, or different in every row; a target or weight
            is missing: the first such line is named.
        """
        table = Table.of(table)
        bad = BadSamples(f"{_OWNER}.fit", boolean(_OWNER, "skip_bad", skip_bad))
        named, table = _roles(table, target, roles)
        target = next((name for name, role in named.items() if role == "target"), None)
        weight = next((name for name, role in named.items() if role == "weight"), None)
        task = task_of(table, target, task)
        inputs = [name for name in table.columns if named.get(name) not in _NO_INPUTS]
        columns = [inferred(table, name, named.get(name), bad) for name in inputs]
        if not columns:
            must, fix = "there must be a column of inputs", "Change roles."
            raise ValueError(message(_OWNER, must, listed([*table.columns]), fix))
        encoder = cls._made(columns, target, task, weight, missing, unknown, encoding, UNIT)
        rows = encoder._good_rows(table, bad, with_targets=target is not None, fitting=True)
        bad.require_some(len(rows), "a row that can be used")
        encoder._columns = tuple(fitted(column, table, rows) for column in columns)
        if target is not None:
            encoder._fit_target([table.columns[target][row] for row in rows])
        return encoder

    @classmethod
    def _made(
        cls,
        columns: Sequence[Column],
        target: str | None,
        task: str,
        weight: str | None,
        missing: str,
        unknown: str,
        encoding: str,
        scale: Statistics,
    ) -> Self:
        state = {
            "columns": [column_state(column) for column in columns],
            "target": target,
            "task": task,
            "weight": weight,
            "missing": missing,
            "unknown": unknown,
            "encoding": encoding,
            "target_mean": scale.mean,
            "target_deviation": scale.deviation,
        }
        return cls(State(_OWNER, state))

    def _fit_target(self, cells: Sequence[Any]) -> None:
        if self.task == "regression":
            self._scale = statistics([number_of(cell) or 0.0 for cell in cells])
            return
        self.classes = in_order({name_of(cell) for cell in cells})
        if len(self.classes) < 2:
            must, fix = "there must be two classes or more", "Add rows of another one."
            if number_of(self.classes[0]) is not None:
                fix = 'Add rows of another one, or write task="regression".'
            got = f"{listed(self.classes)} alone in column {shown(self.target)}"
            raise ValueError(message(_OWNER, must, got, fix))

    @property
    def features(self) -> list[str]:
        """See the attributes."""
        result = []
        for column in self._columns:
            if column.role != "category":
                result += [column.name, f"{column.name} is missing"][: 1 + column.gaps]
            elif self.encoding == "one-hot":
                result += [f"{column.name}={category}" for category in column.categories]
        return result

    @property
    def sizes(self) -> list[int]:
        """See the attributes."""
        return [1 + len(column.categories) for column in self._columns if column.categories]

    def _state(self) -> dict[str, Any]:
        return {
            "columns": [column_state(column) for column in self._columns],
            "target": self.target,
            "task": self.task,
            "weight": self.weight,
            "missing": self.missing,
            "unknown": self.unknown,
            "encoding": self.encoding,
            "target_mean": self._scale.mean,
            "target_deviation": self._scale.deviation,
        }

    @classmethod
    def _from_state(cls, state: State) -> Self:
        return cls(state)

    def transform(self, raw: Any) -> Any:
        """Return a model's inputs of a table, whatever `fit` takes; its target need not be there.

        Raises
        ------
        ValueError
            A column is not there, or a cell is of another type, or an unknown category or missing
            where these are refused; the line is named.
        """
        return self.encode(raw, targets=False).x

    def encode(self, table: Any, *, targets: bool = True, skip_bad: bool = False) -> EncodedTable:
        """Return inputs, targets and weights of a table.

        Parameters
        ----------
        table
            Whatever `fit` takes.
        targets
            Whether to encode its targets and weights, too.
        skip_bad
            Whether rows that cannot be used are left out; if not, the first is an error.
        """
        table = Table.of(table).including(self._names(with_targets=True))
        targets = boolean(_OWNER, "targets", targets) and self.target is not None
        bad = BadSamples(_OWNER, boolean(_OWNER, "skip_bad", skip_bad))
        rows = self._good_rows(table, bad, with_targets=targets, fitting=False)
        bad.require_some(len(rows), "a row that can be used")
        y = weights = None
        if targets:
            y = self._targets(table, rows)
            if self.weight is not None:
                cells = table.columns[self.weight]
                weights = np.array([number_of(cells[row]) for row in rows], np.float64)
        skipped = (*table.skipped, *bad.skipped)
        x, unknown = self._inputs(table, rows)
        return EncodedTable(x, y, weights, np.array(rows, np.int64), skipped, self, unknown)

    def predictions(self, outputs: Any) -> list[Any]:
        """Return what outputs of a model mean: classes of scores (N, K), numbers in the units of
        the target of (N, 1) or (N,).
        """
        if self.task == "classification":
            return super().predictions(outputs)
        return unscaled(_OWNER, outputs, self._scale)

    def _targets(self, table: Table, rows: Sequence[int]) -> Array:
        cells = table.columns[str(self.target)]
        if self.task == "classification":
            places = [table.place(row) for row in rows]
            return self.labels([name_of(cells[row]) for row in rows], places)
        mean, deviation = self._scale
        values = [((number_of(cells[row]) or 0.0) - mean) / deviation for row in rows]
        return np.array(values, np.float64).astype(np.float32)[:, np.newaxis]

    def _names(self, with_targets: bool) -> list[str]:
        """Return the columns that there must be."""
        names = [column.name for column in self._columns]
        others = (self.target, self.weight) if with_targets else ()
        return names + [name for name in others if name is not None]

    def _good_rows(
        self, table: Table, bad: BadSamples, *, with_targets: bool, fitting: bool
    ) -> list[int]:
        """Return the rows that can be used, each of whose cells has been looked at."""
        names = self._names(with_targets)
        absent = [name for name in names if name not in table.columns]
        if absent:
            must = f"the table must have the columns {listed(names, 20)}"
            fix = "These are the columns that the model was trained on."
            raise ValueError(message(_OWNER, must, f"{table.origin} without {listed(absent)}", fix))
        wrong: dict[int, tuple[str, str, str]] = {}
        for column in self._columns:
            for row, fault in self._faults(column, table, fitting):
                wrong.setdefault(row, fault)
        if with_targets:
            for row, fault in self._target_faults(table, fitting):
                wrong.setdefault(row, fault)
        for row in sorted(wrong):
            must, reason, fix = wrong[row]
            bad.found(must, table.place(row), reason, fix)
        return [row for row in range(len(table)) if row not in wrong]

    def _faults(self, column: Column, table: Table, fitting: bool) -> Any:
        """Yield the rows whose cell in a column cannot be used, with why."""
        cells, name = table.columns[column.name], shown(column.name)
        if column.role == "category":
            if self.unknown == "refuse" and not fitting:
                known = {*column.categories}
                must = f"column {name} must be among {listed(column.categories)}"
                for row, cell in enumerate(cells):
                    if category_of(cell) not in known:
                        fix = 'TableEncoder.fit(…, unknown="zero") takes others.'
                        yield row, (must, shown(repr(cell)), fix)
            return
        reader, word = READERS[column.role], _WORDS[column.role]
        for row, value in enumerate(table.parsed(column.name, reader)):
            cell = cells[row]
            if value is not None:
                if column.role == "number" and is_too_large(value, column.statistics):
                    yield row, (f"column {name} {SMALL}", shown(repr(cell)), SCALE)
            elif not is_missing(cell):
                must = f"column {name} must be {word} in every row"
                fix = f'Mend it, or write roles={{"{name}": "category"}}.'
                yield row, (must, shown(repr(cell)), fix)
            elif self.missing == "refuse":
                must = f"column {name} must not be missing"
                yield row, (must, shown(repr(cell)), 'missing="mean" fills it in.')

    def _target_faults(self, table: Table, fitting: bool) -> Any:
        """Yield the rows without a target or weight that can be used, with why."""
        name = shown(self.target)
        known = None if fitting or self.task == "regression" else {*self.classes}
        for row, cell in enumerate(table.columns[str(self.target)]):
            if is_missing(cell):
                fix = "Rows without a label cannot be learned from."
                yield row, (f"target {name} must be there in every row", "it is missing", fix)
            elif self.task == "regression" and number_of(cell) is None:
                fix = 'Or write task="classification".'
                yield row, (f"target {name} must be a number", shown(repr(cell)), fix)
            elif self.task == "regression" and is_too_large(number_of(cell) or 0.0, self._scale):
                yield row, (f"target {name} {SMALL}", shown(repr(cell)), SCALE)
            elif known is not None and name_of(cell) not in known:
                must = f"target {name} must be among {listed(self.classes)}"
                yield row, (must, shown(repr(cell)), "The model knows no other classes.")
        if self.weight is None:
            return
        for row, cell in enumerate(table.columns[self.weight]):
            value = number_of(cell)
            if value is None or value < 0:
                must = f"weight {shown(self.weight)} must be a number of at least 0"
                yield row, (must, shown(repr(cell)), "0 leaves a row out of the loss.")
            elif is_too_large(value):
                yield row, (f"weight {shown(self.weight)} {SMALL}", shown(repr(cell)), SCALE)

    def _inputs(self, table: Table, rows: Sequence[int]) -> tuple[Any, dict[str, Counter[str]]]:
        """Return the inputs of rows, and by column how often categories came that none knows."""
        unknown: dict[str, Counter[str]] = {}
        numbers: list[Array] = []
        codes: list[Array] = []
        for column in self._columns:
            if column.role != "category":
                parsed = table.parsed(column.name, READERS[column.role])
                numbers += scaled(column, [parsed[row] for row in rows])
                continue
            cells = table.columns[column.name]
            known = {category: code for code, category in enumerate(column.categories, start=1)}
            names = [category_of(cells[row]) for row in rows]
            code = np.array([known.get(name, 0) for name in names], np.int64)
            codes.append(code)
            if not code.all():
                unknown[column.name] = Counter(name for name in names if name not in known)
            if self.encoding == "one-hot":
                hot = code[:, np.newaxis] == np.arange(1, 1 + len(known))
                numbers += [*hot.T.astype(np.float32)]
        shape = (len(rows), 0)
        x = np.stack(numbers, axis=1) if numbers else np.zeros(shape, np.float32)
        if self.encoding == "one-hot":
            return x, unknown
        return (x, np.stack(codes, axis=1) if codes else np.zeros(shape, np.int64)), unknown


def _roles(table: Table, target: Any, roles: Any) -> tuple[dict[str, str], Table]:
    """Return the roles that are given, and the table with all columns that have one."""
    if roles is not None and not isinstance(roles, Mapping):
        must, fix = "roles must be a dictionary", 'Write roles={"id": "ignore"}.'
        raise TypeError(message(_OWNER, must, shown(repr(roles)), fix))
    result = dict(roles or {})
    if target is not None:
        if not isinstance(target, str):
            must, fix = "target must be the name of a column", 'Write target="price".'
            raise TypeError(message(_OWNER, must, shown(repr(target)), fix))
        if result.get(target, "target") != "target":
            must = f"the target {shown(target)} must have no other role"
            raise ValueError(message(_OWNER, must, result[target], "Name another target."))
        result[target] = "target"
    table = table.including(name for name in result if isinstance(name, str))
    for name, role in result.items():
        if name not in table.columns:
            must = f"{table.origin} must have the column {shown(name)!r}"
            got, fix = listed([*table.columns], 20), "Check the name, and the delimiter."
            raise ValueError(message(_OWNER, must, got, fix))
        one_of(_OWNER, f"the role of {shown(name)}", role, ROLES)
    for role in ("target", "weight"):
        names = [name for name, each in result.items() if each == role]
        if len(names) > 1:
            must = f"one column may be the {role}"
            raise ValueError(message(_OWNER, must, listed(names), "Ignore the others."))
    return result, table


def task_of(table: Table, target: str | None, task: str | None = None) -> str:
    """Return whether to classify, by what most targets are unless it is given; dates are neither
    classes nor numbers.
    """
    if target is not None:
        require_single(table, target)
    if task is not None:
        return one_of(_OWNER, "task", task, TASKS)
    if target is None:
        return "regression"
    require_points(table, target)
    cells = [cell for cell in table.columns[target] if not is_missing(cell)]
    if 2 * sum(number_of(cell) is None and days_of(cell) is not None for cell in cells) > len(
        cells
    ):
        must = f"target {shown(target)} must be classes or numbers"
        fix = 'Write days as numbers, or task="classification" if each date is a class.'
        raise ValueError(message(_OWNER, must, f"dates, as {shown(cells[0])}", fix))
    numbers = {number for cell in cells if (number := number_of(cell)) is not None}
    few = len(numbers) <= FEW and 2 * len(numbers) <= len(cells)
    if 2 * sum(number_of(cell) is not None for cell in cells) < len(cells):
        return "classification"
    return "classification" if few and all(map(float.is_integer, numbers)) else "regression"
