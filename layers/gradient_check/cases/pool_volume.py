"""The cases of pooling of volumes."""

from typing import Any

from layers.pool_volume import AvgPool3d, MaxPool3d

from .case import BATCH, Case, distinct, layer, real

_EVEN, _ODD, _WIDE = (BATCH, 4, 2, 6, 2), (BATCH, 3, 4, 5, 2), (BATCH, 2, 3, 2, 19)
# Windows that overlap along the depth, and leave columns out.
_UNEVEN: dict[str, Any] = {"kernel_size": (3, 1, 2), "stride": (1, 2, 3), "padding": (1, 0, 0)}
_OVERLAPPING: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}
_CEIL: dict[str, Any] = {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}

CASES = (
    Case("MaxPool3d", layer(MaxPool3d, 2), distinct(_EVEN)),
    Case("MaxPool3d of overlapping windows", layer(MaxPool3d, **_OVERLAPPING), distinct(_ODD)),
    Case("MaxPool3d of oblong windows", layer(MaxPool3d, **_UNEVEN), distinct(_ODD)),
    Case("MaxPool3d of many channels", layer(MaxPool3d, 2, 1), distinct(_WIDE)),
    Case("MaxPool3d of what is left over, too", layer(MaxPool3d, **_CEIL), distinct(_ODD)),
    Case("AvgPool3d", layer(AvgPool3d, 2), real(_EVEN)),
    Case("AvgPool3d of overlapping windows", layer(AvgPool3d, **_OVERLAPPING), real(_ODD)),
    Case(
        "AvgPool3d without counting the padding",
        layer(AvgPool3d, **_OVERLAPPING, count_padding=False),
        real(_WIDE),
    ),
    Case("AvgPool3d of oblong windows", layer(AvgPool3d, **_UNEVEN), real(_ODD)),
    Case("AvgPool3d of what is left over, too", layer(AvgPool3d, **_CEIL), real(_ODD)),
)
