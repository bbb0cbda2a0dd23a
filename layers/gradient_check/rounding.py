"""The gradient check of a model that rounds to numbers of few bits: what it computes so against
what it computes in float64.

That its gradients are right in float64 is known by then. What remains is that those of the rounded
passes are the same but for rounding, of which there is a model:

- An operand a of a product, or what is kept for backward, is rounded to a (1 + d), |d| <= u, the
  unit roundoff (2^-8 in bfloat16, 2^-11 in float16). A sum of products of two such operands is the
  exact sum for operands of which one is moved by 2u, relatively and element by element: the
  backward error of a product (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
- So inputs, parameters and the cotangent are moved at random, each element by up to u, and both
  passes run from there, in float64 and rounded. How much the float64 gradients change is the size
  that errors may have, g: first-order propagation, by sampling (Parker, Monte Carlo Arithmetic,
  1997). Moved by a unit of the last place, roundings are other ones at each point: the errors at
  several points are samples about 0 (subtractive dither).

- What layers keep for backward is rounded in the float64 passes, too: a number that is almost the
  largest of its window may be the largest then, and 1 - y^2 of a y near 1 is what it is of 16 bits.
- What a kernel rounds in between, such as a gate, may move by less than a unit, and is rounded
  alike at all points then: the error of an entry may not average out, but is no larger than others.

A wrong gradient is off by much the same everywhere, and rounding is not: the mean error over the
points must be 0 within its own standard error, and the errors must not be larger than the model's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from layers.engine.forward_call import ForwardCall
from layers.engine.precision import Precision
from layers.engine.storage import Storage
from layers.kernels import half
from layers.types import Array

from .report import NONDETERMINISTIC, WRONG, GradientReport

if TYPE_CHECKING:
    from .subject import Subject

POINTS = 16
"""So many points give the standard error to a fifth."""
ALONE, TOGETHER = 8.0, 3.0
"""A mean error is none of rounding beyond so many standard errors: of a single entry, of which
there are many, and that of a large block.
"""
SIZE = 4.0
"""Errors may be so many times those of the model, which knows roundings of what it moves, and not
of each step in between.
"""
FLOOR = 1000 * float(np.finfo(np.float32).eps)
"""What float32 may round, relative to the largest gradient of a block, and to the terms of the
output.
"""
_TERMS = 8 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class _Keeping(Precision):
    """Computes all in what it is given, and keeps what `storage_of` does."""

    storage_of: Storage | None = None

    def keep(self, call: ForwardCall, x: Array, source: int | str | None = None) -> Array:
        if self.storage_of is None:
            return x
        words, numbers = np.empty(x.size, self.storage_of.words), np.empty(x.size, np.float32)
        half.narrow(words, x.reshape(-1).astype(np.float32))
        half.widen(numbers, words)
        return numbers.astype(x.dtype).reshape(x.shape)


def _keeping(precision: Precision) -> Precision:
    return _Keeping(precision.name, storage_of=precision.storage)


@dataclass
class _Errors:
    """Errors of a block at all points.

    Attributes
    ----------
    mean, deviation
        The mean over the points, and the standard error of it, of each entry.
    spread
        The root of the mean square of an entry's error at a point.
    expected
        That of the model.
    size
        The root of the mean square of an entry's gradient.
    floor
        What float32 rounds.
    """

    mean: Array
    deviation: Array
    spread: float
    expected: float
    size: float
    floor: float

    @property
    def bias(self) -> Array:
        """The mean error over what it may be, of each entry."""
        whole = self.spread / np.sqrt(POINTS)
        # Of few points some deviations are small by chance.
        deviation = np.hypot(self.deviation, whole / 2)
        allowed = ALONE * deviation + SIZE * self.expected + self.floor
        return np.asarray(np.abs(self.mean) / allowed)

    @property
    def bias_together(self) -> float:
        """The mean error of the block over what it may be."""
        allowed = TOGETHER + (ALONE - TOGETHER) / np.sqrt(self.mean.size)
        return float(_rms(self.mean) / (allowed * self.spread / np.sqrt(POINTS) + self.floor))

    @property
    def too_large(self) -> bool:
        """Whether errors are larger than those of the model; of a gradient that is 0, the model
        knows nothing.
        """
        return self.spread > SIZE * self.expected + self.floor and self.size > self.spread


def check_rounding(
    subject: "Subject", cotangent: Array, rng: np.random.Generator, report: GradientReport
) -> None:
    """Compare gradients of rounded passes with those in float64; say in the report what is wrong,
    and how large the errors are.
    """
    unit, name = subject.rounding
    if not unit:
        return
    with subject.cast(np.float64):
        blocks = [*subject.parameters, *(f"input {i}" for i in subject.free)]
        whole = {each: subject.array(each) for each in blocks}
        points = [_moved(whole, unit, rng) for _ in range(POINTS)]
        cotangents = [_moved({"": cotangent}, unit, rng)[""] for _ in range(POINTS)]
    with subject.cast(np.float32):
        found = [_gradients(subject, *at) for at in zip(points, cotangents, strict=True)]
        subject.workspace.spoil()
        again = _gradients(subject, points[-1], cotangents[-1])
    with subject.cast(np.float64, _keeping):
        exact = [_gradients(subject, *at) for at in zip(points, cotangents, strict=True)]
        terms = float(np.abs(cotangent * subject.evaluate()).sum())
    largest = 0.0
    for block in report.blocks:
        if not block.passed or not all(each[block.name].size for each in exact[:1]):
            continue
        rounded, right = (np.array([each[block.name] for each in of]) for of in (found, exact))
        if not np.isfinite(rounded).all():
            block.verdict = WRONG
            block.hint = f"in {name} backward gives NaN or infinity: is a number too large for it?"
            continue
        if again[block.name].tobytes() != found[-1][block.name].tobytes():
            block.verdict = NONDETERMINISTIC
            block.hint = f"in {name} backward gives other bits on a second run"
            continue
        errors = _errors(rounded.astype(np.float64), right, terms)
        worst = int(np.argmax(errors.bias))
        if errors.bias.flat[worst] > 1 or errors.bias_together > 1 or errors.too_large:
            where = tuple(int(i) for i in np.unravel_index(worst, block.shape))
            block.verdict, block.worst = WRONG, where
            block.analytic = float(rounded.mean(axis=0)[where])
            block.numeric = float(right.mean(axis=0)[where])
            block.error = errors.spread / errors.size if errors.size else np.inf
            block.hint = f"in {name} it differs from that in float64 by more than rounding does" + (
                f": errors of {errors.spread:.1e} where {errors.expected:.1e} are expected"
                if errors.too_large
                else ", and always in the same way"
            )
        else:
            largest = max(largest, min(errors.spread / errors.size, 1.0) if errors.size else 0.0)
    if report.passed:
        report.notes.append(
            f"in {name} gradients are right but for rounding, {largest:.1e} of them"
        )


def _moved(arrays: dict[str, Array], unit: float, rng: np.random.Generator) -> dict[str, Array]:
    """Return arrays whose elements are moved by up to a unit roundoff, as float32 holds them."""
    return {
        name: (array * (1 + unit * rng.uniform(-1, 1, array.shape))).astype(np.float32)
        for name, array in arrays.items()
    }


def _gradients(subject: "Subject", point: dict[str, Array], cotangent: Array) -> dict[str, Array]:
    """Return the gradients of all blocks at a point."""
    for name, array in point.items():
        subject.array(name)[...] = array
    found, _ = subject.gradients(cotangent.astype(subject.dtype))
    return found


def _errors(rounded: Array, right: Array, terms: float) -> _Errors:
    """Return the errors of gradients (points, ...)."""
    errors = rounded - right
    largest = float(np.abs(right).max())
    return _Errors(
        errors.mean(axis=0),
        errors.std(axis=0, ddof=1) / np.sqrt(POINTS),
        _rms(errors),
        _rms(right - right.mean(axis=0)),
        _rms(right),
        FLOOR * largest + _TERMS * terms,
    )


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
