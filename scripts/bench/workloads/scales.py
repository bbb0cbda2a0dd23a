"""Networks whose inputs are scaled well, and the same ones with inputs at which functions saturate
and gradients vanish.
"""

import dataclasses
from typing import Any

import numpy as np

import layers

from . import dense
from .workload import Array, Workload, torch_cross_entropy

SAMPLES, STEPS, FEATURES, HIDDEN, CLASSES = 32, 50, 32, 256, 10


def _with_inputs(workload: Workload, factor: float, positive: bool) -> Workload:
    """Return a workload whose inputs are multiplied, or drawn evenly from 0 to the factor."""

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        x, y = workload.batch(rng)
        if positive:
            return rng.uniform(0, factor, x.shape).astype(np.float32), y
        return x * np.float32(factor), y

    return dataclasses.replace(workload, batch=draw)


class _Masked(layers.Composite):
    """A network to whose logits a constant is added, -1e30 for classes that are left out."""

    def __init__(self, network: layers.Module, mask: Array) -> None:
        self.network = network
        self._mask = mask

    def __call__(self, x: Any) -> Any:
        return self.network(x) + self._mask


def _masked(workload: Workload, lowest: float) -> Workload:
    """Return a workload whose upper half of classes gets so much, and no labels."""
    classes = 256
    mask = np.where(np.arange(classes) < classes // 2, 0, lowest).astype(np.float32)

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        x, y = workload.batch(rng)
        return x, y % (classes // 2)

    def torch_loss(output: Any, y: Any) -> Any:
        import torch

        return torch_cross_entropy(output + torch.from_numpy(mask), y)

    return dataclasses.replace(
        workload,
        batch=draw,
        model=lambda rng: _Masked(workload.model(rng), mask),
        torch_loss=torch_loss,
        jax_loss=None,
    )


class _OfLastState(layers.Composite):
    """Logits of the last state of an LSTM."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.recurrent = layers.LSTM(FEATURES, HIDDEN, rng=rng)
        self.head = layers.Linear(HIDDEN, CLASSES, rng=rng)

    def __call__(self, x: Any) -> Any:
        return self.head(self.recurrent(x)[:, -1])


def _recurrent() -> Workload:
    """Return an LSTM over sequences of numbers."""

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.standard_normal((SAMPLES, STEPS, FEATURES), np.float32)
        return x, rng.integers(0, CLASSES, SAMPLES)

    def torch_model() -> Any:
        from torch import nn

        class OfLastState(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.recurrent = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
                self.head = nn.Linear(HIDDEN, CLASSES)

            def forward(self, x: Any) -> Any:
                return self.head(self.recurrent(x)[0][:, -1])

        return OfLastState()

    return Workload(
        "lstm-256",
        draw,
        _OfLastState,
        layers.SoftmaxCrossEntropy,
        torch_model,
        torch_cross_entropy,
    )


_WIDE = dense("dense-256", (256, 256, 256), batch=512)
_DIGITS = dense("digits", (64, 128, 10), batch=32)
_LSTM = _recurrent()

PAIRS: dict[str, tuple[Workload, Workload]] = {
    "dense-256, x in 0…255": (_WIDE, _with_inputs(_WIDE, 255, positive=True)),
    "dense-256, half of the classes -1e30": (_masked(_WIDE, 0), _masked(_WIDE, -1e30)),
    "lstm-256, x × 300": (_LSTM, _with_inputs(_LSTM, 300, positive=False)),
    "digits, x in 0…255": (_DIGITS, _with_inputs(_DIGITS, 255, positive=True)),
}
"""A network with inputs of size 1, and with others."""
