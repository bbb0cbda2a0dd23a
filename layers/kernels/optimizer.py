"""Updates of flat slices: p parameters, g gradient, all (n,). Scalars are Python floats, rounded to
the type of the arrays.
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
def gradient_descent(p, g, rate):
    """Writes p = p - rate g."""
    rate = number(p, rate)
    for i in range(p.size):
        p[i] = fma(-rate, g[i], p[i])


@kernel
def momentum(p, g, m, rate, mu, first):
    """Writes m = mu m + g (m = g in the `first` step) and p = p - rate m: Polyak 1964, as in
    Sutskever et al. 2013, eq. 1-2.
    """
    rate, mu = number(p, rate), number(p, mu)
    for i in range(p.size):
        m[i] = g[i] if first else fma(mu, m[i], g[i])
        p[i] = fma(-rate, m[i], p[i])


@kernel
def nesterov(p, g, m, rate, mu, first):
    """Writes m = mu m + g (m = g in the `first` step) and p = p - rate (g + mu m): Sutskever et al.
    2013, eq. 3-4.
    """
    rate, mu = number(p, rate), number(p, mu)
    for i in range(p.size):
        m[i] = g[i] if first else fma(mu, m[i], g[i])
        p[i] = fma(-rate, fma(mu, m[i], g[i]), p[i])


@kernel
def rmsprop(p, g, v, rate, alpha, epsilon):
    """Writes v = alpha v + (1 - alpha) g^2 and p = p - rate g / (sqrt(v) + epsilon): Tieleman and
    Hinton 2012, lecture 6.5.
    """
    rate, alpha, epsilon = number(p, rate), number(p, alpha), number(p, epsilon)
    rest = constant(p, "one") - alpha
    for i in range(p.size):
        v[i] = fma(alpha, v[i], rest * (g[i] * g[i]))
        p[i] -= rate * (g[i] / (np.sqrt(v[i]) + epsilon))


@kernel
def rmsprop_momentum(p, g, v, m, rate, alpha, epsilon, mu):
    """Writes v as `rmsprop` does, m = mu m + g / (sqrt(v) + epsilon) and p = p - rate m."""
    rate, alpha, epsilon, mu = number(p, rate), number(p, alpha), number(p, epsilon), number(p, mu)
    rest = constant(p, "one") - alpha
    for i in range(p.size):
        v[i] = fma(alpha, v[i], rest * (g[i] * g[i]))
        m[i] = fma(mu, m[i], g[i] / (np.sqrt(v[i]) + epsilon))
        p[i] = fma(-rate, m[i], p[i])


@kernel
def adam(p, g, m, v, rate, beta1, beta2, epsilon, root_correction2):
    """Writes one step of Adam (Kingma and Ba 2015, algorithm 1).

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, p = p - rate m / (sqrt(v) /
    root_correction2 + epsilon), where rate is the learning rate / (1 - beta1^t) and
    root_correction2 is sqrt(1 - beta2^t).
    """
    rate, beta1, beta2, epsilon = (
        number(p, rate),
        number(p, beta1),
        number(p, beta2),
        number(p, epsilon),
    )
    one, root_correction2 = constant(p, "one"), number(p, root_correction2)
    rest1, rest2, inverse = one - beta1, one - beta2, one / root_correction2
    for i in range(p.size):
        m[i] = fma(beta1, m[i], rest1 * g[i])
        v[i] = fma(beta2, v[i], rest2 * (g[i] * g[i]))
        p[i] -= rate * m[i] / fma(np.sqrt(v[i]), inverse, epsilon)


@kernel
def amsgrad(p, g, m, v, largest, rate, beta1, beta2, epsilon, root_correction2):
    """Writes one step of `adam` in which the largest v so far takes the place of v (Reddi, Kale and
    Kumar 2018, algorithm 2).
    """
    rate, beta1, beta2, epsilon = (
        number(p, rate),
        number(p, beta1),
        number(p, beta2),
        number(p, epsilon),
    )
    one, root_correction2 = constant(p, "one"), number(p, root_correction2)
    rest1, rest2, inverse = one - beta1, one - beta2, one / root_correction2
    for i in range(p.size):
        m[i] = fma(beta1, m[i], rest1 * g[i])
        v[i] = fma(beta2, v[i], rest2 * (g[i] * g[i]))
        # Not NaN's largest: a NaN in v stays.
        largest[i] = largest[i] if largest[i] >= v[i] else v[i]
        p[i] -= rate * m[i] / fma(np.sqrt(largest[i]), inverse, epsilon)


@kernel
def unscaled_adam(p, g, m, v, rate, beta1, beta2):
    """Writes m and v as `adam` does and p = p - rate m: a step of RAdam whose v is of too few
    gradients yet (Liu et al. 2020, algorithm 2).
    """
    rate, beta1, beta2 = number(p, rate), number(p, beta1), number(p, beta2)
    one = constant(p, "one")
    rest1, rest2 = one - beta1, one - beta2
    for i in range(p.size):
        m[i] = fma(beta1, m[i], rest1 * g[i])
        v[i] = fma(beta2, v[i], rest2 * (g[i] * g[i]))
        p[i] = fma(-rate, m[i], p[i])


@kernel
def adagrad(p, g, total, rate, epsilon):
    """Writes total = total + g^2 and p = p - rate g / (sqrt(total) + epsilon): Duchi, Hazan and
    Singer 2011, figure 1 with a diagonal matrix.
    """
    rate, epsilon = number(p, rate), number(p, epsilon)
    for i in range(p.size):
        total[i] = fma(g[i], g[i], total[i])
        p[i] -= rate * (g[i] / (np.sqrt(total[i]) + epsilon))


@kernel
def lion(p, g, m, rate, beta1, beta2):
    """Writes p = p - rate sign(beta1 m + (1 - beta1) g), sign(0) = 0, and then m = beta2 m +
    (1 - beta2) g: Chen et al. 2023, algorithm 2.
    """
    rate, beta1, beta2 = number(p, rate), number(p, beta1), number(p, beta2)
    one = constant(p, "one")
    rest1, rest2 = one - beta1, one - beta2
    for i in range(p.size):
        p[i] = fma(-rate, np.sign(fma(beta1, m[i], rest1 * g[i])), p[i])
        m[i] = fma(beta2, m[i], rest2 * g[i])


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
