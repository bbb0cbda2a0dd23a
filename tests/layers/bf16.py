"""Products of bfloat16 numbers by NumPy, in the orders of the instructions, slowly."""

import numpy as np
import pytest

from layers.kernels.llvm.simd_bf16 import HAS_DOTS

needs_dots = pytest.mark.skipif(not HAS_DOTS, reason="this processor has no AVX512-BF16")
NAMES = ["bf16", pytest.param("bf16-dot", marks=needs_dots)]


def draw(*shape, seed=0):
    """Return float32 numbers from the normal distribution, the same ones of the same arguments."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def rounded(x):
    """Return float32 numbers rounded to bfloat16, ties to even, in float64."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return nearest.view(np.float32).astype(np.float64)


def padded(a, b, together):
    """Return rounded operands, with zeros up to a multiple of so many inner indices."""
    inner = -(-a.shape[1] // together) * together
    left, right = np.zeros((len(a), inner)), np.zeros((inner, b.shape[1]))
    left[:, : a.shape[1]], right[: len(b)] = rounded(a), rounded(b)
    return left, right


def fused(left, right, k, sums):
    """Return a multiply-add of column and row k, rounded once: float64 holds the product."""
    return (left[:, k, None] * right[k] + sums).astype(np.float32)


def chains(a, b):
    """Return the product as TDPBF16PS sums it."""
    left, right = padded(a, b, 32)
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for start in range(0, left.shape[1], 32):
        even, odd = np.zeros_like(total), np.zeros_like(total)
        for k in range(start, start + 32, 2):
            even, odd = fused(left, right, k, even), fused(left, right, k + 1, odd)
        total = total + (even + odd)
    return total


def dots(a, b):
    """Return the product as VDPBF16PS sums it."""
    left, right = padded(a, b, 2)
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(0, left.shape[1], 2):
        total = fused(left, right, k, fused(left, right, k + 1, total))
    return total


def parts(x, again):
    """Return what columns of a left operand are split into for every 32 inner indices, hi, hi and
    lo, or, with hi once more `again` = 2 blocks later, those of a right one.
    """
    inner = max(1, -(-x.shape[1] // 32)) * 32
    whole = np.zeros((len(x), inner), np.float32)
    whole[:, : x.shape[1]] = x
    high = rounded(whole).astype(np.float32)
    low = rounded(whole - high).astype(np.float32)
    blocks = [each.reshape(len(x), -1, 1, 32) for each in (high, low)]
    order = {1: (0, 0, 1), 2: (0, 1, 0)}[again]
    return np.concatenate([blocks[i] for i in order], axis=2).reshape(len(x), -1)


def split_chains(a, b):
    """Return the product of what is split into two bfloat16 numbers, as TDPBF16PS sums it."""
    return chains(parts(a, 1), parts(b.T, 2).T)


PRODUCTS = {"bf16": chains, "bf16-dot": dots}
