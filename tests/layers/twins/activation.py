"""The twins of `layers.gradient_check.cases.activation`."""

import math

import numpy as np

from .operators import each


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def gelu(x):
    return x * 0.5 * math.erfc(-x / math.sqrt(2))


def gelu_tanh(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def elu(alpha, rate=1, scale=1):
    return lambda x: scale * (x if x > 0 else alpha * math.expm1(rate * x))


def mish(x):
    return x * math.tanh(math.log1p(math.exp(x)))


def clipped(low, high):
    return lambda x: min(max(x, low), high)


def hard_sigmoid(x):
    return clipped(0, 1)(x / 6 + 0.5)


def prelu(p, x):
    slopes = np.broadcast_to(p["weight"], x.shape)
    return np.where(x > 0, x, slopes * x)


def middle(twin):
    """Return the twin along the axis before the last."""
    return lambda p, x: twin(p, x.swapaxes(-1, -2)).swapaxes(-1, -2)


def log_softmax(_, x):
    y = np.empty(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        total = math.fsum(math.exp(v) for v in x[row])
        y[row] = [v - math.log(total) for v in x[row]]
    return y


def softmax(_, x):
    y = np.empty(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        total = sum(math.exp(v) for v in x[row])
        for j, v in enumerate(x[row]):
            y[(*row, j)] = math.exp(v) / total
    return y


TWINS = {
    "ReLU": each(lambda x: max(x, 0)),
    "LeakyReLU": each(lambda x: x if x > 0 else 0.01 * x),
    "LeakyReLU of slope 0.3": each(lambda x: x if x > 0 else 0.3 * x),
    "Sigmoid": each(sigmoid),
    "Tanh": each(math.tanh),
    "SiLU": each(lambda x: x * sigmoid(x)),
    "GELU": each(gelu),
    "GELU of tanh form": each(gelu_tanh),
    "ELU": each(elu(1)),
    "ELU of alpha 0.5": each(elu(0.5)),
    "CELU": each(elu(0.5, 2)),
    "SELU": each(elu(1.6732632423543772, 1, 1.0507009873554805)),
    "Softplus": each(lambda x: math.log1p(math.exp(x))),
    "Softplus of beta 3": each(lambda x: math.log1p(math.exp(3 * x)) / 3),
    "Mish": each(mish),
    "Hardtanh": each(clipped(-0.5, 1)),
    "ReLU6": each(clipped(0, 6)),
    "Hardsigmoid": each(hard_sigmoid),
    "Hardswish": each(lambda x: x * hard_sigmoid(x)),
    "PReLU": prelu,
    "PReLU of channels": prelu,
    "Identity": lambda _, x: x,
    "Softmax": softmax,
    "Softmax of 3-D inputs": softmax,
    "Softmax of a vector": softmax,
    "Softmax of a middle axis": middle(softmax),
    "LogSoftmax": log_softmax,
    "LogSoftmax of a middle axis": middle(log_softmax),
}
