"""The table of models that are exported: each by every way that it can go."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import layers
from layers import models
from layers.rules import ForwardForward

BUNDLE, NUMPY, TORCH, ONNX = "bundle", "numpy", "torch", "onnx"
EVERY = (BUNDLE, NUMPY, TORCH, ONNX)


@dataclass(frozen=True)
class Exported:
    """A model, inputs for it, and how it goes.

    Attributes
    ----------
    name
        What it is.
    make
        Returns it, given a generator.
    shape
        Of an input, without the batch.
    ways
        How it can be exported.
    tokens
        How many tokens there are, if inputs are numbers of tokens.
    ragged
        Whether samples have lengths, too.
    theirs
        Of the way by PyTorch: returns the module, from `torch_modules`.
    names
        Their names, if those are others.
    """

    name: str
    make: Callable[[np.random.Generator], Any]
    shape: tuple[int, ...]
    ways: tuple[str, ...] = (BUNDLE, NUMPY, ONNX)
    tokens: int = 0
    ragged: bool = False
    theirs: str | None = None
    names: Any = None

    def __repr__(self) -> str:
        return self.name

    def model(self, seed: int = 3) -> Any:
        """Return the model with numbers that are nowhere those of the beginning."""
        rng = np.random.default_rng(seed)
        model = self.make(rng)
        for parameter in model.parameters():
            parameter.value = parameter.value + 0.1 * rng.standard_normal(parameter.shape)
        for name, state in model.named_states():
            low, high = (0.5, 2) if "variance" in name else (-0.5, 0.5)
            state.value = rng.uniform(low, high, state.shape)
        return model

    def inputs(self, samples: int = 5, seed: int = 4) -> tuple[Any, Any]:
        """Return inputs, and lengths or None."""
        rng = np.random.default_rng(seed)
        shape = samples, *self.shape
        x = (
            rng.integers(0, self.tokens, shape)
            if self.tokens
            else rng.standard_normal(shape).astype(np.float32)
        )
        if not self.ragged:
            return x, None
        lengths = rng.integers(1, self.shape[0] + 1, samples)
        lengths[0] = self.shape[0]
        return x, lengths


def _mlp(rng):
    return layers.Sequential(
        layers.Linear(6, 9, rng=rng),
        layers.ReLU(),
        layers.Dropout(0.3),
        layers.Linear(9, 4, rng=rng),
    )


def _activations(rng):
    names = (
        *("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "SiLU", "GELU", "ELU", "CELU", "SELU"),
        *("Softplus", "Mish", "Hardtanh", "ReLU6", "Hardsigmoid", "Hardswish", "PReLU"),
        *("Softmax", "LogSoftmax"),
    )
    parts = [layers.Linear(6, 8, rng=rng)]
    for name in names:
        parts += [getattr(layers, name)(), layers.Linear(8, 8, rng=rng)]
    more = (layers.GELU("tanh"), layers.Softplus(2.0), layers.CELU(0.5), layers.ELU(0.5))
    return layers.Sequential(*parts, *more, layers.PReLU(8), layers.LeakyReLU(0.3))


def _common_activations(rng):
    parts = [layers.Linear(6, 8, rng=rng)]
    for each in (
        *(layers.LeakyReLU(0.1), layers.Sigmoid(), layers.Tanh(), layers.SiLU(), layers.GELU()),
        *(layers.GELU("tanh"), layers.PReLU(8), layers.Identity(), layers.Softmax()),
    ):
        parts += [each, layers.Linear(8, 8, rng=rng)]
    return layers.Sequential(*parts)


def _windows(rng):
    conv = layers.Conv2d
    return layers.Sequential(
        conv(3, 6, (3, 2), padding=(1, 2), stride=(1, 2), groups=3, rng=rng),
        layers.BatchNorm2d(6),
        layers.Sigmoid(),
        conv(6, 4, 3, padding="same", dilation=2, bias=False, rng=rng),
        layers.AvgPool2d((2, 1), padding=(1, 0)),
        layers.ReLU(),
        conv(4, 5, 2, stride=2, padding="same", rng=rng),
        conv(5, 5, 3, padding=((1, 0), (2, 1)), rng=rng),
        layers.MaxPool2d(3, stride=1, padding=1),
        layers.Flatten(),
        layers.LayerNorm(20),
        layers.RMSNorm(20),
    )


def _other_windows(rng):
    conv = layers.Conv2d
    return layers.Sequential(
        conv(3, 4, 3, padding=1, padding_mode="reflect", rng=rng),
        conv(4, 4, 3, padding=1, padding_mode="replicate", rng=rng),
        layers.GroupNorm(2, 4),
        conv(4, 4, 3, padding=(2, 1), padding_mode="circular", rng=rng),
        layers.InstanceNorm2d(4, affine=True),
        layers.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        layers.ConvTranspose2d(4, 5, 3, stride=2, padding=1, output_padding=1, rng=rng),
        layers.AvgPool2d(3, stride=2, padding=1, ceil_mode=True),
        layers.Upsample(2),
        layers.Upsample(size=(7, 9), mode="bilinear"),
        layers.Upsample(size=(10, 8), mode="bilinear", align_corners=True),
        layers.AvgPool2d(3, stride=2, padding=1, count_padding=False, ceil_mode=True),
        layers.Upsample(size=(7, 9)),
        layers.AdaptiveAvgPool2d((3, 4)),
        layers.AdaptiveMaxPool2d(2),
        layers.ChannelsFirst(),
        layers.ChannelsLast(),
        layers.AdaptiveAvgPool2d(1),
        layers.Reshape(5),
    )


def _sequence_windows(rng):
    return layers.Sequential(
        layers.Conv1d(4, 6, 3, padding=(2, 0), dilation=1, rng=rng),
        layers.BatchNorm(6),
        layers.Tanh(),
        layers.MaxPool1d(2, padding=1),
        layers.Conv1d(6, 5, 3, padding="same", groups=1, rng=rng),
        layers.AvgPool1d(2),
        layers.PoolOverTime("max"),
    )


def _more_sequence_windows(rng):
    return layers.Sequential(
        layers.ConvTranspose1d(4, 6, 3, stride=2, rng=rng),
        layers.InstanceNorm1d(6),
        layers.AdaptiveAvgPool1d(5),
        layers.AdaptiveMaxPool1d(3),
        layers.SinusoidalPositions(9, 6),
        layers.Linear(6, 3, rng=rng, bias=False),
    )


def _volumes(rng):
    return layers.Sequential(
        layers.Conv3d(2, 4, 3, padding=1, rng=rng),
        layers.ReLU(),
        layers.MaxPool3d(2),
        layers.ConvTranspose3d(4, 3, 2, stride=2, rng=rng),
        layers.AvgPool3d(2, padding=1),
        layers.Flatten(),
    )


def _recurrent(kind, **options):
    def make(rng):
        return layers.Sequential(
            kind(4, 5, rng=rng, **options),
            layers.Linear(5 * (2 if options.get("bidirectional") else 1), 3, rng=rng),
        )

    return make


def _words(rng):
    return layers.Sequential(
        layers.Embedding(11, 6, padding=0, rng=rng),
        layers.LSTM(6, 5, bidirectional=True, rng=rng),
        layers.PoolOverTime("mean"),
        layers.Linear(10, 3, rng=rng),
    )


def _encoder(rng, **options):
    return layers.Sequential(
        layers.EncoderBlock(8, 2, 12, rng=rng, **options),
        layers.EncoderBlock(8, 4, rng=rng, activation=layers.ReLU()),
    )


def _shared(rng):
    twice = layers.Linear(6, 6, rng=rng)
    body = layers.Sequential(twice, layers.Tanh(), twice)
    return layers.Sequential(
        layers.Residual(body), layers.ReLU(), layers.Recompute(layers.Linear(6, 6, rng=rng)), twice
    )


def _forward_forward(make):
    """Return what makes a network that learns by forward-forward, as it predicts."""

    def predictor(rng):
        rule, network = ForwardForward(), make(rng)
        rule.bind(network)
        return rule.predictor(network)

    return predictor


def _tiny_cnn(rng):
    return models.small_cnn(rng, image=(12, 12, 1), widths=(4, 8), hidden=9)


_BOTH = {"layers": 2, "bidirectional": True}
MODELS = [
    Exported("MLP", _mlp, (6,), EVERY, theirs="mlp"),
    Exported("activations", _activations, (6,), (BUNDLE, ONNX)),
    Exported("common activations", _common_activations, (6,)),
    Exported("LeNet-5", models.lenet5, (28, 28, 1), EVERY, theirs="lenet5"),
    Exported(
        "small CNN",
        _tiny_cnn,
        (12, 12, 1),
        EVERY,
        theirs="small_cnn",
    ),
    Exported("ResNet-20", models.resnet20, (16, 16, 3), EVERY, theirs="resnet20", names="in order"),
    Exported("windows", _windows, (7, 8, 3)),
    Exported("other windows", _other_windows, (7, 6, 3), (BUNDLE, ONNX)),
    Exported("windows in time", _sequence_windows, (11, 4)),
    Exported("more windows in time", _more_sequence_windows, (5, 4), (BUNDLE, ONNX)),
    Exported("volumes", _volumes, (4, 6, 5, 2), (BUNDLE, ONNX)),
    Exported("LSTM", _recurrent(layers.LSTM), (7, 4), EVERY, theirs="lstm"),
    Exported("LSTM both ways", _recurrent(layers.LSTM, **_BOTH), (7, 4), EVERY, theirs="lstm_both"),
    Exported("GRU", _recurrent(layers.GRU), (7, 4), EVERY, theirs="gru"),
    Exported("GRU both ways", _recurrent(layers.GRU, **_BOTH), (7, 4), EVERY, theirs="gru_both"),
    Exported("RNN", _recurrent(layers.RNN, nonlinearity="relu"), (7, 4), EVERY, theirs="rnn"),
    *(
        Exported(
            f"{kind.__name__} {end} of lengths",
            _recurrent(kind, last=last, **_BOTH),
            (7, 4),
            ragged=True,
        )
        for kind in (layers.LSTM, layers.GRU, layers.RNN)
        for last, end in ((False, "steps"), (True, "last step"))
    ),
    Exported(
        "LSTM without bias", _recurrent(layers.LSTM, bias=False, last=True), (7, 4), ragged=True
    ),
    Exported("words of lengths", _words, (9,), tokens=11, ragged=True),
    *(
        Exported(
            f"{kind} over time of lengths",
            lambda rng, kind=kind: layers.Sequential(
                layers.Linear(4, 5, rng=rng), layers.PoolOverTime(kind)
            ),
            (7, 4),
            ragged=True,
        )
        for kind in ("mean", "max", "last")
    ),
    Exported(
        "GPT",
        lambda rng: models.gpt(rng, 13, context=8, features=12, depth=2, heads=3, tied=True),
        (8,),
        EVERY,
        tokens=13,
        theirs="gpt",
        names="nanogpt",
    ),
    Exported(
        "forward-forward",
        _forward_forward(_mlp),
        (6,),
        (BUNDLE, TORCH, ONNX),
        theirs="mlp_by_forward_forward",
    ),
    Exported(
        "small CNN by forward-forward",
        _forward_forward(lambda rng: models.small_cnn(rng, (8, 8, 2), 10, (4, 8), 9)),
        (8, 8, 2),
        (BUNDLE, TORCH, ONNX),
        theirs="small_cnn_by_forward_forward",
    ),
    Exported("encoder", _encoder, (6, 8), EVERY, theirs="encoder"),
    Exported("encoder of lengths", _encoder, (6, 8), ragged=True),
    Exported("causal encoder", lambda rng: _encoder(rng, causal=True, dropout=0.1), (6, 8)),
    Exported("shared layers", _shared, (6,), (BUNDLE, NUMPY, ONNX)),
    Exported(
        "batch norm of rows",
        lambda rng: layers.Sequential(layers.BatchNorm(6), layers.Linear(6, 4, rng=rng)),
        (6,),
        EVERY,
        theirs="batch_norm",
    ),
]


def by(way: str) -> list[Exported]:
    """Return the models that go a way."""
    return [each for each in MODELS if way in each.ways]
