"""Updates of flat slices: p parameters, g gradient, all (n,). Scalars are Python floats, rounded to
the type of the arrays.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .jit import inlined, kernel
from .llvm.memory import address_of
from .llvm.vmath import constant, fma, number
from .machine import CACHE_LINE
from .sync import store_in_order

UNDO_BLOCK = 128
"""Elements that `by_blocks` changes at a time: what the undo log holds of them stays in the
first-level cache.
"""
BEGUN, DONE, PLACE = 0, 2 * CACHE_LINE // 8, 1
"""Cells of an undo log: how many blocks of an update have been begun and how many are done, on
cache lines of their own; from PLACE on where in the whole the last begun one starts, and how many
elements it has.
"""
CELLS = 2 * DONE
"""Cells before the numbers of an undo log."""
UNCHECKED, CHECK_ALL, CHECK_MOMENTS, NOTE = -1, 0, 1, 1 << 30
"""What is done about checksums: nothing, or those of before are compared from the array of this
number on, and then new ones noted.
"""


@kernel
def add_penalty(g, p, l1, l2):
    """Adds to g the gradient l2 p + l1 sign(p) of l2 |p|^2 / 2 + l1 |p|_1; sign(0) = 0."""
    l1, l2 = number(p, l1), number(p, l2)
    for i in range(p.size):
        g[i] = fma(l2, p[i], g[i]) + l1 * np.sign(p[i])


@kernel
def scale(x, factor):
    """Writes x = factor x."""
    factor = number(x, factor)
    for i in range(x.size):
        x[i] *= factor


@kernel
def clip(g, limit):
    """Writes g = max(-limit, min(g, limit)); NaN stays NaN."""
    limit = number(g, limit)
    for i in range(g.size):
        g[i] = limit if g[i] > limit else (-limit if g[i] < -limit else g[i])


@kernel
def gradient_descent(p, g, rate):
    """Writes p = p - rate g."""
    rate = number(p, rate)
    for i in range(p.size):
        p[i] = fma(-rate, g[i], p[i])


@kernel
def momentum(p, g, m, rate, mu, first):
    """Writes m = mu m + g (m = g in the `first` step) and p = p - rate m: Polyak 1964, as in
    Sutskever et al. 2013, eq. 1-2.
    """
    rate, mu = number(p, rate), number(p, mu)
    for i in range(p.size):
        m[i] = g[i] if first else fma(mu, m[i], g[i])
        p[i] = fma(-rate, m[i], p[i])


@kernel
def nesterov(p, g, m, rate, mu, first):
    """Writes m = mu m + g (m = g in the `first` step) and p = p - rate (g + mu m): Sutskever et al.
    2013, eq. 3-4.
    """
    rate, mu = number(p, rate), number(p, mu)
    for i in range(p.size):
        m[i] = g[i] if first else fma(mu, m[i], g[i])
        p[i] = fma(-rate, fma(mu, m[i], g[i]), p[i])


@kernel
def rmsprop(p, g, v, rate, alpha, epsilon):
    """Writes v = alpha v + (1 - alpha) g^2 and p = p - rate g / (sqrt(v) + epsilon): Tieleman and
    Hinton 2012, lecture 6.5.
    """
    rate, alpha, epsilon = number(p, rate), number(p, alpha), number(p, epsilon)
    rest = constant(p, "one") - alpha
    for i in range(p.size):
        v[i] = fma(alpha, v[i], rest * (g[i] * g[i]))
        p[i] -= rate * (g[i] / (np.sqrt(v[i]) + epsilon))


@kernel
def rmsprop_momentum(p, g, v, m, rate, alpha, epsilon, mu):
    """Writes v as `rmsprop` does, m = mu m + g / (sqrt(v) + epsilon) and p = p - rate m."""
    rate, alpha, epsilon, mu = number(p, rate), number(p, alpha), number(p, epsilon), number(p, mu)
    rest = constant(p, "one") - alpha
    for i in range(p.size):
        v[i] = fma(alpha, v[i], rest * (g[i] * g[i]))
        m[i] = fma(mu, m[i], g[i] / (np.sqrt(v[i]) + epsilon))
        p[i] = fma(-rate, m[i], p[i])


@kernel
def adam(p, g, m, v, rate, beta1, beta2, epsilon, root_correction2):
    """Writes one step of Adam (Kingma and Ba 2015, algorithm 1).

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, p = p - rate m / (sqrt(v) /
    root_correction2 + epsilon), where rate is the learning rate / (1 - beta1^t) and
    root_correction2 is sqrt(1 - beta2^t).
    """
    rate, beta1, beta2, epsilon = (
        number(p, rate),
        number(p, beta1),
        number(p, beta2),
        number(p, epsilon),
    )
    one, root_correction2 = constant(p, "one"), number(p, root_correction2)
    rest1, rest2, inverse = one - beta1, one - beta2, one / root_correction2
    for i in range(p.size):
        m[i] = fma(beta1, m[i], rest1 * g[i])
        v[i] = fma(beta2, v[i], rest2 * (g[i] * g[i]))
        p[i] -= rate * m[i] / fma(np.sqrt(v[i]), inverse, epsilon)


@kernel
def amsgrad(p, g, m, v, largest, rate, beta1, beta2, epsilon, root_correction2):
    """Writes one step of `adam` in which the largest v so far takes the place of v (Reddi, Kale and
    Kumar 2018, algorithm 2).
    """
    rate, beta1, beta2, epsilon = (
        number(p, rate),
        number(p, beta1),
        number(p, beta2),
        number(p, epsilon),
    )
    one, root_correction2 = constant(p, "one"), number(p, root_correction2)
    rest1, rest2, inverse = one - beta1, one - beta2, one / root_correction2
    for i in range(p.size):
        m[i] = fma(beta1, m[i], rest1 * g[i])
        v[i] = fma(beta2, v[i], rest2 * (g[i] * g[i]))
        # Not NaN's largest: a NaN in v stays.
        largest[i] = largest[i] if largest[i] >= v[i] else v[i]
        p[i] -= rate * m[i] / fma(np.sqrt(largest[i]), inverse, epsilon)


@kernel
def unscaled_adam(p, g, m, v, rate, beta1, beta2):
    """Writes m and v as `adam` does and p = p - rate m: a step of RAdam whose v is of too few
    gradients yet (Liu et al. 2020, algorithm 2).
    """
    rate, beta1, beta2 = number(p, rate), number(p, beta1), number(p, beta2)
    one = constant(p, "one")
    rest1, rest2 = one - beta1, one - beta2
    for i in range(p.size):
        m[i] = fma(beta1, m[i], rest1 * g[i])
        v[i] = fma(beta2, v[i], rest2 * (g[i] * g[i]))
        p[i] = fma(-rate, m[i], p[i])


@kernel
def adagrad(p, g, total, rate, epsilon):
    """Writes total = total + g^2 and p = p - rate g / (sqrt(total) + epsilon): Duchi, Hazan and
    Singer 2011, figure 1 with a diagonal matrix.
    """
    rate, epsilon = number(p, rate), number(p, epsilon)
    for i in range(p.size):
        total[i] = fma(g[i], g[i], total[i])
        p[i] -= rate * (g[i] / (np.sqrt(total[i]) + epsilon))


@kernel
def lion(p, g, m, rate, beta1, beta2):
    """Writes p = p - rate sign(beta1 m + (1 - beta1) g), sign(0) = 0, and then m = beta2 m +
    (1 - beta2) g: Chen et al. 2023, algorithm 2.
    """
    rate, beta1, beta2 = number(p, rate), number(p, beta1), number(p, beta2)
    one = constant(p, "one")
    rest1, rest2 = one - beta1, one - beta2
    for i in range(p.size):
        p[i] = fma(-rate, np.sign(fma(beta1, m[i], rest1 * g[i])), p[i])
        m[i] = fma(beta2, m[i], rest2 * g[i])


@kernel
def muon_direction(u, g, m, mu, nesterov):
    """Writes m = mu m + (1 - mu) g, and u = mu m + (1 - mu) g if `nesterov`, else u = m."""
    mu = number(u, mu)
    rest = constant(u, "one") - mu
    for i in range(u.size):
        m[i] = fma(mu, m[i], rest * g[i])
        u[i] = fma(mu, m[i], rest * g[i]) if nesterov else m[i]


@kernel
def average(a, p, decay):
    """Writes a = decay a + (1 - decay) p, the moving average of p."""
    decay = number(p, decay)
    rest = constant(p, "one") - decay
    for i in range(p.size):
        a[i] = fma(decay, a[i], rest * p[i])


@kernel
def lamb_direction(u, p, g, m, v, beta1, beta2, epsilon, correction1, root_correction2, decay):
    """Writes m and v as `adam` does and u = m_hat / (sqrt(v_hat) + epsilon) + decay p: You et al.
    2020, algorithm 2.
    """
    beta1, beta2, epsilon, decay = (
        number(p, beta1),
        number(p, beta2),
        number(p, epsilon),
        number(p, decay),
    )
    one, correction1, root_correction2 = (
        constant(p, "one"),
        number(p, correction1),
        number(p, root_correction2),
    )
    rest1, rest2, inverse1, inverse2 = (
        one - beta1,
        one - beta2,
        one / correction1,
        one / root_correction2,
    )
    for i in range(p.size):
        m[i] = fma(beta1, m[i], rest1 * g[i])
        v[i] = fma(beta2, v[i], rest2 * (g[i] * g[i]))
        u[i] = fma(decay, p[i], m[i] * inverse1 / fma(np.sqrt(v[i]), inverse2, epsilon))


@inlined
def _sum(words, start, count):
    """Return the sum of words[start : start + count], modulo 2^32: no single one can change without
    it.
    """
    total = np.uint32(0)
    # Rounds whose number the compiler knows take half the time.
    if count == UNDO_BLOCK:
        part = words[start : start + UNDO_BLOCK]
        for i in range(UNDO_BLOCK):
            total = np.uint32(total + part[i])
    else:
        rest = words[start : start + count]
        for i in range(rest.size):
            total = np.uint32(total + rest[i])
    return total


@inlined
def _copy(y, x, start, count):
    """Write y = x[start : start + count], in its beginning."""
    if count == UNDO_BLOCK:
        part, whole = x[start : start + UNDO_BLOCK], y[:UNDO_BLOCK]
        for i in range(UNDO_BLOCK):
            whole[i] = part[i]
    else:
        rest = x[start : start + count]
        for i in range(rest.size):
            y[i] = rest[i]


@kernel
def block_sums(sums, arrays, checks):
    """Writes the checksums of each block of arrays, a tuple of A arrays (n,), to sums (blocks, A)
    uint32 if `checks` is NOTE.

    Else it compares those of the arrays from number `checks` on; it returns -1, or A times the
    number of the first block that has another one plus that of the array.
    """
    for block in range(len(sums)):
        a = block * UNDO_BLOCK
        size = min(UNDO_BLOCK, arrays[0].size - a)
        for k in range(0 if checks == NOTE else checks, len(arrays)):
            words = arrays[k].view(np.uint32)
            width = words.size // arrays[k].size
            total = _sum(words, a * width, size * width)
            if checks == NOTE:
                sums[block, k] = total
            elif sums[block, k] != total:
                return block * len(arrays) + k
    return -1


@cache
def by_blocks(update: Callable[..., Any]) -> Any:
    """Return the kernel of an update that does it block by block, as `update`, a kernel, does all
    at once, so that one that was broken off can be finished, and so that bits that flipped are
    found.

    Its arguments are

    - changed, a tuple of one to four arrays (n,), the parameters and their moments, and g (n,);
    - runs (R, 2), the elements [start, stop) that are multiplied by `factor` before;
    - log (A, UNDO_BLOCK) and cells (CELLS,), the undo log, shared, or none of both (A = 0);
    - before, how many blocks of the update are in chunks before; place, where in the whole the
      first element lies;
    - sums (blocks, A) uint32, the checksums of the blocks of each array, and `checks`, what is done
      about them;
    - scalars, a tuple of what `update` takes after the arrays.

    It returns -1, or, if a checksum is not that of before, A times the number of the block plus
    that of the array, and writes nothing from that block on. Blocks that the cells call done are
    left out: who did them has died since.
    """
    step = inlined(getattr(update, "py_func", update))

    def updated(changed, g, runs, factor, log, cells, before, place, sums, checks, scalars):
        p, arrays, header, run = changed[0], len(changed), address_of(cells), 0
        factor = number(p, factor)
        # Loops over the arrays would take twice as long.
        m = changed[1] if len(changed) > 1 else p
        v = changed[2] if len(changed) > 2 else p
        w = changed[3] if len(changed) > 3 else p
        p_words, m_words = p.view(np.uint32), m.view(np.uint32)
        v_words, w_words = v.view(np.uint32), w.view(np.uint32)
        width = p_words.size // max(p.size, 1)
        for block in range(max(cells[DONE] - before, 0) if len(cells) else 0, len(sums)):
            a = block * UNDO_BLOCK
            b = min(a + UNDO_BLOCK, p.size)
            first, count = width * a, width * (b - a)
            if checks >= 0:
                if checks == 0 and sums[block, 0] != _sum(p_words, first, count):
                    return block * arrays
                if arrays > 1 and checks < 2:
                    total = _sum(m_words, first, count)
                    if sums[block, 1] != total:
                        return block * arrays + 1
                if arrays > 2 and checks < 3:
                    total = _sum(v_words, first, count)
                    if sums[block, 2] != total:
                        return block * arrays + 2
                if arrays > 3 and checks < 4:
                    total = _sum(w_words, first, count)
                    if sums[block, 3] != total:
                        return block * arrays + 3
            if len(cells):
                _copy(log[0], p, a, b - a)
                if arrays > 1:
                    _copy(log[1], m, a, b - a)
                if arrays > 2:
                    _copy(log[2], v, a, b - a)
                if arrays > 3:
                    _copy(log[3], w, a, b - a)
                cells[PLACE] = place + a
                cells[PLACE + 1] = b - a
                store_in_order(header, before + block + 1)
            while run < len(runs) and runs[run, 0] < b:
                for i in range(max(a, runs[run, 0]), min(b, runs[run, 1])):
                    p[i] *= factor
                if runs[run, 1] > b:
                    break
                run += 1
            if len(changed) == 1:
                step(p[a:b], g[a:b], *scalars)
            elif len(changed) == 2:
                step(p[a:b], g[a:b], m[a:b], *scalars)
            elif len(changed) == 3:
                step(p[a:b], g[a:b], m[a:b], v[a:b], *scalars)
            else:
                step(p[a:b], g[a:b], m[a:b], v[a:b], w[a:b], *scalars)
            if len(cells):
                store_in_order(header + 8 * DONE, before + block + 1)
            if checks >= 0:
                sums[block, 0] = _sum(p_words, first, count)
                if arrays > 1:
                    sums[block, 1] = _sum(m_words, first, count)
                if arrays > 2:
                    sums[block, 2] = _sum(v_words, first, count)
                if arrays > 3:
                    sums[block, 3] = _sum(w_words, first, count)
        return -1

    return kernel(updated, cache=update.__module__ == __name__)
