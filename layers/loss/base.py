"""What losses share: a loss is the mean over the samples of the global batch, or over what counts
of them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import require_floating
from layers.engine.fixed_tree import number_sum, tree_sum
from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer, Recorded
from layers.engine.memory import empty
from layers.errors import message
from layers.kernels import loss as kernels
from layers.kernels import reduce
from layers.types import Array, Integers

if TYPE_CHECKING:
    from layers.engine.call import Call


_TOTALS = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}
"""The types that losses are summed in, for floating and complex ones."""


# A tuple without names: it is made in every step.
Average = tuple[Array, Array, float, Integers, float | None, float]
"""How the losses of rows are averaged: where the sums over each shard's rows go (S,); the weights
of the rows (R,), empty if all are 1; what the gradient of a row of weight 1 is multiplied by; the
bounds of the shards in the rows (S + 1,); the sum of the weights over the global batch, None for
the mean over its samples; and what the sums are multiplied by, so that they are over samples, 1
over the rows of each.
"""


class Loss(Layer):
    """Base of losses, each called with (prediction, target) or (prediction, target, weights).

    A sample may have several positions (N, …); its loss is their mean, and that of the batch the
    mean over samples. With weights w of the samples (N,), or of positions (N, …), at least 0, it is
    Σ w loss / Σ w over the *global* batch: a mean over what counts, however that is spread over
    samples, shards and ranks, which exchange the sums of their shards' weights for this. It is 0 if
    nothing counts. Targets and weights are constants, unless a loss says otherwise.

    A prediction of several parts, such as a mean and a variance, is passed part by part or as a
    tuple.

    The kernel of a loss writes the gradient of the prediction too, for a gradient 1 of the loss:
    backward reads no targets.
    The recorded `Value` has, besides the loss, `shard_sums` (S,): the sum over each shard's samples
    before division, in float64, of which the loss of the global batch is made, and `divisor`.
    """

    analytic = True
    keeps_constants = False

    def __call__(self, *inputs: Any) -> Any:
        if inputs and isinstance(inputs[0], tuple):
            inputs = (*inputs[0], *inputs[1:])
        return Layer.__call__(self, *inputs)

    def average(
        self,
        call: ForwardCall,
        rows: int,
        samples: int,
        like: Array,
        weights: Array | None = None,
        terms: int = 1,
        counted: Array | None = None,
    ) -> Average:
        """Return how the losses of so many rows, each the mean of so many terms, in the type of
        `like`, are averaged: by weights (R,), unless None; over the sum of what is `counted` (R,),
        if not over theirs.

        A rank without samples takes part in the exchange of weights: whether there are any is asked
        of options, not of rows.
        """
        bounds = call.bounds(rows)
        sums = call.buffer("sums", (len(bounds) - 1,), _TOTALS[like.dtype.kind])
        if counted is None:
            counted = weights
        if weights is None:
            weights = empty(like.real, 1)
        if counted is None:
            per_sample = rows // samples if samples else 1
            scale = 1 / ((call.samples(samples) or 1) * per_sample * terms)
            unit = samples / rows if rows > samples else 1.0
            return sums, weights, scale, bounds, None, unit
        of_shards = np.empty((len(bounds) - 1, 1))
        reduce.column_sums(of_shards, counted[:, np.newaxis], bounds, False)
        total = float(tree_sum(call.gather(of_shards)).item())
        scale = 1 / (total * terms) if total else 0.0
        return sums, weights, scale, bounds, total, 1.0

    def mean(self, call: ForwardCall, average: Average, samples: int, dtype: Any) -> Array:
        """Report the sums over the rows of each shard, and return the loss in a dtype."""
        sums, _, _, _, divisor, unit = average
        if unit != 1:
            call.run(np.multiply, sums, unit, sums)
        call.report(sums, divisor)
        over = (call.samples(samples) if divisor is None else divisor) or 1
        return call.make(_mean, sums, over, dtype)

    def row_weights(
        self, call: ForwardCall, weights: Any, shape: tuple[int, ...], x: Array
    ) -> Array | None:
        """Return the weights of rows (R,), given those of the leading axes of `shape`, the shape of
        the rows; None for None.
        """
        if weights is None:
            return None
        given = np.asarray(weights)
        leading = given.shape == shape[: given.ndim] and given.ndim > 0
        if not leading or given.dtype.kind not in "fiub":
            must = f"weights must be numbers of shape {shape[:1]}" + (
                f" or {shape}" if len(shape) > 1 else ""
            )
            fix = "Give each sample, or each of its positions, a weight; 0 leaves it out."
            raise ValueError(message(self, must, f"{given.shape} {given.dtype}", fix))
        if given.size and not (given.min() >= 0 and given.max() < np.inf):
            must, fix = "weights must be finite and at least 0", "0 leaves a sample out."
            raise ValueError(message(self, must, f"{given.min()} to {given.max()}", fix))
        rows = call.buffer("weights", shape, x.real.dtype)
        rows[...] = given.reshape(given.shape + (1,) * (len(shape) - given.ndim))
        return rows.reshape(-1)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        gradients = call.saved
        count = len(gradients)
        for x in call.inputs[count:]:
            if isinstance(x, Recorded) and x.wants:
                fix = "Pass an array, or call .detach() on it."
                must, got = "the targets must be constants", "a value that is differentiated"
                raise ValueError(message(self, must, got, fix))
        if dy.item() != 1:
            scaled = [
                call.buffer(f"scaled {i}", dx.shape, dx.dtype) for i, dx in enumerate(gradients)
            ]
            for dx, result in zip(gradients, scaled, strict=True):
                call.run(np.multiply, dx, dy, result)
            gradients = tuple(scaled)
        return *gradients, *[None] * (len(call.inputs) - count)

    def require_shape(self, target: Array, prediction: Array) -> None:
        """Refuse a prediction that is not floating, and targets of another shape."""
        require_floating(self, prediction)
        if target.shape == prediction.shape and prediction.ndim:
            return
        fix = "Reshape one of them."
        if target.ndim + 1 == prediction.ndim:
            fix = "Give both a trailing axis: y[:, np.newaxis]."
        must = f"targets must have the shape of the predictions, {prediction.shape}"
        raise ValueError(message(self, must, target.shape, fix))


class RowLoss(Loss):
    """A loss whose kernel writes the losses of rows, and their gradients."""

    def of_rows(
        self,
        call: ForwardCall,
        losses: Array,
        gradients: tuple[Array, ...],
        samples: int,
        weights: Array | None,
    ) -> Array:
        """Return the loss, given those of rows (R, K) and gradients of each row's mean times K, all
        (R, …), which are brought to scale and saved.
        """
        rows, terms = losses.shape
        average = self.average(call, rows, samples, losses, weights, terms)
        sums, counted, scale, bounds = average[:4]
        first = _rows(gradients[0], rows)
        call.run(kernels.average_rows, sums, first, losses, counted, scale, bounds)
        for dx in gradients[1:]:
            call.run(kernels.scale_rows, _rows(dx, rows), counted, scale)
        call.save(*gradients)
        return self.mean(call, average, samples, losses.dtype)


def is_nan(loss: Array) -> bool:
    """Return whether a loss is NaN."""
    number = loss.item()
    return bool(number != number)


def _mean(sums: Array, over: float, dtype: Any) -> Array:
    """Return the sum of the sums of shards (S,) over a number."""
    return np.array(number_sum(sums) / over, dtype)


def _rows(x: Array, rows: int) -> Array:
    """Return an array as so many rows (R, D)."""
    if x.ndim == 2 and len(x) == rows:
        return x
    return x.reshape(rows, x.size // rows if rows else 0)
