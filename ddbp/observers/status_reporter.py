"""A trainer that is followed writes to its rank's place where it is: it gets another tape and
another reduction for that.
"""

from collections.abc import Iterator
from typing import Any

from ddbp.reduction.reducer import Reducer
from layers import Call, Layer, Tape, Value
from layers.engine.rules import Rule
from layers.types import Array

from . import rank_status
from .rank_status import LAYER, STEP, TRAINER, WHAT


def followed(rank: int, model: Layer, loss: Any) -> tuple[type[Tape], type[Reducer]]:
    """Return the classes of a trainer's tapes and reduction: the plain ones, unless `ddbp launch`
    asks for rank_status.
    """
    place = rank_status.here(rank)
    if place is None:
        return Tape, Reducer
    names = layer_names(model)
    if isinstance(loss, Layer):
        names.setdefault(id(loss), f"the loss, {loss!r}")
    # Ids are those of a trainer's layers as long as it lives.
    shared = {"words": place.words, "trainer": place.begin(names)}
    return type("FollowedTape", (FollowedTape,), shared), type(
        "FollowedReducer", (FollowedReducer,), shared
    )


class FollowedTape(Tape):
    """A tape that writes what begins, and which layer's turn it is, by one store per call."""

    words: "memoryview[int]"
    trainer: int

    def input(self, array: Any, *, gradient: bool = True) -> Value:
        words = self.words
        words[LAYER] = 0
        words[TRAINER] = self.trainer
        if self.training:
            words[STEP] = self.step
            words[WHAT] = rank_status.FORWARD
        else:
            words[WHAT] = rank_status.EVALUATION
        return Tape.input(self, array, gradient=gradient)

    def record(self, layer: Layer, inputs: tuple[Any, ...]) -> Any:
        self.words[LAYER] = id(layer)
        return Tape.record(self, layer, inputs)

    def backward(self, value: Value, gradient: Array, rule: Rule | None) -> None:
        self.words[LAYER] = 0
        self.words[WHAT] = rank_status.BACKWARD
        Tape.backward(self, value, gradient, rule)
        self.words[WHAT] = rank_status.GRADIENTS

    def _backwards(self) -> Iterator[Call]:
        words = self.words
        for call in reversed(self.calls):
            words[LAYER] = id(call.layer)
            yield call


class FollowedReducer(Reducer):
    """A reduction that writes when it begins and ends."""

    words: "memoryview[int]"

    def exchange(
        self, step: int, samples: int, sums: Array, observed: int = 0, batches: int = 0
    ) -> float:
        self.words[WHAT] = rank_status.EXCHANGE
        total = Reducer.exchange(self, step, samples, sums, observed, batches)
        self.words[WHAT] = rank_status.UPDATE
        return total

    def publish(self, step: int) -> None:
        self.words[WHAT] = rank_status.PUBLISHING
        Reducer.publish(self, step)
        self.words[WHAT] = rank_status.AFTER


def layer_names(model: Layer) -> dict[int, str]:
    """Return names of the layers in a model by id, such as "layers.3: Linear(64, 10)".

    A layer that does the work of several has the path of the first of them.
    """
    paths = {id(layer): (layer, path) for path, layer in _layers("", model, set())}
    result = {}
    for key, (layer, own) in paths.items():
        known = (paths[id(part)][1] for part in (layer, *vars(layer).values()) if id(part) in paths)
        path = next((path for path in known if not _is_hidden(path)), own)
        result[key] = f"{path}: {layer!r}" if path else repr(layer)
    return result


def _layers(path: str, attribute: Any, seen: set[int]) -> Iterator[tuple[str, Layer]]:
    """Yield (dotted name, layer) once for each of the layers in an attribute, by public attributes
    where there are any.
    """
    items: Any = ()
    if isinstance(attribute, Layer):
        if id(attribute) in seen:
            return
        seen.add(id(attribute))
        yield path, attribute
        items = sorted(vars(attribute).items(), key=lambda item: _is_hidden(item[0]))
    elif isinstance(attribute, dict):
        items = attribute.items()
    elif isinstance(attribute, list | tuple):
        items = enumerate(attribute)
    for name, part in items:
        yield from _layers(f"{path}.{name}" if path else str(name), part, seen)


def _is_hidden(path: str) -> bool:
    return path.startswith("_") or "._" in path
