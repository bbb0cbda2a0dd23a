"""The matrix product: right for every size, tail and storage, and an element's bits depend on its
row and column alone.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.kernels import gemm
from layers.kernels.gemm import product
from layers.kernels.jit import kernel

DTYPES = [np.float32, np.float64]
either = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def multiply(a, b, transpose_a=False, transpose_b=False, bias=None, into=None):
    """Return a b (+ bias) (+ into), the operands stored transposed if so said."""
    left, right = (a.T.copy() if transpose_a else a), (b.T.copy() if transpose_b else b)
    c = np.full((len(a), b.shape[1]), np.nan, a.dtype) if into is None else into.copy()
    gemm.multiply(
        c,
        left,
        transpose_a,
        right,
        transpose_b,
        np.empty(0, a.dtype) if bias is None else bias,
        into is not None,
    )
    return c


def packed(a, b, transpose_b=False, bias=None, into=None):
    """The same with the panels of b packed beforehand."""
    panels = np.full(gemm.packed_size(len(b), b.shape[1], a.itemsize), np.nan, a.dtype)
    gemm.pack(panels, b.T.copy() if transpose_b else b, transpose_b)
    c = np.full((len(a), b.shape[1]), np.nan, a.dtype) if into is None else into.copy()
    gemm.multiply_packed(
        c, a, panels, np.empty(0, a.dtype) if bias is None else bias, into is not None
    )
    return c


def draw(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def assert_right(c, a, b, bias=0, into=0):
    """Compare with the product in long double: each of the k + 2 roundings is at most half an eps
    of the sum of sizes.
    """
    wide = [np.asarray(x, np.longdouble) for x in (a, b, bias, into)]
    exact = wide[0] @ wide[1] + wide[2] + wide[3]
    size = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(wide[2]) + np.abs(wide[3])
    assert np.all(np.abs(c - exact) <= (a.shape[1] + 2) * np.finfo(a.dtype).eps / 2 * size)


# ---- values


@either
def test_all_small_sizes_and_storages_are_right(dtype):
    rng = np.random.default_rng(0)
    for m in range(1, 10):
        for n in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 25, 31, 33, 47, 48, 49, 65):
            k = int(rng.integers(1, 20))
            a, b, bias, into = (
                draw(rng, dtype, m, k),
                draw(rng, dtype, k, n),
                draw(rng, dtype, n),
                draw(rng, dtype, m, n),
            )
            for flip_a in (False, True):
                for flip_b in (False, True):
                    assert_right(multiply(a, b, flip_a, flip_b), a, b)
                    assert_right(multiply(a, b, flip_a, flip_b, bias, into), a, b, bias, into)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from(DTYPES),
    m=st.integers(0, 40),
    n=st.integers(0, 260),
    k=st.integers(0, 40),
    flips=st.tuples(st.booleans(), st.booleans()),
    with_bias=st.booleans(),
    accumulate=st.booleans(),
    seed=st.integers(0, 99),
)
def test_product_is_that_of_long_double(dtype, m, n, k, flips, with_bias, accumulate, seed):
    rng = np.random.default_rng(seed)
    a, b = draw(rng, dtype, m, k), draw(rng, dtype, k, n)
    bias = draw(rng, dtype, n) if with_bias else None
    into = draw(rng, dtype, m, n) if accumulate else None
    c = multiply(a, b, *flips, bias, into)
    assert_right(c, a, b, 0 if bias is None else bias, 0 if into is None else into)
    assert packed(a, b, flips[1], bias, into).tobytes() == c.tobytes()


@either
@pytest.mark.parametrize("k", [255, 256, 257, 300, 512, 513, 800])
@pytest.mark.parametrize("n", [5, 230])
def test_inner_lengths_over_a_block_are_right(dtype, k, n):
    rng = np.random.default_rng(k)
    a, b, bias = draw(rng, dtype, 6, k), draw(rng, dtype, k, n), draw(rng, dtype, n)
    c = multiply(a, b, bias=bias)
    assert_right(c, a, b, bias)
    for flips in ((False, True), (True, False), (True, True)):
        assert multiply(a, b, *flips, bias).tobytes() == c.tobytes()
    assert packed(a, b, bias=bias).tobytes() == c.tobytes()


@either
def test_more_rows_than_a_block_are_right(dtype):
    rng = np.random.default_rng(1)
    a, b = draw(rng, dtype, gemm.BLOCK_M + 3, 20), draw(rng, dtype, 20, gemm.PACK_COLUMNS + 7)
    assert_right(multiply(a, b), a, b)
    assert_right(multiply(a, b, True, True), a, b)


@either
def test_product_of_inner_length_zero_is_the_bias_or_what_was_there(dtype):
    a, b, bias = np.empty((3, 0), dtype), np.empty((0, 4), dtype), np.arange(4, dtype=dtype)
    into = np.ones((3, 4), dtype)
    assert (multiply(a, b) == 0).all()
    assert (multiply(a, b, bias=bias) == bias).all()
    assert (multiply(a, b, bias=bias, into=into) == bias + 1).all()
    assert (packed(a, b, bias=bias, into=into) == bias + 1).all()


@either
@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (0, 0)])
def test_empty_results_stay_empty(dtype, m, n):
    rng = np.random.default_rng(2)
    for flips in ((False, False), (True, True)):
        assert multiply(draw(rng, dtype, m, 3), draw(rng, dtype, 3, n), *flips).shape == (m, n)


@either
def test_nan_and_infinity_reach_their_row_and_column_only(dtype):
    rng = np.random.default_rng(3)
    a, b = draw(rng, dtype, 9, 7), draw(rng, dtype, 7, 30)
    a[4, 2], b[3, 29] = np.nan, np.inf
    c = multiply(a, b)
    assert np.isnan(c[4]).all()
    assert not np.isfinite(c[:, 29]).any()
    rest = np.delete(np.delete(c, 4, 0), 29, 1)
    assert (
        rest.tobytes()
        == np.delete(np.delete(multiply(np.nan_to_num(a), np.nan_to_num(b)), 4, 0), 29, 1).tobytes()
    )


def board_of(x):
    """Return an array with x in its middle, and sevens around."""
    board = np.full((len(x) + 2, x.shape[1] + 40), 7, x.dtype)
    board[1:-1, 20:-20] = x
    return board


@kernel
def multiply_on_boards(c, a, b, no_bias):
    """Writes the product of what lies in the middle of two boards to the middle of a third."""
    product(
        c[1:-1, 20 : c.shape[1] - 20],
        a[1:-1, 20 : a.shape[1] - 20],
        False,
        b[1:-1, 20 : b.shape[1] - 20],
        False,
        no_bias,
        False,
    )


@either
def test_rows_may_lie_apart_and_nothing_between_them_is_written(dtype):
    rng = np.random.default_rng(4)
    for m, n in ((3, 5), (4, 24), (7, 25), (9, 50), (9, 230)):
        a, b = draw(rng, dtype, m, 11), draw(rng, dtype, 11, n)
        board = board_of(np.empty((m, n), dtype))
        multiply_on_boards(board, board_of(a), board_of(b), np.empty(0, dtype))
        assert board[1:-1, 20:-20].tobytes() == multiply(a, b).tobytes()
        board[1:-1, 20:-20] = 7
        assert (board == 7).all()


# ---- bits


@either
def test_bits_of_a_row_do_not_depend_on_the_number_of_rows(dtype):
    rng = np.random.default_rng(5)
    for k, n in ((9, 5), (40, 30), (300, 210)):
        a, b, bias = draw(rng, dtype, 37, k), draw(rng, dtype, k, n), draw(rng, dtype, n)
        whole = multiply(a, b, bias=bias)
        for start in range(0, 37, 3):
            for rows in (1, 2, 3, 4, 5, 8, 11):
                part = a[start : start + rows]
                assert (
                    multiply(part, b, bias=bias).tobytes() == whole[start : start + rows].tobytes()
                )
                assert (
                    multiply(part, b, True, bias=bias).tobytes()
                    == whole[start : start + rows].tobytes()
                )


@either
def test_bits_of_a_column_do_not_depend_on_the_number_of_columns(dtype):
    rng = np.random.default_rng(6)
    for k, n in ((9, 70), (300, 215)):
        a, b = draw(rng, dtype, 6, k), draw(rng, dtype, k, n)
        whole = multiply(a, b)
        for start in range(0, n, 7):
            for columns in (1, 3, 8, 17, 24, 33, 203):
                part = b[:, start : start + columns].copy()
                assert multiply(a, part).tobytes() == whole[:, start : start + columns].tobytes()


@either
@pytest.mark.parametrize("offset", range(0, 64, 4))
def test_bits_do_not_depend_on_alignment(dtype, offset):
    size = np.dtype(dtype).itemsize
    if offset % size:
        offset -= 4
    rng = np.random.default_rng(7)
    a, b, bias = draw(rng, dtype, 7, 21), draw(rng, dtype, 21, 43), draw(rng, dtype, 43)

    def shifted(x):
        room = np.zeros(x.nbytes + 128, np.uint8)
        start = -room.ctypes.data % 64 + offset
        moved = room[start : start + x.nbytes].view(dtype).reshape(x.shape)
        moved[...] = x
        assert moved.ctypes.data % 64 == offset
        return moved

    expected = multiply(a, b, bias=bias)
    c = shifted(expected * 0)
    gemm.multiply(c, shifted(a), False, shifted(b), False, shifted(bias), False)
    assert c.tobytes() == expected.tobytes()
    gemm.multiply(c, shifted(a), False, shifted(b.T.copy()), True, shifted(bias), False)
    assert c.tobytes() == expected.tobytes()


@either
def test_every_element_is_one_chain_of_fused_additions_per_block(dtype):
    # Exactly representable products: the chain is 0 + 1 + tiny + ... in order of k, blocks of 256
    # added afterwards.
    k = 300
    a = np.zeros((1, k), dtype)
    a[0, 0], a[0, 1:256], a[0, 256:] = 1, np.finfo(dtype).eps / 4, np.finfo(dtype).eps / 4
    c = multiply(a, np.ones((k, 1), dtype))
    expected = np.ones((), dtype) + dtype(44 * np.finfo(dtype).eps / 4)
    assert c[0, 0] == expected


SCRIPT = """
import hashlib, sys
import numpy as np
from layers.kernels import gemm, machine
digest = hashlib.sha256()
for dtype in (np.float32, np.float64):
    rng = np.random.default_rng(9)
    for m, k, n in ((5, 7, 3), (9, 33, 49), (14, 300, 215)):
        a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), n))
        for flip_a, flip_b in ((False, False), (False, True), (True, False)):
            c = np.ones((m, n), dtype)
            left, right = a.T.copy() if flip_a else a, b.T.copy() if flip_b else b
            gemm.multiply(c, left, flip_a, right, flip_b, bias, True)
            digest.update(c.tobytes())
print(machine.VECTOR_BYTES, digest.hexdigest())
"""


@pytest.mark.full
def test_bits_do_not_depend_on_the_width_of_vectors(run_python, capsys):
    exec(SCRIPT, {})
    seen = dict([capsys.readouterr().out.split()])
    # Of this machine's own width the kernels are compiled already.
    for width in {"16", "32", "64"} - seen.keys():
        done = run_python("-c", SCRIPT, LAYERS_VECTOR_BYTES=width)
        assert done.status == 0, done.err
        seen.update([done.out.split()])
    assert set(seen) == {"16", "32", "64"}
    assert len(set(seen.values())) == 1
