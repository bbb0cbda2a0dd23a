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
    "Softmax": softmax,
    "Softmax of 3-D inputs": softmax,
    "Softmax of a vector": softmax,
}
