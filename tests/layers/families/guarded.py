"""Runs every case with inputs, gradients, parameters and buffers between pages that end the process
if they are touched; prints each case before it runs.
"""

import ctypes
import mmap

import numpy as np

from layers import Tape, Value, Workspace
from layers.engine import workspace
from layers.engine.gradients import Gradients
from layers.gradient_check.cases import CASES

PAGE = mmap.PAGESIZE
PROTECT = ctypes.CDLL(None, use_errno=True).mprotect
PROTECT.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
NO_ACCESS = 0


def guarded(size, at_end):
    """Return so many bytes that end, or begin, at a page without access."""
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        assert PROTECT(start + page * PAGE, PAGE, NO_ACCESS) == 0
    first = PAGE + pages * PAGE - size if at_end else PAGE
    return np.frombuffer(memory, np.uint8, size, first)


def copied(x, at_end):
    """Return a copy of an array in guarded memory."""
    copy = guarded(x.nbytes, at_end).view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def run(case, dtype, at_end):
    """Run forward and backward twice: the second time in the buffers of the first."""
    rng = np.random.default_rng(3)
    layer = case.make(rng).astype(dtype)
    inputs = [x.astype(dtype) if x.dtype.kind == "f" else x for x in case.inputs(rng)]
    inputs = [copied(x, at_end) for x in inputs]
    for parameter in layer.parameters():
        zeros = np.zeros((1, *parameter.shape), parameter.dtype)
        store = Gradients(parameter.shape, parameter.dtype, copied(zeros, at_end))
        parameter.bind(copied(parameter.value, at_end), store)
    workspace.room = lambda size: guarded(size, at_end)
    buffers = Workspace()
    for step in range(2):
        tape = Tape(training=case.training, workspace=buffers, step=step)
        floating = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"] or [0]
        values = [
            tape.input(x, gradient=i not in case.constant) if i in floating else x
            for i, x in enumerate(inputs)
        ]
        y = layer(*values)
        assert isinstance(y, Value)
        y.backward(copied(np.ones(y.shape, y.dtype), at_end))


if __name__ == "__main__":
    for each in CASES:
        for kind in (np.float32, np.float64):
            for end in (True, False):
                side = "after" if end else "before"
                print(f"{each.name}, {kind.__name__}, page {side} the arrays", flush=True)
                run(each, kind, end)
    print("done")
