"""The recording of a run: what instruments have measured, sampled every few steps, in memory and in
files.
"""

import json
import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddbp.files import read_text, reason, whole
from layers.errors import message
from layers.kernels.cache_folder import opened
from layers.types import Array, Integers

FORMAT = 1
"""The version of the layout of a recording."""
IN_RUN = "instruments"
"""The folder of a recording in that of a run."""
HEADING = "layers.json"
"""The file that says what the columns are."""
CHUNK = 64
"""Rows in a file."""
MOST_ROWS, LEAST_ROWS = 1024, 64
"""So many rows are kept, fewer if they are large, but not less than the second number."""
_PER_OCTAVE = 2
"""Of steps 2^k to 2^(k + 1) so many binary digits are told apart where rows become ever rarer."""


@dataclass(frozen=True)
class Quantity:
    """What is measured.

    Attributes
    ----------
    of
        What there is a column for: "layers", "parameters", "shards", "ranks", or "run" for the one
        column of the whole.
    unit
        What the numbers are, in words.
    binned
        Whether each is a distribution, over the bins of the recording.
    """

    of: str
    unit: str
    binned: bool = False


QUANTITIES: Mapping[str, Quantity] = {
    "activation_norm": Quantity("layers", "root mean square of the output"),
    "activation_zeros": Quantity("layers", "share of the outputs that are 0"),
    "activation_silent": Quantity("layers", "share of the units that are 0 in all samples"),
    "activation_saturated": Quantity(
        "layers",
        "share of the outputs of Tanh, or of the cells of a recurrence, beyond ±0.98; of Sigmoid"
        " beyond 0.02 and 0.98",
    ),
    "activation_histogram": Quantity("layers", "share of |output| in each bin", binned=True),
    "activation_gradient_norm": Quantity(
        "layers", "root mean square of the gradient of the loss with respect to the output"
    ),
    "activation_gradient_histogram": Quantity(
        "layers", "share of |gradient with respect to the output| in each bin", binned=True
    ),
    "parameter_norm": Quantity("parameters", "Euclidean norm before the update"),
    "gradient_norm": Quantity("parameters", "Euclidean norm of the mean gradient, not clipped"),
    "gradient_histogram": Quantity("parameters", "share of |gradient| in each bin", binned=True),
    "update_norm": Quantity("parameters", "Euclidean norm of what the update adds"),
    "update_histogram": Quantity("parameters", "share of |update| in each bin", binned=True),
    "update_ratio": Quantity("parameters", "update_norm / parameter_norm"),
    "update_cosine": Quantity("parameters", "cosine of the update and the gradient"),
    "alignment_angle": Quantity(
        "parameters", "degrees between the gradient of a learning rule and the exact one"
    ),
    "shard_gradient_norm": Quantity("shards", "Euclidean norm of a shard's mean gradient"),
    "noise_scale": Quantity("run", "samples: tr(Σ) / |G|² (McCandlish et al. 2018, appendix A.1)"),
    "gradient_excess": Quantity(
        "run", "difference of the last bias's gradient and the sum that it must be, over that sum"
    ),
    "gradient_kept": Quantity(
        "run", "share of the last step's gradient that transforms add to this one's"
    ),
    "gradient_lost": Quantity("run", "share of the gradient's numbers that transforms round to 0"),
    "target_mean": Quantity("run", "mean of the batch's labels or numbers"),
    "target_std": Quantity("run", "standard deviation of the batch's labels or numbers"),
    "gates_saturated": Quantity(
        "layers", "share of the gates of a recurrence beyond 0.02 and 0.98"
    ),
    "seconds_forward": Quantity("ranks", "seconds"),
    "seconds_backward": Quantity("ranks", "seconds"),
    "seconds_waiting": Quantity("ranks", "seconds for other ranks"),
    "seconds_reduction": Quantity("ranks", "seconds in adding up and exchanging gradients"),
    "seconds_optimizer": Quantity("ranks", "seconds"),
    "seconds_data": Quantity("ranks", "seconds between two steps"),
}
"""What instruments record, by name. Those of ranks are readings of clocks; all others are the same
numbers for any number of ranks.
"""


@dataclass(frozen=True)
class Recording:
    """What was measured in the sampled steps of a run.

    Attributes
    ----------
    layers, parameters
        The names of the columns: layers as `Module.named_layers` names them, parameters as
        `named_parameters` does.
    bins
        Edges (B + 1,) of the bins of magnitudes, from 0 to the largest number: zeros are in the
        first one, what is not finite in the last.
    steps
        Which steps (n,): how many updates there had been before, ascending.
    values
        By the name of a quantity, see `QUANTITIES`: float32 arrays (n, columns) or, of
        distributions, (n, columns, B). NaN stands for what was not there, such as the output of a
        layer that a step did not use.
    quantities
        What is known of each quantity.
    """

    layers: Sequence[str]
    parameters: Sequence[str]
    bins: Array
    steps: Integers
    values: Mapping[str, Array]
    quantities: Mapping[str, Quantity]

    @classmethod
    def read(cls, run_folder: str | os.PathLike[str]) -> "Recording":
        """Return the recording in a run folder.

        Raises
        ------
        FileNotFoundError
            The run has none.
        ValueError
            It is damaged, or of another version.
        """
        folder = Path(run_folder) / IN_RUN
        path = folder / HEADING
        if not path.exists():
            must, fix = f"{folder} must hold a recording", "Train with callbacks=[Instruments()]."
            raise FileNotFoundError(message("Recording.read", must, f"no {HEADING}", fix))
        try:
            heading = json.loads(read_text(path))
            if heading["format"] != FORMAT:
                raise ValueError(f"format {heading['format']}, and not {FORMAT}")
            quantities = {
                name: Quantity(each["of"], each["unit"], each["binned"])
                for name, each in heading["quantities"].items()
            }
            layers, parameters = ([*map(str, heading[of])] for of in ("layers", "parameters"))
            bins = np.array(heading["bins"], np.float64)
            path = folder
            rows: dict[int, dict[str, Array]] = {}
            for path in sorted(folder.glob("[0-9]*.npz")):
                # A run that goes on may have put others in their places meanwhile.
                with suppress(FileNotFoundError):
                    rows |= _rows(path, quantities)
            path = folder
            empty = cls(layers, parameters, bins, np.zeros(0, np.int64), {}, quantities)
            return empty.of_rows(rows)
        except (
            ArithmeticError,
            AttributeError,
            EOFError,
            LookupError,
            OSError,
            RecursionError,
            TypeError,
            ValueError,
            zipfile.BadZipFile,
        ) as error:
            must, fix = f"{path} must be part of a recording", "Remove it, or train again."
            raise ValueError(message("Recording.read", must, reason(error), fix)) from error

    def of_rows(self, rows: Mapping[int, Mapping[str, Array]]) -> "Recording":
        """Return a recording with the same columns, of rows by their steps."""
        steps = sorted(rows)
        return Recording(
            self.layers,
            self.parameters,
            self.bins,
            np.array(steps, np.int64),
            _Stacked(self, [rows[step] for step in steps]),
            self.quantities,
        )

    def quantile(self, name: str, share: float) -> Array:
        """Return below what magnitude a share of the numbers of a distribution lies, to the upper
        edge of a bin: (n, columns), NaN where nothing was measured.

        Parameters
        ----------
        name
            A quantity that is a distribution, such as "activation_histogram".
        share
            From 0 to 1; 0.5 is the median.
        """
        below = np.cumsum(self.values[name], axis=-1, dtype=np.float64)
        found = np.argmax(below >= share * below[..., -1:], axis=-1)
        return np.where(np.isnan(below[..., -1]), np.nan, self.bins[1:][found])


class _Stacked(Mapping[str, Array]):
    """The rows of each quantity as one array, which is made when it is asked for.

    Parameters
    ----------
    heading
        What the columns are.
    rows
        What was measured in each step.
    """

    def __init__(self, heading: Recording, rows: Sequence[Mapping[str, Array]]) -> None:
        self._heading = heading
        self._rows = rows
        self._made: dict[str, Array] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._heading.quantities)

    def __len__(self) -> int:
        return len(self._heading.quantities)

    def __getitem__(self, name: str) -> Array:
        if name not in self._made:
            quantity = self._heading.quantities[name]
            self._made[name] = self._stacked(quantity, [row.get(name) for row in self._rows])
        return self._made[name]

    def _stacked(self, quantity: Quantity, found: Sequence[Array | None]) -> Array:
        """Return the rows of a quantity; of ranks there may be a different number."""
        width = max((len(row) for row in found if row is not None), default=0)
        if quantity.of in ("layers", "parameters"):
            width = len(getattr(self._heading, quantity.of))
        shape: tuple[int, ...] = (len(found), width)
        if quantity.binned:
            shape = (*shape, len(self._heading.bins) - 1)
        result = np.full(shape, np.nan, np.float32)
        for into, row in zip(result, found, strict=True):
            if row is not None:
                into[: len(row)] = row
        return result


def _rows(path: Path, quantities: Mapping[str, Quantity]) -> dict[int, dict[str, Array]]:
    """Return the rows of a file by their steps."""
    with opened(path, links=True) as file, np.load(file, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in quantities if name in arrays}
        steps = arrays["steps"].astype(np.int64, casting="safe").tolist()
    for name, column in columns.items():
        if column.dtype != np.float32 or len(column) != len(steps):
            raise ValueError(f"{name} is of type {column.dtype} and length {len(column)}")
    return {
        step: {name: column[i] for name, column in columns.items()} for i, step in enumerate(steps)
    }


class Recorder:
    """Keeps the rows of a recording and, if there is a folder, its files.

    Its size is bounded: when there are as many rows as may be, every second one is dropped, and
    from then on half as many come. Which steps are kept is a function of the step alone.

    Parameters
    ----------
    heading
        A recording without rows: what the columns are.
    every
        How many steps there are between two rows at first; None for ever more: see `Instruments`.
    row_bytes
        The size of a row.
    most_bytes
        About so large does the recording become at most.
    run_folder
        The run folder; the recording stays in memory unless given.
    """

    def __init__(
        self,
        heading: Recording,
        *,
        every: int | None,
        row_bytes: int,
        most_bytes: int,
        run_folder: Path | None = None,
    ) -> None:
        self._heading = heading
        self.every = every
        fitting = min(max(most_bytes // max(row_bytes, 1), LEAST_ROWS), MOST_ROWS)
        self._most = 2 ** int(math.log2(fitting))
        self._rows: dict[int, dict[str, Array]] = {}
        self._stride = self.stride(0)
        self._folder = None if run_folder is None else run_folder / IN_RUN
        # The rows up to this one are in files that are complete.
        self._begun = False
        self._complete = 0
        # Else one that is forgotten late would write over what another one has written since.
        self._changed = False
        self._warned = False

    def stride(self, step: int) -> int:
        """Return how many steps there are between two rows when this one is reached."""
        if self.every is None:
            return 1 << max(0, step.bit_length() - 1 - _PER_OCTAVE)
        stride = self.every
        while step // stride >= self._most:
            stride *= 2
        return stride

    def _keeps(self, row: int, step: int) -> bool:
        """Return whether the row of a step is kept when a later one is reached."""
        return row < step and (self.every is None or row % self.stride(step) == 0)

    @property
    def has_folder(self) -> bool:
        """Whether it writes files."""
        return self._folder is not None

    @property
    def recording(self) -> Recording:
        """All that is kept."""
        return self._heading.of_rows(self._rows)

    def write_to(self, run_folder: Path, step: int) -> None:
        """Write files from now on, in place of a rank that was killed before this step."""
        self._folder = run_folder / IN_RUN
        self._begun = False
        self._changed = True
        self.go_on(step)

    def go_on(self, step: int) -> None:
        """Take up what the folder holds of the steps before this one, if it has the same columns:
        the run that it is of goes on, and later steps come again.
        """
        assert self._folder is not None
        try:
            held = Recording.read(self._folder.parent)
        except (OSError, ValueError):
            return
        if [*held.layers] != [*self._heading.layers] or [*held.parameters] != [
            *self._heading.parameters
        ]:
            return
        for i, each in enumerate(held.steps.tolist()):
            if self._keeps(each, step):
                self._rows[each] = {name: array[i] for name, array in held.values.items()}
            elif each >= step:
                self._changed = True

    def add(self, step: int, row: Mapping[str, Array]) -> None:
        """Add the row of a step; those of later steps are dropped, which come again."""
        stride = self._stride if self.every is None else self.stride(step)
        if stride != self._stride or (self._rows and step <= max(self._rows)):
            self._stride = stride
            self._rows = {each: row for each, row in self._rows.items() if self._keeps(each, step)}
            self._begun = False
        self._changed = True
        self._rows[step] = {
            name: np.asarray(array).astype(np.float32) for name, array in row.items()
        }

    def flush(self) -> None:
        """Write what is not in files yet. What cannot be written waits for the next time, with a
        warning.
        """
        if self._folder is None or not self._changed:
            return
        try:
            with np.errstate(all="ignore"):
                self._write(self._folder)
        except OSError as error:
            if not self._warned:
                must = f"{self._folder} should hold what instruments measure"
                fix = "Training goes on, and it is written as soon as that is possible."
                text = message("Instruments", must, error.strerror or error, fix)
                warnings.warn(text, RuntimeWarning, stacklevel=2)
            self._warned = True

    def _write(self, folder: Path) -> None:
        steps = sorted(self._rows)
        folder.mkdir(parents=True, exist_ok=True)
        if not self._begun:
            _replace(folder / HEADING, _heading_text(self._heading).encode())
            self._complete = 0
        for start in range(self._complete, len(steps), CHUNK):
            part = {step: self._rows[step] for step in steps[start : start + CHUNK]}
            self._write_chunk(folder, part)
        if not self._begun:
            # What lies there otherwise is of before: of another run, or of rows that were dropped.
            names = {_name(steps[start]) for start in range(0, len(steps), CHUNK)}
            for path in folder.glob("[0-9]*.npz"):
                if path.name not in names:
                    path.unlink()
        self._begun = True
        self._changed = False
        self._complete = len(steps) - len(steps) % CHUNK

    def _write_chunk(self, folder: Path, rows: Mapping[int, Mapping[str, Array]]) -> None:
        recording = self._heading.of_rows(rows)
        path = folder / _name(int(recording.steps[0]))
        arrays: Any = recording.values
        with whole(path) as place, place.open("wb") as file:
            np.savez(file, steps=recording.steps, **arrays)


def _name(step: int) -> str:
    return f"{step:08d}.npz"


def _replace(path: Path, content: bytes) -> None:
    with whole(path) as place:
        place.write_bytes(content)


def _heading_text(heading: Recording) -> str:
    facts: dict[str, Any] = {
        "format": FORMAT,
        "layers": [*heading.layers],
        "parameters": [*heading.parameters],
        "bins": heading.bins.tolist(),
        "quantities": {
            name: {"of": each.of, "unit": each.unit, "binned": each.binned}
            for name, each in heading.quantities.items()
        },
    }
    return json.dumps(facts, indent=1) + "\n"
