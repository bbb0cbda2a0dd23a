"""Optimizers: fused updates of this rank's slice of the flat parameters. Their state is sharded because slices are."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from layers.errors import message
from layers.kernels import optimizer as kernels
from layers.types import Array

from .schedule import Schedule, as_schedule
from .slice import Chunk, Slice


class Optimizer:
    """Base of optimizers.

    Parameters
    ----------
    learning_rate
        A number or a `Schedule`.
    weight_decay
        λ: λ w is added to the gradient of the regularized parameters (weights, not biases); `AdamW` and `LAMB` decay the
        weights themselves.
    """

    slots: tuple[str, ...] = ()
    """Names of the state arrays, each as large as the slice."""
    whole = False
    """Whether the gradient of the whole slice must be there at once."""

    def __init__(self, learning_rate: float | Schedule, *, weight_decay: float = 0.0) -> None:
        self.schedule = as_schedule(learning_rate)
        self.weight_decay = _at_least_zero(type(self).__name__, "weight_decay", weight_decay)
        self.state: dict[str, Array] = {}
        self.steps = 0
        self._bound: int | None = None

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name not in ("state", "steps", "schedule") and name[0] != "_"}
        arguments = ", ".join([repr(self.schedule), *(f"{name}={value!r}" for name, value in shown.items())])
        return f"{type(self).__name__}({arguments})"

    def bind(self, part: Slice) -> None:
        """Allocate the state of a slice, which this optimizer belongs to from now on."""
        self.state = {name: np.zeros_like(part.values) for name in self.slots}
        self._states = [{name: array[c.start : c.stop] for name, array in self.state.items()} for c in part.chunks]
        self.steps = 0
        # Of no two slices that exist at once this is the same, and one that is gone takes no step.
        self._bound = id(part)

    def require_bound(self, part: Slice) -> None:
        """Refuse a slice that this optimizer does not belong to any more.

        Raises
        ------
        RuntimeError
            Another trainer was made with this optimizer since.
        """
        if self._bound not in (None, id(part)):
            must, fix = "the optimizer must belong to this trainer", "Make an optimizer for each trainer."
            raise RuntimeError(message("Trainer", must, f"{self!r}, with which another trainer was made since", fix))

    def step(self, part: Slice) -> None:
        """Update the slice by its gradient."""
        self.require_bound(part)
        rate = float(self.schedule.rate(self.steps))
        self.steps += 1
        self.update_slice(part, rate)

    def update_slice(self, part: Slice, rate: float) -> None:
        """Update chunk by chunk, each as soon as its gradient is there."""
        for chunk, state in zip(part.chunks, self._states, strict=True):
            part.fetch(chunk)
            if self.weight_decay:
                self.decay(chunk, rate)
            self.update(chunk, state, rate)

    def decay(self, chunk: Chunk, rate: float) -> None:
        """Apply weight decay to the gradient."""
        add_penalty(chunk, 0.0, self.weight_decay)

    def update(self, chunk: Chunk, state: dict[str, Array], rate: float) -> None:
        """Update chunk.values by chunk.gradient and its part of the state."""
        raise NotImplementedError


def add_penalty(chunk: Chunk, l1: float, l2: float) -> None:
    """Add the gradient of l1 |w|_1 + l2 |w|^2 / 2 to the regularized parameters of a chunk."""
    for start, stop in chunk.regularized:
        kernels.add_penalty(chunk.gradient[start:stop], chunk.values[start:stop], l1, l2)


def adjustment(l1: float, l2: float, limit: float | None) -> Callable[[Chunk], None] | None:
    """Return what penalties and a limit of each element do to the gradient of a chunk, if there are any."""
    if not (l1 or l2 or limit is not None):
        return None

    def adjust(chunk: Chunk) -> None:
        if l1 or l2:
            add_penalty(chunk, float(l1), float(l2))
        if limit is not None:
            kernels.clip(chunk.gradient, float(limit))

    return adjust


def limit_norm(part: Slice, norm: float, step: int) -> None:
    """Limit the Euclidean norm of the gradient over all slices; collective.

    Raises
    ------
    FloatingPointError
        It is not finite; nothing has been updated.
    """
    part.collect()
    found = math.sqrt(part.square_norm(part.gradient))
    if not math.isfinite(found):
        norms = part.parameter_norms(part.gradient)
        name = next(name for name, of_parameter in zip(part.names, norms, strict=True) if not math.isfinite(of_parameter))
        fix = "Look for a division by zero, or a logarithm or a root of zero, in the layers from there on and in the loss."
        raise FloatingPointError(message("Trainer", "the gradient must be finite", f"{found} in step {step} for {name}", fix))
    if found > norm:
        kernels.scale(part.gradient, norm / found)


def _at_least_zero(owner: str, name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(message(owner, f"{name} must not be negative", value, "0 switches it off."))
    return float(value)


def _fraction(owner: str, name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(message(owner, f"{name} must be in [0, 1)", value, "0.9 is usual."))
    return float(value)


class SGD(Optimizer):
    """Gradient descent, with momentum and Nesterov's as options, in PyTorch's form: m = μ m + g, w -= η m."""

    def __init__(
        self, learning_rate: float | Schedule, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay)
        self.momentum = _fraction("SGD", "momentum", momentum)
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise ValueError(
                message("SGD", "nesterov needs a momentum above 0", momentum, "SGD(0.1, momentum=0.9, nesterov=True).")
            )
        self.slots = ("momentum",) if momentum else ()

    def update(self, chunk: Chunk, state: dict[str, Array], rate: float) -> None:
        if not self.momentum:
            kernels.gradient_descent(chunk.values, chunk.gradient, rate)
            return
        kernel = kernels.nesterov if self.nesterov else kernels.momentum
        kernel(chunk.values, chunk.gradient, state["momentum"], rate, self.momentum, self.steps == 1)


class RMSProp(Optimizer):
    """v = α v + (1 - α) g², w -= η g / (√v + ε) (Tieleman and Hinton 2012), with momentum as an option."""

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-2,
        *,
        alpha: float = 0.99,
        epsilon: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay)
        self.alpha = _fraction("RMSProp", "alpha", alpha)
        self.epsilon = _at_least_zero("RMSProp", "epsilon", epsilon)
        self.momentum = _fraction("RMSProp", "momentum", momentum)
        self.slots = ("square", "momentum") if momentum else ("square",)

    def update(self, chunk: Chunk, state: dict[str, Array], rate: float) -> None:
        arrays = (chunk.values, chunk.gradient, state["square"])
        scalars = (rate, self.alpha, self.epsilon)
        if self.momentum:
            kernels.rmsprop_momentum(*arrays, state["momentum"], *scalars, self.momentum)
        else:
            kernels.rmsprop(*arrays, *scalars)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1); weight decay is added to the gradient."""

    slots = ("mean", "square")

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay)
        self.betas = (_fraction(type(self).__name__, "betas", betas[0]), _fraction(type(self).__name__, "betas", betas[1]))
        self.epsilon = _at_least_zero(type(self).__name__, "epsilon", epsilon)

    def update(self, chunk: Chunk, state: dict[str, Array], rate: float) -> None:
        beta1, beta2 = self.betas
        correction1, root_correction2 = 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps)
        kernels.adam(
            chunk.values,
            chunk.gradient,
            state["mean"],
            state["square"],
            rate / correction1,
            beta1,
            beta2,
            self.epsilon,
            root_correction2,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, w *= 1 - η λ first (Loshchilov and Hutter 2019, algorithm 2)."""

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(learning_rate, betas=betas, epsilon=epsilon, weight_decay=weight_decay)

    def decay(self, chunk: Chunk, rate: float) -> None:
        for start, stop in chunk.regularized:
            kernels.scale(chunk.values[start:stop], 1 - rate * self.weight_decay)


class _TrustRatio(Optimizer):
    """What LARS and LAMB share: each parameter's step is scaled by norms over the whole parameter, on whatever ranks it lies."""

    whole = True


class LARS(_TrustRatio):
    """Layer-wise adaptive rates with momentum, for very large batches (You, Gitman and Ginsburg 2017, algorithm 1).

    The rate of a weight w is η · coefficient · |w| / (|g| + λ |w|); biases and gains, which are not regularized, keep η, undecayed.
    """

    slots = ("momentum",)

    def __init__(
        self, learning_rate: float | Schedule, *, momentum: float = 0.9, weight_decay: float = 1e-4, coefficient: float = 1e-3
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay)
        self.momentum = _fraction("LARS", "momentum", momentum)
        self.coefficient = _at_least_zero("LARS", "coefficient", coefficient)

    def update_slice(self, part: Slice, rate: float) -> None:
        part.collect()
        weights, gradients = part.parameter_norms(part.values), part.parameter_norms(part.gradient)
        momentum = self.state["momentum"]
        for parameter, start, stop, p, regularized in part.runs:
            local = rate
            g = part.gradient[start:stop]
            if regularized:
                kernels.add_penalty(g, p, 0.0, self.weight_decay)
                bottom = gradients[parameter] + self.weight_decay * weights[parameter]
                if weights[parameter] > 0 and bottom > 0:
                    local = rate * self.coefficient * weights[parameter] / bottom
            # The rate belongs inside the momentum, so that a change of it does not rescale what is past: m = mu m + local g.
            kernels.scale(g, local)
            kernels.momentum(p, g, momentum[start:stop], 1.0, self.momentum, self.steps == 1)


class LAMB(_TrustRatio):
    """Adam's direction with layer-wise trust ratio |w| / |u|, for very large batches (You et al. 2020, algorithm 2)."""

    slots = ("mean", "square", "direction")

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-6,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay)
        self.betas = (_fraction("LAMB", "betas", betas[0]), _fraction("LAMB", "betas", betas[1]))
        self.epsilon = _at_least_zero("LAMB", "epsilon", epsilon)

    def update_slice(self, part: Slice, rate: float) -> None:
        part.collect()
        beta1, beta2 = self.betas
        direction = self.state["direction"]
        scalars: tuple[Any, ...] = (beta1, beta2, self.epsilon, 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps))
        for _, start, stop, p, regularized in part.runs:
            d, g, m, v = (array[start:stop] for array in (direction, part.gradient, self.state["mean"], self.state["square"]))
            decay = self.weight_decay if regularized else 0.0
            kernels.lamb_direction(d, p, g, m, v, *scalars, decay)
        weights, directions = part.parameter_norms(part.values), part.parameter_norms(direction)
        for parameter, start, stop, p, regularized in part.runs:
            trust = 1.0
            if regularized and weights[parameter] > 0 and directions[parameter] > 0:
                trust = weights[parameter] / directions[parameter]
            kernels.gradient_descent(p, direction[start:stop], rate * trust)
