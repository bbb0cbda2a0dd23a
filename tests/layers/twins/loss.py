"""The twins of `layers.gradient_check.cases.loss`."""

import math

import numpy as np

from .activation import sigmoid


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


TWINS = {
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
}
