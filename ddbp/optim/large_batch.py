"""Optimizers for very large batches: each parameter's step is scaled by norms."""

import math
from typing import Any

from ddbp.reduction.partition import Partition
from layers.checks import fraction, non_negative
from layers.kernels import optimizer as kernels
from layers.kernels import updates

from .blockwise import update_unguarded
from .eight_bits import no_state_bits
from .groups import Groups
from .optimizer import Optimizer
from .powers import USUAL, decay_rates
from .schedule import Schedule


class _TrustRatio(Optimizer):
    """What LARS and LAMB share: each parameter's step is scaled by norms over the whole parameter,
    on whatever ranks it lies.
    """

    whole = True


class LARS(_TrustRatio):
    """Layer-wise adaptive rates with momentum, for very large batches (You, Gitman and Ginsburg
    2017, algorithm 1).

    The rate of a weight w is η · coefficient · |w| / (|g| + λ |w|); biases and gains, which are not
    regularized, keep η, undecayed.

    Parameters
    ----------
    learning_rate
        η: a number, or a `Schedule` of the step.
    momentum
        In [0, 1).
    weight_decay
        λ, at least 0.
    coefficient
        The trust coefficient, at least 0.
    groups
        Options of their own for some parameters: see `Optimizer`.
    """

    slots = ("momentum",)

    @no_state_bits("it needs another array of that size beside its moments")
    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        coefficient: float = 1e-3,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, groups=groups)
        self.momentum = fraction("LARS", "momentum", momentum, USUAL)
        self.coefficient = non_negative("LARS", "coefficient", coefficient)

    def update_slice(self, part: Partition, rate: float) -> None:
        weights, gradients = part.parameter_norms(part.values), part.parameter_norms(part.gradient)
        momentum = self.moments["momentum"]
        for parameter, start, stop, p, regularized, *_ in self.spans(part):
            local = rate
            g = part.gradient[start:stop]
            if regularized:
                kernels.add_penalty(g, p, 0.0, self.weight_decay)
                bottom = gradients[parameter] + self.weight_decay * weights[parameter]
                if weights[parameter] > 0 and bottom > 0:
                    local = rate * self.coefficient * weights[parameter] / bottom
            # The rate belongs inside the momentum, so that a change of it does not rescale what is
            # past: m = mu m + local g.
            kernels.scale(g, local)
            update_unguarded(
                updates.momentum,
                (p, momentum[start:stop]),
                g,
                (1.0, self.momentum, self.steps == 1),
            )


class LAMB(_TrustRatio):
    """Adam's direction u, with λ w added, at a rate of η |w| / |u| for each parameter, for very
    large batches (You et al. 2020, algorithm 2).

    Parameters
    ----------
    learning_rate, betas, epsilon
        As those of `Adam`.
    weight_decay
        λ, for weights, not for biases.
    groups
        Options of their own for some parameters: see `Optimizer`.
    """

    slots = ("mean", "square")

    @no_state_bits("it needs another array of that size beside its moments")
    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-6,
        weight_decay: float = 1e-2,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, groups=groups)
        self.betas = decay_rates("LAMB", betas)
        self.epsilon = non_negative("LAMB", "epsilon", epsilon)

    def allocate(self, part: Partition) -> None:
        super().allocate(part)
        self._direction = part.zeros()

    def update_slice(self, part: Partition, rate: float) -> None:
        beta1, beta2 = self.betas
        direction, mean, square = self._direction, self.moments["mean"], self.moments["square"]
        scalars: tuple[Any, ...] = (
            beta1,
            beta2,
            self.epsilon,
            1 - self.left(beta1),
            math.sqrt(1 - self.left(beta2)),
        )
        for _, start, stop, p, regularized, *_ in self.spans(part):
            d, g, m, v = (array[start:stop] for array in (direction, part.gradient, mean, square))
            decay = self.weight_decay if regularized else 0.0
            kernels.lamb_direction(d, p, g, m, v, *scalars, decay)
        weights, directions = part.parameter_norms(part.values), part.parameter_norms(direction)
        for parameter, start, stop, p, regularized, *_ in self.spans(part):
            trust = 1.0
            if regularized and weights[parameter] > 0 and directions[parameter] > 0:
                trust = weights[parameter] / directions[parameter]
            update_unguarded(updates.gradient_descent, (p,), direction[start:stop], (rate * trust,))
