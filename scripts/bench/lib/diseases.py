"""What the patients of the clinic have: a disease each, or none, all drawn from numbers."""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .patients import Options

DEFAULTS: Mapping[str, Options] = {
    "mlp": Options(),
    "regression": Options(data="friedman", activation="tanh"),
    "cnn": Options(family="cnn", width=48),
    "lstm": Options(family="lstm", depth=1, rate=1e-2),
    "gru": Options(family="gru", depth=1, rate=1e-2),
    "transformer": Options(family="transformer"),
    "gpt": Options(family="gpt", data="markov"),
}
"""By the name of a kind of run: a healthy one."""
_CLASSES = ("mlp", "cnn", "lstm", "gru", "transformer")
_FORWARD = ("mlp", "cnn")


def _alike(kinds: tuple[str, ...], **changes: Any) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(kinds, changes)


_SGD = {"optimizer": "sgd", "rate": 0.05}
DISEASES: Mapping[str, tuple[set[str], dict[str, dict[str, Any]]]] = {
    "constant input": ({"constant_input"}, _alike(_CLASSES, constant=True)),
    "shuffled labels": ({"learns_nothing"}, _alike((*_CLASSES, "gpt"), shuffled=True)),
    "rare labels": ({"imbalance"}, _alike(_CLASSES, rare=0.015)),
    "inputs not normalised": ({"inputs_not_normalised"}, _alike(_CLASSES, scale=255.0)),
    "targets not scaled": ({"targets_not_scaled"}, _alike(("regression",), target_scale=500.0)),
    "validation scaled otherwise": (
        {"validation_scaled_otherwise"},
        _alike(_CLASSES, validation_scale=16.0),
    ),
    "few samples": ({"overfits"}, _alike((*_CLASSES, "regression"), samples=40, batch=20)),
    "softmax twice": ({"softmax_twice"}, _alike((*_CLASSES, "gpt"), softmax=True)),
    "squared error of classes": (
        {"squared_error_of_classes"},
        _alike(_CLASSES, squares=True, squash="sigmoid", **_SGD),
    ),
    "output squashed": (
        {"output_squashed"},
        {**_alike(_CLASSES, squash="relu"), "regression": {"squash": "sigmoid"}},
    ),
    "gradient cut": ({"no_gradient"}, _alike((*_CLASSES, "gpt"), cut=True)),
    "layer that idles": ({"never_changes"}, _alike((*_CLASSES, "gpt"), idle=True)),
    "equal weights": ({"units_alike"}, _alike((*_FORWARD, "regression"), equal=0.1)),
    "linear network": ({"linear_twice"}, _alike(("mlp", "regression"), linear=True, depth=3)),
    "tiny batch norm": (
        {"batch_norm_of_few"},
        _alike(_FORWARD, norm="batch", batch=8, shards=4),
    ),
    "too much dropout": ({"dropout_high"}, _alike(("mlp", "cnn", "lstm", "gru"), dropout=0.95)),
    "too much momentum": (
        {"momentum_high"},
        _alike((*_FORWARD, "regression"), momentum=0.999, **_SGD),
    ),
    "large epsilon": ({"epsilon_large", "rate_low"}, _alike(_CLASSES, epsilon=30.0)),
    "too much decay": (
        {"decay_high"},
        _alike((*_FORWARD, "regression"), decay=0.3, optimizer="sgd", rate=0.1),
    ),
    "saturated units": (
        {"saturated", "activations_explode"},
        _alike((*_FORWARD, "regression"), activation="tanh", gain=14.0, rate=1e-3),
    ),
    "exploding activations": (
        {"activations_explode", "saturated"},
        _alike(_FORWARD, gain=4.0, depth=6),
    ),
    "large last layer": ({"last_layer_large"}, _alike(_FORWARD, head_gain=60.0)),
    "dead units": ({"units_dead"}, _alike(_FORWARD, bias=-5.0)),
    "vanishing gradients": (
        {"gradients_vanish"},
        _alike((*_FORWARD, "regression"), activation="sigmoid", depth=7, **_SGD),
    ),
    "always clipped": (
        {"clips_always", "rate_low"},
        _alike((*_CLASSES, "regression"), clip=1e-3, **_SGD),
    ),
    "rate too high": (
        {"rate_high", "units_die", "rate_swings"},
        {
            "mlp": {"rate": 0.5},
            "regression": {"optimizer": "sgd", "rate": 1.5},
            "cnn": {"optimizer": "sgd", "rate": 1.5},
            "lstm": {"rate": 0.7},
            "gru": {"rate": 0.7},
            "transformer": {"rate": 0.3},
            "gpt": {"rate": 0.5},
        },
    ),
    "rate too low": (
        {"rate_low"},
        {
            "mlp": {"rate": 2e-5},
            "regression": {"optimizer": "sgd", "rate": 2e-5},
            "cnn": {"optimizer": "sgd", "rate": 1e-5},
            "lstm": {"rate": 3e-5},
            "gru": {"rate": 3e-5},
            "transformer": {"rate": 5e-6},
            "gpt": {"rate": 1e-5},
        },
    ),
}
"""By the name of a disease: the rules that name it, and by kind of run what is changed."""

_DOSES = {
    "rate": (0.6, 1.7),
    "gain": (0.8, 1.4),
    "head_gain": (0.7, 1.5),
    "bias": (0.9, 1.5),
    "scale": (0.3, 2.0),
    "validation_scale": (0.5, 2.0),
    "rare": (0.5, 1.4),
    "decay": (0.6, 2.0),
    "clip": (0.2, 2.0),
    "target_scale": (0.3, 3.0),
    "epsilon": (0.5, 3.0),
}
"""Between what multiples of a change its dose varies."""


def patient(disease: str, kind: str, seed: int) -> Options:
    """Return a run with a disease, of another dose and size for each seed."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{disease}.{kind}".encode())])
    changes = DISEASES[disease][1][kind]
    o = replace(DEFAULTS[kind], seed=seed, **changes)
    drawn: dict[str, Any] = {
        name: getattr(o, name) * float(np.exp(rng.uniform(*np.log(span))))
        for name, span in _DOSES.items()
        if name in changes
    }
    drawn["width"] = int(o.width * rng.choice([0.75, 1.0, 1.5])) // 8 * 8
    if "batch" not in changes:
        drawn |= {"batch": int(rng.choice([32, 64])), "shards": int(rng.choice([2, 4]))}
    drawn["schedule"] = str(rng.choice(["", "cosine", "warm-up"]))
    drawn["steps"] = int(rng.choice([200, 240, 320]))
    return replace(o, **drawn)


def healthy(number: int) -> Options:
    """Return a run that ought to come to a good result."""
    rng = np.random.default_rng([50_000, number])

    def one(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    kind = one("mlp", "mlp", "mlp", "regression", "cnn", "cnn", "lstm", "gru", "transformer", "gpt")
    o = DEFAULTS[kind]
    batch, shards = one((32, 2), (32, 4), (64, 4), (64, 8), (16, 1))
    optimizer = one("adam", "adam", "adamw", "sgd", "rmsprop")
    optimizer = "adam" if kind in ("transformer", "gpt") and optimizer == "sgd" else optimizer
    low, high = {
        "adam": (1e-3, 6e-3),
        "adamw": (1e-3, 6e-3),
        "rmsprop": (5e-4, 2e-3),
        "sgd": (0.02, 0.08),
    }[optimizer]
    faster = 2.5 if kind in ("lstm", "gru") else 1.0
    drawn = {
        "seed": number,
        "batch": batch,
        "shards": shards,
        "optimizer": optimizer,
        "rate": faster * between(low, high),
        "schedule": one("", "", "cosine", "warm-up"),
        "steps": one(240, 320, 400),
        "standardise": bool(rng.random() < 0.4),
        "decay": {"adamw": one(1e-2, 1e-1), "sgd": one(0.0, 1e-4, 1e-3)}.get(optimizer, 0.0),
        "depth": one(1, 2) if o.depth == 1 else one(1, 2, 3),
        "width": one(48, 64, 96),
        "activation": one("gelu", "relu")
        if kind in ("transformer", "gpt")
        else one("relu", "relu", "tanh", "gelu", "silu", "leaky"),
        "dropout": one(0.0, 0.0, 0.1, 0.3) if kind == "mlp" else 0.0,
        "clip": one(None, None, 1.0) if kind not in ("lstm", "gru") else one(None, 1.0, 5.0),
    }
    if kind in ("mlp", "cnn") and batch // shards >= 16:
        drawn["norm"] = one("", "batch")
    if kind == "regression":
        drawn["data"] = one("friedman", "friedman", "diabetes")
    return replace(o, **drawn)
