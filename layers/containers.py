"""Layers made of layers."""

from collections.abc import Iterator, Sequence
from typing import Any

from .activation import ReLU
from .batch_norm import JoinedBatchNorm, is_batch_norm
from .engine.layer import Composite, Layer
from .engine.merge import Add, RectifiedAdd
from .errors import message


class Sequential(Composite):
    """`layers` one after the other.

    Neighbours that can run as one call do so: a ReLU after a `Linear`, for example.

    >>> model = Sequential(Linear(64, 128, rng=rng), ReLU(), Linear(128, 10, rng=rng))
    """

    def __init__(self, *layers: Any) -> None:
        for layer in layers:
            if not callable(layer):
                fix = "Pass the layers themselves: Sequential(a, b), not a list or a class's name."
                raise TypeError(
                    message("Sequential", "every entry must be a layer", repr(layer), fix)
                )
        self.layers: tuple[Layer, ...] = layers
        self._steps = _fused(layers)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __call__(self, x: Any) -> Any:
        for layer in self._steps:
            x = layer(x)
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
    """y = body(x) + shortcut(x), the shortcut being the identity unless given (He et al. 2015, eq.
    1 and 2).

    Parameters
    ----------
    body
        A layer, usually a `Sequential`, from (N, …) to the same shape, or to that of the shortcut.
    shortcut
        None for the identity, or a layer.
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        self.body = body
        self.shortcut = shortcut
        self.add = Add()

    def __repr__(self) -> str:
        return f"Residual({self.body!r}{'' if self.shortcut is None else f', {self.shortcut!r}'})"

    def __call__(self, x: Any) -> Any:
        return self.add(self.body(x), x if self.shortcut is None else self.shortcut(x))

    def fused_with(self, following: Layer) -> Layer | None:
        return (
            _RectifiedResidual(self) if type(self) is Residual and type(following) is ReLU else None
        )


class _RectifiedResidual(Composite):
    """A Residual and the ReLU after it: the sum, the ReLU and a batch normalisation that ends the
    body are one call.
    """

    def __init__(self, residual: Residual) -> None:
        self.residual = residual
        self.head, self.norm = _steps_and_norm(residual.body)
        self.join = RectifiedAdd() if self.norm is None else JoinedBatchNorm(self.norm)

    def __repr__(self) -> str:
        return f"{self.residual!r} + ReLU()"

    def __call__(self, x: Any) -> Any:
        shortcut = self.residual.shortcut
        z = x
        for step in self.head:
            z = step(z)
        other = x if shortcut is None else shortcut(x)
        if z.shape == other.shape and z.dtype == other.dtype:
            return self.join(z, other)
        return ReLU()(self.residual.add(z if self.norm is None else self.norm(z), other))


def _steps_and_norm(body: Layer) -> tuple[list[Layer], Any]:
    """Return the steps of a body without the batch normalisation at its end, and that, or None if
    there is none.
    """
    if is_batch_norm(body):
        return [], body
    if type(body) is not Sequential or not body._steps:
        return [body], None
    last, norm = _steps_and_norm(body._steps[-1])
    return body._steps[:-1] + last, norm
