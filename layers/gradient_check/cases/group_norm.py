"""The cases of normalisation by groups of channels."""

from collections.abc import Callable
from typing import Any

from layers.activation import ReLU
from layers.containers import Sequential
from layers.engine.module import Module
from layers.group_norm import GroupNorm, InstanceNorm, InstanceNorm1d, InstanceNorm2d

from .case import BATCH, Case, Generator, real


def normalising(
    make: Callable[..., GroupNorm], *options: Any, **named: Any
) -> Callable[[Generator], GroupNorm]:
    """Return the constructor of a normalisation whose parameters are not those of the beginning."""

    def made(rng: Generator) -> GroupNorm:
        norm = make(*options, **named)
        if norm.weight is not None and norm.bias is not None:
            size = norm.features
            norm.weight.value = rng.uniform(0.5, 1.5, size) * rng.choice((-1.0, 1.0), size)
            norm.bias.value = rng.standard_normal(size)
        return norm

    return made


def _rectified(rng: Generator) -> Module:
    return Sequential(normalising(GroupNorm, 2, 6)(rng), ReLU())


_IMAGES, _SEQUENCES = real((BATCH, 3, 2, 6)), real((BATCH, 9, 4))

CASES = (
    Case("GroupNorm", normalising(GroupNorm, 2, 6), _IMAGES),
    Case("GroupNorm of one group", normalising(GroupNorm, 1, 6, 0.1), _IMAGES),
    Case("GroupNorm of rows", normalising(GroupNorm, 3, 6), real((BATCH, 6))),
    Case("GroupNorm of many channels", normalising(GroupNorm, 4, 600), real((BATCH, 2, 600))),
    Case("GroupNorm of large images", normalising(GroupNorm, 3, 6), real((BATCH, 14, 14, 6))),
    Case("GroupNorm not affine", normalising(GroupNorm, 2, 6, affine=False), _IMAGES),
    Case("GroupNorm with ReLU", _rectified, _IMAGES),
    Case("InstanceNorm", normalising(InstanceNorm, 4), _SEQUENCES),
    Case("InstanceNorm1d", normalising(InstanceNorm1d, 4, affine=True), _SEQUENCES),
    Case("InstanceNorm2d", normalising(InstanceNorm2d, 6, affine=True), _IMAGES),
)
