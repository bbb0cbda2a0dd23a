"""The twins of `layers.gradient_check.cases.batch_norm`."""

import math

import numpy as np

from .linear import affine


def moments(x):
    """Return the means and the biased variances of the last axis."""
    channels = x.shape[-1]
    rows = [[float(v) for v in row] for row in x.reshape(-1, channels)]
    mean = [math.fsum(row[c] for row in rows) / len(rows) for c in range(channels)]
    return mean, [
        math.fsum((row[c] - mean[c]) ** 2 for row in rows) / len(rows) for c in range(channels)
    ]


def running(channels):
    """Return the running statistics of the cases, which are made in float32."""
    return tuple(
        np.linspace(*ends, channels, dtype=np.float32).astype(np.float64)
        for ends in ((-0.5, 0.5), (0.5, 2))
    )


def normalised(x, statistics, weight=None, bias=None, epsilon=1e-5):
    mean, variance = statistics
    y = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        c = i[-1]
        y[i] = (x[i] - mean[c]) / math.sqrt(variance[c] + epsilon)
        if weight is not None:
            y[i] = weight[c] * y[i] + bias[c]
    return y


def training(prefix="", epsilon=1e-5):
    return lambda p, x: normalised(
        x, moments(x), p.get(f"{prefix}weight"), p.get(f"{prefix}bias"), epsilon
    )


def evaluation(prefix=""):
    return lambda p, x: normalised(
        x, running(x.shape[-1]), p.get(f"{prefix}weight"), p.get(f"{prefix}bias")
    )


def rectified(twin):
    def then_relu(p, x):
        y = twin(p, x)
        for i in np.ndindex(y.shape):
            y[i] = max(y[i], 0.0)
        return y

    return then_relu


def block(norm, shortcut=lambda p, x: x):
    def twin(p, x):
        h = affine(x, p["layers.0.body.layers.0.weight"], p["layers.0.body.layers.0.bias"])
        for i in np.ndindex(h.shape):
            h[i] = math.tanh(h[i])
        return norm("layers.0.body.layers.2.")(p, h) + shortcut(p, x)

    return rectified(twin)


TWINS = {
    "BatchNorm": training(),
    "BatchNorm in evaluation": evaluation(),
    "BatchNorm of 3-D inputs": training(epsilon=0.1),
    "BatchNorm of many channels": training(),
    "BatchNorm2d": training(),
    "BatchNorm2d in evaluation": evaluation(),
    "BatchNorm2d of large images": training(),
    "BatchNorm2d not affine": training(),
    "BatchNorm2d not affine in evaluation": evaluation(),
    "BatchNorm2d synchronized": training(),
    "BatchNorm2d with ReLU": rectified(training("layers.0.")),
    "BatchNorm2d with ReLU in evaluation": rectified(evaluation("layers.0.")),
    "Residual with BatchNorm and ReLU": block(training),
    "Residual with BatchNorm and ReLU in evaluation": block(evaluation),
    "Residual with BatchNorm twice, synchronized": block(training, training("layers.0.shortcut.")),
    "Residual with ReLU": rectified(
        lambda p, x: affine(x, p["layers.0.body.weight"], p["layers.0.body.bias"]) + x
    ),
}
