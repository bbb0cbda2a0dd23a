"""How exact a convolution is, derived from the lengths of its sums.

A rounding multiplies by 1 + d with |d| <= u, the unit roundoff; d is taken for random, independent
and of mean square u²/3 (Higham and Mary, "A new approach to probabilistic rounding error analysis",
SIAM J. Sci. Comput. 41(5), 2019, which bounds such errors by the root of the length of a sum where
the worst case is the length). Of a chain of L multiply-adds from zero the error is the sum of d_i
s_i over its partial sums s_i. For factors of mean zero that are independent, with products of mean
square 1, s_i has the mean square i: the error has u²/3 L²/2, where the sum itself has L. Where
several chains are added, the partial sums of their sums are rounded too.

Winograd's transforms multiply this. With V = B d Bᵀ, U = G g Gᵀ and Y = A (sum over channels of V
U) Aᵀ, the products at a frequency have the mean square |B_a|² |B_b|² |G_a|² |G_b|²; what their sum
is off enters an output times A_ia A_jb. Here the roundings of the transforms count as well. (The
same with norms, as a bound for the worst case: Barabasz, Anderson, Soodhalter and Gregg, ACM TOMS
46(4), 2020, section 4.)
"""

import math

import numpy as np

from layers.kernels.llvm.simd_winograd import MATRICES

from . import tables
from .algorithm import ConvAlgorithm
from .algorithms import Depthwise, FewChannels, Winograd
from .frames import Framed, SlicesApart

OPERATIONS = ("forward", "input gradient", "weight gradient")


def expected_error(algorithm: ConvAlgorithm, operation: str, samples: int) -> float:
    """Return what the root mean square of an operation's error is at most, for independent random
    numbers, in units of the unit roundoff times the root mean square of the result.

    `operation` is one of OPERATIONS, of a convolution (not a transposed one); so many samples are
    one shard.
    """
    if operation not in OPERATIONS:
        raise ValueError(f"operation must be one of {OPERATIONS}; got {operation!r}.")
    if isinstance(algorithm, SlicesApart):
        of_slice = expected_error(algorithm.of_slices[0], operation, samples)
        summed = operation != "weight gradient"
        return _of_parts(of_slice, len(algorithm.of_slices) if summed else 1)
    if isinstance(algorithm, Framed):
        return _of_frames(algorithm, operation, samples)
    if isinstance(algorithm, Winograd):
        return _of_winograd(algorithm, operation, [samples])
    shape, size = algorithm.shape, algorithm.dtype.itemsize
    if operation == "weight gradient":
        rows, columns = shape.outputs
        band = rows if isinstance(algorithm, Depthwise) else 0
        band = band or int(tables.weight_gradient(shape, size).plan["band_rows"][0])
        of_image = [min(band, rows - first) * columns for first in range(0, rows, band)]
        return _root(_of_chains(of_image * samples))
    if isinstance(algorithm, Depthwise):
        return _root(_of_chains([shape.taps]))
    if isinstance(algorithm, FewChannels) and operation == "input gradient":
        return _root(_of_chains([shape.channels[1]] * shape.taps))
    plan = tables.correlation(shape, size, backward=operation == "input gradient")
    return _root(max(_of_chains(lengths) for lengths in _chains(plan)))


def _root(mean_square: float) -> float:
    return math.sqrt(mean_square / 3)


def _of_chains(lengths: list[int]) -> float:
    """Return the mean square of the error of a sum made of chains, over that of the sum, in units
    of u²/3.
    """
    sums = np.cumsum(lengths)
    return float((np.square(lengths).sum() / 2 + sums[1:].sum()) / sums[-1])


def _chains(plan: tables.Correlation) -> list[list[int]]:
    """Return the lengths of the chains of each phase that reads anything."""
    found, first = [], 0
    for count in plan.phases["runs"]:
        runs = plan.runs[first : first + count]
        ends = np.flatnonzero(runs["ends"]) + 1
        if count:
            found.append([int(part["length"].sum()) for part in np.split(runs, ends)])
        first += 2 * count
    return found


def _of_frames(algorithm: Framed, operation: str, samples: int) -> float:
    """Return it for the frames, and for adding what comes back to one pixel."""
    inner, count = algorithm.inner, samples * len(algorithm.frames.slices)
    if operation == "weight gradient" and isinstance(inner, Winograd):
        whole, rest = divmod(count, algorithm.together)
        return _of_winograd(inner, operation, [algorithm.together] * whole + [rest])
    of_frame = expected_error(inner, operation, count)
    summed = operation == "input gradient"
    return _of_parts(of_frame, algorithm.frames.contributions if summed else 1)


def _of_parts(error: float, parts: int) -> float:
    """Return it for a sum of so many results, each with an error of its own."""
    return math.hypot(error, _root(sum(range(2, parts + 1)) / parts))


def _of_winograd(algorithm: Winograd, operation: str, images: list[int]) -> float:
    """Return it where so many images at a time are added to a weight's gradient."""
    shape, m = algorithm.shape, algorithm.sizes[OPERATIONS.index(operation)]
    if operation == "weight gradient":
        rows, columns = (-(-size // m) for size in shape.outputs)
        block = int(
            tables.winograd_tables(
                (0, 0), shape.outputs, shape.channels, algorithm.dtype.itemsize, m
            ).plan["block"][0]
        )
        chains = [
            min(block, count * rows - first) * columns
            for count in images
            for first in range(0, count * rows, block)
        ]
        names, terms = ("filter gradient", "input", "output gradient"), m * m
    else:
        chains = [shape.channels[operation == "input gradient"]]
        names, terms = ("output", "input", "filter"), 9
    out, *factors = (
        np.array([[float(x) for x in row] for row in MATRICES[f"{name} {m}"]]) for name in names
    )
    # Of each frequency of one axis, the mean square of its products, as an output receives them.
    received = np.square(out) * np.prod([np.square(f).sum(axis=1) for f in factors], axis=0)
    growth = received.sum(axis=1).mean() ** 2 / terms
    # A transform rounds a term at most once for each nonzero of a row, in both axes.
    roundings = 2 * sum(np.count_nonzero(matrix, axis=1).max() for matrix in (out, *factors))
    return _root(growth * (_of_chains(chains) + roundings))
