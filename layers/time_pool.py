"""Pooling of sequences of several lengths over time."""

from typing import TYPE_CHECKING, Any

from .checks import one_of, require_input
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous
from .errors import message
from .kernels import time_pool
from .lengths import valid_steps
from .types import Array, Integers

if TYPE_CHECKING:
    from .engine.call import Call

_KINDS = {"mean": time_pool.MEAN, "max": time_pool.MAXIMUM, "last": time_pool.LAST}


class PoolOverTime(Layer):
    """One vector for each sequence, (N, T, C) to (N, C): the mean, the maximum or the last of its
    valid steps.

    Backward: every valid step gets dy over their number; or the first that is the maximum, or the
    last one, gets dy. Steps beyond a sample's length have no influence and no gradient.

    Parameters
    ----------
    kind
        "mean", "max" or "last".

    Notes
    -----
    Called with x (N, T, C) and, if samples are shorter than T, `lengths` (N,): integers from 1 to
    T. A Sequential hands them on.
    """

    takes_lengths = True
    keeps_constants = False
    replayable = True

    def __init__(self, kind: str = "mean") -> None:
        one_of("PoolOverTime", "kind", kind, _KINDS, "Leave it out for the mean.")
        self.kind = kind

    def __repr__(self) -> str:
        return f"PoolOverTime({self.kind!r})"

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        return super().__call__(x) if lengths is None else super().__call__(x, lengths)

    def forward(self, call: ForwardCall, x: Array, lengths: Any = None) -> Array:
        require_input(self, x, ("N", "T", "C"))
        samples, steps, channels = x.shape
        valid = self._valid(call, lengths, samples, steps)
        x, y = contiguous(x), call.output_buffer("y", (samples, channels), x.dtype)
        call.run(time_pool.over_time, y, x, valid, _KINDS[self.kind])
        precision = self.precision
        call.save(
            precision.keep(call, x, 0), precision.keep(call, y), valid, 1 if lengths is None else 2
        )
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, y, valid, inputs = call.saved
        x, y = call.kept("x", x), call.kept("y", y)
        dx = call.pooled("dx", x.shape, x.dtype)
        kind = _KINDS[self.kind]
        call.run(time_pool.over_time_backward, dx, contiguous(dy), y, x, valid, kind)
        return (dx, None)[:inputs]

    def _valid(self, call: ForwardCall, lengths: Any, samples: int, steps: int) -> Integers:
        """Return the number of valid steps of each sample."""
        if steps < 1:
            must, fix = "sequences must have one time step or more", "Leave empty ones out."
            raise ValueError(message(self, must, f"{steps} steps", fix))
        return valid_steps(self, call, lengths, samples, steps)
