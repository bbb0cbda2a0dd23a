"""Initialisers: functions of (rng, shape) that return float64 arrays; layers cast them.

Of a weight (O, D, …) the fan-in is D times the sizes of the further axes (the receptive field of a
convolution), the fan-out O times those.
"""

from collections.abc import Callable

import numpy as np

from .checks import non_negative, number
from .errors import message, wording
from .kernels.orthogonal import gram_schmidt
from .types import Array

Initializer = Callable[[np.random.Generator, tuple[int, ...]], Array]


@wording("fans")
def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan-in, fan-out) of a weight of this shape."""
    if len(shape) < 2:
        fix = "Initialise vectors with zeros, ones or constant."
        raise ValueError(
            message("init", "a weight with fans must have two axes or more", shape, fix)
        )
    field = int(np.prod(shape[2:]))
    return shape[1] * field, shape[0] * field


@wording("zeros")
def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return zeros of `shape`; `rng` draws nothing."""
    return np.zeros(shape)


@wording("ones")
def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return ones of `shape`; `rng` draws nothing."""
    return np.ones(shape)


@wording("constant")
def constant(value: float) -> Initializer:
    """Return the initialiser that gives `value` everywhere."""
    value = number("constant", "value", value, "0 is usual.")
    return lambda rng, shape: np.full(shape, value)


@wording("uniform")
def uniform(limit: float) -> Initializer:
    """Return the initialiser that draws from [-limit, limit)."""
    limit = non_negative("uniform", "limit", limit, "0.1 is usual.", finite=True)
    return lambda rng, shape: rng.uniform(-limit, limit, shape)


@wording("normal")
def normal(deviation: float) -> Initializer:
    """Return the initialiser that draws from the normal distribution N(0, `deviation` squared)."""
    deviation = non_negative("normal", "deviation", deviation, "0.02 is usual.", finite=True)
    return lambda rng, shape: _normal(rng, shape, deviation)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> Array:
    """Draw from the normal distribution, to the 24 bits of a float32.

    NumPy takes some of these numbers from the C library's logarithm, whose last bit of 53 is not
    the same on every processor.
    """
    fraction, exponent = np.frexp(rng.normal(0, deviation, shape))
    return np.asarray(np.ldexp(np.rint(fraction * 2.0**24), exponent - 24))


def _scaled(
    variance: Callable[[int, int], float], name: str, source: str
) -> tuple[Initializer, Initializer]:
    """Return the uniform and the normal initialiser of variance `variance(fan_in, fan_out)`."""

    @wording(f"{name}_uniform")
    def draw_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        limit = np.sqrt(3 * variance(*fans(shape)))
        return rng.uniform(-limit, limit, shape)

    @wording(f"{name}_normal")
    def draw_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return _normal(rng, shape, np.sqrt(variance(*fans(shape))))

    for draw, kind in ((draw_uniform, "uniform"), (draw_normal, "normal")):
        draw.__name__ = f"{name}_{kind}"
        draw.__doc__ = f"Draw from a {kind} distribution of {source}."
    return draw_uniform, draw_normal


xavier_uniform, xavier_normal = _scaled(
    lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "xavier",
    "variance 2 / (fan-in + fan-out): Glorot and Bengio 2010, eq. 12 and 16",
)
he_uniform, he_normal = _scaled(
    lambda fan_in, fan_out: 2 / fan_in,
    "he",
    "variance 2 / fan-in, for ReLU: He et al. 2015, eq. 10",
)
lecun_uniform, lecun_normal = _scaled(
    lambda fan_in, fan_out: 1 / fan_in,
    "lecun",
    "variance 1 / fan-in: LeCun et al. 1998, section 4.6",
)


@wording("orthogonal")
def orthogonal(rng: np.random.Generator, shape: tuple[int, ...], gain: float = 1.0) -> Array:
    """Return a weight whose rows (or columns, if there are fewer) are orthonormal times `gain`:
    Saxe et al. 2014.

    The distribution is uniform over such matrices: they are the Q of the QR decomposition of a
    normal matrix, R's diagonal being positive (Mezzadri 2007, section 5).
    """
    fans(shape)
    rows, columns = shape[0], int(np.prod(shape[1:]))
    x = np.array(_normal(rng, (max(rows, columns), min(rows, columns)), 1.0).T, order="C")
    for _ in range(2):
        gram_schmidt(x)
    return np.asarray(gain * (x.T if rows >= columns else x).reshape(shape))
