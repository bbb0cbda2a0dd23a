"""How many steps of each sequence of a batch are valid."""

from typing import Any

import numpy as np

from .engine.forward_call import ForwardCall
from .errors import message
from .types import Integers


def valid_steps(owner: Any, call: ForwardCall, lengths: Any, samples: int, steps: int) -> Integers:
    """Return the number of valid steps of each sample (N,) in a buffer: what is given, or all.

    Raises
    ------
    ValueError
        They are no integers (N,) from 1 to T.
    """
    result = call.buffer("lengths", (samples,), np.int64)
    if lengths is None:
        call.run(np.copyto, result, steps)
        return result
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu" or lengths.shape != (samples,):
        must = f"lengths must be integers of shape ({samples},)"
        fix = "Pass the number of valid steps of each sample."
        raise ValueError(message(owner, must, f"{lengths.shape} {lengths.dtype}", fix))
    if not call.returns(0, _wrong, lengths, steps):
        wrong = np.flatnonzero((lengths < 1) | (lengths > steps))
        fix = "Leave empty sequences out; a length counts valid steps."
        got = f"{lengths[wrong[0]]} of sample {wrong[0]}"
        raise ValueError(message(owner, f"lengths must be in 1..{steps}", got, fix))
    call.run(np.copyto, result, lengths)
    return result


def _wrong(lengths: Integers, steps: int) -> int:
    """Return how many lengths are not in 1..steps."""
    return int(np.count_nonzero((lengths < 1) | (lengths > steps)))
