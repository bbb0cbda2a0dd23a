"""What turns raw data into a model's inputs, and its outputs into words: fitted on training data,
and kept with the model as JSON.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from layers import checks
from layers.errors import message
from layers.types import Array

from .skipped import listed, shown
from .statistics import Statistics

_VERSION = 1
_FIX = "Take the state that `state` has returned."


class Preprocessing(ABC):
    """What turns raw data into a model's inputs, the same in training and at prediction.

    Its state is JSON, and `preprocessing` makes one of it.
    """

    kind: ClassVar[str]
    """The word by which a state says what it is of."""
    classes: tuple[str, ...] = ()
    """The names of the labels 0, 1, …, if there are any."""

    @abstractmethod
    def transform(self, raw: Any) -> Any:
        """Return a model's inputs of raw data."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return what `_from_state` takes."""

    @classmethod
    @abstractmethod
    def _from_state(cls, state: "State") -> Self:
        """Return one of its state."""

    def state(self) -> dict[str, Any]:
        """Return all that it knows, as JSON."""
        classes = [*self.classes]
        return {"kind": self.kind, "version": _VERSION, "classes": classes, **self._state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the preprocessing of a state.

        Raises
        ------
        ValueError
            It is none of this class, of another version, or damaged.
        """
        found = State(cls.__name__, state)
        kind, version = found.text("kind"), found.whole("version")
        if kind != cls.kind:
            fix = f'Use ddbp.data.preprocessing(state), which knows "{shown(kind)}".'
            raise ValueError(message(cls.__name__, f'kind must be "{cls.kind}"', shown(kind), fix))
        if version != _VERSION:
            fix = "Use the version of ddbp that wrote it."
            raise ValueError(message(cls.__name__, f"version must be {_VERSION}", version, fix))
        result = cls._from_state(found)
        result.classes = checked_classes(cls.__name__, found.items("classes"))
        return result

    def predictions(self, outputs: Any) -> list[Any]:
        """Return what outputs of a model (N, …) mean: the name of the likeliest class for each.

        Raises
        ------
        ValueError
            There are no classes, or not so many outputs.
        """
        owner, fix = type(self).__name__, "It must be the model that was trained with this."
        array = checks.array(owner, "outputs", outputs)
        if not self.classes:
            must, fix = "there must be names of classes", "These outputs are no scores of classes."
            raise ValueError(message(owner, must, "none", fix))
        if array.ndim != 2 or array.shape[1] != len(self.classes):
            must = f"outputs must be scores of {len(self.classes)} classes (N, {len(self.classes)})"
            raise ValueError(message(owner, must, f"shape {array.shape}", fix))
        return [self.classes[label] for label in array.argmax(axis=1)]

    def labels(self, names: Iterable[Any], places: Sequence[str] | None = None) -> Array:
        """Return the numbers (N,) of names of classes, which `places` locates in an error."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        result = []
        for index, name in enumerate(names):
            number = numbers.get(str(name))
            if number is None:
                where = f"{places[index]}: " if places else ""
                must = f"labels must be among {listed(self.classes)}"
                fix = "The model knows no others."
                raise ValueError(message(type(self).__name__, must, f"{where}{shown(name)}", fix))
            result.append(number)
        return np.array(result, np.int64)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.state() == other.state()

    def __hash__(self) -> int:
        return hash(self.kind)


class State:
    """The entries of a state of anybody's making, each taken with a check."""

    def __init__(self, owner: str, given: Any) -> None:
        self.owner = owner
        if not isinstance(given, Mapping):
            raise TypeError(message(owner, "a state must be a dictionary", repr(given)[:80], _FIX))
        self._given = given

    def __contains__(self, name: str) -> bool:
        """Return whether there is an entry of this name: older versions may have had none."""
        return name in self._given

    def text(self, name: str) -> str:
        """Return a text."""
        return str(self._of(name, str, "a text"))

    def whole(self, name: str, least: int = 0) -> int:
        """Return an integer."""
        value = self._of(name, int, "an integer")
        if isinstance(value, bool) or not least <= value < 2**31:
            raise self.refused(name, f"an integer of at least {least}", value)
        return int(value)

    def flag(self, name: str) -> bool:
        """Return True or False."""
        return bool(self._of(name, bool, "true or false"))

    def items(self, name: str) -> list[Any]:
        """Return a list."""
        return list(self._of(name, list, "a list"))

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        values = self.items(name)
        if not all(isinstance(each, str) for each in values):
            raise self.refused(name, "a list of texts", values)
        return values

    def optional_numbers(self, name: str) -> tuple[float, ...] | None:
        """Return numbers, or None for null."""
        if self._given.get(name, 0) is None:
            return None
        return tuple(self._number(name, each) for each in self.items(name))

    def number(self, name: str) -> float:
        """Return a finite number."""
        return self._number(name, self._of(name, int | float, "a number"))

    def optional_text(self, name: str) -> str | None:
        """Return a text, or None for null."""
        return None if self._given.get(name, 0) is None else self.text(name)

    def parts(self, name: str) -> list["State"]:
        """Return a list of dictionaries as states."""
        return [State(self.owner, each) for each in self.items(name)]

    def part(self, name: str) -> "State | None":
        """Return a dictionary as a state, or None for null."""
        given = self._given.get(name)
        return None if given is None else State(self.owner, given)

    def json(self, name: str) -> Any:
        """Return a dictionary as it is."""
        return self._of(name, dict, "a dictionary")

    def _number(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refused(name, "of numbers", value)
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
        if not math.isfinite(result):
            raise self.refused(name, "of finite numbers", value)
        return result

    def _of(self, name: str, kind: Any, word: str) -> Any:
        if name not in self._given:
            must = f"a state must have {name!r}"
            raise ValueError(message(self.owner, must, f"{listed([*self._given])}", _FIX))
        value = self._given[name]
        if not isinstance(value, kind):
            raise self.refused(name, word, value)
        return value

    def refused(self, name: str, word: str, value: Any) -> ValueError:
        """Return the error for an entry that is none."""
        must = f"{name} of a state must be {word}"
        return ValueError(message(self.owner, must, shown(repr(value)), _FIX))


def unscaled(owner: str, outputs: Any, scale: Statistics) -> list[float]:
    """Return numbers (N, 1) or (N,) that a model predicts in the units of its targets."""
    array = checks.array(owner, "outputs", outputs)
    if not array.ndim or array.size != len(array) or array.dtype.kind != "f":
        must, fix = "outputs must be numbers (N, 1)", "End the model by Linear(…, 1)."
        raise ValueError(message(owner, must, f"{array.shape} {array.dtype}", fix))
    return [scale.mean + scale.deviation * value for value in array.reshape(-1).tolist()]


def several(given: Any) -> list[Any] | None:
    """Return the parts of what is a list of any kind, but no text; None for what is none."""
    if isinstance(given, memoryview):
        given = np.asarray(given)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return None
    if isinstance(given, np.ndarray) and not given.ndim:
        return None
    return [*given]


def checked_classes(owner: str, given: Any) -> tuple[str, ...]:
    """Return names of classes, all different, none or two and more."""
    must, fix = "classes must be names, all different", 'Write classes=("cat", "dog").'
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in given):
        raise TypeError(message(owner, must, shown(repr(given)), fix))
    if len(set(given)) != len(given) or "" in given or len(given) == 1:
        got = shown(repr(given)) if len(given) != 1 else f"{given[0]!r} alone"
        raise ValueError(message(owner, f"{must}, two or more", got, fix))
    return tuple(given)
