"""Rows of the table of public calls: layers, functions of values, tapes and learning rules."""

from functools import partial

import numpy as np
from valid import (
    IMAGES,
    LABELS,
    LINES,
    NODES,
    POSITIVE,
    RNG,
    ROWS,
    STATE,
    TOKENS,
    TREES,
    VOLUMES,
    Row,
    _operate,
    layer,
    learns,
    method,
    network,
    passes,
    row,
    value,
)

import layers

ACTIVATIONS = (
    *("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "SiLU", "GELU", "ELU", "CELU", "SELU"),
    *("Softplus", "Mish", "ReLU6", "Hardtanh", "Hardsigmoid", "Hardswish", "Softmax", "LogSoftmax"),
    *("Identity", "Flatten", "Dropout", "PReLU"),
)
ELEMENTWISE = ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "erf", "absolute")
DRAWN = (
    *("xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "lecun_uniform"),
    *("lecun_normal", "orthogonal", "zeros", "ones"),
)

LAYERS = [
    *(layer(name, x=POSITIVE) for name in ACTIVATIONS),
    layer("Linear", in_features=6, out_features=3, rng=RNG, x=ROWS),
    layer("MeanSquaredError", x=(ROWS, ROWS)),
    layer("MeanAbsoluteError", x=(ROWS, ROWS)),
    layer("Huber", x=(ROWS, ROWS)),
    layer("SmoothL1", x=(ROWS, ROWS)),
    layer("SoftmaxCrossEntropy", class_weights=(1.0,) * 6, x=(ROWS, LABELS)),
    layer("KLDivergence", x=(ROWS, np.full((4, 6), 1 / 6, np.float32))),
    layer("MultiClassHinge", x=(ROWS, LABELS)),
    layer("BinaryCrossEntropy", x=(ROWS, np.full((4, 6), 0.5, np.float32))),
    layer("Hinge", x=(ROWS, np.sign(ROWS))),
    layer("PoissonNLL", x=(ROWS, POSITIVE)),
    layer("GaussianNLL", x=(ROWS, POSITIVE, ROWS)),
    layer("CosineDistance", x=(ROWS, ROWS)),
    layer("CosineEmbedding", x=(ROWS, ROWS, np.array([1.0, -1, 1, -1], np.float32))),
    layer("CTC", x=(LINES, np.array([[1, 2], [3, -1], [4, 5], [-1, -1]]))),
    *(
        layer(f"{kind}{axes}d", 6, 6, 3, rng=RNG, x=x)
        for axes, x in ((1, LINES), (2, IMAGES), (3, VOLUMES))
        for kind in ("Conv", "ConvTranspose")
    ),
    layer(
        "Conv2d",
        *(6, 6, (3, 2)),
        rng=RNG,
        groups=2,
        stride=2,
        padding=1,
        dilation=2,
        padding_mode="reflect",
        x=IMAGES,
    ),
    *(
        layer(f"{kind}Pool{axes}d", kernel_size=2, x=x)
        for axes, x in ((1, LINES), (2, IMAGES), (3, VOLUMES))
        for kind in ("Max", "Avg")
    ),
    *(
        layer(f"Adaptive{kind}Pool{axes}d", output_size=2, x=x)
        for axes, x in ((1, LINES), (2, IMAGES))
        for kind in ("Max", "Avg")
    ),
    layer("GlobalAveragePool", x=IMAGES),
    layer("Upsample", scale=2, x=IMAGES),
    layer("Upsample", size=(9, 8), mode="bilinear", x=IMAGES),
    layer("Embedding", tokens=7, features=3, rng=RNG, x=TOKENS),
    layer("Coefficients", values=np.ones(3), x=LINES),
    layer("SinusoidalPositions", length=8, features=6, x=LINES),
    layer("LearnedPositions", length=8, features=6, rng=RNG, x=LINES),
    layer("Attention", heads=2, x=(LINES, LINES, LINES)),
    layer("MultiHeadAttention", features=6, heads=2, rng=RNG, x=LINES),
    layer("EncoderBlock", features=6, heads=2, rng=RNG, x=LINES),
    layer("DecoderBlock", features=6, heads=2, rng=RNG, x=(LINES, LINES)),
    *(
        layer(name, input_size=6, hidden_size=5, rng=RNG, endless=("layers",), x=LINES)
        for name in ("RNN", "LSTM", "GRU")
    ),
    *(
        layer(name, input_size=6, hidden_size=5, rng=RNG, x=(ROWS, STATE))
        for name in ("RNNCell", "GRUCell")
    ),
    layer("LSTMCell", input_size=6, hidden_size=5, rng=RNG, x=(ROWS, (STATE, STATE))),
    layer("PoolOverTime", x=(LINES, np.array([1, 8, 3, 2]))),
    row("TreeBatch", parents=TREES),
    method(
        lambda: layers.TreeBatch(TREES), "layers.TreeBatch", "from_nested", trees=[(0, (1, 2)), 3]
    ),
    layer("TreeRNN", input_size=6, hidden_size=5, rng=RNG, x=(NODES, TREES)),
    layer("TreeLSTM", input_size=6, hidden_size=5, rng=RNG, x=(NODES, TREES)),
    layer("BatchNorm", features=6, x=ROWS),
    layer("BatchNorm2d", features=6, x=IMAGES),
    layer("LayerNorm", features=6, x=ROWS),
    layer("RMSNorm", features=6, x=ROWS),
    layer("GroupNorm", groups=2, features=6, x=IMAGES),
    layer("InstanceNorm", features=6, x=IMAGES),
    layer("InstanceNorm1d", features=6, x=LINES),
    layer("InstanceNorm2d", features=6, x=IMAGES),
    layer("Dropout2d", x=IMAGES),
    layer("Reshape", 2, 3, x=ROWS),
    layer("ChannelsLast", x=IMAGES),
    layer("ChannelsFirst", x=IMAGES),
    layer("Add", x=(ROWS, ROWS)),
    layer("Multiply", x=(ROWS, ROWS)),
    layer("Concatenate", x=(ROWS, ROWS)),
    layer("Sequential", layers.Linear(6, 6, rng=RNG), layers.ReLU(), x=ROWS),
    layer("Residual", body=layers.Linear(6, 6, rng=RNG), shortcut=layers.Identity(), x=ROWS),
    layer("Recompute", segment=layers.Linear(6, 6, rng=RNG), x=ROWS),
    layer("PaddedShortcut", in_channels=6, out_channels=8, stride=2, x=IMAGES),
    row("models.lenet5", rng=RNG),
    row("models.small_cnn", rng=RNG, widths=(2, 3), hidden=4, image=(8, 8, 1)),
    *(row(f"models.resnet{depth}", rng=RNG, classes=3) for depth in (20, 32, 56)),
    row(
        "models.gpt",
        *(RNG, 7),
        context=5,
        features=6,
        depth=1,
        heads=2,
        endless=("depth",),
        then=lambda made: passes(made, TOKENS),
    ),
    *(row(f"init.{name}", rng=RNG, shape=(3, 2)) for name in DRAWN),
    *(
        row(f"init.{name}", 0.5, then=lambda drawn: drawn(RNG, (3, 2)))
        for name in ("constant", "uniform", "normal")
    ),
    row("init.fans", shape=(3, 2)),
]

FUNCTIONS = [
    *(row(name, x=POSITIVE) for name in ELEMENTWISE),
    *(row(name, x=value(POSITIVE), then=lambda y: y.sum()) for name in ELEMENTWISE),
    *(row(name, a=value(), b=ROWS) for name in ("maximum", "minimum")),
    row("clip", a=value(), a_min=-1.0, a_max=1.0),
    row("where", condition=ROWS > 0, a=value(), b=ROWS),
    *(row(name, x=value(), axis=1) for name in ("norm", "var", "std", "prod", "cumsum")),
    *(row(name, x=value(), axis=1) for name in ("logsumexp", "expand_dims", "flip", "sort")),
    row("einsum", "ij,kj->ik", value(), ROWS),
    row("broadcast_to", x=value(), shape=(2, 4, 6)),
    row("concatenate", arrays=[tape_of := value(), tape_of], axis=1),
    row("moveaxis", x=value(), source=0, destination=1),
    row("pad", x=value(), pad_width=((0, 0), (1, 2))),
    row("repeat", x=value(), repeats=2, axis=1),
    row("roll", x=value(), shift=2, axis=1),
    row("split", x=value(), indices_or_sections=2, axis=1),
    row("squeeze", x=value(ROWS[:, :1]), axis=1),
    row("stack", arrays=[tape_of, tape_of], axis=1),
    row("swapaxes", x=value(), axis1=0, axis2=1),
    row("take_along_axis", x=value(), indices=np.zeros((4, 2), int), axis=1),
    row("tile", x=value(), reps=(1, 2)),
    row("top_k", x=value(), k=2, axis=1),
    *(
        method(value, "layers.Value", name, axis=1)
        for name in ("sum", "mean", "max", "min", "argmax", "argmin", "argsort", "prod", "cumsum")
    ),
    *(method(value, "layers.Value", name, axis=1) for name in ("std", "var")),
    method(value, "layers.Value", "clip", min=-1.0, max=1.0),
    method(value, "layers.Value", "astype", dtype=np.float64),
    method(value, "layers.Value", "dot", other=ROWS.T),
    method(value, "layers.Value", "repeat", repeats=2, axis=1),
    method(value, "layers.Value", "swapaxes", axis1=0, axis2=1),
    method(lambda: value(ROWS[:, :1]), "layers.Value", "squeeze", axis=1),
    method(lambda: layers.exp(value()), "layers.Value", "backward", gradient=ROWS),
    *(
        Row(f"layers.Value.{name}", partial(_operate, name), {"x": valid})
        for name, valid in {
            **dict.fromkeys(("__add__", "__mul__", "__sub__", "__truediv__"), ROWS),
            **dict.fromkeys(("__radd__", "__rsub__", "__rtruediv__"), ROWS),
            "__pow__": 3,
            "__rpow__": 2.0,
            "__matmul__": ROWS.T,
            "__rmatmul__": ROWS.T,
            "__getitem__": (slice(1, 3), 0),
            "reshape": (6, 4),
            "transpose": (1, 0),
        }.items()
    ),
    row("Tape", shards=(0, 2, 4), then=lambda tape: layers.exp(tape.input(ROWS)).sum().backward()),
    row(
        "Tape",
        training=True,
        then=lambda tape: layers.Dropout(0.5)(tape.input(ROWS)).sum().backward(),
    ),
    method(layers.Tape, "layers.Tape", "input", array=ROWS),
    row("Parameter", value=ROWS),
    row("State", value=ROWS),
    method(lambda: layers.Parameter(ROWS), "layers.Parameter", "cast", dtype=np.float64),
    Row(
        "layers.Parameter.value",
        lambda x: setattr(layers.Parameter(ROWS), "value", x),
        {"x": np.zeros_like(ROWS)},
    ),
    Row(
        "layers.State.value",
        lambda x: setattr(layers.State(ROWS), "value", x),
        {"x": np.zeros_like(ROWS)},
    ),
    Row(
        "layers.FlatParameters",
        lambda model, shards=1: layers.FlatParameters(model, shards),
        {"model": network(), "shards": 2},
    ),
    method(network, "layers.Sequential", "astype", dtype=np.float64),
    row("rules.LearningRule", seed=1, then=learns),
    *(
        row(f"rules.{name}", seed=1, then=learns)
        for name in (
            *("FeedbackAlignment", "DirectFeedbackAlignment", "DirectRandomTargetProjection"),
            *("SignSymmetry", "TargetPropagation", "DifferenceTargetPropagation"),
            "ForwardForward",
        )
    ),
    row("rules.SignSymmetry", "batchwise", then=learns),
    row("rules.MeProp", 2, per="batch", then=learns),
    row("rules.PredictiveCoding", 5, 0.5, then=learns),
    row("rules.TargetPropagation", rate=1.0, noise=0.1, then=learns),
    row("rules.ForwardForward", threshold=1.0, then=learns),
    row("summary", network(), (4, 6)),
    row("set_precision", network(), "bf16"),
    row("Summary", rows=[], inputs=((4, 6),), parameter_memory=0),
    row("LayerSummary", "a", "Linear(6, 2)", ((4, 2),), 14, 14, 96, 32, 1),
    row(
        "gradcheck",
        function=layers.Linear(6, 2, rng=RNG),
        entries=3,
        endless=("entries", "directions"),
    ),
    Row(
        "layers.gradcheck",
        lambda function, x: layers.gradcheck(function, x, entries=3, directions=1),
        {"function": layers.Tanh(), "x": ROWS.astype(np.float64)},
    ),
]
