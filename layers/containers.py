"""Layers made of layers."""

from collections.abc import Iterator, Sequence
from typing import Any

from .errors import message
from .layer import Composite, Layer
from .merge import Add


class Sequential(Composite):
    """Layers one after the other.

    >>> model = Sequential(Linear(64, 128, rng=rng), ReLU(), Linear(128, 10, rng=rng))
    """

    def __init__(self, *layers: Any) -> None:
        for layer in layers:
            if not callable(layer):
                fix = "Pass the layers themselves: Sequential(a, b), not a list or a class's name."
                raise TypeError(message("Sequential", "every entry must be a layer", repr(layer), fix))
        self.layers: tuple[Layer, ...] = layers
        self._steps = _fused(layers)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __call__(self, x: Any) -> Any:
        for layer in self._steps:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Layer:
        return self.layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)


def _fused(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers with those neighbours joined that can run as one call."""
    steps: list[Layer] = []
    for layer in layers:
        joined = steps[-1].fused_with(layer) if steps else None
        if joined is None:
            steps.append(layer)
        else:
            steps[-1] = joined
    return steps


class Residual(Composite):
    """y = body(x) + shortcut(x), the shortcut being the identity unless given (He et al. 2015, eq. 1 and 2)."""

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        self.body = body
        self.shortcut = shortcut
        self.add = Add()

    def __repr__(self) -> str:
        return f"Residual({self.body!r}{'' if self.shortcut is None else f', {self.shortcut!r}'})"

    def __call__(self, x: Any) -> Any:
        return self.add(self.body(x), x if self.shortcut is None else self.shortcut(x))
