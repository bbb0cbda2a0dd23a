"""Activations. Inputs of any shape; the output has the same."""

from typing import TYPE_CHECKING, Any

from .checks import require_floating
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import flat, matrix
from .errors import message
from .kernels import elementwise, softmax
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


class Activation(Layer):
    """An elementwise function, y = f(x). Backward: dx = dy f'(x), which the kernel computes from x
    or from y.
    """

    forward_kernel: Any
    backward_kernel: Any
    saves_output = False

    def scalars(self, x: Array) -> tuple[Any, ...]:
        """Return the scalar arguments of both kernels, in the type of x."""
        return ()

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_floating(self, x)
        y = call.buffer("y", x.shape, x.dtype)
        x = flat(x)
        self.forward_kernel(y.reshape(-1), x, *self.scalars(x))
        call.save(y.reshape(-1) if self.saves_output else x)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (kept,) = call.saved
        dx = call.pooled("dx", dy.shape, dy.dtype)
        self.backward_kernel(dx.reshape(-1), flat(dy), kept, *self.scalars(kept))
        return (dx,)


class ReLU(Activation):
    """Rectifier, y = max(x, 0). The derivative at exactly 0 is 0."""

    forward_kernel = staticmethod(elementwise.relu)
    backward_kernel = staticmethod(elementwise.relu_backward)
    saves_output = True


class LeakyReLU(Activation):
    """Leaky rectifier, y = x where x > 0, else slope x; the derivative at exactly 0 is the
    slope.
    """

    forward_kernel = staticmethod(elementwise.leaky_relu)
    backward_kernel = staticmethod(elementwise.leaky_relu_backward)

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = float(slope)

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
        if approximate not in ("none", "tanh"):
            fix = "Leave it out for the exact function."
            raise ValueError(
                message("GELU", 'approximate must be "none" or "tanh"', repr(approximate), fix)
            )
        self.approximate = approximate
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
        y, slope = call.buffer("y", x.shape, x.dtype), call.buffer("slope", (x.size,), x.dtype)
        elementwise.gelu_with_slope(y.reshape(-1), slope, flat(x))
        call.save(slope)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        if self.analytic or not call.training:
            return super().backward(call, dy)
        (slope,) = call.saved
        dx = call.pooled("dx", dy.shape, dy.dtype)
        elementwise.times_slope(dx.reshape(-1), flat(dy), slope)
        return (dx,)


class Softmax(Layer):
    """Softmax of the last axis, y_j = eˣʲ / Σ_k eˣᵏ. For training, give logits to
    SoftmaxCrossEntropy instead.

    Backward: dx_j = y_j (dy_j - Σ_k dy_k y_k).
    """

    analytic = True

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_floating(self, x)
        if x.ndim < 1 or x.shape[-1] < 1:
            raise ValueError(
                message(
                    self,
                    "the last axis must hold one class or more",
                    x.shape,
                    "Pass logits (N, C).",
                )
            )
        y = call.buffer("y", x.shape, x.dtype)
        y_rows = y.reshape(-1, x.shape[-1])
        softmax.softmax(y_rows, matrix(x))
        call.save(y_rows)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (y,) = call.saved
        dx = call.pooled("dx", dy.shape, dy.dtype)
        softmax.softmax_backward(dx.reshape(y.shape), matrix(dy), y)
        return (dx,)
