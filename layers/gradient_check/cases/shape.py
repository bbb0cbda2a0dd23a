"""The cases of layers that change shapes."""

from layers.shape import ChannelsFirst, ChannelsLast, Flatten, Reshape

from .case import BATCH, Case, layer, real

_DEEP = (BATCH, 3, 4)

CASES = (
    Case("Flatten", layer(Flatten), real(_DEEP)),
    Case("Reshape", layer(Reshape, 2, -1), real(_DEEP)),
    Case("ChannelsLast", layer(ChannelsLast), real((BATCH, 3, 4, 5))),
    Case("ChannelsLast of many channels", layer(ChannelsLast), real((BATCH, 17, 3, 6))),
    Case("ChannelsFirst", layer(ChannelsFirst), real((BATCH, 4, 5, 3))),
)
