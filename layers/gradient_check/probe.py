"""The numeric half of the gradient check: moves blocks, and compares with what backward gave. See
`layers.gradcheck`.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from layers.types import Array

from .differences import STEPS, Derivative, central, complex_step, observed_order, refined
from .report import KINK, OK, UNCLEAR, WRONG, BlockReport, hint

_EPS = float(np.finfo(np.float64).eps)
SAFETY = 10
"""An entry is right within so many times the uncertainty that the numeric derivative itself
shows.
"""
FLOOR = 1000 * _EPS
"""What backward may round, relative to the largest gradient of the block."""
RESOLUTION = 1e-4
"""A numeric derivative less certain than this part of the block's largest gradient decides
nothing.
"""

DIRECTION_STEPS = (1e-2, *STEPS)
"""Steps along directions of length 1, in which each entry moves less."""


class Subject(Protocol):
    """What is probed: an output, computed from blocks that may be moved in place."""

    def evaluate(self) -> Array:
        """Return a new array: the output."""

    def array(self, name: str) -> Array:
        """Return the array of a block."""

    def cast(self, dtype: Any) -> AbstractContextManager[None]:
        """Convert all blocks for a while."""


class Probe:
    """Compares blocks with numeric derivatives.

    Parameters
    ----------
    subject
        What is checked, in float64.
    y, cotangent
        Its output, and what that is contracted with.
    rng, entries, directions
        As of `gradcheck`.
    batch
        The number of samples, for hints.
    notes
        Receives what could not be done.
    """

    def __init__(
        self,
        subject: Subject,
        y: Array,
        cotangent: Array,
        rng: np.random.Generator,
        entries: int,
        directions: int,
        batch: int,
        notes: list[str],
    ) -> None:
        self.subject = subject
        self.y = y
        self.cotangent = cotangent
        self.rng = rng
        self.entries = entries
        self.directions = max(1, directions)
        self.batch = batch
        self.notes = notes
        self.complex = False
        self.terms = float(np.abs(cotangent * y).sum())

    def try_complex(self) -> None:
        """Find out whether the function runs on complex numbers, and has there the values that it
        has on real ones.
        """
        try:
            with self.subject.cast(np.complex128), _complex_stays_complex():
                y = self.subject.evaluate()
        except (
            Exception
        ) as error:  # a kernel or NumPy may say anything to complex arrays; the note repeats it
            lines = str(error).strip().splitlines() or [""]
            self.notes.append(f"no complex step: {type(error).__name__}: {lines[0]}")
            return
        self.complex = bool(np.all(np.abs(y - self.y) <= 1e-9 * np.abs(self.y).max(initial=0)))
        if not self.complex:
            self.notes.append("no complex step: on complex numbers the function has other values")

    def check(self, name: str, gradient: Array) -> BlockReport:
        """Compare one block."""
        array = self.subject.array(name)
        if not array.size:
            text = "the block has no entries, so nothing could be checked"
            return BlockReport(
                name, array.shape, 0, "none", 0.0, None, None, 0.0, 0.0, UNCLEAR, hint=text
            )
        g = gradient.reshape(-1)
        if not np.isfinite(g).all():
            # Infinite bounds would let everything pass.
            k = int(np.argmin(np.isfinite(g)))
            where = tuple(int(i) for i in np.unravel_index(k, gradient.shape))
            text = hint(g, g, gradient.shape, self.batch)
            return BlockReport(
                name,
                gradient.shape,
                g.size,
                "none",
                np.nan,
                None,
                where,
                float(g[k]),
                np.nan,
                WRONG,
                hint=text,
            )
        chosen = np.arange(g.size)
        if g.size > self.entries:
            chosen = np.sort(self.rng.choice(g.size, max(1, self.entries), replace=False))
        directions = [self._direction(array.shape) for _ in range(self.directions)]
        along = [self._refined(name, v, DIRECTION_STEPS) for v in directions]
        expected = np.array([float((gradient * v).sum()) for v in directions])

        numeric = self._by_complex_step(name, chosen, directions, along) if self.complex else None
        if numeric is None:
            found, method = self._by_differences(name, chosen, g[chosen]), "central differences"
        else:
            found, method = [_certain(value) for value in numeric], "complex step"
        block = self._judged(name, gradient, chosen, found, method)
        block.order = self._order(name, directions, along, expected)
        if block.verdict != WRONG and len(chosen) < g.size:
            self._judge_directions(block, gradient, directions, along, expected)
        return block

    def _order(
        self, name: str, directions: list[Array], along: list[Derivative], expected: Array
    ) -> float | None:
        """Return the observed order along the directions: at large steps unless kinks forbid, to
        lift it out of rounding.
        """
        size = self._size(name, directions[0])
        far = [
            central(self._line(name, v), self.y, self.cotangent, DIRECTION_STEPS[0] * size, size)
            for v in directions
        ]
        pairs = [
            (a if a.smooth else b, e)
            for a, b, e in zip(far, along, expected, strict=True)
            if a.smooth or b.smooth
        ]
        return (
            observed_order([d for d, _ in pairs], np.array([e for _, e in pairs]))
            if pairs
            else None
        )

    # ---- derivatives

    def _line(self, name: str, place: Any) -> Callable[[complex], Array]:
        """Return t -> y with a block moved by t along a direction, or in the entry of this flat
        index.
        """
        array = self.subject.array(name)
        start = array.copy()

        def at(t: complex) -> Array:
            if isinstance(place, np.ndarray):
                array[...] = start + t * place
            else:
                array.flat[place] = start.flat[place] + t
            y = self.subject.evaluate()
            array[...] = start
            return y

        return at

    def _size(self, name: str, place: Any) -> float:
        array = self.subject.array(name)
        return max(
            1.0, float(np.abs(array if isinstance(place, np.ndarray) else array.flat[place]).max())
        )

    def _refined(self, name: str, place: Any, steps: tuple[float, ...] = STEPS) -> Derivative:
        return refined(
            self._line(name, place), self.y, self.cotangent, self._size(name, place), steps
        )

    def _direction(self, shape: tuple[int, ...]) -> Array:
        """Return a random direction of length 1 in which every entry counts."""
        v = self.rng.uniform(0.5, 1.5, shape) * self.rng.choice((-1.0, 1.0), shape)
        return np.asarray(v / np.sqrt((v**2).sum()))

    def _by_differences(self, name: str, chosen: Array, analytic: Array) -> list[Derivative]:
        """Return the derivatives of entries; those that are uncertain or contradict backward with
        smaller steps too.
        """
        found = [self._refined(name, int(k), STEPS[:1]) for k in chosen]
        scale = max((abs(d.value) for d in found if d.smooth), default=0.0)
        for i, (k, d, g) in enumerate(zip(map(int, chosen), found, analytic, strict=True)):
            good = (
                d.smooth
                and SAFETY * d.uncertainty <= 1e-7 * scale
                and abs(g - d.value) <= SAFETY * d.uncertainty
            )
            if not good:
                found[i] = self._refined(name, k)
        return found

    def _by_complex_step(
        self, name: str, chosen: Array, directions: list[Array], along: list[Derivative]
    ) -> list[float] | None:
        """Return the derivatives of entries, or None where the complex step contradicts the
        differences.
        """
        with self.subject.cast(np.complex128), _complex_stays_complex():
            for v, d in zip(directions, along, strict=True):
                value = complex_step(self._line(name, v), self.cotangent)
                if not abs(value - d.value) <= SAFETY * d.uncertainty + self._floor(abs(value)):
                    self.notes.append(
                        f"{name}: no complex step: it gives {value:.12g} where differences give"
                        f" {d.value:.12g}"
                    )
                    return None
            return [complex_step(self._line(name, int(k)), self.cotangent) for k in chosen]

    # ---- verdicts

    def _floor(self, scale: float) -> float:
        """Return the rounding that a right gradient may show: of itself, and of terms of the
        output's size that cancel.
        """
        return FLOOR * scale + 8 * _EPS * self.terms

    def _judged(
        self, name: str, gradient: Array, chosen: Array, found: list[Derivative], method: str
    ) -> BlockReport:
        g = gradient.reshape(-1)[chosen]
        numeric, uncertainty = (
            np.array([getattr(d, key) for d in found]) for key in ("value", "uncertainty")
        )
        left, right, noise = (
            np.array([getattr(d, key) for d in found]) for key in ("left", "right", "noise")
        )
        kink = np.array([d.kink for d in found])
        unsteady = np.array([not d.smooth and not d.kink for d in found])
        largest = float(np.abs(gradient).max())
        scale = max(largest, float(np.abs(numeric).max()))
        bound = SAFETY * uncertainty + self._floor(scale)
        # Between the one-sided derivatives every value is one that a rule for the kink may choose.
        slack = SAFETY * noise + 1e-6 * scale
        between = (g >= np.minimum(left, right) - slack) & (g <= np.maximum(left, right) + slack)
        difference = np.abs(g - numeric)
        wrong = np.where(kink, ~between, difference > bound)
        zero = largest <= FLOOR * self.terms and bool(
            np.all(np.abs(numeric) <= SAFETY * uncertainty)
        )
        if zero:
            scale = self.terms
        # Where every step leaves the domain, all is NaN: not wrong, but unclear.
        unclear = (
            ~wrong & ~kink & ~(SAFETY * uncertainty <= RESOLUTION * scale)
            | (unsteady | ~np.isfinite(numeric)) & ~wrong
        )
        verdict = WRONG if wrong.any() else UNCLEAR if unclear.any() else KINK if kink.any() else OK
        badness = np.nan_to_num(difference / np.maximum(bound, np.finfo(float).tiny), nan=np.inf)
        worst = int(np.argmax(np.where(kink & ~wrong, -1.0, badness)))
        measured = difference[~kink | wrong]
        block = BlockReport(
            name,
            gradient.shape,
            len(chosen),
            method,
            float(measured.max() / scale) if measured.size and scale else 0.0,
            None,
            tuple(int(i) for i in np.unravel_index(int(chosen[worst]), gradient.shape)),
            float(g[worst]),
            float(numeric[worst]),
            verdict,
            int(kink.sum()),
        )
        if verdict == WRONG:
            block.hint = hint(g, numeric, gradient.shape, self.batch)
        elif verdict == UNCLEAR:
            block.hint = (
                "the differences are too uncertain: is the function noisy, in float32 inside, or"
                " its output far larger?"
            )
        return block

    def _judge_directions(
        self,
        block: BlockReport,
        gradient: Array,
        directions: list[Array],
        along: list[Derivative],
        expected: Array,
    ) -> None:
        """Compare the directions, which move the entries that were not sampled too; find one of
        those that are wrong.
        """
        floor = self._floor(float(np.sqrt((gradient**2).sum())))
        for v, d, value in zip(directions, along, expected, strict=True):
            if not d.smooth:
                self.notes.append(
                    f"{block.name}: a random direction crosses kinks; entries that were not sampled"
                    " are unchecked"
                )
            elif not abs(value - d.value) <= SAFETY * d.uncertainty + floor:
                k = self._located(block.name, gradient, v)
                at = self._refined(block.name, k)
                g = float(gradient.flat[k])
                block.verdict = WRONG
                block.worst = tuple(int(i) for i in np.unravel_index(k, gradient.shape))
                block.analytic, block.numeric = g, at.value
                block.error = abs(g - at.value) / max(float(np.abs(gradient).max()), abs(at.value))
                block.hint = (
                    "a random direction shows an error outside the sampled entries; halving the"
                    " block led to this one"
                )
                return

    def _located(self, name: str, gradient: Array, v: Array) -> int:
        """Return the flat index of an entry with a wrong gradient, by halving the part of v that
        shows an error.
        """
        places = np.arange(v.size)
        while len(places) > 1:
            half = places[: len(places) // 2]
            part = np.zeros_like(v)
            part.flat[half] = v.flat[half]
            d = self._refined(name, part)
            error = abs(float((gradient * part).sum()) - d.value)
            # The half with the error is the one that exceeds what the differences leave open.
            places = (
                places[len(half) :]
                if error <= SAFETY * d.uncertainty + self._floor(abs(d.value))
                else half
            )
        return int(places[0])


def _certain(value: float) -> Derivative:
    """Return a derivative that is exact to rounding."""
    return Derivative(value, 0.0, 0.0, (value, value, value), value, value, True, False)


@contextmanager
def _complex_stays_complex() -> Iterator[None]:
    """Make it an error that an imaginary part is dropped."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        yield
