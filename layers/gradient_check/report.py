"""What the gradient check found, as text that a person can read."""

from dataclasses import dataclass, field
from html import escape
from typing import Self

import numpy as np

from layers.tables import html_table
from layers.types import Array

OK, WRONG, KINK, UNCLEAR, NONDETERMINISTIC = "ok", "WRONG", "kink", "unclear", "nondeterministic"


class WrongGradientError(AssertionError):
    """Raised by `GradientReport.raise_if_wrong`; its text is the report."""


@dataclass
class BlockReport:
    """The result for one input or one parameter.

    Attributes
    ----------
    name
        "input 0", or the parameter's dotted name.
    shape, checked
        Shape of the block, and how many of its entries were compared one by one (the rest by random
        directions).
    method
        "complex step" or "central differences".
    error
        Largest |analytic - numeric|, over the largest gradient of the block.
    order
        Power of h with which central differences approach the analytic gradient: 2 if it is right,
        0 if not; None where they equal it up to rounding (a function linear or quadratic in the
        block).
    worst, analytic, numeric
        Index of the worst entry and its two values; None where only a random direction shows the
        error.
    verdict
        "ok", "WRONG", "kink" (right wherever the function is smooth), "unclear" (the differences
        cannot tell), or "nondeterministic" (two runs differ).
    kinks
        How many of the compared entries lie on a kink.
    hint
        What mistake fits the numbers.
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    method: str
    error: float
    order: float | None
    worst: tuple[int, ...] | None
    analytic: float
    numeric: float
    verdict: str = OK
    kinks: int = 0
    hint: str = ""

    @property
    def passed(self) -> bool:
        """Whether the block is right, or its difference is that of a kink."""
        return self.verdict in (OK, KINK)

    @property
    def coverage(self) -> str:
        """The entries that were compared one by one, as "12 of 12"."""
        return f"{self.checked} of {int(np.prod(self.shape))}"

    @property
    def order_text(self) -> str:
        """The order as a person reads it."""
        return "exact" if self.order is None else f"{self.order:.2f}".replace("-0.00", "0.00")

    def __str__(self) -> str:
        where = "a direction" if self.worst is None else f"[{', '.join(map(str, self.worst))}]"
        text = (
            f"  {self.name} {self.shape}: {self.verdict}\n    {self.method}, {self.coverage}"
            f" entries; error {self.error:.1e}, order {self.order_text}\n    worst at {where}:"
            f" analytic {self.analytic:.12g}, numeric {self.numeric:.12g}"
        )
        if self.kinks:
            text += (
                f"\n    {self.kinks} of {self.checked} entries lie on a kink, where only one-sided"
                " derivatives exist"
            )
        return text + (f"\n    hint: {self.hint}" if self.hint else "")


@dataclass
class GradientReport:
    """The result of `gradcheck`: true if everything is right.

    Attributes
    ----------
    name
        What was checked.
    blocks
        One result per floating input and per parameter.
    faults
        What is wrong beyond single blocks: an output that is not finite, arrays written that are
        not the layer's, results that change from run to run.
    notes
        What the check could not do.
    """

    name: str
    blocks: list[BlockReport] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there is at least one block, every block is right and there is no fault."""
        return bool(self.blocks) and not self.faults and all(block.passed for block in self.blocks)

    @property
    def error(self) -> float:
        """The largest error of any block; NaN if one is."""
        return float(np.max([block.error for block in self.blocks])) if self.blocks else 0.0

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        lines = [f"gradient check of {self.name}: {'passed' if self.passed else 'FAILED'}"]
        lines += [f"  fault: {fault}" for fault in self.faults]
        lines += map(str, self.blocks)
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def _repr_html_(self) -> str:
        head = ("block", "verdict", "method", "shape", "entries compared", "error", "order", "hint")
        rows = [
            (
                *(block.name, block.verdict, block.method, str(block.shape), block.coverage),
                *(f"{block.error:.1e}", block.order_text, block.hint),
            )
            for block in self.blocks
        ]
        said = [f"fault: {fault}" for fault in self.faults] + [f"note: {n}" for n in self.notes]
        title = f"gradient check of {self.name}: {'passed' if self.passed else 'FAILED'}"
        below = "".join(f"<p>{escape(line)}</p>" for line in said)
        return f"<p>{escape(title)}</p>{html_table(head, rows, left=3)}{below}"

    def raise_if_wrong(self) -> Self:
        """Return the report if it passed, else raise `WrongGradientError` with its text."""
        if not self.passed:
            raise WrongGradientError(str(self))
        return self


def hint(analytic: Array, numeric: Array, shape: tuple[int, ...], batch: int) -> str:
    """Return which usual mistake fits; analytic and numeric hold all entries of a block, flat, or a
    sample of them.
    """
    if not np.isfinite(analytic).all():
        return (
            "backward gives NaN or infinity: a division by 0, the logarithm of 0, or a buffer that"
            " was never written"
        )
    scale = float(np.abs(numeric).max(initial=0))
    if scale == 0:
        return "the function does not depend on this block, yet backward gives a gradient"
    if not analytic.any():
        return (
            "backward gives 0 everywhere: the gradient is not propagated (None returned, detached,"
            " never added)"
        )
    close = np.abs(analytic - numeric) <= 1e-6 * scale
    large = np.abs(numeric) > 1e-3 * scale
    ratios = analytic[large] / numeric[large]
    if (
        np.ptp(ratios) <= 1e-6 * np.abs(ratios).max()
        and np.abs(analytic[~large]).max(initial=0) < 0.01 * np.abs(analytic).max()
    ):
        return _hint_of_ratio(float(np.median(ratios)), shape, batch)
    if len(analytic) == int(np.prod(shape)):
        rearranged = _hint_of_arrangement(analytic.reshape(shape), numeric.reshape(shape))
        if rearranged:
            return rearranged
    wrong = np.flatnonzero(~close)
    if 0 < len(wrong) <= 0.9 * len(close):
        zeros = ", where backward gives 0" if not analytic[wrong].any() else ""
        return (
            f"{len(wrong)} of {len(close)} entries are wrong{zeros}, the others right: look at"
            " borders, masks and indices"
        )
    return (
        "no constant factor fits: a missing term, a derivative taken at another point, or a wrong"
        " operand"
    )


def _hint_of_ratio(ratio: float, shape: tuple[int, ...], batch: int) -> str:
    said = f"analytic / numeric is {ratio:.9g} everywhere"
    sizes = {
        batch: "the batch size",
        **{size: f"the size of axis {axis}" for axis, size in enumerate(shape) if size != batch},
    }
    for value, meaning in (
        (-1, "wrong sign"),
        (2, "a factor 2 too many"),
        (0.5, "a factor 2 is missing"),
    ):
        if np.isclose(ratio, value, rtol=1e-5):
            return f"{said}: {meaning}"
    for size, meaning in sizes.items():
        if size > 1 and np.isclose(ratio, size, rtol=1e-5):
            return f"{said}, {meaning}: 1/N is forgotten"
        if size > 1 and np.isclose(ratio * size, 1, rtol=1e-5):
            return f"{said}, one over {meaning}: divided by N once too often"
    return f"{said}: a constant factor"


def _hint_of_arrangement(analytic: Array, numeric: Array) -> str:
    def same(a: Array, b: Array) -> bool:
        return a.shape == b.shape and bool(
            np.allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(numeric).max())
        )

    turned = (
        (np.swapaxes(numeric, -1, -2), numeric.T.reshape(numeric.shape))
        if numeric.ndim >= 2
        else ()
    )
    if any(same(analytic, other) for other in turned):
        return "the numbers are right but transposed"
    for axis in range(numeric.ndim):
        if numeric.shape[axis] > 2:
            ours, theirs = np.moveaxis(analytic, axis, 0), np.moveaxis(numeric, axis, 0)
            if same(ours[1:], theirs[:-1]) or same(ours[:-1], theirs[1:]):
                return f"the numbers are right but shifted by one along axis {axis}"
    return ""
