"""The twins of `layers.gradient_check.cases.group_norm`."""

import math

import numpy as np


def normalised(p, x, groups, epsilon=1e-5):
    y, channels = np.empty(x.shape), x.shape[-1]
    size = channels // groups
    for n in range(len(x)):
        for first in range(0, channels, size):
            part = x[n, ..., first : first + size]
            numbers = [float(v) for v in part.flat]
            mean = math.fsum(numbers) / len(numbers)
            variance = math.fsum((v - mean) ** 2 for v in numbers) / len(numbers)
            y[n, ..., first : first + size] = (part - mean) / math.sqrt(variance + epsilon)
    return y * p["weight"] + p["bias"] if "weight" in p else y


def layer(groups, *options):
    return lambda p, x: normalised(p, x, groups, *options)


def rectified(p, x):
    return np.maximum(normalised({k.split(".")[-1]: v for k, v in p.items()}, x, 2), 0)


TWINS = {
    "GroupNorm": layer(2),
    "GroupNorm of one group": layer(1, 0.1),
    "GroupNorm of rows": layer(3),
    "GroupNorm of many channels": layer(4),
    "GroupNorm of large images": layer(3),
    "GroupNorm not affine": layer(2),
    "GroupNorm with ReLU": rectified,
    "InstanceNorm": layer(4),
    "InstanceNorm1d": layer(4),
    "InstanceNorm2d": layer(6),
}
