"""The networks of `layers.models` in PyTorch: what tests compare with, and what benchmarks time."""

from typing import Any

import numpy as np
import torch
from torch import nn


def channels_first(x: Any) -> Any:
    """Return images (N, H, W, C) as PyTorch takes them."""
    return x.permute(0, 3, 1, 2)


def in_their_order(arrays: list[Any], flattened: tuple[int, int, int] | None = None) -> list[Any]:
    """Return our parameters, or their gradients, in PyTorch's order of axes.

    The first dense layer reads flattened images (H, W, C), if any.
    """
    result, first = [], flattened
    for array in arrays:
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2 and first is not None:
            array = array.reshape(-1, *first).transpose(0, 3, 1, 2).reshape(len(array), -1)
            first = None
        result.append(array)
    return result


def load(module: nn.Module, arrays: list[Any]) -> None:
    """Copy arrays in PyTorch's order of axes to the parameters of a module."""
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(np.array(array)))


def lenet5() -> nn.Module:
    """Return `layers.models.lenet5`."""
    convolutions = [
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    dense = [
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    ]
    return nn.Sequential(*convolutions, *dense)


def small_cnn(side: int = 28) -> nn.Module:
    """Return `layers.models.small_cnn` for square images of one channel."""
    first = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    flattened = (side // 4) ** 2 * 64
    return nn.Sequential(
        *first, *second, nn.Flatten(), nn.Linear(flattened, 128), nn.ReLU(), nn.Linear(128, 10)
    )


class _Block(nn.Module):
    """Two convolutions and a shortcut that takes every second pixel and pads channels: option A of
    He et al. 2015.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stride, self.more, self.activation = stride, outputs - inputs, activation()
        first = [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(),
        ]
        self.body = nn.Sequential(
            *first, nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Any) -> Any:
        shortcut = x
        if self.more:
            shortcut = nn.functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more)
            )
        return self.activation(self.body(x) + shortcut)


def resnet20(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Return `layers.models.resnet20`."""
    stack: list[nn.Module] = [
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        activation(),
    ]
    width = 16
    for outputs in (16, 32, 64):
        for number in range(3):
            stack.append(
                _Block(width, outputs, 2 if number == 0 and outputs > 16 else 1, activation)
            )
            width = outputs
    return nn.Sequential(*stack, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
