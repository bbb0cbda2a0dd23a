"""Truncated backpropagation through time: long sequences are learnt a window at a time, the state
carried on without gradient.

Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
trajectories", Neural Computation 2(4), 1990: with windows of k steps, an error reaches back through
at most k steps, while what the network remembers may be older.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.comm.agreement import gather_uneven
from ddbp.comm.base import Communicator
from ddbp.reduction.shards import ShardPlan
from ddbp.snapshot import Entry, Schema, State, below, integer, listing
from layers import Module, Recompute, Residual, Sequential, Value
from layers.engine.carried import put_together, taken_apart
from layers.errors import message
from layers.types import Array

from .batch import LocalBatch

if TYPE_CHECKING:
    from .accumulation import Accumulation


def detached(state: Any) -> Any:
    """Return copies of the arrays of a state, which may be values, arrays, None, or tuples of
    such.
    """
    if isinstance(state, tuple):
        return tuple(map(detached, state))
    return None if state is None else np.array(state.array if isinstance(state, Value) else state)


class Truncation:
    """Cuts sequences into windows, and carries a model's state from one to the next.

    The batches of a group take turns: the first window of each, then the second of each, and so on.

    Parameters
    ----------
    model
        With `run(x, state) -> (y, state)`, where a state of None is that of the beginning.
    steps
        k, time steps of a window; the last one may be shorter.
    comm, plan
        The ranks, and which rows of a batch are whose.
    """

    def __init__(self, model: Module, steps: int, comm: Communicator, plan: ShardPlan) -> None:
        if not hasattr(model, "run"):
            fix = "A recurrent layer and a Sequential with one have it."
            raise TypeError(
                message("Trainer", "truncate needs a model with run(x, state)", repr(model), fix)
            )
        if (name := _forgetful(model)) is not None:
            must, fix = "truncate needs layers that carry their state", "Leave truncate out."
            got = f"a recurrent layer within {name}, a Residual"
            raise TypeError(message("Trainer", must, got, fix))
        self.steps = steps
        self._model: Any = model
        self._comm = comm
        self._plan = plan
        self._loads = 0
        self.begin(())

    def begin(self, group: Sequence[LocalBatch]) -> None:
        """Begin with the first windows of the batches of a group."""
        self._resuming = False
        self._window = 0
        self._turn = 0
        # Of each batch: its samples, and what the next window begins with. That is kept apart from
        # what the present one has begun with, so that a window may be computed twice.
        self._samples = [batch.samples for batch in group]
        self._following: list[Any] = [None] * len(group)
        self._before = self._following
        self._current: tuple[int, Any] = 0, None

    @property
    def mid_group(self) -> bool:
        """Whether windows of a group have been given out, and the group is not over."""
        return bool(self._window or self._turn)

    def count(self, x: Any, y: Any) -> int:
        """Return the number of windows of sequences x (N, T, …) with targets y (N, T, …)."""
        return -(-_length(x, y) // self.steps)

    def windows(self, group: Sequence[LocalBatch]) -> Iterator[LocalBatch]:
        """Yield the windows of the batches of a group, in turns, each with its part of the time
        steps; only those that are left of the group in the midst of which a state was loaded.

        A window is to be computed before another one is asked for.
        """
        if not self._resuming:
            self.begin(group)
        self._resuming = False
        length = _length(group[0].x, group[0].y)
        while self._window * self.steps < length:
            start, number = self._window * self.steps, self._turn
            stop = min(start + self.steps, length)
            if not number:
                self._before = [*self._following]
            self._current = number, self._following[number]
            last = number == len(group) - 1
            self._window += last
            self._turn = 0 if last else number + 1
            batch = group[number]
            weights = batch.weights
            if weights is not None and weights.ndim > 1:
                weights = np.ascontiguousarray(weights[:, start:stop])
            yield batch._replace(
                x=np.ascontiguousarray(batch.x[:, start:stop]),
                y=np.ascontiguousarray(batch.y[:, start:stop]),
                weights=weights,
                share=(stop - start) / length,
                ends_group=last,
            )
        self.begin(())

    def mean(
        self, batch: LocalBatch, train: Callable[[LocalBatch], float], group: "Accumulation"
    ) -> float:
        """Return the mean loss over a batch, on each window of which `train` takes a step, but for
        those whose update is left out; NaN if all were, or the state was loaded anew meanwhile.
        """
        total, counted, mean = 0.0, 0.0, math.nan
        for window in self.windows([batch]):
            loaded = self._loads
            value = train(window)
            if self._loads != loaded:
                return math.nan
            if not math.isnan(value):
                part = group.counted_of(window.share)
                total, counted = total + value * part, counted + part
                mean = total / counted if counted else 0.0
        return mean

    def undo(self) -> None:
        """Have what follows begin with the states from before the windows that the last update was
        to be for: in them there may be numbers that are not finite.
        """
        self._following = self._before

    def __call__(self, x: Value) -> Value:
        """Return the model's output for a window."""
        number, state = self._current
        y, following = self._model.run(x, state)
        self._following[number] = detached(following)
        result: Value = y
        return result

    def state(self) -> dict[str, Any]:
        """Return which window is next, and the states that are carried, whose arrays have a row for
        each sample of the global batch; collective.
        """
        result: dict[str, Any] = {
            "window": self._window,
            "turn": self._turn,
            "samples": self._samples,
            "carried": [],
        }
        for number, samples in enumerate(self._samples):
            start, stop, _ = self._plan.rows(samples)
            leaves: list[Array] = []
            result["carried"].append(taken_apart(self._following[number], leaves))
            _require_rows(leaves, stop - start)
            result |= {
                f"{number}.{leaf}": np.concatenate(gather_uneven(self._comm, array))
                for leaf, array in enumerate(leaves)
            }
        return result

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes."""
        samples = listing(integer(1))
        carried: Any = state.get("carried")
        counts: list[int] = state["samples"] if samples.holds(state.get("samples")) else []
        structures = listing(_STRUCTURE, len(counts))
        return {
            "samples": samples,
            "carried": structures,
            "window": integer(0, None if counts else 0),
            "turn": integer(0, max(0, len(counts) - 1)),
            **{
                f"{number}.{leaf}": _rows(counts[number])
                for number, structure in enumerate(carried if structures.holds(carried) else [])
                for leaf in _numbers(structure)
            },
        }

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned, on any number of ranks."""
        self._loads += 1
        self._window = state["window"]
        self._turn = state["turn"]
        self._samples = state["samples"]
        self._resuming = self.mid_group
        self._following = []
        for number, samples in enumerate(self._samples):
            start, stop, _ = self._plan.rows(samples)
            structure, leaves = state["carried"][number], below(str(number), state)
            rows = [leaves[str(leaf)][start:stop].copy() for leaf in _numbers(structure)]
            self._following.append(put_together(structure, rows))


def _forgetful(model: Module) -> str | None:
    """Return the name of a residual block in which there is a layer with a state that is not
    carried, if any.
    """
    plain = Sequential, Recompute
    if not isinstance(model, plain):
        # It knows what it runs.
        return None
    for name, block in model.named_layers():
        if isinstance(block, Residual) and any(
            hasattr(each, "run") and not isinstance(each, plain) for _, each in block.named_layers()
        ):
            return name
    return None


def _require_rows(leaves: Sequence[Array], rows: int) -> None:
    for leaf in leaves:
        if leaf.shape[:1] != (rows,):
            must, fix = (
                "arrays of a state that is carried must have a row for each sample",
                "Return arrays (N, …), tuples of them, or None as a state in run.",
            )
            got = f"shape {leaf.shape} for {rows} samples"
            raise ValueError(message("Trainer.state", must, got, fix))


def _numbers(structure: Any) -> list[Any]:
    """Return the numbers of arrays in the structure of a state."""
    if isinstance(structure, list):
        return [number for part in structure for number in _numbers(part)]
    return [] if structure is None else [structure]


def _is_structure(given: Any) -> bool:
    numbers = _numbers(given)
    return all(type(number) is int for number in numbers) and numbers == [*range(len(numbers))]


_STRUCTURE = Entry("the structure of a state that is carried", _is_structure)


def _rows(samples: int) -> Entry:
    """Return the entry that is an array with a row for each of so many samples."""
    return Entry(
        f"an array ({samples}, …)",
        lambda entry: isinstance(entry, np.ndarray) and entry.shape[:1] == (samples,),
    )


def _length(x: Any, y: Any) -> int:
    """Return T of sequences x (N, T, …) with targets y (N, T, …), or refuse others."""
    for name, samples in (("x", x), ("y", y)):
        if not isinstance(samples, np.ndarray):
            must = f"truncate needs sequences of one length, and {name} as one array (N, T, …)"
            fix = "Pad them and give padding the weight 0, or leave truncate out."
            raise ValueError(message("Trainer", must, type(samples).__name__, fix))
    if x.ndim < 2 or y.ndim < 2 or x.shape[1] != y.shape[1]:
        must, fix = (
            "truncate needs x (N, T, …) and targets (N, T, …)",
            "Leave truncate out where a sequence has one target.",
        )
        raise ValueError(message("Trainer", must, f"{x.shape} and {y.shape}", fix))
    return int(x.shape[1])
