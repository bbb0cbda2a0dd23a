"""The networks of the clinic's patients, and what may be wrong with them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers import (
    GELU,
    GRU,
    LSTM,
    RNN,
    BatchNorm,
    BatchNorm2d,
    Composite,
    Conv2d,
    Dropout,
    Embedding,
    EncoderBlock,
    Flatten,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    LearnedPositions,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Value,
    init,
)

from .patient_data import outputs_of, table

if TYPE_CHECKING:
    from .patients import Options

ACTIVATIONS: dict[str, Any] = {
    "relu": ReLU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "gelu": GELU,
    "silu": SiLU,
    "leaky": LeakyReLU,
}
RECURRENT: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


class Net(Composite):
    """Stages one after the other; the gradient may be cut in the middle."""

    def __init__(self, stages: list[Any], cut: bool) -> None:
        self.stages = stages
        self._cut = max(1, len(stages) // 2) if cut else -1

    def __call__(self, x: Any) -> Any:
        for number, stage in enumerate(self.stages):
            # A prediction records nothing, and has no gradient to cut.
            if number == self._cut and isinstance(x, Value):
                x = x.detach()
            x = stage(x)
        return x


class MeanOverTime(Composite):
    """The mean over the positions of a sequence."""

    def __call__(self, x: Any) -> Any:
        return x.mean(axis=1)


class CentredOverBatch(Composite):
    """Takes the mean over the samples away, where that over the features was meant."""

    def __call__(self, x: Any) -> Any:
        return x - x.mean(axis=0)


def network(o: "Options") -> Net:
    """Return the network of a run."""
    rng = np.random.default_rng(o.seed)
    outputs = outputs_of(o.data)
    if o.family == "mlp":
        stages = _dense(o, rng)
    elif o.family == "residual":
        stages = _residual(o, rng)
    elif o.family == "cnn":
        stages = _images(o, rng)
    elif o.family in RECURRENT:
        stages = _sequences(o, rng)
    else:
        stages = _attention(o, rng)
    size = stages.pop()
    stages.append(_head(o, rng, size, outputs))
    stages += [CentredOverBatch()] * o.over_batch
    stages += [Softmax()] * o.softmax
    stages += [ACTIVATIONS[o.squash]()] if o.squash else []
    if o.frozen:
        for stage in stages[:-1]:
            stage.freeze()
    return Net(stages, o.cut)


# These return the stages before the last layer, and then how many numbers come out of them.


def _dense(o: "Options", rng: Any) -> list[Any]:
    size = int(np.prod(table(o.data)[0].shape[1:]))
    stages: list[Any] = []
    for _ in range(o.depth):
        bias = init.constant(o.bias)
        stages.append(Linear(size, o.width, rng=rng, weight_init=_weights(o), bias_init=bias))
        stages += _norm(o, o.width, BatchNorm)
        stages += [] if o.linear else [ACTIVATIONS[o.activation]()]
        stages += _dropout(o)
        size = o.width
    return [*stages, size]


def _residual(o: "Options", rng: Any) -> list[Any]:
    size = int(np.prod(table(o.data)[0].shape[1:]))
    weights = _weights(o)
    blocks = [
        Residual(
            Sequential(
                *(_norm(o, o.width, BatchNorm) or [LayerNorm(o.width)]),
                Linear(o.width, o.width, rng=rng, weight_init=weights),
                ACTIVATIONS[o.activation](),
                Linear(o.width, o.width, rng=rng, weight_init=weights),
            )
        )
        for _ in range(o.depth)
    ]
    first = Linear(size, o.width, rng=rng, weight_init=weights)
    return [first, *blocks, ACTIVATIONS[o.activation](), *_dropout(o), o.width]


def _images(o: "Options", rng: Any) -> list[Any]:
    weights, channels = _weights(o), 1
    side = round(table(o.data)[0].shape[1] ** 0.5)
    stages: list[Any] = []
    for number in range(o.depth):
        width = o.width // 4 * (2 if number else 1)
        stages.append(
            Conv2d(
                channels,
                width,
                3,
                padding=1,
                rng=rng,
                weight_init=weights,
                bias_init=init.constant(o.bias),
            )
        )
        stages += _norm(o, width, BatchNorm2d)
        stages.append(ACTIVATIONS[o.activation]())
        if number < 2:
            stages.append(MaxPool2d(2))
            side //= 2
        stages += _dropout(o)
        channels = width
    inner = Linear(side * side * channels, 48, rng=rng, weight_init=weights)
    return [*stages, Flatten(), inner, ACTIVATIONS[o.activation](), 48]


def _sequences(o: "Options", rng: Any) -> list[Any]:
    x = table(o.data)[0]
    size = round(x.shape[1] ** 0.5) if x.ndim == 2 else x.shape[-1]
    width = o.width // 2
    options: dict[str, Any] = {"layers": o.depth, "bidirectional": o.bidirectional}
    if o.family == "rnn":
        options["nonlinearity"] = "relu" if o.activation == "leaky" else "tanh"
    layer = RECURRENT[o.family](size, width, last=True, rng=rng, **options)
    for cell in layer.cells:
        cell.weight_ih.value = cell.weight_ih.value * np.float32(o.gain)
        cell.weight_hh.value = cell.weight_hh.value * np.float32(o.recurrent_gain)
    return [layer, *_dropout(o), width * (2 if o.bidirectional else 1)]


def _attention(o: "Options", rng: Any) -> list[Any]:
    x, _ = table(o.data)
    tokens = x.dtype.kind == "i"
    length = x.shape[1] if tokens or x.ndim == 3 else round(x.shape[1] ** 0.5)
    size = x.shape[-1] if x.ndim == 3 else length
    width = o.width // 2
    first: Any = (
        Embedding(outputs_of(o.data), width, rng=rng) if tokens else Linear(size, width, rng=rng)
    )
    blocks = [
        EncoderBlock(
            width,
            4,
            2 * width,
            rng=rng,
            causal=o.family == "gpt",
            dropout=o.dropout,
            activation=ACTIVATIONS[o.activation](),
            weight_init=_weights(o),
        )
        for _ in range(o.depth)
    ]
    for block in blocks:
        if o.attention_gain != 1:
            # The rows of queries and keys come before those of values.
            projection = block.attention.projection.weight
            value = projection.value.copy()
            value[: 2 * width] *= np.float32(o.attention_gain)
            projection.value = value
    mean = [] if o.family == "gpt" else [MeanOverTime()]
    return [
        first,
        LearnedPositions(length, width, rng=rng),
        *blocks,
        LayerNorm(width),
        *mean,
        width,
    ]


def _norm(o: "Options", width: int, batch_norm: Any) -> list[Any]:
    if o.norm == "batch":
        return [batch_norm(width, momentum=o.norm_momentum)]
    if o.norm == "group":
        return [GroupNorm(width // 4, width)]
    return [LayerNorm(width)] if o.norm == "layer" else []


def _dropout(o: "Options") -> list[Any]:
    return [Dropout(o.dropout)] if o.dropout else []


def _weights(o: "Options") -> Any:
    squashes = o.activation in ("tanh", "sigmoid")
    attends = o.family in ("transformer", "gpt")
    base = init.xavier_uniform if squashes or attends else init.he_uniform
    if o.equal:
        return init.constant(o.equal)
    return lambda rng, shape: (0.0 if o.zeros else o.gain) * base(rng, shape)


def _head(o: "Options", rng: Any, size: int, outputs: int) -> Linear:
    gain = 0.0 if o.zeros else o.head_gain
    return Linear(
        size,
        outputs,
        rng=rng,
        weight_init=lambda rng, shape: gain * init.xavier_uniform(rng, shape),
    )
