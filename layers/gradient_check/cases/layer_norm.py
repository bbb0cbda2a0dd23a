"""The cases of layer normalisation."""

from collections.abc import Callable
from typing import Any

from layers.layer_norm import Features, LayerNorm, RMSNorm

from .case import BATCH, Case, Generator, real


def normalising(
    make: Callable[..., LayerNorm], features: Features, **options: Any
) -> Callable[[Generator], LayerNorm]:
    """Return the constructor of a normalisation whose parameters are not those of the beginning."""

    def made(rng: Generator) -> LayerNorm:
        norm = make(features, **options)
        if norm.weight is not None:
            norm.weight.value = rng.uniform(0.5, 1.5, features) * rng.choice((-1.0, 1.0), features)
        if norm.bias is not None:
            norm.bias.value = rng.standard_normal(features)
        return norm

    return made


CASES = (
    Case("LayerNorm", normalising(LayerNorm, 5), real((BATCH, 5))),
    Case("LayerNorm of sequences", normalising(LayerNorm, 19, epsilon=0.1), real((BATCH, 3, 19))),
    Case("LayerNorm of many features", normalising(LayerNorm, 150), real((BATCH, 150))),
    Case("LayerNorm without bias", normalising(LayerNorm, 6, bias=False), real((BATCH, 2, 6))),
    Case("LayerNorm of images", normalising(LayerNorm, (2, 3, 4)), real((BATCH, 2, 3, 4))),
    Case("LayerNorm of two axes", normalising(LayerNorm, (3, 4)), real((BATCH, 2, 3, 4))),
    Case("LayerNorm not affine", normalising(LayerNorm, 6, affine=False), real((BATCH, 2, 6))),
    Case("RMSNorm not affine", normalising(RMSNorm, 6, affine=False), real((BATCH, 2, 6))),
    Case("RMSNorm", normalising(RMSNorm, 5), real((BATCH, 5))),
    Case("RMSNorm of sequences", normalising(RMSNorm, 19, epsilon=0.1), real((BATCH, 3, 19))),
)
