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
    "rnn": Options(family="rnn", data="first", depth=1),
    "rnn of digits": Options(family="rnn", depth=1),
    "residual": Options(family="residual"),
}
"""By the name of a kind of run: a healthy one."""
_CLASSES = ("mlp", "cnn", "lstm", "gru", "transformer")
_FORWARD = ("mlp", "cnn")


def _alike(kinds: tuple[str, ...], **changes: Any) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(kinds, changes)


_SGD = {"optimizer": "sgd", "rate": 0.05}
_ALL = (*_CLASSES, "regression", "gpt")
_DENSE = (*_FORWARD, "regression")
_RECURRENT = ("lstm", "gru")
_TOO_HIGH = ("rate_high", "rate_swings", "units_die")
DISEASES: Mapping[str, tuple[tuple[str, ...], dict[str, dict[str, Any]]]] = {
    # The data.
    "constant input": (("constant_input",), _alike(_CLASSES, constant=True)),
    "shuffled labels": (("learns_nothing",), _alike((*_CLASSES, "gpt"), labels="shuffled")),
    "labels shifted by one": (("learns_nothing",), _alike((*_CLASSES, "gpt"), labels="shifted")),
    "one label": (("imbalance",), _alike(_CLASSES, labels="constant")),
    "rare labels": (("imbalance",), _alike(_CLASSES, rare=0.015)),
    "padding counted": (("imbalance",), _alike(("gpt",), labels="padded")),
    "inputs not normalised": (("inputs_not_normalised",), _alike(_CLASSES, scale=255.0)),
    "inputs divided twice": (("inputs_not_normalised",), _alike(_CLASSES, scale=1 / 3e4)),
    "column not normalised": (
        ("inputs_not_normalised",),
        {"mlp": {"data": "cancer", "column": 1e3}, "regression": {"column": 1e3}},
    ),
    "targets not scaled": (("targets_not_scaled",), _alike(("regression",), target_scale=500.0)),
    "validation scaled otherwise": (
        ("validation_scaled_otherwise",),
        _alike(_CLASSES, validation_scale=16.0),
    ),
    "drowned in noise": (
        ("validation_scaled_otherwise", "learns_nothing"),
        _alike(_CLASSES, augment="noise"),
    ),
    "few samples": (("overfits",), _alike((*_CLASSES, "regression"), samples=40, batch=20)),
    "sorted data": (("data_sorted",), _alike(_CLASSES, order="sorted")),
    "equal seeds of loaders": (("shards_alike",), _alike(_ALL, order="alike", shards=8)),
    "missing values": (("(error)",), _alike((*_CLASSES, "regression"), missing=12)),
    "label beyond the outputs": (("(error)",), _alike((*_CLASSES, "gpt"), labels="beyond")),
    # The network.
    "softmax twice": (("softmax_twice",), _alike((*_CLASSES, "gpt"), softmax=True)),
    "squared error of classes": (
        ("squared_error_of_classes",),
        _alike(_CLASSES, squares=True, squash="sigmoid", **_SGD),
    ),
    "output squashed": (
        ("output_squashed",),
        {**_alike(_CLASSES, squash="relu"), "regression": {"squash": "sigmoid"}},
    ),
    "mean over the batch": (("(error)",), _alike(_CLASSES, over_batch=True)),
    "gradient cut": (("no_gradient",), _alike((*_CLASSES, "gpt"), cut=True)),
    "equal weights": (("units_alike",), _alike(_DENSE, equal=0.1)),
    "weights of zero": (("units_alike", "no_gradient"), _alike(_DENSE, zeros=True)),
    "linear network": (("linear_twice",), _alike(("mlp", "regression"), linear=True, depth=3)),
    "tiny batch norm": (
        ("batch_norm_of_few",),
        _alike(("mlp",), norm="batch", batch=8, shards=4),
    ),
    "stale statistics": (
        ("batch_norm_stale",),
        _alike(_FORWARD, norm="batch", norm_momentum=1e-4, shards=2, scale=6.0),
    ),
    "too much dropout": (("dropout_high",), _alike(("mlp", "cnn", "lstm", "gru"), dropout=0.95)),
    "saturated units": (
        ("saturated", "activations_explode"),
        _alike(_DENSE, activation="tanh", gain=14.0, rate=1e-3),
    ),
    "saturated gates": (("saturated",), _alike(_RECURRENT, gain=60.0, recurrent_gain=15.0)),
    "attention saturated": (
        ("attention_saturated",),
        _alike(("transformer", "gpt"), attention_gain=25.0),
    ),
    "exploding activations": (
        ("activations_explode", "saturated"),
        _alike(_FORWARD, gain=4.0, depth=6),
    ),
    "large last layer": (("last_layer_large",), _alike(_FORWARD, head_gain=60.0)),
    "dead units": (("units_dead",), _alike(_FORWARD, bias=-5.0)),
    "vanishing gradients": (
        ("gradients_vanish",),
        _alike(_DENSE, activation="sigmoid", depth=7, **_SGD),
    ),
    "vanishing through time": (
        ("gradients_vanish",),
        {"rnn": {"recurrent_gain": 0.25}},
    ),
    # The training.
    "layer that idles": (("never_changes",), _alike((*_CLASSES, "gpt"), idle=True)),
    "frozen by accident": (
        ("mostly_frozen", "never_changes", "no_gradient"),
        _alike((*_CLASSES, "gpt"), frozen=True, width=16),
    ),
    "stale parameters": (("(error)",), _alike((*_CLASSES, "regression"), stale=True)),
    "gradients not cleared": (
        ("gradient_not_cleared",),
        {**_alike(_CLASSES, kept_gradient=True), "regression": {"kept_gradient": True, **_SGD}},
    ),
    "gradient flipped": (("gradient_flipped",), _alike(_ALL, sign=-1.0)),
    "underflow": (
        ("underflows",),
        _alike((*_CLASSES, "regression"), half=True, loss_factor=1e-7),
    ),
    "sum for mean": (
        ("loss_scaled", *_TOO_HIGH),
        _alike((*_CLASSES, "regression"), loss_factor=128.0, optimizer="sgd", rate=0.05),
    ),
    "loss scaled down": (
        ("loss_scaled", "rate_low"),
        _alike((*_CLASSES, "regression"), loss_factor=1e-4, optimizer="sgd", rate=0.05),
    ),
    "clipping missing": (
        ("clipping_missing",),
        _alike(("rnn", "rnn of digits"), recurrent_gain=1.6, optimizer="sgd", rate=0.1),
    ),
    "too much momentum": (("momentum_high",), _alike(_DENSE, momentum=0.999, **_SGD)),
    "large epsilon": (("epsilon_large", "rate_low"), _alike(_CLASSES, epsilon=30.0)),
    "too much decay": (
        ("decay_high",),
        {
            **_alike(_DENSE, decay=0.3, optimizer="sgd", rate=0.1),
            **_alike(("lstm", "transformer"), decay=0.1),
        },
    ),
    "always clipped": (
        ("clips_always", "rate_low"),
        _alike((*_CLASSES, "regression"), clip=1e-3, **_SGD),
    ),
    "rate too high": (
        _TOO_HIGH,
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
    "rate swings": (
        ("rate_swings", "rate_high", "units_die"),
        {
            "mlp": {"rate": 0.1, "depth": 3},
            "regression": {"rate": 0.15},
            "cnn": {"rate": 0.06},
            "lstm": {"rate": 0.2},
            "transformer": {"rate": 0.06},
        },
    ),
    "rate too low": (
        ("rate_low",),
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
    "decays by steps, not epochs": (("rate_low",), _alike(_ALL, schedule="by step")),
    "warm-up without end": (("rate_low",), _alike(_ALL, schedule="long warm-up")),
}
"""By the name of a disease: the rules that name it, the one that ought to first, and by kind of run
what is changed. "(error)" stands for an error that training does not begin with, or ends by.
"""

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
    "recurrent_gain": (0.9, 1.3),
    "attention_gain": (0.8, 1.5),
    "column": (0.5, 3.0),
    "loss_factor": (0.5, 1.2),
}
"""Between what multiples of a change its dose varies."""


def patient(disease: str, kind: str, seed: int) -> Options:
    """Return a run with a disease, of another dose and size for each seed."""
    rng = np.random.default_rng([90_000 + seed, zlib.crc32(f"{disease}.{kind}".encode())])
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
    schedule = str(rng.choice(["", "cosine", "warm-up"]))
    drawn["schedule"] = changes.get("schedule", schedule)
    drawn["steps"] = int(rng.choice([200, 240, 320]))
    return replace(o, **drawn)
