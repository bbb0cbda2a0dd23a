"""The table of public calls: each public name with valid arguments, of which the fuzz changes one
at a time. A new public name needs a row here.
"""

from functools import partial

import numpy as np
from valid import (
    DATA,
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
    X,
    Y,
    _operate,
    common,
    flags,
    layer,
    learns,
    method,
    network,
    passes,
    pooled,
    rates,
    row,
    trainer,
    value,
    with_callback,
    with_doctor,
)

import ddbp
import layers
from ddbp import attribution, export
from ddbp.data import augment
from ddbp.data.augmenter import Augmenter

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


def compressed(made):
    """Take a step whose gradients are compressed."""
    trainer(compression=made).train_step(X[:4], Y[:4])


SCORES = np.random.default_rng(2).standard_normal((4, 3))
HITS = np.array([0.0, 1, 1, 0])

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

TRAINING = [
    *common(),
    row("ddbp.Optimizer", learning_rate=0.1),
    row("ddbp.Constant", rate=0.1, then=rates),
    row("ddbp.StepDecay", rate=0.1, every=3, then=rates),
    row("ddbp.StepDecay", rate=0.1, at=(3, 5), then=rates),
    row("ddbp.Exponential", rate=0.1, factor=0.9, then=rates),
    *(row(f"ddbp.{name}", rate=0.1, steps=9, then=rates) for name in ("Cosine", "CosineRestarts")),
    *(row(f"ddbp.{name}", rate=0.1, steps=9, then=rates) for name in ("Polynomial", "OneCycle")),
    row("ddbp.WarmUp", schedule=0.1, steps=3, then=rates),
    row("ddbp.ByEpoch", schedule=0.1, then=rates),
    row("ddbp.Plateau", rate=0.1, then=rates),
    row("ddbp.linear_scaling", rate=0.1, batch_size=64),
    row(
        "ddbp.ClipParameterNorms",
        limit=1.0,
        then=lambda made: trainer(transforms=[made]).train_step(X[:4], Y[:4]),
    ),
    *(
        row(f"ddbp.{name}", **constants, then=compressed)
        for name, constants in (("TopK", {"ratio": 0.1}), ("PowerSGD", {"rank": 1}), ("Sign", {}))
    ),
    Row(
        "ddbp.Trainer",
        lambda **options: trainer(**options),
        {"metrics": ["accuracy"]},
        lambda made: made.fit(DATA, epochs=1),
        of=ddbp.Trainer,
    ),
    method(trainer, "ddbp.Trainer", "fit", dataset=DATA, epochs=1, endless=("epochs",)),
    method(trainer, "ddbp.Trainer", "evaluate", dataset=DATA),
    method(trainer, "ddbp.Trainer", "predict", x=X),
    method(trainer, "ddbp.Trainer", "train_step", x=X[:4], y=Y[:4]),
    method(trainer, "ddbp.Trainer", "batch", x=X[:4], y=Y[:4]),
    method(
        trainer, "ddbp.Trainer", "batches", dataset=DATA, epochs=1, then=list, endless=("epochs",)
    ),
    method(
        trainer,
        "ddbp.Trainer",
        "fork",
        steps=2,
        data=DATA,
        samples=3,
        learning_rate=0.1,
        clip_norm=1.0,
        dropout=0.1,
        endless=("steps",),
    ),
    method(trainer, "ddbp.Trainer", "step", loss=value().sum()),
    method(trainer, "ddbp.Trainer", "update", loss=1.0),
    method(trainer, "ddbp.Trainer", "load_state", snapshot=trainer().state()),
    row("ddbp.TrainerOptions", batch_size=4),
    row(
        "ddbp.LossScale",
        initial=2.0**10,
        interval=3,
        then=lambda made: trainer(loss_scale=made).train_step(X[:4], Y[:4]),
    ),
    row(
        "ddbp.Rollback",
        factor=0.5,
        most=3,
        then=lambda made: ddbp.TrainerOptions(batch_size=4, on_nonfinite=made),
    ),
    row(
        "ddbp.LocalSGD",
        workers=2,
        every=2,
        after=1,
        then=lambda made: trainer(exchange=made).train_step(X[:4], Y[:4]),
    ),
    row(
        "ddbp.DiLoCo",
        workers=2,
        every=2,
        outer_rate=0.5,
        outer_momentum=0.8,
        fragments=2,
        bits=8,
        then=lambda made: trainer(exchange=made).train_step(X[:4], Y[:4]),
    ),
    row("ddbp.Snapshot", arrays={}, values={}, then=lambda made: trainer().load_state(made)),
    row("ddbp.ArrayDataset", x=X, y=Y, then=lambda made: trainer().fit(made, epochs=1)),
    method(lambda: DATA, "ddbp.ArrayDataset", "split", fraction=0.5),
    method(lambda: DATA, "ddbp.ArrayDataset", "astype", dtype=np.float64),
    row("ddbp.Ragged", sequences=[[1.0, 2.0], [3.0]]),
    row("ddbp.Callback", then=with_callback),
    row("ddbp.Checkpoints", path="checkpoints"),
    row("ddbp.EarlyStopping", then=with_callback),
    row("ddbp.Doctor", then=with_doctor),
    row("ddbp.Instruments", every=1, then=with_callback),
    row("ddbp.BestWeights", then=with_callback),
    row("ddbp.TextSamples", vocabulary="abc", write=str, then=with_callback),
    row("ddbp.ExponentialMovingAverage", then=with_callback),
    row(
        "ddbp.Trace",
        path="trace.json",
        first_step=0,
        steps=3,
        most_events=2000,
        then=with_callback,
    ),
    row("ddbp.StepDigests"),
    row("ddbp.Logger", every_steps=3),
    row("ddbp.TensorBoard", path="events", every_steps=3),
    row("ddbp.WeightsAndBiases", project="ddbp", mode="offline", every_steps=3),
    row("ddbp.MLflow", uri="file:mlruns", experiment="ddbp", every_steps=3),
    row("ddbp.Trackio", project="ddbp", every_steps=3),
    row("ddbp.History", [{"epoch": 1, "loss": 0.5}], then=lambda made: made._repr_html_()),
    row("ddbp.lr_find", trainer=trainer(), data=DATA, steps=10, endless=("steps",)),
    row("ddbp.RateRange", rates=[0.1, 0.2], losses=[1.0, 0.5], then=repr),
    row("ddbp.figure", thing=layers.summary(network(), (4, 6))),
    *(
        row(f"ddbp.{name}", prediction=SCORES, target=LABELS)
        for name in ("accuracy", "bits_per_character")
    ),
    row("ddbp.top_k_accuracy", k=2, then=lambda made: made(SCORES, LABELS), **{}),
    *(
        row(f"ddbp.{name}", prediction=SCORES[:, 0], target=HITS)
        for name in ("binary_accuracy", "precision", "recall", "f1_score")
    ),
    *(
        row(f"ddbp.{name}", prediction=SCORES, target=SCORES)
        for name in ("mean_absolute_error", "mean_squared_error")
    ),
    row("ddbp.save_parameters", model=network(), path="model.safetensors"),
    row("ddbp.load_parameters", model=network(), path="good.safetensors"),
    row("ddbp.communicator"),
    *(
        row(f"ddbp.{name}", trainer=trainer(), then=lambda context: context.__enter__())
        for name in ("modify_parameters", "changing")
    ),
    row(
        "script.Flags",
        description="About.",
        epochs=1,
        batch_size=4,
        learning_rate=0.1,
    ),
    row("script.cosine", options=flags(), training=DATA),
    row("script.positive_int", text="3"),
    row("script.positive_float", text="3.5"),
    row("script.root_mean_square", error=ROWS),
    row("script.root_mean_square_errors", predictions={"rmse": ROWS}, target=ROWS, scale=2.0),
    row("script.linear_fit", training=DATA, test=DATA),
    row("script.run_folder"),
    row("script.use_one_thread"),
    row("script.start", main=dict),
    row("data.digits", 8, 8),
]

EXPLAINED = {"model": network(), "x": ROWS, "target": LABELS}
TABLE, KERNEL = layers.Embedding(7, 5, rng=RNG), layers.Conv1d(6, 5, 3, rng=RNG)


def changes(made):
    """Change images as a trainer does."""
    images = np.zeros((4, 6, 7, 3), np.float32)
    steps = augment.chosen([made])
    given = images, LABELS, None
    Augmenter(steps, 0)(given, np.arange(4), 0, lambda numbers: given, 4)


AUGMENTATIONS = [
    row("augment.Flip", p=0.5, vertical=True, then=changes),
    row("augment.Crop", padding=2, mode="reflect", fill=0.0, then=changes),
    row("augment.Shift", most=2, across=1, mode="wrap", fill=0.0, then=changes),
    row("augment.Affine", degrees=9.0, scale=0.1, shift=1.0, shear=0.1, fill=0.0, then=changes),
    row("augment.CutOut", size=2, fill=0.0, then=changes),
    row("augment.Noise", deviation=0.1, then=changes),
    row("augment.MixUp", alpha=0.2, classes=3, then=changes),
]

ATTRIBUTION = [
    row("attribution.saliency", **EXPLAINED),
    row("attribution.saliency", model=pooled(TABLE), x=TOKENS, target=(0,)),
    row("attribution.gradient_times_input", **EXPLAINED),
    row("attribution.guided_backpropagation", **EXPLAINED),
    *(
        row(f"attribution.{name}", **EXPLAINED, baseline=ROWS)
        for name in ("deep_lift", "occlusion")
    ),
    row("attribution.integrated_gradients", **EXPLAINED, steps=2, endless=("steps",)),
    row("attribution.smooth_grad", **EXPLAINED, draws=2, endless=("draws",)),
    row("attribution.grad_cam", model=pooled(KERNEL), x=LINES, layer=KERNEL, target=LABELS),
    row("attribution.sanity_check", explain=lambda m: attribution.saliency(m, X), model=network()),
]

ITEMS = [(row, int(label)) for row, label in zip(ROWS, LABELS, strict=True)]


def read(source):
    """Read all of a source as a trainer does."""
    source.astype(np.float32).take(np.arange(len(source)))


PIXELS = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4, 1)
TABLE = {"x": [1.0, 2.0, 3.0, 4.0], "k": ["a", "b", "a", "b"], "y": [0, 1, 0, 1]}


def reader(**options):
    return ddbp.data.ImageReader((4, 4), 1, **options)


def encoder(**options):
    return ddbp.data.TableEncoder.fit(TABLE, target="y", **options)


def text_encoder():
    return ddbp.data.TextEncoder.characters("abc de", classes=("a", "b"))


def series_reader():
    return ddbp.data.SeriesReader([0.0, 1.0], [1.0, 2.0], classes=("up", "down"))


FILES_OF_DATA = [
    row(
        "data.ImageReader",
        (4, 4),
        1,
        mean=[0.5],
        std=[0.25],
        classes=("cat", "dog"),
        endless=(0,),
        then=lambda made: made.transform([PIXELS[0]]),
    ),
    method(reader, "ddbp.data.ImageReader", "transform", raw=PIXELS),
    method(reader, "ddbp.data.ImageReader", "pixels", image="images/dog/1.png"),
    method(
        lambda: reader(classes=("cat", "dog")),
        "ddbp.data.ImageReader",
        "predictions",
        outputs=np.eye(2, dtype=np.float32),
    ),
    method(reader, "ddbp.data.ImageReader", "from_state", state=reader().state()),
    row("data.ImageArrays", pixels=PIXELS, labels=LABELS, reader=reader(), then=read),
    row(
        "data.ImageFolder",
        path="images",
        reader=None,
        size=(4, 4),
        channels=1,
        standardize=True,
        in_memory=True,
        skip_bad=False,
        endless=("size",),
        then=read,
    ),
    row("data.read_idx", path="good.idx"),
    row("data.read_cifar", path="good.bin", part="test", kind="cifar10"),
    row("data.read_table", path="good.csv", delimiter=",", skip_bad=False),
    row("data.Table", columns=TABLE, then=lambda made: made.place(0)),
    method(lambda: ddbp.data.Table(TABLE), "ddbp.data.Table", "of", given=TABLE),
    row("data.TableEncoder", state=encoder().state(), then=lambda made: made.transform(TABLE)),
    method(
        encoder,
        "ddbp.data.TableEncoder",
        "fit",
        table=TABLE,
        target="y",
        roles={"k": "category"},
        task="classification",
        missing="mean",
        unknown="zero",
        encoding="index",
        skip_bad=False,
        then=lambda made: made.encode(TABLE),
    ),
    method(encoder, "ddbp.data.TableEncoder", "encode", table=TABLE, targets=True, skip_bad=False),
    method(encoder, "ddbp.data.TableEncoder", "transform", raw=TABLE),
    method(
        lambda: encoder(task="regression"),
        "ddbp.data.TableEncoder",
        "predictions",
        outputs=ROWS[:, :1],
    ),
    row("data.PreparedDataset", x=X, y=Y, preprocessing=encoder(), weights=None),
    row("data.TextEncoder", text_encoder()._vocabulary, unknown=False, classes=("a", "b")),
    method(text_encoder, "ddbp.data.TextEncoder", "characters", texts=["abc"], unknown=False),
    method(text_encoder, "ddbp.data.TextEncoder", "words", texts="a b a", size=9, unknown=True),
    method(text_encoder, "ddbp.data.TextEncoder", "bpe", texts="a rose is a rose", size=260),
    method(text_encoder, "ddbp.data.TextEncoder", "bytes", classes=("a", "b")),
    method(text_encoder, "ddbp.data.TextEncoder", "encode", text="abc"),
    method(text_encoder, "ddbp.data.TextEncoder", "strange", text="abc"),
    method(text_encoder, "ddbp.data.TextEncoder", "decode", tokens=np.arange(3)),
    method(text_encoder, "ddbp.data.TextEncoder", "transform", raw=["abc", "de"]),
    method(
        text_encoder,
        "ddbp.data.TextEncoder",
        "encode_file",
        path="words.txt",
        tokens_path="words.npy",
    ),
    method(
        lambda: ddbp.data.TextEncoder.bytes(classes=("a", "b")),
        "ddbp.data.TextEncoder",
        "dataset",
        lines=ddbp.data.LabelledLines(("one", "two"), ("a", "b"), ("a", "b"), ()),
    ),
    row("data.TextWindows", tokens="tokens.npy", length=4, stride=2, encoder=None, then=read),
    row("data.read_text", path="good.txt"),
    row("data.read_lines", path="good.txt", separator="\t", skip_bad=False),
    row("data.read_ts", path="good.ts", skip_bad=False),
    row(
        "data.read_series_table",
        path="long.csv",
        series="s",
        label="l",
        time="t",
        values=["x"],
        skip_bad=False,
    ),
    row("data.read_series_folder", path="series", skip_bad=False),
    row(
        "data.SeriesReader",
        [0.0, 1.0],
        [1.0, 2.0],
        classes=("up", "down"),
        target=None,
        names=("a", "b"),
    ),
    method(series_reader, "ddbp.data.SeriesReader", "fit", series=None, names=None),
    method(series_reader, "ddbp.data.SeriesReader", "dataset", series=None),
    method(series_reader, "ddbp.data.SeriesReader", "transform", raw=[ROWS[:, :2]]),
    row("data.preprocessing", state=reader().state()),
    row("data.load", "digits", folder="folder", window=16),
    row("data.named_sets"),
]

DATA_ROWS = [
    row("data.ArraySource", x=ROWS, y=LABELS, weights=np.ones(4), then=read),
    row("data.ArraySource", x=ddbp.Ragged([[1.0], [2.0, 3.0], [4.0], [5.0]]), y=LABELS, then=read),
    row("data.ItemSource", items=ITEMS, lengths=None, then=read),
    row(
        "data.ItemSource",
        items=[{"a": row, "b": label} for row, label in ITEMS],
        x="a",
        y="b",
        weights=None,
        then=read,
    ),
    row(
        "data.GeneratorSource", make=lambda: iter(ITEMS), samples=4, endless=("samples",), then=read
    ),
    row(
        "data.ArrowSource",
        path="good.parquet",
        x="x",
        y="y",
        weights=None,
        cache="cache",
        then=read,
    ),
    row("data.open_arrays", path="good.npz"),
    row("data.Rows", x=ROWS, y=LABELS, weights=None),
    row("data.split", data=DATA, fractions=(0.5, 0.5), seed=0, stratified=False),
    method(
        lambda: ddbp.data.ArraySource(ROWS, LABELS), "ddbp.data.Source", "subset", numbers=[0, 1]
    ),
    method(
        lambda: ddbp.data.ArraySource(ROWS, LABELS),
        "ddbp.data.Source",
        "map",
        function=lambda x, y: (x, y),
        then=read,
    ),
    method(
        lambda: ddbp.Ragged([[1.0]]),
        "ddbp.Ragged",
        "joined",
        values=ROWS,
        lengths=[1, 3],
        padding=0.0,
    ),
    *FILES_OF_DATA,
]

ESTIMATED = {"max_iter": 2, "hidden_layer_sizes": (3,), "endless": ("max_iter",)}
ESTIMATORS = [
    row("sklearn.DDBPClassifier", **ESTIMATED, then=lambda made: made.fit(X, Y).predict(X)),
    row("sklearn.DDBPRegressor", **ESTIMATED, then=lambda made: made.fit(X, X[:, 0]).predict(X)),
]

EXPORT = [
    row("export.architecture", model=network()),
    row("export.build", description=export.architecture(network()), rng=RNG),
    Row(
        "ddbp.export.register",
        export.register,
        {"kind": layers.Composite, "name": "own"},
    ),
    row(
        "export.save_bundle",
        path="model.ddbp",
        model=network(),
        preprocessing={"kind": "x"},
        task="classification",
        labels=["a", "b", "c"],
        example=X,
    ),
    row("export.load_bundle", path="good.ddbp", then=lambda made: made.predict(X)),
    row("export.load_run", path="run"),
    row("export.Bundle", model=network()),
    method(lambda: export.Bundle(network()), "ddbp.export.Bundle", "predict", x=X),
    row("export.to_torch", model=network(), path="ours.safetensors", names={"0": "a"}),
    row("export.from_torch", model=network(), source=export.to_torch(network())),
    row("export.to_onnx", model=network(), path="model.onnx", example=X),
]

PARTS = {
    "layers": LAYERS,
    "functions": FUNCTIONS,
    "training": TRAINING,
    "attribution": ATTRIBUTION,
    "augmentation": AUGMENTATIONS,
    "data": DATA_ROWS,
    "estimators": ESTIMATORS,
    "export": EXPORT,
}
