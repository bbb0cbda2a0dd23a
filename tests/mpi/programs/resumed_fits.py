"""Runs that stop and go on elsewhere: what is trained by `fit`."""

from collections.abc import Callable

import numpy as np
from resumed_exchanges import EXCHANGED
from resumed_parts import (
    DATA,
    IMAGES,
    ONE_BY_ONE,
    SAMPLES,
    SENTENCES,
    SEQUENCES,
    convolutional,
    dense,
    frozen,
    make,
    reading,
    recurrent,
    stops,
)

import ddbp
from ddbp.data.augment import Crop, CutOut, Flip, MixUp, Noise, Shift
from layers import BatchNorm, Dropout, Linear, MeanSquaredError, Recompute, Sequential
from layers.rules import DirectFeedbackAlignment, MeProp, SignSymmetry

# What trains, on which data, and after which step it is stopped, or batch in a loop: there are five
# batches in an epoch, the last one of 12 samples, each of three windows where it is cut.
FITS: dict[str, tuple[Callable[..., ddbp.Trainer], ddbp.data.source.Dataset, int]] = {
    "dropout, Adam, a warm-up": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.Adam(ddbp.WarmUp(ddbp.Cosine(0.01, steps=20), steps=5)),
            clip_norm=1.0,
            **options,
        ),
        DATA,
        8,
    ),
    "batch norm, momentum": (
        lambda **options: make(convolutional(), ddbp.SGD(0.1, momentum=0.9), **options),
        IMAGES,
        1,
    ),
    "a memory budget": (
        lambda **options: make(
            dense(Dropout(0.2), BatchNorm(64, synchronized=True)),
            ddbp.Adam(0.01),
            memory=40_000,
            **options,
        ),
        DATA,
        8,
    ),
    "segments computed again": (
        lambda **options: make(
            Recompute(dense(Dropout(0.2), BatchNorm(64, synchronized=True))),
            ddbp.Adam(0.01),
            **options,
        ),
        DATA,
        8,
    ),
    "feedback alignment": (
        lambda **options: make(
            dense(Dropout(0.2)), ddbp.Adam(0.01), rule="feedback_alignment", **options
        ),
        DATA,
        8,
    ),
    "direct feedback, batch norm": (
        lambda **options: make(
            convolutional(), ddbp.SGD(0.1), rule=DirectFeedbackAlignment(seed=3), **options
        ),
        IMAGES,
        7,
    ),
    "sign symmetry through windows": (
        lambda **options: make(
            recurrent(),
            ddbp.Adam(0.01),
            **{"loss": MeanSquaredError(), "truncate": 3, **options},
            rule=SignSymmetry("batchwise"),
        ),
        SEQUENCES,
        8,
    ),
    "difference target propagation": (
        lambda **options: make(
            dense(), ddbp.Adam(0.01), rule="difference_target_propagation", **options
        ),
        DATA,
        12,
    ),
    "forward-forward": (
        lambda **options: make(
            dense(Dropout(0.2)), ddbp.Adam(0.01), rule="forward_forward", **options
        ),
        DATA,
        8,
    ),
    "meProp of samples": (
        lambda **options: make(dense(Dropout(0.2)), ddbp.Adam(0.01), rule=MeProp(0.2), **options),
        DATA,
        8,
    ),
    "meProp of batches, accumulated": (
        lambda **options: make(
            dense(), ddbp.SGD(0.1), rule=MeProp(5, per="batch"), accumulate=2, **options
        ),
        DATA,
        4,
    ),
    "meProp through windows": (
        lambda **options: make(
            recurrent(),
            ddbp.Adam(0.01),
            **{"loss": MeanSquaredError(), "truncate": 3, **options},
            rule=MeProp(0.3, per="batch"),
        ),
        SEQUENCES,
        8,
    ),
    "LAMB, one cycle": (
        lambda **options: make(dense(), ddbp.LAMB(ddbp.OneCycle(0.02, steps=24)), **options),
        DATA,
        12,
    ),
    "moments in 8 bits": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.AdamW(ddbp.Cosine(0.02, steps=24), amsgrad=True, state_bits=8),
            **options,
        ),
        DATA,
        7,
    ),
    "Adafactor": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.Adafactor(0.02, groups={"*bias": {"relative": False}}),
            **options,
        ),
        DATA,
        12,
    ),
    "Muon, a rate by epoch": (
        lambda **options: make(
            dense(), ddbp.Muon(ddbp.ByEpoch(ddbp.Cosine(0.02, steps=4))), **options
        ),
        DATA,
        7,
    ),
    "a moving average": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.Adam(0.01),
            callbacks=[ddbp.ExponentialMovingAverage(0.9, validation=DATA), *callbacks],
            **options,
        ),
        DATA,
        8,
    ),
    "a doctor": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.SGD(0.1),
            callbacks=[ddbp.Instruments(1), ddbp.Doctor(), *callbacks],
            **options,
        ),
        DATA,
        12,
    ),
    "a doctor that tries what it proposes": (
        lambda callbacks=(), **options: make(
            Sequential(Linear(20, 4, rng=np.random.default_rng(1))),
            ddbp.SGD(0.1, momentum=0.999),
            callbacks=[ddbp.Instruments(1), ddbp.Doctor(probes=True), *callbacks],
            **options,
        ),
        DATA,
        12,
    ),
    "a strict doctor": (
        lambda callbacks=(), **options: make(
            Sequential(Linear(20, 4, rng=np.random.default_rng(1))),
            ddbp.SGD(0.1),
            callbacks=[*callbacks, ddbp.Instruments(3), ddbp.Doctor(strict=True)],
            **options,
        ),
        DATA,
        7,
    ),
    "a doctor until it stops": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.SGD(0.1),
            callbacks=callbacks,
            doctor=stops(callbacks),
            **options,
        ),
        DATA,
        9,
    ),
    "a doctor from then on": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.SGD(0.1),
            callbacks=callbacks,
            doctor=not stops(callbacks),
            **options,
        ),
        DATA,
        9,
    ),
    "a plateau": (
        lambda **options: make(
            dense(), ddbp.RMSProp(ddbp.Plateau(0.01, patience=1, threshold=0.5)), **options
        ),
        DATA,
        18,
    ),
    "parameter groups": (
        lambda **options: make(
            dense(),
            ddbp.Adam(
                ddbp.Cosine(0.01, steps=20),
                groups={
                    "layers.0.*": {"learning_rate": ddbp.Plateau(0.01, patience=0)},
                    ("*.3.weight", "*.2.weight"): {"weight_decay": 0.1, "betas": (0.8, 0.9)},
                },
            ),
            **options,
        ),
        DATA,
        12,
    ),
    "early stopping": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.SGD(1e-9),
            callbacks=[ddbp.EarlyStopping(patience=2, delta=0.1), *callbacks],
            **options,
        ),
        DATA,
        12,
    ),
    "frozen layers": (
        lambda **options: make(frozen(dense()), ddbp.Adam(0.01), clip_norm=0.5, **options),
        DATA,
        12,
    ),
    "best weights": (
        lambda callbacks=(), **options: make(
            dense(BatchNorm(64)),
            ddbp.SGD(0.3, momentum=0.9),
            callbacks=[
                ddbp.BestWeights(),
                ddbp.EarlyStopping(
                    monitor="validation_accuracy", patience=9, restore_best_weights=True
                ),
                *callbacks,
            ],
            **options,
        ),
        DATA,
        17,
    ),
    "a second fit": (
        lambda **options: make(dense(), ddbp.SGD(0.1, momentum=0.9, nesterov=True), **options),
        DATA,
        13,
    ),
    "groups": (
        lambda **options: make(
            dense(BatchNorm(64, synchronized=True)), ddbp.AdamW(0.01), accumulate=4, **options
        ),
        DATA,
        3,
    ),
    "weighted sentences without the last batch": (
        lambda **options: make(reading(), ddbp.Adam(0.01), drop_last=True, **options),
        SENTENCES,
        6,
    ),
    "windows": (
        lambda **options: make(
            recurrent(), ddbp.Adam(0.01), loss=MeanSquaredError(), truncate=3, **options
        ),
        SEQUENCES,
        10,
    ),
    "windows in turn": (
        lambda **options: make(
            recurrent(),
            ddbp.Adam(0.01),
            loss=MeanSquaredError(),
            truncate=3,
            accumulate=2,
            **options,
        ),
        SEQUENCES,
        11,
    ),
    "augmented images, made ahead": (
        lambda **options: make(
            convolutional(),
            ddbp.SGD(0.1, momentum=0.9),
            augment=[Flip(), Crop(1), CutOut(2), Noise(0.1), MixUp(0.4, classes=4)],
            prefetch=True,
            **options,
        ),
        IMAGES,
        7,
    ),
    "augmented sequences, windows in turn, made ahead": (
        lambda **options: make(
            recurrent(),
            ddbp.Adam(0.01),
            loss=MeanSquaredError(),
            truncate=3,
            accumulate=2,
            augment=[Shift(2), MixUp()],
            prefetch=True,
            **options,
        ),
        SEQUENCES,
        11,
    ),
    **EXCHANGED,
    "a source, accumulated": (
        lambda **options: make(dense(Dropout(0.2)), ddbp.Adam(0.01), accumulate=2, **options),
        ddbp.data.ArraySource(DATA.x, DATA.y),
        4,
    ),
    "sentences of a source": (
        lambda **options: make(reading(), ddbp.Adam(0.01), **options),
        ONE_BY_ONE,
        8,
    ),
    "a generator": (
        lambda **options: make(dense(), ddbp.SGD(0.1, momentum=0.9), **options),
        ddbp.data.GeneratorSource(lambda: zip(DATA.x, DATA.y, strict=True), SAMPLES),
        6,
    ),
    "windows of a source": (
        lambda **options: make(
            recurrent(), ddbp.Adam(0.01), **{"loss": MeanSquaredError(), "truncate": 3, **options}
        ),
        ddbp.data.ArraySource(SEQUENCES.x, SEQUENCES.y),
        8,
    ),
}
