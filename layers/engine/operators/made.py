"""Layers that are made where they are called."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from layers.engine.layer import Layer


def made(kind: Callable[..., Layer], *arguments: Any) -> Layer:
    """Return kind(*arguments), the same layer of the same arguments: by that a step that is
    replayed knows it again.
    """
    try:
        return _known(kind, *arguments)
    except TypeError:
        # Of lists, which are not hashable.
        return kind(*arguments)


@lru_cache(1024)
def _known(kind: Callable[..., Layer], *arguments: Any) -> Layer:
    return kind(*arguments)
