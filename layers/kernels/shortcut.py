"""The shortcut without parameters: every `stride`-th pixel, with zeros for the channels that are
new.
"""

from .jit import kernel
from .llvm.vmath import constant


@kernel
def forward(y, x, stride):
    """Writes y[p, q] = x[p stride, q stride], zeros after; y (N, P, Q, K), x (N, H, W, C), K >=
    C.
    """
    zero = constant(y, "zero")
    channels = x.shape[3]
    for n in range(len(y)):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                to, of = y[n, p, q], x[n, p * stride, q * stride]
                for c in range(channels):
                    to[c] = of[c]
                to[channels:] = zero


@kernel
def backward(dx, dy, stride):
    """Writes dx[p stride, q stride] = dy[p, q] without the last channels, zeros elsewhere."""
    zero = constant(dx, "zero")
    channels = dx.shape[3]
    for n in range(len(dx)):
        dx[n] = zero
        for p in range(dy.shape[1]):
            for q in range(dy.shape[2]):
                to, of = dx[n, p * stride, q * stride], dy[n, p, q]
                for c in range(channels):
                    to[c] = of[c]
