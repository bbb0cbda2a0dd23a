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


def variance(numbers, ddof=0):
    return sum((x - mean(numbers)) ** 2 for x in numbers) / (len(numbers) - ddof)


def length(numbers):
    return math.sqrt(sum(x * x for x in numbers))


def running(numbers):
    return [sum(numbers[: i + 1]) for i in range(len(numbers))]


def along(axis, function):
    """Return the twin of a function of the list of numbers along an axis."""

    def twin(_, x):
        rows = np.moveaxis(x, axis, -1)
        y = [function([float(v) for v in rows[i]]) for i in np.ndindex(rows.shape[:-1])]
        return np.moveaxis(np.array(y).reshape(*rows.shape[:-1], -1), -1, axis)

    return twin


def summed_products(_, letters, a, b, sizes):
    """Return einsum by a loop over all letters."""
    of_a, of_b, result = letters
    y = np.zeros([sizes[c] for c in result])
    for i in np.ndindex(*sizes.values()):
        at = dict(zip(sizes, i, strict=True))
        place = tuple(at[c] for c in result)
        y[place] += a[tuple(at[c] for c in of_a)] * b[tuple(at[c] for c in of_b)]
    return y


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
    "a[mask]": lambda _, a: np.array([a[0], a[2], a[4]]),
    "expm1": each(math.expm1),
    "log1p": each(math.log1p),
    "erf": each(math.erf),
    "clip": each(lambda a: -1.05 if a < -1.05 else 1.05 if a > 1.05 else a),
    "var": reduced(lambda numbers: variance(numbers, 1), (0, 2)),
    "var of samples": reduced(variance, (-1,), keepdims=True),
    "std": reduced(lambda numbers: math.sqrt(variance(numbers, 1)), (-1,)),
    "norm": reduced(length),
    "norm of samples": reduced(length, (1, 2)),
    "norm of order 1": reduced(lambda numbers: sum(map(abs, numbers)), (1,)),
    "norm of order inf": reduced(lambda numbers: max(map(abs, numbers)), (1,)),
    "prod": reduced(math.prod, (1,)),
    "prod with zeros": reduced(math.prod, (0, 2), keepdims=True),
    "cumsum": along(1, running),
    "cumsum of all": lambda _, x: np.array(running([float(v) for row in x for v in row])),
    "logsumexp": reduced(lambda numbers: math.log(sum(map(math.exp, numbers))), (-1,)),
    "top_k": along(1, lambda numbers: sorted(numbers, reverse=True)[:2]),
    "sort": along(1, sorted),
    "take_along_axis": along(1, lambda row: [row[3], row[3], row[0]]),
    "concatenate": lambda _, a, b: np.array([[*p, *q, *p] for p, q in zip(a, b, strict=True)]),
    "stack": lambda _, a, b: np.array(
        [[[*pair] for pair in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
    ),
    "split": along(-1, lambda row: [row[0], 2 * row[1], 2 * row[2], 3 * row[3]]),
    "squeeze": lambda _, a: np.array([sample[0] for sample in a]),
    "expand_dims": lambda _, a: np.array([[[[v] for v in row]] for row in a]),
    "broadcast_to": lambda _, a: np.array([[[v] * 4 for (v,) in a]] * 7),
    "swapaxes": lambda _, a: np.array([[*zip(*sample, strict=True)] for sample in a]),
    "moveaxis": lambda _, a: np.array(
        [[[[v[k] for v in row] for row in sample] for k in range(4)] for sample in a]
    ),
    "flip": along(-1, lambda row: row[::-1]),
    "roll": along(1, lambda row: [row[3], row[4], row[0], row[1], row[2]]),
    "repeat": along(1, lambda row: [row[0], row[2], row[2]]),
    "tile": lambda _, a: np.array([[[[*row] * 3 for row in sample] for sample in [*a] * 2]]),
    "pad": lambda _, a: np.array(
        [[[3] * 5, *([*row, 3] for row in sample), [3] * 5, [3] * 5] for sample in a]
    ),
    "pad by reflection": along(1, lambda row: [row[2], row[1], *row, row[3]]),
    "einsum": lambda _, a, b: summed_products(
        _, ("nij", "jk", "kni"), a, b, {"n": len(a), "i": 3, "j": 4, "k": 2}
    ),
    "einsum of stacks": lambda _, a, b: summed_products(
        _, ("nij", "njl", "nl"), a, b, {"n": len(a), "i": 3, "j": 4, "l": 2}
    ),
    "einsum of one": lambda _, a: np.array(
        [[sum(float(sample[i, j]) for sample in a) for i in range(3)] for j in range(4)]
    ),
    "astype": each(lambda a: a),
}
