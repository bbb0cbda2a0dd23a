"""The kernels of convolutions neither read nor write beyond the arrays that they are given."""

import sys

import pytest

# Each array is copied to where a forbidden page follows its last byte, or precedes its first; a
# touch ends the process.
GUARDED = """
import ctypes, mmap
import numpy as np
import layers
from layers.gradient_check.cases.conv import CASES
from layers.kernels import conv, conv_bf16, conv_columns, conv_frames, winograd

libc = ctypes.CDLL(None)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
PAGE, FORBIDDEN, ALLOWED = mmap.PAGESIZE, 0, mmap.PROT_READ | mmap.PROT_WRITE
kept, count, at_end = [], 0, True

def guarded(x):
    pages = max(1, -(-x.nbytes // PAGE))
    room = mmap.mmap(-1, (pages + 2) * PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(room))
    start = PAGE + (pages * PAGE - x.nbytes if at_end else 0)
    y = np.frombuffer(room, x.dtype, x.size, start).reshape(x.shape)
    y[...] = x
    for page in (base, base + (pages + 1) * PAGE):
        assert libc.mprotect(page, PAGE, FORBIDDEN) == 0
        kept.append((room, page))
    return y

def watched(kernel):
    def call(*arguments):
        inside = [guarded(x) if isinstance(x, np.ndarray) and x.size else x for x in arguments]
        kernel(*inside)
        for x, y in zip(arguments, inside):
            if x is not y and isinstance(x, np.ndarray) and x.flags.writeable:
                x[...] = y
        global count
        count += len(kept) // 2
        for _, page in kept:
            libc.mprotect(page, PAGE, ALLOWED)
        kept.clear()
    return call

for module, names in (
    (conv, ("pack", "correlate", "weight_gradient", "bias_gradient")),
    (conv_bf16, ("pack", "correlate", "weight_gradient")),
    (conv_columns, ("input_gradient",)),
    (conv_frames, ("gather", "scatter")),
    (winograd, ("pack", "correlate", "weight_gradient")),
):
    for name in names:
        setattr(module, name, watched(getattr(module, name)))
for dtype, precision in (
    (np.float32, "float32"), (np.float64, "float32"), (np.float32, "bf16")
):
    for case in CASES:
        for at_end in (True, False):
            rng = np.random.default_rng(0)
            layer = case.make(rng).astype(dtype)
            layers.set_precision(layer, precision)
            tape = layers.Tape(shards=(0, 2, 5, 7))
            where = "at the end" if at_end else "at the start"
            print(case, np.dtype(dtype), precision, where, flush=True)
            y = layer(tape.input(case.inputs(rng)[0].astype(dtype)))
            y.backward(np.ones(y.shape, dtype))
print(count, "arrays")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect as Linux has it")
def test_kernels_stay_within_their_arrays(run_python):
    done = run_python("-X", "faulthandler", "-c", GUARDED, timeout=280)
    assert done.status == 0, f"{done.out.splitlines()[-1]}\n{done.err[-2000:]}"
    assert int(done.out.split()[-2]) > 1000
