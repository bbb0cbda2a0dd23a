"""The twins of `layers.gradient_check.cases.operators`."""

import math

import numpy as np


def each(function):
    """Return the twin of an elementwise function of one number."""

    def twin(_, x):
        y = np.empty(x.shape)
        for i in np.ndindex(x.shape):
            y[i] = function(float(x[i]))
        return y

    return twin


def pairs(function):
    """Return the twin of an elementwise function of two numbers, the second broadcast."""

    def twin(_, a, b):
        y = np.empty(a.shape)
        for i in np.ndindex(a.shape):
            y[i] = function(float(a[i]), float(np.broadcast_to(b, a.shape)[i]))
        return y

    return twin


def product(_, a, b):
    y = np.zeros((len(a), b.shape[1]))
    for i, j, k in np.ndindex(len(a), b.shape[1], a.shape[1]):
        y[i, j] += a[i, k] * b[k, j]
    return y


def reduced(function, axes=None, keepdims=False):
    """Return the twin of a reduction: `function` of the list of numbers that share an output."""

    def twin(_, x):
        over = tuple(range(x.ndim)) if axes is None else tuple(a % x.ndim for a in axes)
        groups = {}
        for i in np.ndindex(x.shape):
            groups.setdefault(tuple(0 if a in over else n for a, n in enumerate(i)), []).append(
                float(x[i])
            )
        y = np.empty(tuple(1 if a in over else n for a, n in enumerate(x.shape)))
        for i, numbers in groups.items():
            y[i] = function(numbers)
        return y if keepdims else y.reshape([n for a, n in enumerate(x.shape) if a not in over])

    return twin


def mean(numbers):
    return sum(numbers) / len(numbers)


TWINS = {
    "a + b": pairs(lambda a, b: a + b + 2),
    "a - b": pairs(lambda a, b: 1 - a + b),
    "a b": pairs(lambda a, b: 3 * a * b),
    "a / b": pairs(lambda a, b: (a + 2) / b),
    "a ** b": pairs(lambda a, b: a**b),
    "a ** 3": each(lambda a: a * a * a),
    "2 ** a": each(lambda a: math.exp(a * math.log(2))),
    "-a": each(lambda a: -a),
    "abs a": each(lambda a: a if a > 0 else -a),
    "a @ b": product,
    "a @ b of stacks": lambda _, a, b: np.array([product(_, a[n], b[n]) for n in range(len(a))]),
    "a @ vector": lambda _, a, b: product(_, a, b[:, np.newaxis])[:, 0],
    "a.T @ b": lambda _, a, b: product(
        _, np.array([[a[i, j] for i in range(len(a))] for j in range(a.shape[1])]), b
    ),
    "a[1:4]": lambda _, a: np.array([a[1], a[2], a[3]]),
    "a[..., indices]": lambda _, a: np.array([[row[3], row[3], row[0]] for row in a]),
    "sum": reduced(sum),
    "sum over axes": reduced(sum, (1, 2), keepdims=True),
    "mean": reduced(mean),
    "mean over an axis": reduced(mean, (1,)),
    "max": reduced(max),
    "max over an axis": reduced(max, (1,)),
    "min over an axis": reduced(min, (-1,), keepdims=True),
    "reshape": lambda _, x: np.array([[v for row in sample for v in row] for sample in x]),
    "transpose": lambda _, x: np.array(
        [[[sample[i][j] for i in range(3)] for j in range(4)] for sample in x]
    ),
    "exp": each(math.exp),
    "log": each(math.log),
    "sqrt": each(math.sqrt),
    "sin": each(math.sin),
    "cos": each(math.cos),
    "tanh": each(math.tanh),
    "maximum": pairs(max),
    "minimum": pairs(min),
    "where": lambda _, a, b: np.array([[*b[i, :3], *a[i, 3:]] for i in range(len(a))]),
}
