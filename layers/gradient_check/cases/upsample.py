"""The cases of larger images."""

from layers.upsample import Upsample

from .case import BATCH, Case, layer, real

_IMAGES, _WIDE = real((BATCH, 3, 4, 2)), real((BATCH, 3, 2, 19))

CASES = (
    Case("Upsample", layer(Upsample, 2), _IMAGES),
    Case("Upsample of many channels", layer(Upsample, (1, 3)), _WIDE),
    Case("Upsample to a size", layer(Upsample, size=(5, 2)), _IMAGES),
    Case("Upsample bilinear", layer(Upsample, 2, mode="bilinear"), _IMAGES),
    Case(
        "Upsample bilinear of corners",
        layer(Upsample, (2, 3), mode="bilinear", align_corners=True),
        _WIDE,
    ),
    Case("Upsample bilinear to a size", layer(Upsample, size=(2, 7), mode="bilinear"), _IMAGES),
)
