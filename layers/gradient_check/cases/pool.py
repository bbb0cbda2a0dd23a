"""The cases of pooling."""

from collections.abc import Callable
from typing import Any

from layers.activation import ReLU
from layers.containers import Sequential
from layers.engine.module import Module
from layers.pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    GlobalAveragePool,
    MaxPool1d,
    MaxPool2d,
)

from .case import BATCH, Case, Generator, distinct, layer, real

# 19 channels are more than one vector, and no multiple of one, whatever the processor.
_EVEN, _ODD, _WIDE = (BATCH, 4, 6, 3), (BATCH, 5, 7, 2), (BATCH, 3, 5, 19)
# Windows that overlap down the image, and leave columns out.
_UNEVEN: dict[str, Any] = {"kernel_size": (3, 2), "stride": (1, 3), "padding": (1, 0)}
_RESNET: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}
_CEIL: dict[str, Any] = {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}
_SEQUENCE = (BATCH, 9, 5)


def _joined(**options: Any) -> Callable[[Generator], Module]:
    return lambda rng: Sequential(ReLU(), MaxPool2d(**options))


CASES = (
    Case("MaxPool2d", layer(MaxPool2d, 2), distinct(_EVEN)),
    Case("MaxPool2d that leaves pixels over", layer(MaxPool2d, 2), distinct(_ODD)),
    Case("MaxPool2d of overlapping windows", layer(MaxPool2d, **_RESNET), distinct(_ODD)),
    Case("MaxPool2d of oblong windows", layer(MaxPool2d, **_UNEVEN), distinct(_ODD)),
    Case("MaxPool2d of large windows", layer(MaxPool2d, 4, 1, 2), distinct(_EVEN)),
    Case("MaxPool2d of many channels", layer(MaxPool2d, 2, 1), distinct(_WIDE)),
    Case("ReLU and MaxPool2d", _joined(kernel_size=2), distinct(_EVEN)),
    Case("ReLU and MaxPool2d of overlapping windows", _joined(**_RESNET), distinct(_WIDE)),
    Case("MaxPool2d of what is left over, too", layer(MaxPool2d, **_CEIL), distinct(_EVEN)),
    Case("MaxPool1d", layer(MaxPool1d, 2), distinct(_SEQUENCE)),
    Case("MaxPool1d of overlapping windows", layer(MaxPool1d, **_RESNET), distinct(_SEQUENCE)),
    Case("MaxPool1d of what is left over, too", layer(MaxPool1d, **_CEIL), distinct((BATCH, 8, 5))),
    Case(
        "ReLU and MaxPool1d", lambda rng: Sequential(ReLU(), MaxPool1d(3, 2)), distinct(_SEQUENCE)
    ),
    Case("AdaptiveMaxPool2d", layer(AdaptiveMaxPool2d, (3, 2)), distinct(_ODD)),
    Case("AdaptiveMaxPool1d", layer(AdaptiveMaxPool1d, 4), distinct(_SEQUENCE)),
    Case("AvgPool2d", layer(AvgPool2d, 2), real(_EVEN)),
    Case("AvgPool2d of what is left over, too", layer(AvgPool2d, **_CEIL), real(_EVEN)),
    Case("AvgPool1d", layer(AvgPool1d, 3, 2, 1), real(_SEQUENCE)),
    Case(
        "AvgPool1d without counting the padding",
        layer(AvgPool1d, 3, 2, 1, count_padding=False, ceil_mode=True),
        real((BATCH, 8, 5)),
    ),
    Case("AdaptiveAvgPool2d", layer(AdaptiveAvgPool2d, (3, 2)), real(_ODD)),
    Case("AdaptiveAvgPool2d to more pixels", layer(AdaptiveAvgPool2d, 8), real(_ODD)),
    Case("AdaptiveAvgPool1d", layer(AdaptiveAvgPool1d, 4), real(_SEQUENCE)),
    Case("AvgPool2d that leaves pixels over", layer(AvgPool2d, 2), real(_ODD)),
    Case("AvgPool2d of overlapping windows", layer(AvgPool2d, **_RESNET), real(_ODD)),
    Case(
        "AvgPool2d without counting the padding",
        layer(AvgPool2d, **_RESNET, count_padding=False),
        real(_WIDE),
    ),
    Case(
        "AvgPool2d of oblong windows", layer(AvgPool2d, **_UNEVEN, count_padding=False), real(_ODD)
    ),
    Case("AvgPool2d of large windows", layer(AvgPool2d, 4, 1, 2), real(_EVEN)),
    Case("GlobalAveragePool", layer(GlobalAveragePool), real(_WIDE)),
)
