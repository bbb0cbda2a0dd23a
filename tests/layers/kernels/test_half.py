"""Numbers in 16 bits: those that NumPy rounds to, whether an instruction does it or not."""

import sys

import numpy as np
import pytest

from layers.kernels import half, underflow

HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)


def drawn():
    """Return float32 numbers of all sizes, those beside halves, and those midway between them."""
    rng = np.random.default_rng(0)
    every = rng.integers(0, 2**32, 2**18, dtype=np.uint32).view(np.float32)
    finite = HALVES[np.isfinite(HALVES)].astype(np.float64)
    exact = finite.astype(np.float32)
    beside = [np.nextafter(exact, np.float32(sign * np.inf)) for sign in (-1, 1)]
    ordered = np.sort(finite)
    midway = ((ordered[1:] + ordered[:-1]) / 2).astype(np.float32)
    more = [np.nextafter(midway, np.float32(sign * np.inf)) for sign in (-1, 1)]
    edges = np.array([65504, 65519.99, 65520, 1e5, np.inf, -np.inf, np.nan], np.float32)
    return np.concatenate([every, exact, *beside, midway, *more, edges])


@pytest.mark.parametrize("flushing", [False, True])
def test_float16_is_rounded_to_the_nearest(flushing):
    x = drawn()
    words = np.empty(x.size, np.int16)
    mode = underflow.flush() if flushing else None
    try:
        half.narrow(words, x)
    finally:
        if mode is not None:
            underflow.restore(mode)
    with np.errstate(all="ignore"):
        expected = x.astype(np.float16)
    is_nan = np.isnan(x)
    assert (words.view(np.uint16) == expected.view(np.uint16))[~is_nan].all()
    assert np.isnan(words.view(np.float16)[is_nan]).all()


@pytest.mark.parametrize("flushing", [False, True])
def test_every_float16_is_widened(flushing):
    x = np.empty(HALVES.size, np.float32)
    mode = underflow.flush() if flushing else None
    try:
        half.widen(x, HALVES.view(np.int16))
    finally:
        if mode is not None:
            underflow.restore(mode)
    is_nan = np.isnan(HALVES)
    expected = HALVES.astype(np.float32)
    assert (x.view(np.uint32) == expected.view(np.uint32))[~is_nan].all()
    assert np.isnan(x[is_nan]).all()


@pytest.mark.skipif(sys.platform == "darwin", reason="names a processor of x86-64")
def test_a_processor_without_the_instruction_makes_the_same_bits(run_python, tmp_path):
    code = (
        "import sys, numpy as np; from layers.kernels import half;"
        "from layers.kernels.llvm.halves import HAS_HALVES; assert not HAS_HALVES;"
        "x = np.load(sys.argv[1]); words = np.empty(x.size, np.int16); half.narrow(words, x);"
        "np.save(sys.argv[2], words)"
    )
    x = drawn()
    given, made = tmp_path / "x.npy", tmp_path / "words.npy"
    np.save(given, x)
    features = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}
    done = run_python("-W", "ignore", "-c", code, given, made, **features)
    assert done.status == 0, done.err
    words = np.empty(x.size, np.int16)
    half.narrow(words, x)
    assert (np.load(made) == words)[~np.isnan(x)].all()
