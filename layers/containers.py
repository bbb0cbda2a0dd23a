"""Layers one after the other."""

from collections.abc import Iterator, Sequence
from typing import Any

from .engine.module import Composite, Module, takes_lengths
from .errors import message
from .fusion import fuse as fused


class Sequential(Composite):
    """`layers` one after the other.

    >>> model = Sequential(Linear(64, 128, rng=rng), ReLU(), Linear(128, 10, rng=rng))

    Neighbours that run faster as one call do so, with the same bits (`layers.fusion` holds the
    table of them). With `fuse=False` every layer of this Sequential is a call of its own.

    Called with x or, of sequences of different lengths, x and `lengths` (N,), which go to those
    layers that take them, such as recurrent ones (`takes_lengths`); others see the padding, too.
    """

    def __init__(self, *layers: Any, fuse: bool = True) -> None:
        for layer in layers:
            if not callable(layer):
                fix = "Pass the layers themselves: Sequential(a, b), not a list or a class's name."
                raise TypeError(
                    message("Sequential", "every entry must be a layer", repr(layer), fix)
                )
        self.layers: tuple[Module, ...] = layers
        self.fuse = bool(fuse)
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
        for layer in self._steps:
            x = layer(x)
        return x

    def _with_lengths(self, x: Any, lengths: Any) -> Any:
        if not self.takes_lengths:
            must, fix = "lengths need a layer that takes them", "LSTM(…, last=True) is one."
            raise ValueError(message(self, must, "none", fix))
        steps: Sequence[Any] = self._steps
        for layer in steps:
            x = layer(x, lengths=lengths) if takes_lengths(layer) else layer(x)
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
