"""The sum of a body and a shortcut."""

from typing import Any

from .checks import require_layer
from .engine.merge import Add
from .engine.module import Composite, Module, takes_lengths
from .padding import refuse_counting


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

    replayable = True

    def __init__(self, body: Module, shortcut: Module | None = None) -> None:
        self.body = require_layer("Residual", "body", body)
        self.shortcut = (
            None if shortcut is None else require_layer("Residual", "shortcut", shortcut)
        )
        self.add = Add()

    def __repr__(self) -> str:
        return f"Residual({self.body!r}{'' if self.shortcut is None else f', {self.shortcut!r}'})"

    @property
    def takes_lengths(self) -> bool:
        """Whether the body takes the lengths of its samples."""
        return takes_lengths(self.body)

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        body: Any = self.body
        if lengths is not None and self.shortcut is not None:
            refuse_counting(self, self.shortcut, x)
        y = body(x) if lengths is None else body(x, lengths=lengths)
        return self.add(y, x if self.shortcut is None else self.shortcut(x))
