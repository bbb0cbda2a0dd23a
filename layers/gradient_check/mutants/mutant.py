"""What a mutant is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from layers.engine.module import Module
from layers.gradient_check.cases.case import Generator
from layers.types import Array

Gradients = tuple[Array | None, ...]


@dataclass(frozen=True)
class Mutant:
    """A mistake: what it is, the layer that makes it, and inputs that it can be seen on."""

    name: str
    make: Callable[[Generator], Module]
    inputs: Callable[[Generator], tuple[Any, ...]]

    def __repr__(self) -> str:
        return self.name


def of(mutant: Callable[..., Module], *options: Any) -> Callable[[Generator], Module]:
    """Return the constructor of a mutant that draws nothing."""
    return lambda rng: mutant(*options)


def having(layer: Module, name: str, value: Any, function: Callable[[], Any]) -> Any:
    """Call the function while an attribute of a layer, which is fixed else, has another value."""
    attributes = vars(layer)
    before = attributes[name]
    attributes[name] = value
    try:
        return function()
    finally:
        attributes[name] = before
