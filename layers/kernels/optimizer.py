"""What optimizers do with flat slices besides their updates (`updates`): p parameters, g gradient,
all (n,). Scalars are Python floats, rounded to the type of the arrays.
"""

import numpy as np

from .jit import kernel
from .llvm.vmath import constant, fma, number


@kernel
def add_penalty(g, p, l1, l2):
    """Adds to g the gradient l2 p + l1 sign(p) of l2 |p|^2 / 2 + l1 |p|_1; sign(0) = 0."""
    l1, l2 = number(p, l1), number(p, l2)
    for i in range(p.size):
        g[i] = fma(l2, p[i], g[i]) + l1 * np.sign(p[i])


@kernel
def scale(x, factor):
    """Writes x = factor x."""
    factor = number(x, factor)
    for i in range(x.size):
        x[i] *= factor


@kernel
def clip(g, limit):
    """Writes g = max(-limit, min(g, limit)); NaN stays NaN."""
    limit = number(g, limit)
    for i in range(g.size):
        g[i] = limit if g[i] > limit else (-limit if g[i] < -limit else g[i])


@kernel
def muon_direction(u, g, m, mu, nesterov):
    """Writes m = mu m + (1 - mu) g, and u = mu m + (1 - mu) g if `nesterov`, else u = m."""
    mu = number(u, mu)
    rest = constant(u, "one") - mu
    for i in range(u.size):
        m[i] = fma(mu, m[i], rest * g[i])
        u[i] = fma(mu, m[i], rest * g[i]) if nesterov else m[i]


@kernel
def average(a, p, decay):
    """Writes a = decay a + (1 - decay) p, the moving average of p."""
    decay = number(p, decay)
    rest = constant(p, "one") - decay
    for i in range(p.size):
        a[i] = fma(decay, a[i], rest * p[i])


@kernel
def lamb_direction(u, p, g, m, v, beta1, beta2, epsilon, correction1, root_correction2, decay):
    """Writes m and v as `adam` does and u = m_hat / (sqrt(v_hat) + epsilon) + decay p: You et al.
    2020, algorithm 2.
    """
    beta1, beta2, epsilon, decay = (
        number(p, beta1),
        number(p, beta2),
        number(p, epsilon),
        number(p, decay),
    )
    one, correction1, root_correction2 = (
        constant(p, "one"),
        number(p, correction1),
        number(p, root_correction2),
    )
    rest1, rest2, inverse1, inverse2 = (
        one - beta1,
        one - beta2,
        one / correction1,
        one / root_correction2,
    )
    for i in range(p.size):
        m[i] = fma(beta1, m[i], rest1 * g[i])
        v[i] = fma(beta2, v[i], rest2 * (g[i] * g[i]))
        u[i] = fma(decay, p[i], m[i] * inverse1 / fma(np.sqrt(v[i]), inverse2, epsilon))
