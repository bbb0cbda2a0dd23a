"""Runs of twenty steps, by their names."""

from collections.abc import Callable

import numpy as np
from drawn_data import CLASSES, FEATURES, regression, sentences, spoken, tagged, texts, trees
from twenty_steps_models import (
    EPOCHS,
    ODD,
    ODD_VALIDATION,
    TRAINING,
    VALIDATION,
    Alternating,
    Counting,
    EndsRounds,
    Tagging,
    Written,
    centred,
    errors,
    fitted,
    images,
    language_model,
    loss_of_both,
    make,
    network,
    number,
    of_images,
    of_rows,
    reader,
    transformer,
    windowed,
    windows_of_text,
)

import ddbp
from ddbp.data.augment import Affine, Crop, CutOut, Flip, MixUp, Noise, Shift
from ddbp.training import learning, precision
from layers import (
    CTC,
    GRU,
    LSTM,
    BatchNorm,
    Dropout,
    Embedding,
    Flatten,
    Linear,
    MeanSquaredError,
    PoolOverTime,
    PReLU,
    Recompute,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    models,
)
from layers.kernels.llvm.simd_bf16 import HAS_DOTS
from layers.rules import MeProp, PredictiveCoding, SignSymmetry


def custom_loop(shards):
    """Return the trainer and its losses after a loop of the user's own, with a model that does not
    use all of its parameters.
    """
    trainer = make(Alternating(), ddbp.SGD(0.05, momentum=0.9), shards=shards)
    loop = trainer.batches(TRAINING, epochs=EPOCHS)
    return trainer, [
        {"loss": trainer.step(trainer.loss(trainer.model(batch.x), batch.y))} for batch in loop
    ]


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
        reader(),
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
        reader(),
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
