"""Gradients of one call, averaged along the line from its inputs at a baseline to those of the
samples: contributions that add up to the difference of its outputs.

Of a function of one number the average is the slope of the line, which is DeepLIFT's rescale rule;
of a product it is half of what either factor could claim (Aumann and Shapley 1974; Sundararajan et
al. 2017, section 3). Multipliers of parts multiply, whatever the parts (Shrikumar et al. 2017,
section 3.4).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from layers import Call, Value, Workspace
from layers.types import Array

from .explained import PointsTape

Backward = Callable[..., tuple[Array | None, ...]]


def _gauss(count: int) -> tuple[Array, Array]:
    """Return nodes in (0, 1) and weights of the Gauss-Legendre rule."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (1 + nodes) / 2, weights / 2


def _at_the_ends(step: float, count: int) -> tuple[Array, Array]:
    """Return those of the tanh-sinh rule (Takahasi and Mori 1974), dense where the line begins: a
    layer norm changes from a baseline of zeros on within the root of its epsilon.
    """
    at = step * np.arange(-count, count + 1)
    bent = np.pi / 2 * np.sinh(at)
    weights = np.cosh(at) / np.cosh(bent) ** 2
    return (1 + np.tanh(bent)) / 2, weights / weights.sum()


RULES = (_gauss(1), _gauss(16), _at_the_ends(0.1, 30))
"""One after the other is tried for the samples for which those before do not add up. The first is
exact for products.
"""


class Averages:
    """Averages gradients where those at the samples do not add up.

    Parameters
    ----------
    backward
        Returns the gradients of a call's inputs, given those of its outputs.
    """

    def __init__(self, backward: Backward) -> None:
        self._backward = backward
        self._workspace = Workspace()

    def __call__(
        self, call: Call, other: Call, dys: Sequence[Any], gradients: Sequence[Array | None]
    ) -> tuple[Array | None, ...]:
        """Return the gradients of a call's inputs, or of samples for which they do not add up to
        the difference from another call those that do.
        """
        places = [place for place, gradient in enumerate(gradients) if gradient is not None]
        result = list(gradients)
        if not places or not all(isinstance(call.inputs[place], Value) for place in places):
            return tuple(result)
        pairs = [(call.inputs[place].array, other.inputs[place].array) for place in places]
        outputs = zip(call.output.arrays, other.output.arrays, dys, strict=True)
        rises = [dy * _difference(y, y0) for y, y0, dy in outputs if dy is not None]
        runs = [_difference(x, x0) for x, x0 in pairs]
        samples = len(runs[0]) if runs[0].ndim else 1
        apart = all(array.ndim and len(array) == samples for array in (*rises, *runs))
        rows = samples if apart else 1

        def wrong(found: Sequence[Any]) -> tuple[Array, Array]:
            """Return of each sample how far gradients are from adding up, and if that is far."""
            parts = [-rise for rise in rises]
            parts += [gradient * run for gradient, run in zip(found, runs, strict=True)]
            flat = [part.reshape(rows, -1).astype(np.float64) for part in parts]
            error = np.abs(sum(part.sum(axis=1) for part in flat))
            scale = sum(np.abs(part).sum(axis=1) for part in flat)
            return error, error > np.sqrt(np.finfo(runs[0].dtype).eps) * scale

        best = [np.array(gradients[place]) for place in places]
        error, off = wrong(best)
        for rule in RULES:
            if not off.any():
                break
            found = self._averaged(call, dys, places, pairs, rule)
            now, _ = wrong(found)
            better = off & (now < error)
            for kept, new in zip(best, found, strict=True):
                chosen = better.reshape(-1, *(1,) * (kept.ndim - 1)) if apart else better[0]
                np.copyto(kept, new, where=chosen)
            error, off = wrong(best)
        for place, gradient in zip(places, best, strict=True):
            result[place] = gradient
        return tuple(result)

    def _averaged(
        self,
        call: Call,
        dys: Sequence[Any],
        places: Sequence[int],
        pairs: Sequence[tuple[Array, Array]],
        rule: tuple[Array, Array],
    ) -> list[Array]:
        """Return the averages of the gradients by a rule of integration."""
        totals = [np.zeros(x.shape) for x, _ in pairs]
        plain = [each.array if isinstance(each, Value) else each for each in call.inputs]
        for node, weight in zip(*rule, strict=True):
            tape = PointsTape(self._workspace)
            inputs: list[Any] = list(plain)
            for place, (x, x0) in zip(places, pairs, strict=True):
                run = _difference(x, x0)
                point = np.where(np.isfinite(x0), x - (1 - node) * run, x).astype(x.dtype)
                inputs[place] = tape.input(point, copy=False)
            tape.record(call.layer, tuple(inputs))
            again = [None if dy is None else np.array(dy) for dy in dys]
            found = self._backward(tape.calls[0], *again)
            for total, place in zip(totals, places, strict=True):
                gradient = found[place]
                assert gradient is not None
                total += weight * gradient
            tape.release()
        return [total.astype(x.dtype) for total, (x, _) in zip(totals, pairs, strict=True)]


def _difference(x: Array, x0: Array) -> Array:
    """Return x - x0; 0 for what is infinite, such as masks."""
    with np.errstate(invalid="ignore"):
        run: Array = x - x0
    return np.where(np.isfinite(run), run, 0)
