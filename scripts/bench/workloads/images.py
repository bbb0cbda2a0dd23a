"""The convolutional networks whose training steps are timed, and their twins in PyTorch."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import layers
from layers import models

from .workload import Array, Workload, torch_cross_entropy

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "layers" / "families"))


def _images(
    batch: int, shape: tuple[int, int, int]
) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """Return the function that draws images (N, H, W, C) and labels."""
    return lambda rng: (
        rng.standard_normal((batch, *shape), np.float32),
        rng.integers(0, 10, batch),
    )


def _twin(name: str) -> Any:
    """Return a function of the tests' file of twins, which is imported when the function is called:
    it needs PyTorch.
    """

    def called(*arguments: Any) -> Any:
        return getattr(importlib.import_module("torch_models"), name)(*arguments)

    return called


def _network(
    name: str,
    batch: int,
    shape: tuple[int, int, int],
    model: Callable[[np.random.Generator], layers.Module],
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
        torch_x=_twin("channels_first"),
        to_torch=lambda arrays: _twin("in_their_order")(arrays, flattened),
        images=True,
    )


WORKLOADS = (
    _network("lenet", 128, (28, 28, 1), models.lenet5, _twin("lenet5"), (5, 5, 16)),
    _network("cnn", 128, (28, 28, 1), models.small_cnn, _twin("small_cnn"), (7, 7, 64)),
    _network(
        "cnn-fastest",
        128,
        (28, 28, 1),
        lambda rng: models.small_cnn(rng, algorithm="fastest"),
        _twin("small_cnn"),
        (7, 7, 64),
    ),
    _network("resnet20", 64, (32, 32, 3), models.resnet20, _twin("resnet20")),
    _network(
        "resnet20-fastest",
        64,
        (32, 32, 3),
        lambda rng: models.resnet20(rng, algorithm="fastest"),
        _twin("resnet20"),
    ),
)
