"""Updates of optimizers: formulas of elements (p, g, \\*moments, \\*scalars) of parameters p and
gradients g, which return what takes the places of p and of the moments; and the kernels of them.

Scalars are Python numbers, rounded to the type of the arrays.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from .jit import inlined, kernel
from .llvm.elements import fma, sign, sqrt, where
from .llvm.memory import address_of
from .llvm.simd_update import NOTE, SUM_WORDS, look_at, updating
from .llvm.vmath import constant, number
from .machine import CACHE_LINE
from .sync import store_in_order

__all__ = ["BEGUN", "CELLS", "COUNT", "DONE", "NOTE", "PLACE", "SUM_WORDS", "UNDO_BLOCK"]

UNDO_BLOCK = 256
"""Elements that are updated at a time, between two looks at a log and at checksums: what the log
holds of them stays in the first-level cache.
"""
BEGUN, DONE, PLACE, COUNT = 0, 2 * CACHE_LINE // 8, 1, 2
"""Cells of an undo log: how many blocks of an update have been begun and how many are done, on
cache lines of their own; at PLACE where in the whole the last begun one starts, and at COUNT how
many elements of it are in the log: others have not changed.
"""
CELLS = 2 * DONE
"""Cells before the numbers of an undo log."""
NONE, ALL, SOME = 0, 1, 2
"""How many elements of a block are multiplied by a factor."""
CHECK_ALL, CHECK_MOMENTS = 0, 1
"""The first array whose checksums are compared with those of before; NOTE for none."""


def gradient_descent(p, g, rate):
    """Return p - rate g."""
    return fma(-rate, g, p)


def momentum(p, g, m, rate, mu, first):
    """Return p = p - rate m, m = mu m + g (m = g in the `first` step): Polyak 1964, as in Sutskever
    et al. 2013, eq. 1-2.
    """
    m = where(first, g, fma(mu, m, g))
    return fma(-rate, m, p), m


def nesterov(p, g, m, rate, mu, first):
    """Return p = p - rate (g + mu m), m = mu m + g (m = g in the `first` step): Sutskever et al.
    2013, eq. 3-4.
    """
    m = where(first, g, fma(mu, m, g))
    return fma(-rate, fma(mu, m, g), p), m


def rmsprop(p, g, v, rate, alpha, epsilon):
    """Return p = p - rate g / (sqrt(v) + epsilon), v = alpha v + (1 - alpha) g^2: Tieleman and
    Hinton 2012, lecture 6.5.
    """
    v = fma(alpha, v, (1 - alpha) * (g * g))
    return p - rate * (g / (sqrt(v) + epsilon)), v


def rmsprop_momentum(p, g, v, m, rate, alpha, epsilon, mu):
    """Return p = p - rate m, v as `rmsprop` does, and m = mu m + g / (sqrt(v) + epsilon)."""
    v = fma(alpha, v, (1 - alpha) * (g * g))
    m = fma(mu, m, g / (sqrt(v) + epsilon))
    return fma(-rate, m, p), v, m


def _averages(g, m, v, beta1, beta2):
    """Return m = beta1 m + (1 - beta1) g and v = beta2 v + (1 - beta2) g^2."""
    return fma(beta1, m, (1 - beta1) * g), fma(beta2, v, (1 - beta2) * (g * g))


def adam(p, g, m, v, rate, beta1, beta2, epsilon, root_correction2):
    """Return one step of Adam (Kingma and Ba 2015, algorithm 1).

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, p = p - rate m / (sqrt(v) /
    root_correction2 + epsilon), where rate is the learning rate / (1 - beta1^t) and
    root_correction2 is sqrt(1 - beta2^t).
    """
    m, v = _averages(g, m, v, beta1, beta2)
    return p - rate * m / fma(sqrt(v), 1 / root_correction2, epsilon), m, v


def amsgrad(p, g, m, v, largest, rate, beta1, beta2, epsilon, root_correction2):
    """Return one step of `adam` in which the largest v so far takes the place of v (Reddi, Kale and
    Kumar 2018, algorithm 2).
    """
    m, v = _averages(g, m, v, beta1, beta2)
    # Not NaN's largest: a NaN in v stays.
    largest = where(largest >= v, largest, v)
    return p - rate * m / fma(sqrt(largest), 1 / root_correction2, epsilon), m, v, largest


def unscaled_adam(p, g, m, v, rate, beta1, beta2):
    """Return p = p - rate m, and m and v as `adam` does: a step of RAdam whose v is of too few
    gradients yet (Liu et al. 2020, algorithm 2).
    """
    m, v = _averages(g, m, v, beta1, beta2)
    return fma(-rate, m, p), m, v


def adagrad(p, g, total, rate, epsilon):
    """Return p = p - rate g / (sqrt(total) + epsilon), total = total + g^2: Duchi, Hazan and Singer
    2011, figure 1 with a diagonal matrix.
    """
    total = fma(g, g, total)
    return p - rate * (g / (sqrt(total) + epsilon)), total


def lion(p, g, m, rate, beta1, beta2):
    """Return p = p - rate sign(beta1 m + (1 - beta1) g) and m = beta2 m + (1 - beta2) g: Chen et
    al. 2023, algorithm 2.
    """
    direction = sign(fma(beta1, m, (1 - beta1) * g))
    return fma(-rate, direction, p), fma(beta2, m, (1 - beta2) * g)


@kernel
def block_sums(changed, sums, first):
    """Writes the checksums of each block of arrays, a tuple of A arrays (n,), to sums (blocks, A,
    SUM_WORDS) uint32 if `first` is NOTE.

    Else it compares those of the arrays from number `first` on; it returns -1, or A times the
    number of the first block that has another one plus that of the array.
    """
    for block in range(len(sums)):
        start = block * UNDO_BLOCK
        size = min(UNDO_BLOCK, changed[0].size - start)
        found = look_at(changed, start, size, sums, block, first)
        if found >= 0:
            return block * len(changed) + found
    return -1


@inlined
def _decays(factors, runs, run, factor, a, b, before):
    """Write the factors of elements [a, b), `factor` within runs from number `run` on and 1
    elsewhere, unless they are what those of the block `before` were; return what they are.
    """
    one = constant(factors, "one")
    if run >= len(runs) or runs[run, 0] >= b:
        what = NONE
    elif runs[run, 0] <= a and runs[run, 1] >= b:
        what = ALL
    else:
        what = SOME
    if what != before or what == SOME:
        for i in range(factors.size):
            factors[i] = factor if what == ALL else one
        while what == SOME and run < len(runs) and runs[run, 0] < b:
            for i in range(max(a, runs[run, 0]), min(b, runs[run, 1])):
                factors[i - a] = factor
            run += 1
    return what


@cache
def kernel_of(formula: Callable[..., Any]) -> Any:
    """Return the kernel of an update by a formula, block by block, so that one that was broken off
    can be finished, and so that bits that flipped are found.

    Its arguments are

    - changed, a tuple of A arrays (n,), the parameters and their moments, which may be packed if n
      is a multiple of the elements of a line (`packed`), and g (n,);
    - runs (R, 2), the elements [start, stop) that are multiplied by `factor` before, and factors
      (UNDO_BLOCK,), scratch;
    - log (A, UNDO_BLOCK), or None, and cells (CELLS,), the undo log, shared, or (0,) for none;
    - before, how many blocks of the update are in chunks before; place, where in the whole the
      first element lies;
    - sums (blocks, A, SUM_WORDS) uint32, or None, the checksums of the blocks of each array, and
      `first`, the first array of which they are compared;
    - scalars, a tuple of what the formula takes after the arrays, and where one of these is packed
      a number in [0, 1), another one in each step, that its codes are rounded by.

    It returns -1, or, if a checksum is not that of before, A times the number of the block plus
    that of the array, and writes nothing behind that block, whose checksums are then by how much
    they have changed. Blocks that the cells call done are left out: who did them has died since.
    """
    update = updating(formula)

    def updated(changed, g, runs, factor, factors, log, cells, before, place, sums, first, scalars):
        """Writes what an update makes of arrays."""
        n, run, decays, header = changed[0].size, 0, -1, address_of(cells)
        factor = number(factors, factor)
        begin = max(cells[DONE] - before, 0) if len(cells) else 0
        for block in range(begin, (n + UNDO_BLOCK - 1) // UNDO_BLOCK):
            a, b = block * UNDO_BLOCK, min((block + 1) * UNDO_BLOCK, n)
            while run < len(runs) and runs[run, 1] <= a:
                run += 1
            decays = _decays(factors, runs, run, factor, a, b, decays)
            if len(cells):
                cells[PLACE] = place + a
                cells[COUNT] = 0
                store_in_order(header, before + block + 1)
            found = update(
                changed,
                g,
                factors,
                a,
                b - a,
                log,
                header + 8 * COUNT,
                sums,
                block,
                first,
                scalars,
            )
            if found >= 0:
                return block * len(changed) + found
            if len(cells):
                store_in_order(header + 8 * DONE, before + block + 1)
        return -1

    return kernel(updated, cache=formula.__module__ == __name__)
