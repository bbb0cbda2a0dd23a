"""Activations. Inputs of any shape; the output has the same."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import number, one_of, positive, positive_int, require_floating, require_input
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import flat, matrix
from .engine.parameter import Parameter
from .errors import message
from .initial import filled
from .kernels import elementwise, piecewise, softmax
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


class Activation(Layer):
    """An elementwise function, y = f(x). Backward: dx = dy f'(x), which the kernel computes from x
    or from y.
    """

    elementwise = True
    forward_kernel: Any
    backward_kernel: Any
    saves_output = False
    takes_words = False
    replayable = True

    def scalars(self, x: Array) -> tuple[Any, ...]:
        """Return the scalar arguments of both kernels, in the type of x."""
        return ()

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_floating(self, x)
        y = call.output_buffer("y", x.shape, x.dtype)
        x = flat(x)
        call.run(self.forward_kernel, y.reshape(-1), x, *self.scalars(x))
        kept, source = (y.reshape(-1), None) if self.saves_output else (x, 0)
        call.save(self.precision.keep(call, kept, source))
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (kept,) = call.saved
        if not self.takes_words:
            kept = call.kept("kept", kept)
        dx = call.pooled("dx", dy.shape, dy.dtype)
        call.run(self.backward_kernel, dx.reshape(-1), flat(dy), kept, *self.scalars(dy))
        return (dx,)


class ReLU(Activation):
    """Rectifier, y = max(x, 0). The derivative at exactly 0 is 0."""

    forward_kernel = staticmethod(elementwise.relu)
    backward_kernel = staticmethod(elementwise.relu_backward)
    saves_output = True
    takes_words = True


class LeakyReLU(Activation):
    """Leaky rectifier, y = x where x > 0, else slope x; the derivative at exactly 0 is the
    slope.
    """

    forward_kernel = staticmethod(elementwise.leaky_relu)
    backward_kernel = staticmethod(elementwise.leaky_relu_backward)

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = number("LeakyReLU", "slope", slope, "0.01 is usual.")

    def __repr__(self) -> str:
        return f"LeakyReLU({self.slope})"

    def scalars(self, x: Array) -> tuple[Any, ...]:
        return (x.dtype.type(self.slope),)


class Sigmoid(Activation):
    """Logistic function, y = 1 / (1 + e⁻ˣ)."""

    analytic = True
    forward_kernel = staticmethod(elementwise.sigmoid_forward)
    backward_kernel = staticmethod(elementwise.sigmoid_backward)
    saves_output = True


class Tanh(Activation):
    """Hyperbolic tangent."""

    analytic = True
    forward_kernel = staticmethod(elementwise.tanh_forward)
    backward_kernel = staticmethod(elementwise.tanh_backward)
    saves_output = True


class SiLU(Activation):
    """Sigmoid-weighted linear unit, y = x sigmoid(x) (Elfwing et al. 2018; also called swish)."""

    analytic = True
    forward_kernel = staticmethod(elementwise.silu)
    backward_kernel = staticmethod(elementwise.silu_backward)


class GELU(Activation):
    """Gaussian error linear unit, y = x Φ(x), or its tanh form (Hendrycks and Gimpel 2016).

    Parameters
    ----------
    approximate
        "none" for the normal distribution function itself, "tanh" for the form that GPT-2 uses.
    """

    def __init__(self, approximate: str = "none") -> None:
        fix = "Leave it out for the exact function."
        self.approximate = one_of("GELU", "approximate", approximate, ("none", "tanh"), fix)
        self.analytic = approximate == "tanh"
        self.forward_kernel = elementwise.gelu_tanh if self.analytic else elementwise.gelu
        self.backward_kernel = (
            elementwise.gelu_tanh_backward if self.analytic else elementwise.gelu_backward
        )

    def __repr__(self) -> str:
        return f"GELU({self.approximate!r})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        if self.analytic or not call.training:
            return super().forward(call, x)
        # The derivative is made of what the function is made of: with it, backward is one product.
        require_floating(self, x)
        y = call.output_buffer("y", x.shape, x.dtype)
        slope = call.output_buffer("slope", (x.size,), x.dtype)
        call.run(elementwise.gelu_with_slope, y.reshape(-1), slope, flat(x))
        call.save(self.precision.keep(call, slope, "slope"))
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        if self.analytic or not call.training:
            return super().backward(call, dy)
        (slope,) = call.saved
        dx = call.pooled("dx", dy.shape, dy.dtype)
        call.run(elementwise.times_slope, dx.reshape(-1), flat(dy), slope)
        return (dx,)


class ELU(Activation):
    """Exponential linear unit, y = x where x > 0, else alpha (eˣ - 1) (Clevert et al. 2015, arXiv
    1511.07289).

    Parameters
    ----------
    alpha
        Where it ends far below 0, with the opposite sign.
    """

    forward_kernel = staticmethod(piecewise.elu)
    backward_kernel = staticmethod(piecewise.elu_backward)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = positive(type(self).__name__, "alpha", alpha, "1 is usual.", finite=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.alpha:g})"

    def scalars(self, x: Array) -> tuple[Any, ...]:
        kind = x.dtype.type
        return kind(1), kind(self.alpha), kind(1)


class CELU(ELU):
    """Continuously differentiable exponential linear unit, y = x where x > 0, else alpha (e^(x /
    alpha) - 1) (Barron 2017, arXiv 1704.07483).

    Parameters
    ----------
    alpha
        Where it ends far below 0, with the opposite sign.
    """

    def scalars(self, x: Array) -> tuple[Any, ...]:
        kind = x.dtype.type
        return kind(1), kind(self.alpha), kind(1 / self.alpha)


class SELU(Activation):
    """Scaled exponential linear unit, y = λ x where x > 0, else λ α (eˣ - 1) (Klambauer et al.
    2017, arXiv 1706.02515).
    """

    forward_kernel = staticmethod(piecewise.elu)
    backward_kernel = staticmethod(piecewise.elu_backward)
    # arXiv 1706.02515, eq. 14: they keep mean 0 and variance 1.
    _alpha = 1.6732632423543772848170429916717
    _scale = 1.0507009873554804934193349852946

    def scalars(self, x: Array) -> tuple[Any, ...]:
        kind = x.dtype.type
        return kind(self._scale), kind(self._scale * self._alpha), kind(1)


class Softplus(Activation):
    """Smooth rectifier, y = log(1 + e^(beta x)) / beta.

    Parameters
    ----------
    beta
        The larger, the nearer to a ReLU.
    """

    forward_kernel = staticmethod(piecewise.softplus)
    backward_kernel = staticmethod(piecewise.softplus_backward)

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = positive("Softplus", "beta", beta, "1 is usual.", finite=True)

    def __repr__(self) -> str:
        return f"Softplus({self.beta:g})"

    def scalars(self, x: Array) -> tuple[Any, ...]:
        return (x.dtype.type(self.beta),)


class Mish(Activation):
    """y = x tanh(log(1 + eˣ)) (Misra 2019, arXiv 1908.08681)."""

    forward_kernel = staticmethod(piecewise.mish)
    backward_kernel = staticmethod(piecewise.mish_backward)


class Hardtanh(Activation):
    """y = x between two bounds, else the nearer of them; the derivative at both is 0.

    Parameters
    ----------
    low, high
        The bounds.
    """

    forward_kernel = staticmethod(piecewise.clip)
    backward_kernel = staticmethod(piecewise.clip_backward)

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        fix = "Hardtanh(-1, 1) is usual."
        low, high = (
            number("Hardtanh", name, bound, fix) for name, bound in (("low", low), ("high", high))
        )
        if not low < high:
            raise ValueError(message("Hardtanh", "low must be below high", (low, high), fix))
        self.low = low
        self.high = high

    def __repr__(self) -> str:
        return f"Hardtanh({self.low:g}, {self.high:g})"

    def scalars(self, x: Array) -> tuple[Any, ...]:
        return x.dtype.type(self.low), x.dtype.type(self.high)


class ReLU6(Hardtanh):
    """Rectifier of at most 6, y = min(max(x, 0), 6)."""

    def __init__(self) -> None:
        super().__init__(0.0, 6.0)

    def __repr__(self) -> str:
        return "ReLU6()"


class Hardsigmoid(Activation):
    """y = x / 6 + 1/2 between 0 and 1, else the nearer of them (Howard et al. 2019, arXiv
    1905.02244, section 5.2).
    """

    forward_kernel = staticmethod(piecewise.hard_sigmoid)
    backward_kernel = staticmethod(piecewise.hard_sigmoid_backward)

    def scalars(self, x: Array) -> tuple[Any, ...]:
        return x.dtype.type(1 / 2), x.dtype.type(1 / 6)


class Hardswish(Hardsigmoid):
    """y = x Hardsigmoid(x) (Howard et al. 2019, arXiv 1905.02244, section 5.2)."""

    forward_kernel = staticmethod(piecewise.hard_swish)
    backward_kernel = staticmethod(piecewise.hard_swish_backward)


class PReLU(Layer):
    """Rectifier with a learned slope, y = x where x > 0, else a x (He et al. 2015, arXiv
    1502.01852). Backward: dx = dy where x > 0, else a dy; da = Σ dy x where x ≤ 0.

    Parameters
    ----------
    features
        1 for one slope, or the size C of the last axis for one per channel: `weight` is (1,) or
        (C,).
    slope
        The initial slope.
    """

    replayable = True

    def __init__(self, features: int = 1, slope: float = 0.25, *, dtype: Any = np.float32) -> None:
        self.features = positive_int("PReLU", "features", features)
        self.weight = Parameter(
            filled(
                "PReLU", number("PReLU", "slope", slope, "0.25 is usual."), (self.features,), dtype
            ),
            regularized=False,
        )

    def __repr__(self) -> str:
        return f"PReLU({self.features})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        last = "C" if self.features == 1 else self.features
        require_input(self, x, ("N", "…", last), self.weight.dtype)
        y, x = call.output_buffer("y", x.shape, x.dtype), flat(x)
        call.run(piecewise.prelu, y.reshape(-1), x, self.weight.value)
        call.save(self.precision.keep(call, x, 0))
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x = call.kept("x", call.saved[0])
        dx = call.pooled("dx", dy.shape, dy.dtype)
        dw, add = call.gradient_buffer(self.weight)
        slopes, bounds = call.feedback(self.weight), call.bounds(x.size // self.features)
        call.run(piecewise.prelu_backward, dx.reshape(-1), dw, flat(dy), x, slopes, bounds, add)
        return (dx,)


class Identity(Layer):
    """y = x. Backward: dx = dy."""

    elementwise = True
    analytic = True
    replayable = True

    def forward(self, call: ForwardCall, x: Array) -> Array:
        return x

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (dy,)


class _AlongAxis(Layer):
    """A function of the numbers along an axis, whose kernels take rows."""

    replayable = True
    forward_kernel: Any
    backward_kernel: Any

    def __init__(self, axis: int = -1) -> None:
        if not isinstance(axis, int | np.integer) or isinstance(axis, bool):
            fix = "-1 is the last one."
            raise ValueError(message(type(self).__name__, "axis must be an integer", axis, fix))
        self.axis = int(axis)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.axis == -1 else f'axis={self.axis}'})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_floating(self, x)
        axis = self.axis + x.ndim if self.axis < 0 else self.axis
        if not 0 <= axis < x.ndim or x.shape[axis] < 1:
            which = "the last axis" if self.axis == -1 else f"axis {self.axis}"
            fix = "Pass logits (N, C)."
            raise ValueError(message(self, f"{which} must hold one class or more", x.shape, fix))
        if axis == 0 and x.ndim > 1:
            must, fix = "the axis must not be that of the samples, 0", "Leave it out: classes last."
            raise ValueError(message(self, must, f"shape {x.shape}", fix))
        y = call.output_buffer("y", x.shape, x.dtype)
        rows = self._rows(call, "rows", x, y)
        call.run(self.forward_kernel, rows, matrix(self._moved(x)))
        self._put(y, rows)
        call.save(rows)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (y,) = call.saved
        dx = call.pooled("dx", dy.shape, dy.dtype)
        rows = self._rows(call, "gradient rows", dy, dx)
        call.run(self.backward_kernel, rows, matrix(self._moved(dy)), y)
        self._put(dx, rows)
        return (dx,)

    def _moved(self, x: Array) -> Array:
        """Return x with the axis as its last one, where it may be already."""
        return x if self.axis in (-1, x.ndim - 1) else np.moveaxis(x, self.axis, -1)

    def _rows(self, call: ForwardCall, name: str, x: Array, result: Array) -> Array:
        """Return where the rows of the result go: to itself, if the axis is the last one."""
        size = x.shape[self.axis]
        if self.axis in (-1, x.ndim - 1):
            return result.reshape(-1, size)
        return call.buffer(name, (x.size // size, size), x.dtype)

    def _put(self, result: Array, rows: Array) -> None:
        """Write rows that have been computed elsewhere to the result."""
        moved = self._moved(result)
        if moved is not result:
            moved[...] = rows.reshape(moved.shape)


class Softmax(_AlongAxis):
    """Softmax of the last axis, or another, y_j = eˣʲ / Σ_k eˣᵏ. For training, give logits to
    SoftmaxCrossEntropy instead.

    Backward: dx_j = y_j (dy_j - Σ_k dy_k y_k).

    Parameters
    ----------
    axis
        The axis of the classes; not that of the samples.
    """

    analytic = True
    forward_kernel = staticmethod(softmax.softmax)
    backward_kernel = staticmethod(softmax.softmax_backward)


class LogSoftmax(_AlongAxis):
    """Logarithm of the softmax of the last axis, or another, y_j = x_j - log Σ_k eˣᵏ.

    Backward: dx_j = dy_j - e^y_j Σ_k dy_k.

    Parameters
    ----------
    axis
        The axis of the classes; not that of the samples.
    """

    forward_kernel = staticmethod(softmax.log_softmax)
    backward_kernel = staticmethod(softmax.log_softmax_backward)
