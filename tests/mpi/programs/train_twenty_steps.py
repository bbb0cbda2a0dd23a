"""Train small models for twenty steps, in many ways; every rank writes its parameters and
histories.

Usage: train_twenty_steps.py FOLDER [--corrupt RANK STEP]; with --corrupt, that rank changes the
lowest bit of one parameter after that step of a single run.
"""

import argparse
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from drawn_data import (
    CLASSES,
    FEATURES,
    classification,
    regression,
    sentences,
    spoken,
    tagged,
    texts,
    trees,
)
from verdict import assert_on_all_ranks

import ddbp
from ddbp.comm.agreement import gather_texts
from ddbp.data.augment import Affine, Crop, CutOut, Flip, MixUp, Noise, Shift
from ddbp.training import learning, precision
from layers import (
    CTC,
    GRU,
    LSTM,
    AdaptiveAvgPool2d,
    BatchNorm,
    Composite,
    Dropout,
    Embedding,
    Flatten,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    Linear,
    LogSoftmax,
    MaxPool1d,
    MaxPool2d,
    MeanAbsoluteError,
    MeanSquaredError,
    PoolOverTime,
    PReLU,
    Recompute,
    ReLU,
    Reshape,
    Sequential,
    SoftmaxCrossEntropy,
    Softplus,
    Tanh,
    TreeLSTM,
    Upsample,
    erf,
    logsumexp,
    models,
    top_k,
)
from layers.kernels.llvm.simd_bf16 import HAS_DOTS
from layers.rules import MeProp, PredictiveCoding, SignSymmetry

EPOCHS = 5


def errors(prediction, target):
    """Return a loss in Python, of a mean over the batch, a sum, and a loss layer."""
    error = prediction - target
    rest = MeanAbsoluteError()(prediction, target)
    return (error * error).mean() + 0.01 * (error**4).sum() / 50 + rest / 2


# 173 samples in batches of 50 end with one of 23; 151 and 51 end with a single sample, which leaves
# most shards and ranks empty.
TRAINING, VALIDATION, ODD, ODD_VALIDATION = (
    classification(*sizes) for sizes in ((173, 1), (37, 2), (151, 3), (51, 4))
)


def network(*middle: object, dtype: type = np.float32) -> Sequential:
    """Return a network whose parameters fill several blocks of flat memory, so that every rank owns
    some.
    """
    rng = np.random.default_rng(7)
    return Sequential(
        Linear(FEATURES, 64, rng=rng, dtype=dtype),
        ReLU(),
        *middle,
        Linear(64, 64, rng=rng, dtype=dtype),
        Tanh(),
        Linear(64, CLASSES, rng=rng, dtype=dtype),
    )


def windowed() -> Sequential:
    """Return a network with images in it, that are normalised, pooled and enlarged."""
    rng = np.random.default_rng(7)
    return Sequential(
        Linear(FEATURES, 64, rng=rng),
        Reshape(4, 4, 4),
        GroupNorm(2, 4),
        PReLU(4),
        Upsample(2, mode="bilinear"),
        MaxPool2d(3, 2, 1, ceil_mode=True),
        InstanceNorm2d(4, affine=True),
        ReLU(),
        AdaptiveAvgPool2d(3),
        LayerNorm((3, 3, 4)),
        Softplus(),
        Reshape(9, 4),
        MaxPool1d(2),
        Flatten(),
        Linear(16, CLASSES, rng=rng),
        LogSoftmax(),
    )


class Alternating(Composite):
    """Two branches that take turns, so that in each step the parameters of one of them are not
    used; and a shared layer.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(8)
        self.first, self.last = Linear(FEATURES, 32, rng=rng), Linear(32, CLASSES, rng=rng)
        self.branches = [Linear(32, 32, rng=rng), Linear(32, 32, rng=rng)]
        self.calls = 0

    def __call__(self, x):
        h = self.first(x)
        branch = self.branches[self.calls % 2]
        self.calls += 1
        return self.last(branch(branch(h)) + h)

    def __repr__(self) -> str:
        return "Alternating()"


class Written(Composite):
    """A network written with NumPy's functions, on each sample by itself."""

    def __init__(self) -> None:
        rng = np.random.default_rng(12)
        self.first, self.last = Linear(FEATURES, 16, rng=rng), Linear(32, CLASSES, rng=rng)

    def __call__(self, x):
        h = self.first(x)
        h = np.concatenate([np.log1p(np.exp(h)), np.sin(h) ** 2, erf(h)], axis=1)
        h = (h - np.mean(h, axis=1, keepdims=True)) / (np.std(h, axis=1, keepdims=True) + 0.1)
        best, _ = top_k(h, 4, axis=1)
        pairs = np.einsum("ni,nj->nij", best, np.cumsum(h[:, 8:16], axis=1))
        y = self.last(np.reshape(np.clip(pairs, -3, 3), (-1, 32)))
        return y - logsumexp(y, axis=1, keepdims=True)

    def __repr__(self) -> str:
        return "Written()"


class Counting(Composite):
    """A Tree-LSTM on trees whose nodes are all alike, and a dense layer on the root."""

    def __init__(self) -> None:
        rng = np.random.default_rng(9)
        self.cell, self.head = TreeLSTM(3, 12, rng=rng), Linear(12, CLASSES, rng=rng)

    def __call__(self, x):
        parents = x.array
        return self.head(
            self.cell(
                x.tape.input(np.ones((*parents.shape, 3), np.float32), gradient=False), parents
            )
        )

    def __repr__(self) -> str:
        return "Counting()"


class Tagging(Composite):
    """Two inputs and two outputs."""

    def __init__(self) -> None:
        rng = np.random.default_rng(9)
        self.dense = Linear(FEATURES, 16, rng=rng)
        self.embedding, self.gru = Embedding(CLASSES, 8, rng=rng), GRU(8, 16, last=True, rng=rng)
        self.label, self.number = Linear(16, CLASSES, rng=rng), Linear(16, 1, rng=rng)

    def __call__(self, point, words, words_lengths):
        h = self.dense(point) * self.gru(self.embedding(words), words_lengths)
        return {"label": self.label(h), "number": self.number(h)}

    def __repr__(self) -> str:
        return "Tagging()"


def of_images(data: ddbp.ArrayDataset) -> ddbp.ArrayDataset:
    """Return data with the features of each sample as an image."""
    return ddbp.ArrayDataset(data.x.reshape(-1, 5, 4, 1), data.y)


def loss_of_both(prediction, y):
    """Return the sum of the losses of two outputs."""
    label = SoftmaxCrossEntropy()(prediction["label"], y["label"])
    return label + 0.1 * MeanSquaredError()(prediction["number"], y["number"])


def language_model(recurrent, width: int) -> Sequential:
    """Return a model of the tokens around a recurrent layer with so many outputs."""
    rng = np.random.default_rng(10)
    return Sequential(Embedding(CLASSES, 8, rng=rng), recurrent, Linear(width, CLASSES, rng=rng))


def fitted(model, optimizer, *, training=TRAINING, validation=VALIDATION, loss=None, **options):
    """Return the trainer and its history after EPOCHS epochs of `fit`."""
    trainer = make(model, optimizer, loss=loss, **options)
    return trainer, trainer.fit(training, epochs=EPOCHS, validation=validation)


def of_rows(data):
    """Return a source that reads the samples of a data set row by row."""
    return ddbp.data.ArraySource(data.x, data.y, weights=data.weights)


def images(samples, seed):
    """Return a source of images in bytes, brighter from class to class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, samples)
    bright = 200 // CLASSES * labels[:, np.newaxis, np.newaxis, np.newaxis]
    pixels = (bright + rng.integers(0, 50, (samples, 8, 8, 1))).astype(np.uint8)
    reader = ddbp.data.ImageReader(8, 1, mean=[0.5], std=[0.25])
    return ddbp.data.ImageArrays(pixels, labels, reader)


def windows_of_text(samples):
    """Return a source of windows that overlap, of tokens that come again."""
    tokens = np.arange(5 * samples + 8, dtype=np.uint8) % CLASSES
    return ddbp.data.TextWindows(tokens, 12, 5)


def transformer(**options):
    """Return what `fitted` does, of a small GPT."""
    model = models.gpt(np.random.default_rng(1), CLASSES, 12, 24, 2, 3, dropout=0.1)
    return fitted(
        model, ddbp.Adam(0.01), training=texts(173, 6), validation=texts(37, 7), **options
    )


def make(model, optimizer, *, loss=None, batch_size=50, **options):
    """Return a quiet trainer."""
    instruments = [] if "exchange" in options else [ddbp.Instruments(3)]
    return ddbp.Trainer(
        model,
        loss=loss or SoftmaxCrossEntropy(),
        optimizer=optimizer,
        batch_size=batch_size,
        seed=11,
        quiet=True,
        callbacks=[*options.pop("callbacks", ()), *instruments],
        **options,
    )


def number(shards, usual: int) -> int:
    """Return a number of workers: that of the shards, or what is usual where there is one per
    rank.
    """
    return shards if isinstance(shards, int) else usual


def custom_loop(shards):
    """Return the trainer and its losses after a loop of the user's own, with a model that does not
    use all of its parameters.
    """
    trainer = make(Alternating(), ddbp.SGD(0.05, momentum=0.9), shards=shards)
    loop = trainer.batches(TRAINING, epochs=EPOCHS)
    return trainer, [
        {"loss": trainer.step(trainer.loss(trainer.model(batch.x), batch.y))} for batch in loop
    ]


def centred(gradient: ddbp.GlobalGradient, step: int) -> None:
    """Take the mean of its row from each gradient of a matrix."""
    whole = gradient.whole()
    for array in whole.values():
        if array.ndim == 2:
            array -= array.mean(axis=1, keepdims=True)
    gradient.replace(whole)


RUNS: dict[str, Callable[[int | None], tuple[ddbp.Trainer, list]]] = {
    "momentum": lambda shards: fitted(network(), ddbp.SGD(0.1, momentum=0.9), shards=shards),
    "nesterov and a single sample in the last batch": lambda shards: fitted(
        network(),
        ddbp.SGD(0.1, momentum=0.9, nesterov=True),
        training=ODD,
        validation=ODD_VALIDATION,
        shards=shards,
    ),
    "dropout, Adam and clipping of the norm": lambda shards: fitted(
        network(Dropout(0.3)), ddbp.Adam(ddbp.Cosine(0.01, steps=20)), clip_norm=0.5, shards=shards
    ),
    "segments computed again": lambda shards: fitted(
        Sequential(
            Recompute(network(Dropout(0.2), BatchNorm(64, synchronized=True), Dropout(0.2))),
            Recompute(Sequential(Linear(CLASSES, CLASSES, rng=np.random.default_rng(8)), Tanh())),
        ),
        ddbp.Adam(0.01),
        shards=shards,
    ),
    "a memory budget": lambda shards: fitted(
        network(Dropout(0.2), *(Linear(64, 64, rng=np.random.default_rng(n)) for n in range(6))),
        ddbp.SGD(0.002),
        memory=120_000,
        shards=shards,
    ),
    "L1, L2, weight decay and clipping of values": lambda shards: fitted(
        network(),
        ddbp.Adam(0.01, weight_decay=0.01),
        l1=1e-4,
        l2=1e-3,
        clip_value=0.01,
        shards=shards,
    ),
    "LAMB": lambda shards: fitted(network(), ddbp.LAMB(0.02), shards=shards),
    "Muon": lambda shards: fitted(network(), ddbp.Muon(0.02), shards=shards),
    "AdamW in 8 bits": lambda shards: fitted(
        network(Dropout(0.3)), ddbp.AdamW(0.01, state_bits=8), clip_norm=0.5, shards=shards
    ),
    "momentum in 8 bits and float64": lambda shards: fitted(
        network(dtype=np.float64), ddbp.SGD(0.1, momentum=0.9, state_bits=8), shards=shards
    ),
    "Adafactor": lambda shards: fitted(
        network(), ddbp.Adafactor(0.02, weight_decay=0.1), shards=shards
    ),
    "transforms": lambda shards: fitted(
        network(),
        ddbp.RAdam(0.01),
        transforms=[ddbp.ClipParameterNorms(0.02), centred],
        shards=shards,
    ),
    "LARS with a warm-up": lambda shards: fitted(
        network(), ddbp.LARS(ddbp.WarmUp(1.0, steps=5)), shards=shards
    ),
    "RMSProp in float64": lambda shards: fitted(
        network(dtype=np.float64), ddbp.RMSProp(1e-3, momentum=0.5), clip_norm=1.0, shards=shards
    ),
    "AdamW, regression and a plateau": lambda shards: fitted(
        Sequential(
            Linear(FEATURES, 48, rng=np.random.default_rng(7)),
            Tanh(),
            Linear(48, 2, rng=np.random.default_rng(8)),
        ),
        ddbp.AdamW(ddbp.Plateau(0.01, patience=0, threshold=0.2)),
        training=regression(173, 4),
        validation=regression(37, 5),
        loss=MeanSquaredError(),
        shards=shards,
    ),
    "a model smaller than a block": lambda shards: fitted(
        Sequential(Linear(FEATURES, CLASSES, rng=np.random.default_rng(7))),
        ddbp.Adam(0.01),
        clip_norm=1.0,
        shards=shards,
    ),
    "a truncated LSTM": lambda shards: fitted(
        language_model(LSTM(8, 24, rng=np.random.default_rng(1)), 24),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        truncate=5,
        clip_norm=1.0,
        shards=shards,
    ),
    "two layers of GRUs in both directions": lambda shards: fitted(
        language_model(
            GRU(8, 12, layers=2, bidirectional=True, dropout=0.1, rng=np.random.default_rng(1)), 24
        ),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        shards=shards,
    ),
    "a transformer": lambda shards: transformer(shards=shards),
    "bfloat16": lambda shards: fitted(
        Sequential(
            Embedding(CLASSES, 8, rng=np.random.default_rng(1)),
            LSTM(8, 24, rng=np.random.default_rng(1)),
            Linear(24, CLASSES, rng=np.random.default_rng(2)),
        ),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        accumulate=2,
        precision="bf16",
        shards=shards,
    ),
    "bfloat16, a transformer": lambda shards: transformer(precision="bf16", shards=shards),
    "bfloat16, clipping of the norm": lambda shards: fitted(
        network(Dropout(0.3)), ddbp.LAMB(0.02), clip_norm=0.5, precision="bf16", shards=shards
    ),
    "split into two bfloat16 numbers": lambda shards: fitted(
        language_model(LSTM(8, 24, rng=np.random.default_rng(1)), 24),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        precision="bf16x3",
        shards=shards,
    ),
    "float16, a transformer": lambda shards: transformer(precision="float16", shards=shards),
    "functions of values": lambda shards: fitted(Written(), ddbp.Adam(0.01), shards=shards),
    "trees": lambda shards: fitted(
        Counting(), ddbp.Adam(0.01), training=trees(173, 6), validation=trees(37, 7), shards=shards
    ),
    "weighted sentences": lambda shards: fitted(
        Sequential(
            Embedding(CLASSES, 8, rng=np.random.default_rng(1)),
            Dropout(0.1),
            LSTM(8, 32, last=True, bidirectional=True, rng=np.random.default_rng(1)),
            Linear(64, CLASSES, rng=np.random.default_rng(2)),
        ),
        ddbp.Adam(0.01),
        training=sentences(173, 6),
        validation=sentences(37, 7),
        shards=shards,
    ),
    "momentum, a source": lambda shards: fitted(
        network(),
        ddbp.SGD(0.1, momentum=0.9),
        training=of_rows(TRAINING),
        validation=of_rows(VALIDATION),
        shards=shards,
    ),
    "images in bytes, a source": lambda shards: fitted(
        Sequential(Flatten(), Linear(64, CLASSES, rng=np.random.default_rng(1))),
        ddbp.Adam(0.01),
        training=images(173, 6),
        validation=images(37, 7),
        shards=shards,
    ),
    "windows of a text, a source": lambda shards: fitted(
        models.gpt(np.random.default_rng(1), CLASSES, 12, 24, 2, 3, dropout=0.1),
        ddbp.Adam(0.01),
        training=windows_of_text(173),
        validation=windows_of_text(37),
        shards=shards,
    ),
    "weighted sentences, a source": lambda shards: fitted(
        Sequential(
            Embedding(CLASSES, 8, rng=np.random.default_rng(1)),
            Dropout(0.1),
            LSTM(8, 32, last=True, bidirectional=True, rng=np.random.default_rng(1)),
            Linear(64, CLASSES, rng=np.random.default_rng(2)),
        ),
        ddbp.Adam(0.01),
        training=of_rows(sentences(173, 6)),
        validation=of_rows(sentences(37, 7)),
        shards=shards,
    ),
    "groups, slopes and windows": lambda shards: fitted(
        windowed(), ddbp.Adam(0.01), clip_norm=1.0, shards=shards
    ),
    "means of sentences": lambda shards: fitted(
        Sequential(
            Embedding(CLASSES, 8, rng=np.random.default_rng(1)),
            PReLU(),
            PoolOverTime("mean"),
            Linear(8, CLASSES, rng=np.random.default_rng(2)),
        ),
        ddbp.Adam(0.01),
        training=sentences(173, 6),
        validation=sentences(37, 7),
        shards=shards,
    ),
    "several inputs and targets without the last batch": lambda shards: fitted(
        Tagging(),
        ddbp.Adam(0.01),
        training=tagged(173, 6),
        validation=tagged(37, 7),
        loss=loss_of_both,
        drop_last=True,
        shards=shards,
    ),
    "a custom loop with unused and shared layers": custom_loop,
    "a loss of means, sums and loss layers": lambda shards: fitted(
        Sequential(Linear(FEATURES, 2, rng=np.random.default_rng(7))),
        ddbp.Adam(0.01),
        training=regression(173, 4),
        validation=regression(37, 5),
        loss=errors,
        metrics={"absolute": ddbp.mean_absolute_error},
        shards=shards,
    ),
    "labels that are ignored, and classes that count more": lambda shards: fitted(
        language_model(GRU(8, 12, rng=np.random.default_rng(1)), 12),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        loss=SoftmaxCrossEntropy(ignore=2, class_weights=np.arange(1, CLASSES + 1)),
        accumulate=2,
        shards=shards,
    ),
    **{
        rule: lambda shards, rule=rule: fitted(network(), ddbp.Adam(0.01), rule=rule, shards=shards)
        for rule in learning.names()
    },
    "sign symmetry of sentences": lambda shards: fitted(
        language_model(LSTM(8, 24, rng=np.random.default_rng(1)), 24),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        rule=SignSymmetry("batchwise"),
        clip_norm=1.0,
        shards=shards,
    ),
    "meProp of sentences, of shards": lambda shards: fitted(
        language_model(LSTM(8, 12, layers=2, bidirectional=True, rng=np.random.default_rng(1)), 24),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        rule=MeProp(0.2, per="batch"),
        shards=number(shards, 4),
    ),
    "predictive coding of sentences": lambda shards: fitted(
        language_model(LSTM(8, 24, rng=np.random.default_rng(1)), 24),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        rule=PredictiveCoding(2, 0.5),
        shards=shards,
    ),
    "meProp of sentences, accumulated": lambda shards: fitted(
        language_model(GRU(8, 24, last=True, rng=np.random.default_rng(1)), 24),
        ddbp.Adam(0.01),
        training=sentences(173, 6),
        validation=sentences(37, 7),
        rule=MeProp(3),
        accumulate=2,
        shards=shards,
    ),
    "augmented images, accumulated, two classes a sample": lambda shards: fitted(
        Sequential(Flatten(), network()),
        ddbp.Adam(0.01),
        training=of_images(TRAINING),
        validation=of_images(VALIDATION),
        augment=[
            *(
                Flip(vertical=True),
                Crop(1, "reflect"),
                Shift(1, 1, "wrap"),
                Affine(20, 0.1, 0.5, 0.1),
            ),
            *(CutOut(2), Noise(0.1), MixUp(0.4, classes=CLASSES)),
        ],
        accumulate=2,
        shards=shards,
    ),
    "augmented images, made ahead": lambda shards: fitted(
        Sequential(Flatten(), network(Dropout(0.2))),
        ddbp.SGD(0.1, momentum=0.9),
        training=of_images(TRAINING),
        validation=of_images(VALIDATION),
        augment="Flip(), CutOut(2)",
        prefetch=True,
        shards=shards,
    ),
    "feedback alignment of images": lambda shards: fitted(
        windowed(), ddbp.Adam(0.01), rule="feedback_alignment", accumulate=2, shards=shards
    ),
    "labels without a place in time": lambda shards: fitted(
        language_model(GRU(8, 12, rng=np.random.default_rng(1)), 12),
        ddbp.Adam(0.01),
        training=spoken(173, 6),
        validation=spoken(37, 7),
        loss=CTC(),
        shards=shards,
    ),
    "local SGD": lambda workers: fitted(
        network(Dropout(0.3)),
        ddbp.SGD(0.1, momentum=0.9),
        exchange=ddbp.LocalSGD(number(workers, 4), 3, after=2),
        batch_size=48,
    ),
    "DiLoCo in fragments": lambda workers: fitted(
        network(),
        ddbp.AdamW(ddbp.Cosine(0.01, steps=20)),
        exchange=ddbp.DiLoCo(number(workers, 4), 6, fragments=3),
        batch_size=48,
        clip_norm=0.5,
    ),
    "DiLoCo of the largest outer gradients": lambda workers: fitted(
        network(),
        ddbp.Adam(0.01),
        exchange=ddbp.DiLoCo(number(workers, 4), 4, fragments=2),
        compression="top-k:0.1",
        batch_size=48,
    ),
    "local SGD in float64": lambda workers: fitted(
        network(dtype=np.float64),
        ddbp.RMSProp(1e-3),
        exchange=ddbp.LocalSGD(number(workers, 4), 5),
        batch_size=48,
    ),
    "DiLoCo in 4 bits": lambda workers: fitted(
        network(),
        ddbp.Muon(0.02),
        exchange=ddbp.DiLoCo(number(workers, 4), 4, bits=4),
        batch_size=48,
    ),
    "DiLoCo in fragments and 8 bits, a transformer": lambda workers: transformer(
        exchange=ddbp.DiLoCo(number(workers, 4), 4, fragments=2, bits=8), batch_size=48
    ),
    "DiLoCo in fragments, whose rounds end with epochs": lambda workers: fitted(
        network(Dropout(0.3)),
        ddbp.Adam(0.01),
        exchange=ddbp.DiLoCo(number(workers, 4), 6, fragments=2),
        batch_size=48,
        callbacks=[EndsRounds()],
    ),
    "DiLoCo with workers that come and go": lambda workers: fitted(
        network(),
        ddbp.Adam(0.01),
        exchange=ddbp.DiLoCo({0: 4, 2: number(workers, 6), 4: 4}, 4, fragments=2),
        batch_size=48,
    ),
}
if HAS_DOTS:
    RUNS["bfloat16 by dots"] = lambda shards: fitted(
        language_model(LSTM(8, 24, rng=np.random.default_rng(1)), 24),
        ddbp.Adam(0.01),
        training=texts(173, 6),
        validation=texts(37, 7),
        precision="bf16-dot",
        shards=shards,
    )


# What is refused where it takes longer than float32 is tried there all the same.
precision.times_float32 = lambda name: 1.0


def main() -> None:
    """Run all and write rank<r>.npz (parameters) and rank<r>.json (histories, without times)."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("folder", type=Path)
    flags.add_argument("--corrupt", type=int, nargs=2, metavar=("RANK", "STEP"))
    options = flags.parse_args()
    comm = ddbp.communicator()
    parameters, histories = {}, {}
    if options.corrupt is not None:
        key = "momentum, 8 shards"
        trainer, history = fitted(
            network(), ddbp.SGD(0.1, momentum=0.9), shards=8, callbacks=[Corrupt(*options.corrupt)]
        )
        parameters[key] = flat(trainer)
        histories[key] = without_times(history) + recorded(trainer)
    else:
        for shards in (8, "ranks"):
            for name, run in RUNS.items():
                trainer, history = run(shards)
                key = f"{name}, {'one shard per rank' if shards == 'ranks' else f'{shards} shards'}"
                parameters[key] = flat(trainer)
                histories[key] = without_times(history) + recorded(trainer)
                assert_on_all_ranks(
                    np.isfinite(parameters[key]).all(), f"parameters of {key} are finite"
                )
    np.savez(options.folder / f"rank{comm.rank}.npz", **parameters)
    (options.folder / f"rank{comm.rank}.json").write_text(json.dumps(histories))


def flat(trainer: ddbp.Trainer) -> np.ndarray:
    """Return all parameters of a model one after the other."""
    return np.concatenate([parameter.value.reshape(-1) for parameter in trainer.model.parameters()])


def recorded(trainer: ddbp.Trainer) -> list[dict]:
    """Return the digests of what instruments have measured, but for times; those of rank 0, which
    keeps it.
    """
    found = [each for each in trainer.callbacks if isinstance(each, ddbp.Instruments)]
    # Workers that train apart have none.
    values = {name: array for each in found for name, array in each.recording.values.items()}
    digests = {
        name: f"{array.shape} {zlib.crc32(array.tobytes()):08x}"
        for name, array in values.items()
        if not name.startswith("seconds")
    }
    return [json.loads(gather_texts(trainer.comm, json.dumps(digests))[0])]


def without_times(history: list[dict]) -> list[dict]:
    """Return the records without what differs from run to run."""
    return [
        {
            name: value
            for name, value in record.items()
            if name not in ("seconds", "samples_per_second", "data_seconds")
        }
        for record in history
    ]


class EndsRounds(ddbp.Callback):
    """Has workers exchange what they have trained at the end of each epoch."""

    def on_epoch_end(self, trainer: ddbp.Trainer, record: dict[str, object]) -> None:
        trainer.end_round()


class Corrupt(ddbp.Callback):
    """Changes the lowest bit of the last parameter on one rank after a step."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_step_end(self, trainer: ddbp.Trainer, step: int, loss: float) -> None:
        if step == self.step and trainer.comm.rank == self.rank:
            weight = trainer.model.parameters()[-1].value
            weight[-1] = np.nextafter(weight[-1], np.float32(1))


if __name__ == "__main__":
    main()
