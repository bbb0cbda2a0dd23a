"""Doses of diseases from mild to severe, of one network each."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .diseases import DEFAULTS, DISEASES
from .patients import Options

_SEED = 7
_GRID: Mapping[tuple[str, str, str], tuple[Any, ...]] = {
    ("rate too high", "mlp", "rate"): (0.006, 0.025, 0.05, 0.1, 0.2),
    ("rate too high", "transformer", "rate"): (0.006, 0.025, 0.05, 0.1),
    ("rate too low", "mlp", "rate"): (1e-3, 3e-4, 1e-4, 3e-5),
    ("rate too low", "lstm", "rate"): (3e-3, 1e-3, 3e-4, 1e-4),
    ("dead units", "mlp", "bias"): (-0.5, -1.0, -2.0, -4.0),
    ("exploding activations", "mlp", "gain"): (1.5, 2.0, 3.0, 4.0),
    ("exploding activations", "cnn", "gain"): (1.5, 2.0, 2.5, 4.0),
    ("saturated units", "mlp", "gain"): (2.0, 3.0, 5.0, 8.0),
    ("large last layer", "mlp", "head_gain"): (5.0, 15.0, 40.0, 100.0),
    ("vanishing gradients", "mlp", "depth"): (2, 3, 4, 6),
    ("too much decay", "mlp", "decay"): (0.003, 0.01, 0.03, 0.1),
    ("too much dropout", "mlp", "dropout"): (0.5, 0.6, 0.7, 0.8, 0.9),
    ("too much momentum", "mlp", "momentum"): (0.95, 0.98, 0.99, 0.995),
    ("rare labels", "mlp", "rare"): (0.3, 0.1, 0.05, 0.02),
    ("few samples", "mlp", "samples"): (200, 100, 60, 30),
    ("few samples", "transformer", "samples"): (400, 200, 100, 40),
    ("inputs not normalised", "mlp", "scale"): (4.0, 16.0, 64.0, 255.0),
    ("inputs not normalised", "lstm", "scale"): (4.0, 16.0, 64.0, 255.0),
    ("inputs divided twice", "mlp", "scale"): (0.1, 0.01, 1e-3, 1e-4),
    ("targets not scaled", "regression", "target_scale"): (5.0, 20.0, 100.0, 500.0),
    ("validation scaled otherwise", "cnn", "validation_scale"): (1.5, 3.0, 8.0, 16.0),
    ("always clipped", "mlp", "clip"): (0.3, 0.1, 0.03, 0.01, 1e-3),
    ("large epsilon", "mlp", "epsilon"): (1e-3, 0.03, 1.0, 30.0),
    ("tiny batch norm", "mlp", "batch"): (64, 32, 16, 8),
    ("attention saturated", "transformer", "attention_gain"): (3.0, 6.0, 12.0, 25.0),
    ("saturated gates", "lstm", "recurrent_gain"): (1.0, 4.0, 8.0, 15.0),
    ("clipping missing", "rnn", "rate"): (0.01, 0.03, 0.1, 0.3),
    ("sum for mean", "mlp", "loss_factor"): (4.0, 16.0, 64.0, 128.0),
    ("loss scaled down", "mlp", "loss_factor"): (0.3, 0.03, 3e-3, 1e-4),
    ("underflow", "mlp", "loss_factor"): (1e-4, 1e-5, 1e-6, 1e-7),
    ("stale statistics", "mlp", "norm_momentum"): (0.05, 0.01, 1e-3, 1e-4),
    ("label noise", "mlp", "label_noise"): (0.2, 0.4, 0.6, 0.8, 0.95),
}
"""By disease, kind of run and option: its values. Noise of labels is no disease of the clinic."""


def doses() -> Iterator[tuple[str, str, Options]]:
    """Yield disease, dose and options of all runs of the grid."""
    for (disease, kind, name), values in _GRID.items():
        changes = DISEASES[disease][1][kind] if disease in DISEASES else {}
        for value in values:
            o = replace(DEFAULTS[kind], seed=_SEED, **changes | {name: value})
            yield disease, f"{name}={value:g}", o
