"""The convolutional networks whose training steps are timed, and their twins in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
from workload import Array, Workload, torch_cross_entropy

import layers
from layers import models


def _images(batch: int, shape: tuple[int, int, int]) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """Return the function that draws images (N, H, W, C) and labels."""
    return lambda rng: (rng.standard_normal((batch, *shape), np.float32), rng.integers(0, 10, batch))


def _channels_first(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def _weights(arrays: list[Array], flattened: tuple[int, int, int] | None = None) -> list[Array]:
    """Return our parameters in PyTorch's order of axes; the first dense layer reads flattened images (H, W, C), if any."""
    result, first = [], flattened
    for array in arrays:
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2 and first is not None:
            array = array.reshape(-1, *first).transpose(0, 3, 1, 2).reshape(len(array), -1)
            first = None
        result.append(array)
    return result


def _torch_lenet5() -> Any:
    from torch import nn

    convolutions = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    dense = [nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*convolutions, *dense)


def _torch_cnn() -> Any:
    from torch import nn

    first = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))


def _torch_resnet20() -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.stride, self.more = stride, outputs - inputs
            first = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            self.body = nn.Sequential(*first, nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x: Any) -> Any:
            shortcut = x
            if self.more:
                shortcut = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return torch.relu(self.body(x) + shortcut)

    stack: list[Any] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for outputs in (16, 32, 64):
        for number in range(3):
            stack.append(Block(width, outputs, 2 if number == 0 and outputs > 16 else 1))
            width = outputs
    return nn.Sequential(*stack, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _network(
    name: str,
    batch: int,
    shape: tuple[int, int, int],
    model: Callable[[np.random.Generator], layers.Layer],
    torch_model: Callable[[], Any],
    flattened: tuple[int, int, int] | None = None,
) -> Workload:
    return Workload(
        name,
        _images(batch, shape),
        model,
        layers.SoftmaxCrossEntropy,
        torch_model,
        torch_cross_entropy,
        torch_x=_channels_first,
        to_torch=lambda arrays: _weights(arrays, flattened),
        images=True,
    )


WORKLOADS = (
    _network("lenet", 128, (28, 28, 1), models.lenet5, _torch_lenet5, (5, 5, 16)),
    _network("cnn", 128, (28, 28, 1), models.small_cnn, _torch_cnn, (7, 7, 64)),
    _network("cnn-fastest", 128, (28, 28, 1), lambda rng: models.small_cnn(rng, method="fastest"), _torch_cnn, (7, 7, 64)),
    _network("resnet20", 64, (32, 32, 3), models.resnet20, _torch_resnet20),
    _network("resnet20-fastest", 64, (32, 32, 3), lambda rng: models.resnet20(rng, method="fastest"), _torch_resnet20),
)
