"""The kinds of layers that files can name: how each is made, and what it was made with."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import layers
from layers import Module, Sequential
from layers.errors import message, wording
from layers.rules.predictor import Predictor

Read = Callable[[Any], Any]


@dataclass(frozen=True)
class Kind:
    """What is known of a class of layers.

    Attributes
    ----------
    kind
        The class.
    make
        Returns a layer, given its arguments by name.
    arguments
        How each argument is read from a layer, by name. What is read is numbers, texts, lists of
        them, layers, or lists of layers.
    elements
        How many numbers a layer holds that no generator draws, given its arguments.
    """

    kind: type[Module]
    make: Callable[..., Any]
    arguments: Mapping[str, Read]
    elements: Callable[[Mapping[str, Any]], int] = lambda arguments: 0

    def takes(self, name: str) -> bool:
        """Return whether its constructor has an argument of this name."""
        return name in inspect.signature(self.make).parameters


KINDS: dict[str, Kind] = {}
"""By the names that files have for them."""
_NAMES: dict[type, str] = {}


@wording("register")
def register(kind: type[Module], *arguments: str, name: str | None = None) -> type[Module]:
    """Let files name a class of layers of your own, so that bundles with them can be loaded.

    Parameters
    ----------
    kind
        The class: a `Composite` or a `Layer`.
    arguments
        The names of what its constructor takes, beside `rng`; each must also be an attribute that
        holds it: a number, a text, a layer, or a list of these.
    name
        What files call it; the name of the class unless given.

    Returns
    -------
    type
        The class.

    Raises
    ------
    TypeError
        It is no class of layers, or takes no such arguments.
    ValueError
        Another class has the name.

    Notes
    -----
    Loading runs no code of a file: a process that loads such a bundle must have imported the class
    and registered it.

    >>> class Gate(Composite):
    ...     def __init__(self, body, share):
    ...         self.body, self.share = body, share
    ...     def __call__(self, x):
    ...         return self.share * self.body(x) + (1 - self.share) * x
    >>> register(Gate, "body", "share")
    """
    given: Any = kind
    if not (isinstance(given, type) and issubclass(given, Module)):
        fix = "Derive it from layers.Composite or layers.Layer."
        raise TypeError(message("register", "kind must be a class of layers", repr(given), fix))
    taken = inspect.signature(kind).parameters
    for each in arguments:
        if each not in taken:
            must = f"arguments must be those of {kind.__name__}, {', '.join(taken) or 'none'}"
            fix = "Name what its constructor takes, beside rng."
            raise TypeError(message("register", must, repr(each), fix))
    name = kind.__name__ if name is None else name
    known = KINDS.get(name)
    # A notebook defines a class anew whenever its cell runs.
    if known is not None and (known.kind in PUBLIC or known.kind.__module__ != kind.__module__):
        fix = "Pass name= with another one."
        raise ValueError(message("register", f"{name} must be a new name", known.kind, fix))
    _add(name, Kind(kind, kind, {each: _attribute(each) for each in arguments}))
    return kind


def kind_of(layer: Any) -> tuple[str, Kind]:
    """Return the name and the kind of a layer.

    Raises
    ------
    TypeError
        There is none; the error names its class.
    """
    name = _NAMES.get(type(layer))
    if name is None:
        must = "every layer must be of a kind that files can name"
        fix = "ddbp.export.register(Kind, 'argument', …) adds a class of layers of your own."
        got = f"a {type(layer).__name__}, {_shortened(repr(layer))}"
        raise TypeError(message("ddbp.export", must, got, fix))
    return name, KINDS[name]


def _shortened(text: str) -> str:
    return text if len(text) < 80 else f"{text[:77]}…"


def _add(name: str, kind: Kind) -> None:
    KINDS[name] = kind
    _NAMES[kind.kind] = name


# ---- how arguments are read


def _attribute(name: str) -> Read:
    return lambda layer: getattr(layer, name)


def _has(name: str) -> Read:
    return lambda layer: getattr(layer, name) is not None


def _last(name: str) -> Read:
    """Read the number of the last axis, that of time."""
    return lambda layer: value[-1] if isinstance(value := getattr(layer, name), tuple) else value


def _listed(name: str) -> Read:
    return lambda layer: None if (value := getattr(layer, name)) is None else np.asarray(value)


def _of(path: str) -> Read:
    """Read an attribute of an attribute, which may be an entry of a tuple."""

    def read(layer: Any) -> Any:
        for part in path.split("."):
            layer = layer[int(part)] if part.isdigit() else getattr(layer, part)
        return layer

    return read


def _count(*names: str) -> Callable[[Mapping[str, Any]], int]:
    """Count the product of sizes among arguments, which may be of anybody's making."""

    def count(arguments: Mapping[str, Any]) -> int:
        numbers = []
        for name in names:
            value = arguments.get(name, 1)
            numbers += value if isinstance(value, list) else [value]
        return math.prod(abs(each) for each in numbers if type(each) is int)

    return count


def _define(
    text: str,
    names: Any = "",
    make: Callable[..., Any] | None = None,
    elements: Callable[[Mapping[str, Any]], int] | None = None,
    **read: Read,
) -> None:
    """Define kinds of this package: their names, and those of the arguments that are attributes,
    separated by spaces; others are read as `read` says.
    """
    for name in text.split():
        kind = getattr(layers, name)
        arguments = {each: _attribute(each) for each in names.split()} | read
        _add(name, Kind(kind, make or kind, arguments, elements or (lambda arguments: 0)))


def _forward_forward(layers: Iterable[Any], fuse: bool = True) -> Module:
    return Predictor(_sequential(layers, fuse))


def _sequential(layers: Iterable[Any], fuse: bool = True) -> Module:
    return Sequential(*layers, fuse=fuse)


_BIAS = {"bias": _has("bias")}
_AFFINE = {"affine": _has("weight")}

# ---- activations
_define("ReLU Sigmoid Tanh SiLU SELU Mish ReLU6 Hardsigmoid Hardswish Identity")
_define("LeakyReLU", "slope")
_define("GELU", "approximate")
_define("ELU CELU", "alpha")
_define("Softplus", "beta")
_define("Hardtanh", "low high")
_define("Softmax LogSoftmax", "axis")
_define("PReLU", "features", elements=_count("features"))

# ---- dense layers, convolutions, pooling
_define("Linear", "in_features out_features", **_BIAS)
_WINDOW = "in_channels out_channels groups algorithm"
_define("Conv2d Conv3d", f"{_WINDOW} kernel_size stride padding padding_mode dilation", **_BIAS)
_define(
    "Conv1d",
    f"{_WINDOW} padding_mode",
    **_BIAS,
    **{name: _last(name) for name in ("kernel_size", "stride", "padding", "dilation")},
)
_TRANSPOSED = ("kernel_size", "stride", "padding", "output_padding", "dilation")
_define("ConvTranspose2d ConvTranspose3d", f"{_WINDOW} {' '.join(_TRANSPOSED)}", **_BIAS)
_define("ConvTranspose1d", _WINDOW, **_BIAS, **{name: _last(name) for name in _TRANSPOSED})
_define("MaxPool2d MaxPool3d", "kernel_size stride padding ceil_mode")
_define("AvgPool2d AvgPool3d", "kernel_size stride padding count_padding ceil_mode")
_SLIDING = {name: _last(name) for name in ("kernel_size", "stride", "padding")}
_define("MaxPool1d", "ceil_mode", **_SLIDING)
_define("AvgPool1d", "count_padding ceil_mode", **_SLIDING)
_define("AdaptiveAvgPool2d AdaptiveMaxPool2d", "output_size")
_define("AdaptiveAvgPool1d AdaptiveMaxPool1d", output_size=_last("output_size"))
_define("GlobalAveragePool")
_define("Upsample", "scale size mode align_corners")
_define("PoolOverTime", "kind")
_define("PaddedShortcut", "in_channels out_channels stride")

# ---- norms, dropout
_define(
    "BatchNorm BatchNorm2d",
    "features momentum epsilon synchronized",
    elements=_count("features"),
    **_AFFINE,
)
_define("LayerNorm", "features epsilon", elements=_count("features"), **_BIAS, **_AFFINE)
_define("RMSNorm", "features epsilon", elements=_count("features"), **_AFFINE)
_define("GroupNorm", "groups features epsilon", elements=_count("features"), **_AFFINE)
_define(
    "InstanceNorm InstanceNorm1d InstanceNorm2d",
    "features epsilon",
    elements=_count("features"),
    **_AFFINE,
)
_define("Dropout Dropout2d", "p")

# ---- tokens, positions, shapes, several inputs
_define("Embedding", "tokens features padding")
_define("LearnedPositions", "length features")
_define("SinusoidalPositions", "length features", elements=_count("length", "features"))
_define("Flatten ChannelsLast ChannelsFirst Add Multiply")
_define("Concatenate", "axis")
_define("Reshape", "shape", lambda shape: layers.Reshape(*shape))
_define(
    "Coefficients",
    make=lambda shape: layers.Coefficients(np.zeros(shape)),
    elements=_count("shape"),
    shape=_of("values.shape"),
)

# ---- recurrences, attention, trees
_SEQUENCES = "input_size hidden_size layers bidirectional last"
_IN_LAYERS = {"bias": lambda layer: layer.cells[0].bias_ih is not None, "dropout": _of("dropout.p")}
_define("LSTM GRU", _SEQUENCES, **_IN_LAYERS)
_define(
    "RNN",
    _SEQUENCES,
    **_IN_LAYERS,
    nonlinearity=lambda layer: "relu" if layer.cells[0].rectified else "tanh",
)
_OF_CELL = {
    "input_size": _of("layer.input_size"),
    "hidden_size": _of("layer.hidden_size"),
    "bias": lambda cell: cell.layer.cells[0].bias_ih is not None,
}
_define("LSTMCell GRUCell", **_OF_CELL)
_define(
    "RNNCell",
    **_OF_CELL,
    nonlinearity=lambda cell: "relu" if cell.layer.cells[0].rectified else "tanh",
)
_define("Attention", "heads causal dropout")
_define(
    "MultiHeadAttention",
    "features cross",
    heads=_of("attention.heads"),
    causal=_of("attention.causal"),
    dropout=_of("attention.dropout"),
    bias=lambda layer: layer.output.bias is not None,
)
_define(
    "EncoderBlock DecoderBlock",
    features=_of("attention.features"),
    heads=_of("attention.attention.heads"),
    hidden=_of("dense.layers.0.out_features"),
    causal=_of("attention.attention.causal"),
    dropout=_of("attention.attention.dropout"),
    activation=_of("dense.layers.1"),
)
_define("TreeLSTM", "input_size hidden_size all_nodes")
_define("TreeRNN", "input_size hidden_size children all_nodes")

# ---- layers of layers
_define("Sequential", "layers fuse", _sequential)
_define("Residual", "body shortcut")
_define("Recompute", "segment")

# ---- what a learning rule has a network predict with
_add(
    "ForwardForwardPredictor",
    Kind(Predictor, _forward_forward, {each: _attribute(each) for each in ("layers", "fuse")}),
)

# ---- losses
_define("MeanSquaredError MeanAbsoluteError KLDivergence CosineDistance")
_define("SoftmaxCrossEntropy", "label_smoothing ignore", class_weights=_listed("class_weights"))
_define("BinaryCrossEntropy", pos_weight=_listed("pos_weight"))
_define("MultiClassHinge CosineEmbedding", "margin")
_define("Hinge", "squared")
_define("Huber", "delta")
_define("SmoothL1", "beta")
_define("PoissonNLL", "log_input")
_define("GaussianNLL", "least")
_define("CTC", "blank padding per_label zero_infinity")

PUBLIC = frozenset(_NAMES)
"""The classes of this package."""
