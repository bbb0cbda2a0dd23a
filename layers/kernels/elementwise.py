"""Activations, element by element. Arrays are flat (n,)."""

from .jit import kernel
from .llvm.halves import wide
from .llvm.simd_math import gelu_and_slope_rows, gelu_row, gelu_slope_row, sigmoid_row, tanh_row
from .llvm.vmath import constant, not_minus_infinity, sigmoid, tanh


@kernel
def relu(y, x):
    """Writes y = max(x, 0); NaN stays NaN."""
    zero = constant(y, "zero")
    for i in range(y.size):
        y[i] = zero if x[i] <= zero else x[i]


@kernel
def relu_backward(dx, dy, y):
    """Writes dx = dy where y > 0 or NaN, else 0: the derivative at 0 is 0; y may be words."""
    zero = constant(dx, "zero")
    for i in range(dx.size):
        dx[i] = zero if wide(y[i]) <= zero else dy[i]


@kernel
def leaky_relu(y, x, slope):
    """Writes y = x where x > 0, else slope x."""
    zero = constant(y, "zero")
    for i in range(y.size):
        y[i] = x[i] if x[i] > zero else slope * x[i]


@kernel
def leaky_relu_backward(dx, dy, x, slope):
    """Writes dx = dy where x > 0, else slope dy."""
    zero = constant(dx, "zero")
    for i in range(dx.size):
        dx[i] = dy[i] if x[i] > zero else slope * dy[i]


@kernel
def sigmoid_forward(y, x):
    """Writes y = 1 / (1 + e^-x)."""
    sigmoid_row(y, x)


@kernel
def sigmoid_backward(dx, dy, y):
    """Writes dx = dy y (1 - y)."""
    one = constant(dx, "one")
    for i in range(dx.size):
        dx[i] = dy[i] * y[i] * (one - y[i])


@kernel
def tanh_forward(y, x):
    """Writes y = tanh(x)."""
    tanh_row(y, x)


@kernel
def tanh_backward(dx, dy, y):
    """Writes dx = dy (1 - y^2)."""
    one = constant(dx, "one")
    for i in range(dx.size):
        dx[i] = dy[i] * (one - y[i] * y[i])


@kernel
def silu(y, x):
    """Writes y = x sigmoid(x), which is 0 at -inf."""
    for i in range(y.size):
        y[i] = not_minus_infinity(x[i]) * sigmoid(x[i])


@kernel
def silu_backward(dx, dy, x):
    """Writes dx = dy s (1 + x (1 - s)) with s = sigmoid(x)."""
    zero, one = constant(dx, "zero"), constant(dx, "one")
    for i in range(dx.size):
        s = sigmoid(x[i])
        # Where x is infinite one of the factors is 0.
        rest = zero if s * (one - s) == zero else x[i] * (one - s)
        dx[i] = dy[i] * s * (one + rest)


@kernel
def gelu(y, x):
    """Writes y = x Phi(x), Phi being the normal distribution function (Hendrycks and Gimpel 2016,
    arXiv 1606.08415, eq. 1).
    """
    gelu_row(y, x)


@kernel
def gelu_backward(dx, dy, x):
    """Writes dx = dy (Phi(x) + x e^(-x^2/2) / sqrt(2 pi))."""
    gelu_slope_row(dx, x)
    for i in range(dx.size):
        dx[i] *= dy[i]


@kernel
def gelu_with_slope(y, slope, x):
    """Writes y as `gelu` and the slope Phi(x) + x e^(-x^2/2) / sqrt(2 pi), of which both need the
    same two functions.
    """
    gelu_and_slope_rows(y, slope, x)


@kernel
def times_slope(dx, dy, slope):
    """Writes dx = dy slope, which may be words."""
    for i in range(dx.size):
        dx[i] = dy[i] * wide(slope[i])


@kernel
def gelu_tanh(y, x):
    """Writes y = x (1 + tanh(a (x + b x^3))) / 2, a = sqrt(2/pi), b = 0.044715 (arXiv 1606.08415,
    section 2).
    """
    half, one, a, b = (
        constant(y, "half"),
        constant(y, "one"),
        constant(y, "gelu_root"),
        constant(y, "gelu_cubic"),
    )
    for i in range(y.size):
        twice = one + tanh(a * (x[i] + b * x[i] * x[i] * x[i]))
        y[i] = half * not_minus_infinity(x[i]) * twice


@kernel
def gelu_tanh_backward(dx, dy, x):
    """Writes dx = dy ((1 + t) + x (1 - t^2) a (1 + 3 b x^2)) / 2, t the tanh of the forward
    pass.
    """
    zero, half = constant(dx, "zero"), constant(dx, "half")
    one, three = constant(dx, "one"), constant(dx, "three")
    a, b = constant(dx, "gelu_root"), constant(dx, "gelu_cubic")
    for i in range(dx.size):
        square = x[i] * x[i]
        t = tanh(a * (x[i] + b * x[i] * square))
        # Where t has reached 1 the slope is constant, though the square may be infinite.
        bend = one - t * t
        rest = zero if bend == zero else x[i] * bend * a * (one + three * b * square)
        dx[i] = dy[i] * half * (one + t + rest)
