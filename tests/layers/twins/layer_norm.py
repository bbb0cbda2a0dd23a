"""The twins of `layers.gradient_check.cases.layer_norm`."""

import math

import numpy as np


def normalised(x, weight, bias=None, epsilon=1e-5, centred=True):
    y = np.empty(x.shape)
    size = x.shape[-1]
    for i in np.ndindex(x.shape[:-1]):
        row = [float(v) for v in x[i]]
        mean = math.fsum(row) / size if centred else 0.0
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in row) / size + epsilon)
        for c in range(size):
            y[(*i, c)] = weight[c] * (row[c] - mean) / deviation + (0 if bias is None else bias[c])
    return y


def layer(**options):
    return lambda p, x: normalised(
        x, p.get("weight", np.ones(x.shape[-1])), p.get("bias"), **options
    )


def several_axes(count):
    """Return the twin that takes the last `count` axes for one."""

    def twin(p, x):
        flat = {name: value.reshape(-1) for name, value in p.items()}
        return layer()(flat, x.reshape(*x.shape[: x.ndim - count], -1)).reshape(x.shape)

    return twin


TWINS = {
    "LayerNorm": layer(),
    "LayerNorm of sequences": layer(epsilon=0.1),
    "LayerNorm of many features": layer(),
    "LayerNorm without bias": layer(),
    "LayerNorm of images": several_axes(3),
    "LayerNorm of two axes": several_axes(2),
    "LayerNorm not affine": layer(),
    "RMSNorm not affine": layer(epsilon=1e-6, centred=False),
    "RMSNorm": layer(epsilon=1e-6, centred=False),
    "RMSNorm of sequences": layer(epsilon=0.1, centred=False),
}
