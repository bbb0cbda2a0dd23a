"""The call of a layer outside any tape."""

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from layers.errors import message
from layers.types import Array, Integers

from .forward_call import ForwardCall
from .memory import allocated, matrix
from .storage import Storage


class Inference(ForwardCall):
    """The call of a layer outside any tape: nothing is kept, buffers are new arrays, the batch is
    one shard, and training is off.
    """

    recorded = False
    training = False

    def wants(self, index: int) -> bool:
        return False

    def save(self, *arrays: Any) -> None:
        pass

    def buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        return allocated(shape, dtype)

    def matrix_buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
        array = self.buffer(name, shape, dtype)
        return array, matrix(array)

    def output_buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        return allocated(shape, dtype)

    def keep(self, storage: Storage, x: Array, source: int | str | None = None) -> Array:
        return x

    run: Any = staticmethod(operator.call)

    def returns(self, expected: Any, function: Callable[..., Any], *arguments: Any) -> bool:
        return bool(function(*arguments) == expected)

    make: Any = staticmethod(operator.call)

    def scratch(self, dtype: Any, *shapes: int | tuple[int, ...]) -> list[Array]:
        return [
            allocated(shape if isinstance(shape, tuple) else (shape,), dtype) for shape in shapes
        ]

    def report(self, sums: Array, divisor: float | None = None) -> None:
        pass

    def samples_axis(self) -> int:
        return -1

    def require_samples_apart(self, axis: int = 0, index: int = 0) -> None:
        """Refuse nothing: there is no other part."""

    def moves_samples(self, ndim: int = 0) -> None:
        """Nobody asks where samples lie."""

    def gather(self, numbers: Array) -> Array:
        return numbers

    def on_gathered(
        self, numbers: Array, apply: Callable[[Array], None], *, gathered: bool = False
    ) -> None:
        """Change nothing: what is not trained does not learn."""

    def random_key(self) -> NoReturn:
        must, fix = "random numbers need a tape, which keys them", "Ask call.training before."
        raise RuntimeError(message("Layer", must, "a call outside any", fix))

    def bounds(self, rows: int) -> Integers:
        return np.array((0, rows), np.int64)

    def samples(self, rows: int) -> int:
        return rows

    def rows_per_sample(self, rows: int) -> int:
        return 1


INFERENCE = Inference()
