"""Compare the gradients of a ResNet-20 in float32 with those in float64: by each of our methods of
convolution, and by PyTorch.

A batch of 64 random images, weights as drawn, training mode, for several seeds. The error of a
gradient is the norm of its difference from PyTorch's gradient in float64, over the norm of that. A
ReLU whose input lies within rounding of zero may pass the gradient on in one precision and not in
the other, which costs more than all arithmetic; so everything is measured twice, with ReLU and with
SiLU in its place, which is smooth.
"""

import sys
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness

import numpy as np

import layers
from layers import models

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "layers" / "families"))

BATCH = 64
METHODS = ("default", "direct", "fastest")
ACTIVATIONS = ("ReLU", "SiLU")


def with_activation(layer: layers.Module, activation: str) -> layers.Module:
    """Return a network of the same layers, with another activation in place of each ReLU."""
    if isinstance(layer, layers.Sequential):
        return layers.Sequential(*(with_activation(part, activation) for part in layer))
    if isinstance(layer, layers.Residual):
        return layers.Residual(with_activation(layer.body, activation), layer.shortcut)
    return getattr(layers, activation)() if isinstance(layer, layers.ReLU) else layer


def ours(method: str, activation: str, seed: int, x: Any, labels: Any) -> list[Any]:
    """Return the gradients of the images and of all weights of convolutions, in PyTorch's order of
    axes.
    """
    from torch_models import in_their_order

    model = with_activation(
        models.resnet20(np.random.default_rng(seed), algorithm=method), activation
    )
    tape = layers.Tape(training=True)
    value = tape.input(x)
    layers.SoftmaxCrossEntropy()(model(value), labels).backward()
    weights = [parameter.gradient for parameter in model.parameters() if len(parameter.shape) == 4]
    return [value.grad.transpose(0, 3, 1, 2), *in_their_order(weights)]


def theirs(dtype: Any, activation: str, seed: int, x: Any, labels: Any) -> list[Any]:
    """Return the same of PyTorch in a precision."""
    import torch
    from torch_models import channels_first, in_their_order, load, resnet20

    module = resnet20(getattr(torch.nn, activation)).to(dtype).train()
    start = models.resnet20(np.random.default_rng(seed))
    load(module, in_their_order([parameter.value for parameter in start.parameters()]))
    image = channels_first(torch.from_numpy(x)).contiguous().to(dtype).requires_grad_()
    torch.nn.functional.cross_entropy(module(image), torch.from_numpy(labels)).backward()
    return [
        image.grad.numpy(),
        *(parameter.grad.numpy() for parameter in module.parameters() if parameter.ndim == 4),
    ]


def errors(activation: str, seed: int) -> dict[str, list[float]]:
    """Return by method the errors of the gradients of the images and of each weight, for images and
    weights of this seed.
    """
    import torch

    rng = np.random.default_rng(seed)
    x, labels = rng.standard_normal((BATCH, 32, 32, 3), np.float32), rng.integers(0, 10, BATCH)
    exact = theirs(torch.float64, activation, seed, x, labels)
    found = {method: ours(method, activation, seed, x, labels) for method in METHODS}
    found["PyTorch"] = theirs(torch.float32, activation, seed, x, labels)
    return {
        name: [
            float(np.linalg.norm((a - e).ravel()) / np.linalg.norm(e.ravel()))
            for a, e in zip(gradients, exact, strict=True)
        ]
        for name, gradients in found.items()
    }


def measure(activation: str, seeds: int) -> list[dict[str, Any]]:
    """Return the rows of an activation."""
    runs = [errors(activation, seed) for seed in range(seeds)]
    rows = []
    for method in runs[0]:
        weights = [error for run in runs for error in run[method][1:]]
        images = [run[method][0] for run in runs]
        summary = {
            "median": median(weights),
            "largest": max(weights),
            "images_median": median(images),
            "images_largest": max(images),
        }
        rows.append(
            {
                "activation": activation,
                "method": method,
                **summary,
                "of_seeds": [median(run[method][1:]) for run in runs],
            }
        )
    return rows


def main() -> None:
    """Measure, print a table and write the file."""
    import torch

    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to SEEDS - 1 (%(default)s)")
    options = parser.parse_args()
    facts = harness.machine()
    torch.set_num_threads(1)
    print(
        f"{'activation':12}{'method':10}{'median':>10}{'largest':>10}{'images':>10}{'largest':>10}"
    )
    rows = []
    for activation in ACTIVATIONS:
        measured = measure(activation, options.seeds)
        rows += measured
        for row in measured:
            print(
                "{activation:12}{method:10}{median:10.1e}{largest:10.1e}{images_median:10.1e}{images_largest:10.1e}".format(
                    **row
                ),
                flush=True,
            )
    harness.write(options.json, facts, rows, batch=BATCH, seeds=options.seeds)


if __name__ == "__main__":
    main()
