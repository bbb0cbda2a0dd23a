"""The twins of `layers.gradient_check.cases.general`."""

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


def affine(x, weight, bias=None):
    y = np.zeros((*x.shape[:-1], len(weight)))
    for i in np.ndindex(y.shape):
        *row, o = i
        for d in range(x.shape[-1]):
            y[i] += weight[o, d] * x[(*row, d)]
        if bias is not None:
            y[i] += bias[o]
    return y


def linear(p, x):
    return affine(x, p["weight"], p.get("bias"))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def gelu(x):
    return x * 0.5 * math.erfc(-x / math.sqrt(2))


def gelu_tanh(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(_, x):
    y = np.empty(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        total = sum(math.exp(v) for v in x[row])
        for j, v in enumerate(x[row]):
            y[(*row, j)] = math.exp(v) / total
    return y


def philox(counter, key):
    """Return four 32-bit numbers: Philox 4x32-10 with the multipliers and increments of Salmon et
    al. 2011.
    """
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def dropped(x, p, call):
    """Return x with the mask of seed 0 and step 0."""
    y = np.zeros(x.shape)
    for n in range(len(x)):
        quarter = -(-x[n].size // 4)
        for j in range(x[n].size):
            bits = philox((j % quarter, n, 0, call), (0, 0))[j // quarter]
            y[n].flat[j] = x[n].flat[j] / (1 - p) if bits >= round(p * 2**32) else 0
    return y


def added(_, *inputs):
    y = np.zeros(np.broadcast_shapes(*(x.shape for x in inputs)))
    for i in np.ndindex(y.shape):
        for x in inputs:
            y[i] += np.broadcast_to(x, y.shape)[i]
    return y


def multiplied(_, *inputs):
    y = np.ones(np.broadcast_shapes(*(x.shape for x in inputs)))
    for i in np.ndindex(y.shape):
        for x in inputs:
            y[i] *= np.broadcast_to(x, y.shape)[i]
    return y


def joined(axis):
    def twin(_, *inputs):
        shape = list(inputs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in inputs)
        y, start = np.empty(shape), 0
        for x in inputs:
            for i in np.ndindex(x.shape):
                to = list(i)
                to[axis] += start
                y[tuple(to)] = x[i]
            start += x.shape[axis]
        return y

    return twin


def product(_, a, b):
    y = np.zeros((len(a), b.shape[1]))
    for i, j, k in np.ndindex(len(a), b.shape[1], a.shape[1]):
        y[i, j] += a[i, k] * b[k, j]
    return y


def network(p, x):
    h = affine(x.reshape(len(x), -1), p["layers.1.weight"], p["layers.1.bias"])
    h = each(gelu_tanh)(None, h)
    h = affine(h, p["layers.3.body.weight"], p["layers.3.body.bias"]) + h
    # Calls before it: Flatten, Linear, GELU, Linear, Add.
    return softmax(None, affine(dropped(h, 0.25, call=5), p["layers.5.weight"]))


def recurrent(p, x):
    h = np.zeros((len(x), 4))
    for t in range(3):
        h = np.tanh(affine(x[:, t], p["layers.0.weight"], p["layers.0.bias"]) + h)
    return h


def cross_entropy(smoothing, ignore=None):
    def twin(_, logits, targets, weights=None):
        classes = logits.shape[-1]
        total, count = 0.0, 0.0
        for i in np.ndindex(logits.shape[:-1]):
            weight = 1.0 if weights is None else weights[i]
            if ignore is not None and targets[i] == ignore:
                continue
            count += weight
            log_total = math.log(sum(math.exp(v) for v in logits[i]))
            for j in range(classes):
                t = targets[(*i, j)] if targets.shape == logits.shape else float(targets[i] == j)
                t = (1 - smoothing) * t + smoothing / classes
                total -= weight * t * (logits[(*i, j)] - log_total)
        return np.array(total / count)

    return twin


def mean_of(function):
    def twin(_, x, t):
        return np.array(
            sum(function(float(a), float(b)) for a, b in zip(x.flat, t.flat, strict=True)) / x.size
        )

    return twin


def binary_cross_entropy(x, t):
    return -t * math.log(sigmoid(x)) - (1 - t) * math.log(1 - sigmoid(x))


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


def pairs(function):
    """Return the twin of an elementwise function of two numbers, the second broadcast."""

    def twin(_, a, b):
        y = np.empty(a.shape)
        for i in np.ndindex(a.shape):
            y[i] = function(float(a[i]), float(np.broadcast_to(b, a.shape)[i]))
        return y

    return twin


def padded_shortcut(channels, stride):
    """Return the twin of every stride-th pixel, with zeros for new channels."""

    def twin(_, x):
        n, h, w, c = x.shape
        y = np.zeros((n, (h + stride - 1) // stride, (w + stride - 1) // stride, channels))
        for i, p, q, k in np.ndindex(*y.shape):
            y[i, p, q, k] = x[i, p * stride, q * stride, k] if k < c else 0
        return y

    return twin


TWINS = {
    "PaddedShortcut": padded_shortcut(5, 2),
    "PaddedShortcut of stride 1": padded_shortcut(2, 1),
    "Linear": linear,
    "Linear without bias": linear,
    "Linear of one output": linear,
    "Linear of odd sizes": linear,
    "Linear and GELU": lambda p, x: each(gelu)(
        None, affine(x, p["layers.0.weight"], p["layers.0.bias"])
    ),
    "Linear of 3-D inputs": linear,
    "ReLU": each(lambda x: max(x, 0)),
    "LeakyReLU": each(lambda x: x if x > 0 else 0.01 * x),
    "LeakyReLU of slope 0.3": each(lambda x: x if x > 0 else 0.3 * x),
    "Sigmoid": each(sigmoid),
    "Tanh": each(math.tanh),
    "SiLU": each(lambda x: x * sigmoid(x)),
    "GELU": each(gelu),
    "GELU of tanh form": each(gelu_tanh),
    "Softmax": softmax,
    "Softmax of 3-D inputs": softmax,
    "Dropout": lambda _, x: dropped(x, 0.4, call=0),
    "Dropout in evaluation": lambda _, x: x,
    "Flatten": lambda _, x: np.array([[v for row in sample for v in row] for sample in x]),
    "Reshape": lambda _, x: np.array([[[*s[0], *s[1][:2]], [*s[1][2:], *s[2]]] for s in x]),
    "Add": added,
    "Add of three": added,
    "Add with broadcasting": added,
    "Multiply": multiplied,
    "Multiply of three": multiplied,
    "Multiply with broadcasting": multiplied,
    "Concatenate": joined(1),
    "Concatenate along axis 1": joined(1),
    "Concatenate along the batch": joined(0),
    "Sequential": lambda p, x: affine(
        np.tanh(affine(x, p["layers.0.weight"], p["layers.0.bias"])),
        p["layers.2.weight"],
        p["layers.2.bias"],
    ),
    "Sequential with ReLU": lambda p, x: affine(
        np.maximum(affine(x, p["layers.0.weight"], p["layers.0.bias"]), 0),
        p["layers.2.weight"],
        p["layers.2.bias"],
    ),
    "Residual": lambda p, x: affine(x, p["body.weight"], p["body.bias"]) + x,
    "Residual with shortcut": lambda p, x: (
        affine(x, p["body.weight"], p["body.bias"]) + affine(x, p["shortcut.weight"])
    ),
    "network": network,
    "Linear used three times": recurrent,
    "SoftmaxCrossEntropy": cross_entropy(0),
    "SoftmaxCrossEntropy smoothed": cross_entropy(0.1),
    "SoftmaxCrossEntropy of positions": cross_entropy(0),
    "SoftmaxCrossEntropy smoothed, positions": cross_entropy(0.2),
    "SoftmaxCrossEntropy soft": cross_entropy(0),
    "SoftmaxCrossEntropy soft smoothed": cross_entropy(0.1),
    "SoftmaxCrossEntropy ignoring": cross_entropy(0.1, ignore=2),
    "SoftmaxCrossEntropy weighted": cross_entropy(0),
    "SoftmaxCrossEntropy soft, weighted": cross_entropy(0),
    "BinaryCrossEntropy": mean_of(binary_cross_entropy),
    "BinaryCrossEntropy of vectors": mean_of(binary_cross_entropy),
    "MeanSquaredError": mean_of(lambda x, t: (x - t) ** 2),
    "MeanSquaredError of 3-D inputs": mean_of(lambda x, t: (x - t) ** 2),
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
