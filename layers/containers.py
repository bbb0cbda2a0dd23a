"""Layers one after the other."""

from collections.abc import Iterator, Sequence
from typing import Any

from .checks import boolean, require_layer
from .engine.layer import Recorded
from .engine.module import Composite, Module, takes_lengths
from .errors import message
from .fusion import fuse as fused
from .padding import refuse_counting, refuse_other_steps


class Sequential(Composite):
    """`layers` one after the other.

    >>> model = Sequential(Linear(64, 128, rng=rng), ReLU(), Linear(128, 10, rng=rng))

    Neighbours that run faster as one call do so, with the same bits (`layers.fusion` holds the
    table of them). With `fuse=False` every layer of this Sequential is a call of its own.

    Called with x or, of sequences of different lengths, x and `lengths` (N,), which go to those
    layers that take them, such as recurrent ones (`takes_lengths`). Others see the padding, too:
    those whose statistics would count it are refused, and before the last one that takes lengths
    those that change the number of steps.
    """

    replayable = True
    _planned: Any = None
    """What is called in training in place of the layers, if they shall not keep all they need: see
    `layers.recompute.use_plan`.
    """

    def __init__(self, *layers: Any, fuse: bool = True) -> None:
        for layer in layers:
            require_layer("Sequential", "every entry", layer)
        self.layers: tuple[Module, ...] = layers
        self.fuse = boolean(type(self).__name__, "fuse", fuse)
        self._steps: Sequence[Module] = fused(layers) if fuse else layers

    def __repr__(self) -> str:
        options = () if self.fuse else ("fuse=False",)
        return f"Sequential({', '.join((*map(repr, self.layers), *options))})"

    @property
    def takes_lengths(self) -> bool:
        """Whether any of the layers takes the lengths of its samples."""
        return any(map(takes_lengths, self._steps))

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        if lengths is not None:
            return self._with_lengths(x, lengths)
        if self._planned is not None and isinstance(x, Recorded) and x.tape.training:
            return self._planned(x)
        for layer in self._steps:
            x = layer(x)
        return x

    def _with_lengths(self, x: Any, lengths: Any) -> Any:
        if not self.takes_lengths:
            must, fix = "lengths need a layer that takes them", "LSTM(…, last=True) is one."
            raise ValueError(message(self, must, "none", fix))
        steps: Sequence[Any] = self._steps
        last = max(i for i, layer in enumerate(steps) if takes_lengths(layer))
        padded = True
        for i, layer in enumerate(steps):
            if takes_lengths(layer):
                x = layer(x, lengths=lengths)
                padded = len(getattr(x, "shape", ())) > 2
                continue
            if padded:
                refuse_counting(self, layer, x)
            before, x = x, layer(x)
            if i < last:
                refuse_other_steps(self, layer, before, x)
        return x

    def run(self, x: Any, state: tuple[Any, ...] | None = None) -> tuple[Any, tuple[Any, ...]]:
        """Return the output for x, and the last states of those layers that have any, given the
        initial ones in `state` (None: their beginning).
        """
        last: list[Any] = []
        for layer in self._steps:
            if hasattr(layer, "run"):
                x, new = layer.run(x, None if state is None else state[len(last)])
                last.append(new)
            else:
                x = layer(x)
        return x, tuple(last)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def _chain(self) -> Sequence[Module]:
        if type(self) is Sequential and self.fuse and self._steps:
            return self._steps
        return super()._chain()


def unnested(model: Sequential, *, fused: bool) -> Iterator[Module]:
    """Yield the layers of a Sequential, and of those in it, one after the other; neighbours that
    run as one call as one if `fused`.
    """
    for layer in model._steps if fused else model.layers:
        if type(layer) is Sequential:
            yield from unnested(layer, fused=fused)
        else:
            yield layer
