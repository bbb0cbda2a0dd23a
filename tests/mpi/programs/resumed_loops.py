"""Runs that stop and go on elsewhere: what is trained in loops of the script."""

from collections.abc import Callable

from resumed_parts import Faulty, Narrow, dense, frozen, make

import ddbp
from ddbp.data.augment import MixUp, Noise
from layers import BatchNorm, Dropout

LOOPS: dict[str, tuple[Callable[..., ddbp.Trainer], int]] = {
    "a loop in the midst of a group that will be left out": (
        lambda **options: make(
            dense(Faulty(), BatchNorm(64)),
            ddbp.Adam(0.01),
            accumulate=4,
            on_nonfinite="skip",
            **options,
        ),
        8,
    ),
    "a loop": (
        lambda **options: make(dense(Dropout(0.2)), ddbp.SGD(0.1, momentum=0.9), **options),
        8,
    ),
    "an augmented loop in the midst of a group, made ahead": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.Adam(0.01),
            accumulate=4,
            augment=[Noise(0.1), MixUp(0.4, classes=4)],
            prefetch=True,
            **options,
        ),
        8,
    ),
    "a loop over frozen layers in the midst of a group": (
        lambda **options: make(
            frozen(dense(BatchNorm(64))), ddbp.LAMB(0.01), accumulate=4, **options
        ),
        7,
    ),
    "a loop in the midst of a group": (
        lambda **options: make(
            dense(BatchNorm(64), Dropout(0.2)), ddbp.Adam(0.01), accumulate=4, **options
        ),
        8,
    ),
    "a loop in the midst of a group whose loss is scaled": (
        lambda **options: make(
            dense(Narrow(), BatchNorm(64)),
            ddbp.Adam(0.01),
            accumulate=4,
            loss_scale=ddbp.LossScale(2.0**16, 1),
            **options,
        ),
        8,
    ),
    "a loop in bfloat16 in the midst of a group": (
        lambda **options: make(
            dense(BatchNorm(64)), ddbp.Adam(0.01), accumulate=4, precision="bf16", **options
        ),
        8,
    ),
    "a loop in the midst of a group, synchronized": (
        lambda **options: make(
            dense(BatchNorm(64, synchronized=True)), ddbp.Adam(0.01), accumulate=4, **options
        ),
        7,
    ),
}
