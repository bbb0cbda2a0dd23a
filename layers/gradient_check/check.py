"""The gradient check: what backward computes against what the function itself does when its inputs
are moved.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from layers.checks import non_negative_int, positive_int
from layers.engine.module import Module
from layers.errors import message

from .probe import Probe
from .report import GradientReport
from .rounding import check_rounding
from .runs import Findings, check_outputs, check_runs, check_shards
from .subject import Subject


def gradcheck(
    function: Callable[..., Any],
    *inputs: Any,
    constant: Collection[int] = (),
    training: bool = True,
    seed: int = 0,
    entries: int = 200,
    directions: int = 2,
    shards: bool = True,
) -> GradientReport:
    """Check the gradients of a layer, or of any function of values, with respect to all its inputs
    and parameters.

    >>> layers.gradcheck(MyLayer(), x).raise_if_wrong()

    Parameters
    ----------
    function
        A layer, or a callable that takes values and returns a value or a tuple of them. A layer is
        copied, and its parameters are checked, but for frozen ones; so are those of layers that a
        function refers to (cast to float64 and put back), and so are the states of these.
    *inputs
        Its arguments. Floating arrays are converted to float64 and checked, everything else
        (labels, indices) is a constant. Keep away from corners such as ReLU's at 0, where there is
        no derivative.
    constant
        Numbers of floating inputs that are constants too, such as soft targets.
    training
        Whether layers behave as in training. Masks of Dropout are the same in every evaluation.
    seed
        Of the cotangent, the directions, the sampled entries and the tape's random masks.
    entries
        Blocks of up to so many entries are checked entry by entry, of larger ones so many entries
        are sampled.
    directions
        Number of random directions in which every block is checked as a whole, the entries that
        were not sampled included.
    shards
        Whether to check, too, that the batch (axis 0 of the first floating input) may be cut in
        shards.

    Returns
    -------
    GradientReport
        True if all is right; printed, it says what is wrong and which mistake fits.
        `raise_if_wrong()` turns it into an error.

    Notes
    -----
    **Numeric derivatives.** The output is contracted with a fixed random cotangent, so that every
    element of it counts. Each derivative is taken by central differences at the steps h, h/2 and
    h/4, and extrapolated to h = 0 (Richardson). How much the last extrapolation changed, plus
    rounding at the smallest step, is its uncertainty: the data say it, no tolerance is chosen.
    Where every recorded layer says `analytic` and the function runs on complex numbers, entries are
    taken by the complex step instead, exact to rounding; it must agree with the differences along
    the random directions, or the differences are used.

    **Verdict.** An entry is right if |analytic - numeric| is at most 10 times the uncertainty (plus
    1000 roundings of the largest gradient). Where that fails, or where the uncertainty is large,
    smaller steps are tried: 1e-4, 1e-5, 1e-6 times max(1, |x|). If the one-sided differences still
    disagree, and each is steady, the entry lies on a kink: it is right if the analytic gradient is
    between them. If even the best uncertainty exceeds 1e-4 of the block's largest gradient, the
    verdict is "unclear", and the check fails. So does a NaN anywhere. The order printed is the
    power of h with which the differences approach the analytic gradient from h = 0.01 on: 2 if it
    is right, 0 if it is wrong by more than the differences are.

    **Besides**, backward is run again with the same bits expected (on buffers filled with NaN),
    again on the same tape, expecting the gradients of parameters to double, once more with another
    forward pass in between, and with the batch cut in two shards. If that changes the output, as
    statistics of shards do, output and gradients must be those of each shard alone. Of several
    outputs, side by side as rows, each is propagated alone, too: these gradients must add up.

    **Of layers that round** (`layers.set_precision`) all this is checked in float64, unrounded.
    Then inputs, parameters and cotangent are moved at random by the unit roundoff u (2^-8 in
    bfloat16), element by element, which is what a product does to its operands; at 16 such points
    the gradients of the rounded passes are compared with those in float64. Their mean error must be
    0 within 8 standard errors (3 for the whole of a large block), and the errors no more than 4
    times what the gradients in float64 change from point to point: see
    `layers.gradient_check.rounding`.
    """
    if not callable(function) or isinstance(function, type):
        must, fix = "function must be a layer or a function of values", "Pass the layer itself."
        raise TypeError(message("gradcheck", must, repr(function), fix))
    if not isinstance(constant, list | tuple | set | frozenset | range):
        must = "constant must be a collection of numbers of inputs"
        raise TypeError(message("gradcheck", must, repr(constant), "Write constant=(1,)."))
    seed = non_negative_int("gradcheck", "seed", seed, "Leave it out for 0.")
    entries = positive_int("gradcheck", "entries", entries, "200 is usual.")
    directions = positive_int("gradcheck", "directions", directions, "2 is usual.")
    subject = Subject(function, inputs, constant, training, seed)
    report = GradientReport(_name(function))
    # A step may leave the domain of a logarithm; what is NaN then is left out, and what stays NaN
    # is reported.
    with subject.cast(np.float64), np.errstate(all="ignore"):
        rng = np.random.default_rng(seed)
        y = subject.evaluate()
        if not np.isfinite(y).all():
            report.faults.append(
                f"the output has {np.count_nonzero(~np.isfinite(y))} entries that are NaN or"
                " infinite"
            )
            return report
        # Away from 0 and of both signs: every element counts, and a backward that ignores dy is
        # found out.
        cotangent = rng.uniform(0.5, 1.5, y.shape) * rng.choice((-1.0, 1.0), y.shape)
        gradients, analytic = subject.gradients(cotangent)
        findings = Findings(report)
        check_runs(subject, y, cotangent, gradients, findings)
        if subject.widths:
            check_outputs(subject, cotangent, gradients, findings)
        if shards:
            check_shards(subject, y, cotangent, gradients, findings)
        probe = Probe(
            subject, y, cotangent, rng, entries, directions, subject.samples, report.notes
        )
        if analytic:
            probe.try_complex()
        for name, gradient in gradients.items():
            block = probe.check(name, gradient)
            findings.apply(block)
            report.blocks.append(block)
        if not report.blocks:
            report.faults.append("there is nothing to check: no floating input, and no parameter")
    with np.errstate(all="ignore"):
        check_rounding(subject, cotangent, rng, report)
    return report


def _name(function: Any) -> str:
    return (
        repr(function)
        if isinstance(function, Module)
        else str(getattr(function, "__name__", function))
    )
