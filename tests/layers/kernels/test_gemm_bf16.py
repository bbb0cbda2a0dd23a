"""Products of bfloat16 numbers: the bits of TDPBF16PS, or of VDPBF16PS, for every size, tail and
storage, on every processor.
"""

import hashlib

import numpy as np
import pytest

from layers.kernels import gemm_bf16, gemm_tiles, half
from layers.kernels.jit import kernel
from layers.kernels.llvm.simd_tiles import Software

from ..bf16 import chains, dots, draw, needs_dots, rounded

pytestmark = pytest.mark.usefixtures("subnormals_are_zero")

NO_BIAS = np.empty(0, np.float32)


tiles_product, tiles_packed_product = gemm_tiles.products(Software)


def tiles_multiply(c, a, transpose_a, b, transpose_b, bias, accumulate):
    tiles_product(c, a, transpose_a, b, transpose_b, bias, accumulate)


def tiles_pack(packed, b, transpose_b):
    gemm_tiles.pack_panels(packed, b, transpose_b)


def tiles_multiply_packed(c, a, packed, bias, accumulate):
    tiles_packed_product(c, a, packed, bias, accumulate)


def tiles_pack_both(packed, of_transpose, b):
    gemm_tiles.pack_both(packed, of_transpose, b)


# What they call is kept with the code of its own file.
BY_TILES = [
    kernel(function, cache=False)
    for function in (tiles_multiply, tiles_pack, tiles_multiply_packed)
]
TILES_PACK_BOTH = kernel(tiles_pack_both, cache=False)

orders = pytest.mark.parametrize(
    ("multiply", "order", "pack", "multiply_packed", "reference"),
    [
        (
            gemm_bf16.multiply,
            gemm_bf16.CHAINS,
            gemm_bf16.pack,
            gemm_bf16.multiply_packed,
            chains,
        ),
        (BY_TILES[0], gemm_bf16.CHAINS, BY_TILES[1], BY_TILES[2], chains),
        pytest.param(
            gemm_bf16.dot_multiply,
            gemm_bf16.DOTS,
            gemm_bf16.pack_dots,
            gemm_bf16.dot_multiply_packed,
            dots,
            marks=needs_dots,
        ),
    ],
    ids=["TDPBF16PS", "TDPBF16PS by tiles", "VDPBF16PS"],
)


@orders
def test_all_sizes_and_storages_have_the_bits_of_the_instruction(
    multiply, order, pack, multiply_packed, reference
):
    sizes = [(m, n, 37) for m in range(1, 10) for n in (1, 15, 16, 17, 31, 48, 49, 65)]
    sizes += [(5, 7, k) for k in (0, 1, 2, 31, 32, 33, 64, 65)] + [(300, 50, 300), (40, 130, 257)]
    for m, n, k in sizes:
        a, b, bias, before = draw(m, k), draw(k, n, seed=1), draw(n), draw(m, n, seed=2)
        expected = reference(a, b)
        for transpose_a in (False, True):
            for transpose_b in (False, True):
                left = a.T.copy() if transpose_a else a
                right = b.T.copy() if transpose_b else b
                c = np.full((m, n), np.nan, np.float32)
                multiply(c, left, transpose_a, right, transpose_b, NO_BIAS, False)
                np.testing.assert_array_equal(c, expected)
                c = before.copy()
                multiply(c, left, transpose_a, right, transpose_b, bias, True)
                np.testing.assert_array_equal(c, (expected + before) + bias)


@orders
def test_packed_weights_give_the_same_bits(multiply, order, pack, multiply_packed, reference):
    for m, n, k in ((1, 1, 1), (7, 50, 33), (64, 100, 70), (200, 65, 129)):
        a, b, bias = draw(m, k), draw(k, n, seed=1), draw(n)
        for transposed in (False, True):
            packed = np.empty(gemm_bf16.packed_size(k, n, order), np.uint32)
            pack(packed, b.T.copy() if transposed else b, transposed)
            c = np.full((m, n), np.nan, np.float32)
            multiply_packed(c, a, packed, bias, False)
            np.testing.assert_array_equal(c, reference(a, b) + bias)


# Inner indices in several blocks, few panels of each operand, more columns than there are at once.
@pytest.mark.parametrize("sizes", [(40, 40, 420), (70, 70, 8200), (33, 550, 40), (49, 1100, 33)])
def test_blocks_of_tiles_change_no_bit(sizes):
    m, n, k = sizes
    a, b, bias, before = draw(m, k), draw(k, n, seed=1), draw(n), draw(m, n, seed=2)
    expected = (chains(a, b) + before) + bias
    multiply, pack, multiply_packed = BY_TILES
    c = before.copy()
    multiply(c, a.T.copy(), True, b, False, bias, True)
    np.testing.assert_array_equal(c, expected)
    packed = np.empty(gemm_bf16.packed_size(k, n, gemm_bf16.CHAINS), np.uint32)
    pack(packed, b, False)
    c = before.copy()
    multiply_packed(c, a, packed, bias, True)
    np.testing.assert_array_equal(c, expected)


@pytest.mark.parametrize("shape", [(1, 1), (70, 33), (33, 70), (100, 257), (130, 64), (64, 65)])
@pytest.mark.parametrize(
    ("pack", "pack_both", "order"),
    [
        (gemm_bf16.pack, gemm_bf16.pack_both, gemm_bf16.CHAINS),
        (gemm_bf16.pack_dots, gemm_bf16.pack_both_dots, gemm_bf16.DOTS),
        (BY_TILES[1], TILES_PACK_BOTH, gemm_bf16.CHAINS),
    ],
    ids=["TDPBF16PS", "VDPBF16PS", "tiles"],
)
def test_panels_of_a_matrix_and_its_transpose_are_written_together(shape, pack, pack_both, order):
    b = draw(*shape)
    sizes = (gemm_bf16.packed_size(*each, order) for each in (shape, shape[::-1]))
    found = [np.zeros(size, np.uint32) for size in sizes]
    expected = [np.zeros_like(each) for each in found]
    pack_both(*found, b)
    for panels, transposed in zip(expected, (False, True), strict=True):
        pack(panels, b, transposed)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@orders
def test_a_row_does_not_depend_on_the_rows_beside_it(
    multiply, order, pack, multiply_packed, reference
):
    a, b = draw(29, 70), draw(70, 50)
    whole = np.empty((29, 50), np.float32)
    multiply(whole, a, False, b, False, NO_BIAS, False)
    for start, stop in ((0, 1), (3, 10), (10, 29)):
        part = np.empty((stop - start, 50), np.float32)
        multiply(part, a[start:stop].copy(), False, b, False, NO_BIAS, False)
        np.testing.assert_array_equal(part, whole[start:stop])


@orders
def test_what_is_no_normal_number_is_kept_or_counts_as_0(
    multiply, order, pack, multiply_packed, reference
):
    a = np.array([[np.nan, 1], [np.inf, 1], [1e-39, 1], [3.4e38, 0]], np.float32)
    c = np.empty((4, 2), np.float32)
    multiply(c, a, False, np.array([[1, -1], [0, 0]], np.float32), False, NO_BIAS, False)
    assert np.isnan(c[0]).all()
    # The largest float32 is nearer to the next power of two than to the largest bfloat16.
    np.testing.assert_array_equal(c[1:], [[np.inf, -np.inf], [0, 0], [np.inf, -np.inf]])


@orders
def test_every_number_is_rounded_to_the_nearest_ties_to_even(
    multiply, order, pack, multiply_packed, reference
):
    bits = np.random.default_rng(0).integers(0, 1 << 32, (256, 64), dtype=np.uint32)
    # Halfway between two numbers; subnormal ones; none that is, or becomes, infinite.
    bits[:64] = bits[:64] & 0xFFFF0000 | 0x8000
    bits[64:96] &= 0x807FFFFF
    bits[(bits >> 23 & 0xFF) > 253] = 0
    x, one = bits.view(np.float32), np.eye(64, dtype=np.float32)
    expected = np.where(np.abs(x) < 2.0**-126, 0, rounded(x)).astype(np.float32)
    c = np.empty((256, 64), np.float32)
    multiply(c, x, False, one, False, NO_BIAS, False)
    np.testing.assert_array_equal(c, expected)
    c = np.empty((64, 256), np.float32)
    multiply(c, one, False, x, True, NO_BIAS, False)
    np.testing.assert_array_equal(c, expected.T)


@orders
def test_operands_may_be_words_of_what_they_are_rounded_to(
    multiply, order, pack, multiply_packed, reference
):
    a, b = draw(37, 70), draw(70, 50, seed=1)
    words_a, words_b = (np.empty(x.shape, np.uint16) for x in (a, b))
    for words, x in ((words_a, a), (words_b, b)):
        half.narrow(words.reshape(-1), x.reshape(-1))
    expected, packed = reference(a, b), np.empty(gemm_bf16.packed_size(70, 50, order), np.uint32)
    pack(packed, b, False)
    c = [np.empty((37, 50), np.float32) for _ in range(5)]
    multiply_packed(c[0], words_a, packed, NO_BIAS, False)
    multiply(c[1], words_a.T.copy(), True, b, False, NO_BIAS, False)
    multiply(c[2], words_a, False, b.T.copy(), True, NO_BIAS, False)
    multiply(c[3], a, False, words_b, False, NO_BIAS, False)
    multiply(c[4], a, False, words_b.T.copy(), True, NO_BIAS, False)
    for each in c:
        np.testing.assert_array_equal(each, expected)


SCRIPT = """
import hashlib
import numpy as np
from layers.kernels import gemm_bf16, underflow
underflow.flush()
rng = np.random.default_rng(0)
digest = hashlib.sha256()
for m, n, k in ((33, 70, 129), (5, 17, 64)):
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k)))
    c = np.zeros((m, n), np.float32)
    gemm_bf16.multiply(c, a, False, b, True, c[0, :0], False)
    digest.update(c.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.full
def test_vectors_of_every_width_give_the_same_bits(run_python):
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    for m, n, k in ((33, 70, 129), (5, 17, 64)):
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k)))
        digest.update(chains(a, b.T).tobytes())
    for width in ("16", "32", "64"):
        done = run_python("-c", SCRIPT, LAYERS_VECTOR_BYTES=width)
        assert done.out.split() == [digest.hexdigest()], (width, done.err)
