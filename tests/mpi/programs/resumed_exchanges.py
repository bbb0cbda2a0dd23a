"""Runs that stop and go on elsewhere: what is exchanged, in how many bits, and left out."""

from collections.abc import Callable

from resumed_parts import (
    DATA,
    IMAGES,
    MARKED,
    SENTENCES,
    Faulty,
    Narrow,
    apart,
    convolutional,
    dense,
    frozen,
    make,
    reading,
)

import ddbp
from layers import BatchNorm, Dropout

# As in resumed_fits.
EXCHANGED: dict[str, tuple[Callable[..., ddbp.Trainer], ddbp.data.source.Dataset, int]] = {
    "updates that are left out": (
        lambda **options: make(
            dense(Faulty(), BatchNorm(64)), ddbp.Adam(0.01), on_nonfinite="skip", **options
        ),
        MARKED,
        6,
    ),
    "a loss that is scaled": (
        lambda **options: make(
            dense(Narrow(), BatchNorm(64)),
            ddbp.Adam(ddbp.Cosine(0.01, steps=20)),
            clip_norm=0.5,
            loss_scale=ddbp.LossScale(2.0**19, 2),
            **options,
        ),
        DATA,
        6,
    ),
    "the largest elements": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.Adam(ddbp.Cosine(0.01, steps=20)),
            clip_norm=0.5,
            compression=ddbp.TopK(0.1),
            loss_scale=ddbp.LossScale(2.0**4, 3),
            **options,
        ),
        DATA,
        8,
    ),
    "products of low rank": (
        lambda **options: make(
            frozen(dense()), ddbp.SGD(0.1, momentum=0.9), compression="power-sgd:2", **options
        ),
        DATA,
        7,
    ),
    "signs": (
        lambda **options: make(dense(), ddbp.SGD(0.02), compression="sign", **options),
        DATA,
        12,
    ),
    "sums of 8 bits": (
        lambda **options: make(dense(), ddbp.Muon(0.02), compression="int8", **options),
        DATA,
        6,
    ),
    "float16": (
        lambda **options: make(
            dense(BatchNorm(64), Dropout(0.2)), ddbp.Adam(0.01), precision="float16", **options
        ),
        DATA,
        7,
    ),
    "bfloat16, sentences": (
        lambda **options: make(reading(), ddbp.Adam(0.01), precision="bf16", **options),
        SENTENCES,
        6,
    ),
    "split into two bfloat16 numbers": (
        lambda **options: make(reading(), ddbp.Adam(0.01), precision="bf16x3", **options),
        SENTENCES,
        6,
    ),
    "bfloat16, convolutions": (
        lambda **options: make(
            convolutional(), ddbp.SGD(0.1, momentum=0.9), precision="bf16", **options
        ),
        IMAGES,
        7,
    ),
    "local steps, and seldom after some": (
        lambda **options: apart(
            convolutional(), ddbp.SGD(0.1, momentum=0.9), ddbp.LocalSGD(6, 3, after=4), **options
        ),
        IMAGES,
        6,
    ),
    "DiLoCo in the midst of a round": (
        lambda **options: apart(
            dense(Dropout(0.2), BatchNorm(64)),
            ddbp.AdamW(ddbp.WarmUp(ddbp.Cosine(0.01, steps=24), steps=5)),
            ddbp.DiLoCo(4, 8),
            clip_norm=1.0,
            **options,
        ),
        DATA,
        -1,
    ),
    "DiLoCo in fragments, 4 bits, a moving average": (
        lambda callbacks=(), **options: apart(
            dense(),
            ddbp.Adam(ddbp.Plateau(0.01, patience=1, threshold=0.5)),
            ddbp.DiLoCo(6, 6, fragments=3, bits=4),
            callbacks=[ddbp.ExponentialMovingAverage(0.9, validation=DATA), *callbacks],
            **options,
        ),
        DATA,
        5,
    ),
    "DiLoCo with workers that come and go": (
        lambda **options: apart(
            reading(), ddbp.AdamW(0.01), ddbp.DiLoCo({0: 4, 2: 6, 4: 4}, 4, bits=8), **options
        ),
        SENTENCES,
        3,
    ),
    "DiLoCo of outer gradients of low rank": (
        lambda **options: apart(
            dense(),
            ddbp.AdamW(0.01),
            ddbp.DiLoCo(4, 4, fragments=2),
            compression="power-sgd:2",
            **options,
        ),
        DATA,
        5,
    ),
}
