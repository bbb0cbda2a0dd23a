"""Losses that compare predictions with targets of the same shape, element by element."""

from typing import Any

import numpy as np

from layers.checks import boolean, numbers, positive
from layers.engine.forward_call import ForwardCall
from layers.engine.memory import flat
from layers.errors import message
from layers.kernels import regression
from layers.types import Array

from .base import RowLoss, is_nan


class ElementwiseLoss(RowLoss):
    """A loss of elements; a sample's loss is their mean, and so is that of what a weight is for.

    Weights are of shape (N,), or of as many further axes of the predictions as wanted.
    """

    replayable = True

    def forward(
        self, call: ForwardCall, prediction: Array, target: Any, weights: Any = None
    ) -> Array:
        target = np.asarray(target)
        self.require_shape(target, prediction)
        x = flat(prediction)
        t = flat(target.astype(x.dtype, copy=False))
        losses = call.buffer("losses", x.shape, x.dtype)
        dx = call.buffer("dx", x.shape, x.dtype)
        call.run(self.compute, losses, dx, x, t)
        gradients = (dx, *(self.target_gradients(call, dx, x) if call.wants(1) else ()))
        loss = self.of_elements(call, losses, gradients, prediction.shape, weights)
        if is_nan(loss):
            self.require_targets(t)
        return loss

    def of_elements(
        self,
        call: ForwardCall,
        losses: Array,
        gradients: tuple[Array, ...],
        shape: tuple[int, ...],
        weights: Any,
    ) -> Array:
        """Return the loss, given those of elements and their derivatives, all flat."""
        samples = rows = shape[0]
        counted = None
        if weights is not None:
            axes = shape[: max(1, np.ndim(weights))]
            counted = self.row_weights(call, weights, axes, losses)
            rows = int(np.prod(axes))
        terms = losses.size // rows if rows else 1
        shaped = tuple([dx.reshape(shape) for dx in gradients])
        return self.of_rows(call, losses.reshape(rows, terms), shaped, samples, counted)

    def compute(self, losses: Array, dx: Array, x: Array, t: Array) -> None:
        """Write the losses of elements and their derivatives by the predictions x, all flat."""
        raise NotImplementedError

    def target_gradients(self, call: ForwardCall, dx: Array, x: Array) -> tuple[Array, ...]:
        """Return the derivatives by the targets, flat; nothing, if these must be constants."""
        return ()

    def require_targets(self, targets: Array) -> None:
        """Refuse the targets that have made the loss NaN, if they have."""

    def _refuse_targets(self, must: str, targets: Array, wrong: Array, fix: str) -> None:
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise ValueError(message(self, must, f"{targets[first].real}", fix))


class _OfDifferences(ElementwiseLoss):
    """A loss of x - t, whose targets may be differentiated: dt = -dx."""

    def target_gradients(self, call: ForwardCall, dx: Array, x: Array) -> tuple[Array, ...]:
        dt = call.buffer("dt", dx.shape, dx.dtype)
        call.run(np.negative, dx, dt)
        return (dt,)


class MeanSquaredError(_OfDifferences):
    """Mean over elements of (x - t)². Backward: dx = 2 (x - t) / elements, dt = -dx."""

    def compute(self, losses: Array, dx: Array, x: Array, t: Array) -> None:
        regression.squared_error(losses, dx, x, t)


class MeanAbsoluteError(_OfDifferences):
    """Mean over elements of |x - t|. Backward: dx = sign(x - t) / elements, 0 where they are equal,
    dt = -dx.
    """

    analytic = False

    def compute(self, losses: Array, dx: Array, x: Array, t: Array) -> None:
        regression.absolute_error(losses, dx, x, t)


class Huber(_OfDifferences):
    """Mean over elements of (x - t)² / 2 where |x - t| <= δ, else δ (|x - t| - δ / 2). Backward: dx
    = x - t, at most δ in size, over the elements, dt = -dx.

    Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35(1),
    1964.

    Parameters
    ----------
    delta
        δ, where the quadratic part ends.
    """

    analytic = False

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = positive(type(self).__name__, "delta", delta, "1.0 is usual.", finite=True)

    def __repr__(self) -> str:
        return f"Huber(delta={self.delta})"

    def compute(self, losses: Array, dx: Array, x: Array, t: Array) -> None:
        regression.huber(losses, dx, x, t, self.delta, 1.0)


class SmoothL1(_OfDifferences):
    """Mean over elements of (x - t)² / (2 β) where |x - t| <= β, else |x - t| - β / 2: `Huber` over
    its δ = β.

    Girshick, "Fast R-CNN", ICCV 2015.

    Parameters
    ----------
    beta
        β, where the quadratic part ends.
    """

    analytic = False

    def __init__(self, beta: float = 1.0) -> None:
        fix = "1.0 is usual; MeanAbsoluteError() is that of 0."
        self.beta = positive("SmoothL1", "beta", beta, fix, finite=True)

    def __repr__(self) -> str:
        return f"SmoothL1(beta={self.beta})"

    def compute(self, losses: Array, dx: Array, x: Array, t: Array) -> None:
        regression.huber(losses, dx, x, t, self.beta, 1 / self.beta)


class BinaryCrossEntropy(ElementwiseLoss):
    """Mean over elements of -p t log s(x) - (1 - t) log(1 - s(x)), s the logistic function, from
    logits x and targets t in [0, 1]; p is 1 unless given.

    Computed with log(1 + e^-|x|), which does not overflow. Backward: dx = ((1 - t) s(x) - p t
    s(-x)) / elements, which is (s(x) - t) / elements for p = 1, and then dt = -x / elements.

    Parameters
    ----------
    pos_weight
        p, how much positives count, such as negatives over positives: a number, or one for each
        feature, (D,) for predictions (N, …, D).
    """

    def __init__(self, pos_weight: Any = None) -> None:
        self.pos_weight = None
        if pos_weight is not None:
            given = numbers("BinaryCrossEntropy", "pos_weight", pos_weight)
            if given.ndim > 1 or not given.size or not (given.min() >= 0 and given.max() < np.inf):
                must = "pos_weight must be a number or one for each feature, finite and at least 0"
                fix = "The number of negatives over that of positives is usual."
                raise ValueError(message("BinaryCrossEntropy", must, repr(pos_weight), fix))
            self.pos_weight = given

    def __repr__(self) -> str:
        if self.pos_weight is None:
            return "BinaryCrossEntropy()"
        return f"BinaryCrossEntropy(pos_weight={self.pos_weight.tolist()})"

    def forward(
        self, call: ForwardCall, prediction: Array, target: Any, weights: Any = None
    ) -> Array:
        p = self.pos_weight
        if p is not None and p.ndim and prediction.shape[-1:] != p.shape:
            must = f"predictions must have {p.size} features, as pos_weight has"
            fix = "Give pos_weight a number for each feature."
            raise ValueError(message(self, must, prediction.shape, fix))
        return super().forward(call, prediction, target, weights)

    def compute(self, losses: Array, dx: Array, x: Array, t: Array) -> None:
        if self.pos_weight is None:
            regression.binary_cross_entropy(losses, dx, x, t)
        else:
            positive_weights = self.pos_weight.reshape(-1).astype(x.real.dtype)
            regression.weighted_binary_cross_entropy(losses, dx, x, t, positive_weights)

    def target_gradients(self, call: ForwardCall, dx: Array, x: Array) -> tuple[Array, ...]:
        if self.pos_weight is not None:
            return ()
        dt = call.buffer("dt", dx.shape, dx.dtype)
        call.run(np.negative, x, dt)
        return (dt,)

    def require_targets(self, targets: Array) -> None:
        wrong = ~((targets.real >= 0) & (targets.real <= 1))
        fix = "Encode the two classes as 0 and 1."
        self._refuse_targets("targets must be in [0, 1]", targets, wrong, fix)


class Hinge(ElementwiseLoss):
    """Mean over elements of max(0, 1 - t x), or its square, t in {-1, 1}. Backward: dx = -t where t
    x < 1, else 0, over the elements; -2 t max(0, 1 - t x) of the square.

    Cortes and Vapnik, "Support-vector networks", Machine Learning 20, 1995.

    Parameters
    ----------
    squared
        Whether the margin's violation counts squared.
    """

    analytic = False

    def __init__(self, squared: bool = False) -> None:
        self.squared = boolean(type(self).__name__, "squared", squared)

    def __repr__(self) -> str:
        return f"Hinge({'squared=True' if self.squared else ''})"

    def compute(self, losses: Array, dx: Array, x: Array, t: Array) -> None:
        regression.hinge(losses, dx, x, t, self.squared)

    def require_targets(self, targets: Array) -> None:
        fix = "2 * y - 1 turns 0 and 1 into them."
        self._refuse_targets("targets must be -1 or 1", targets, np.abs(targets) != 1, fix)


class PoissonNLL(ElementwiseLoss):
    """Mean over elements of λ - t log λ, the negative logarithm of the Poisson distribution of
    counts t but for a constant, from x = log λ. Backward: dx = (λ - t) / elements.

    Parameters
    ----------
    log_input
        Whether x is log λ; else it is λ > 0 itself, and dx = (1 - t / λ) / elements.
    """

    def __init__(self, log_input: bool = True) -> None:
        self.log_input = boolean(type(self).__name__, "log_input", log_input)

    def __repr__(self) -> str:
        return f"PoissonNLL({'' if self.log_input else 'log_input=False'})"

    def compute(self, losses: Array, dx: Array, x: Array, t: Array) -> None:
        regression.poisson(losses, dx, x, t, self.log_input)

    def require_targets(self, targets: Array) -> None:
        fix = "They are counts; use MeanSquaredError() for other numbers."
        self._refuse_targets("targets must not be negative", targets, ~(targets.real >= 0), fix)


class GaussianNLL(ElementwiseLoss):
    """Mean over elements of (log v + (x - t)² / v) / 2, the negative logarithm of the normal
    distribution of mean x and variance v but for a constant. Backward: dx = (x - t) / v, dv = (1 -
    (x - t)² / v) / (2 v), over the elements.

    Called with (mean, variance, target), or with ((mean, variance), target). Nix and Weigend,
    "Estimating the mean and variance of the target probability distribution", ICNN 1994.

    Parameters
    ----------
    least
        The least variance; where it is less, this is taken, and dv is 0.
    """

    def __init__(self, least: float = 1e-6) -> None:
        self.least = positive("GaussianNLL", "least", least, "1e-6 is usual.", finite=True)

    def __repr__(self) -> str:
        return f"GaussianNLL(least={self.least})"

    def forward(  # type: ignore[override]
        self, call: ForwardCall, mean: Array, variance: Array, target: Any, weights: Any = None
    ) -> Array:
        target = np.asarray(target)
        self.require_shape(target, mean)
        if variance.shape != mean.shape or variance.dtype != mean.dtype:
            must = f"the variances must be {mean.shape} {mean.dtype}, as the means are"
            fix = "Let the model return one for each mean."
            raise ValueError(message(self, must, f"{variance.shape} {variance.dtype}", fix))
        x, v = flat(mean), flat(variance)
        t = flat(target.astype(x.dtype, copy=False))
        losses, dx, dv = (call.buffer(name, x.shape, x.dtype) for name in ("losses", "dx", "dv"))
        call.run(regression.gaussian, losses, dx, dv, x, v, t, self.least)
        loss = self.of_elements(call, losses, (dx, dv), mean.shape, weights)
        if is_nan(loss) and (v.real < 0).any():
            must, fix = "variances must not be negative", "Take exp or Softplus of the output."
            raise ValueError(message(self, must, v.real.min(), fix))
        return loss
