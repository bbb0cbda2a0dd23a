"""The cases of the padded shortcut."""

from layers.shortcut import PaddedShortcut

from .case import BATCH, Case, layer, real

CASES = (
    Case("PaddedShortcut", layer(PaddedShortcut, 3, 5, 2), real((BATCH, 5, 4, 3))),
    Case("PaddedShortcut of stride 1", layer(PaddedShortcut, 2, 2), real((BATCH, 3, 2, 2))),
)
