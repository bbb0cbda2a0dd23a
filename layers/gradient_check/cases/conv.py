"""The cases of convolutions: every option of a window, and every algorithm that
`layers.conv.algorithms.choose` may take.

Images are a few pixels wide, so that borders and partial tiles are most of them.
"""

from collections.abc import Callable
from typing import Any

from layers.activation import ReLU
from layers.containers import Sequential
from layers.conv.conv import Conv1d, Conv2d, Conv3d
from layers.conv.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from layers.engine.module import Module
from layers.init import normal
from layers.pool import MaxPool2d
from layers.shape import Flatten

from .case import BATCH, Case, Generator, dense, real

Make = Callable[[Generator], Module]


def convolution(*sizes: Any, of: Callable[..., Module] = Conv2d, **options: Any) -> Make:
    """Return the constructor of a convolution whose biases are not 0."""
    return lambda rng: of(*sizes, rng=rng, bias_init=normal(1), **options)


def rectified(make: Make) -> Make:
    """Return the constructor of a layer with a ReLU after it, which run as one."""
    return lambda rng: Sequential(make(rng), ReLU())


def _1d(*sizes: Any, **options: Any) -> Make:
    return convolution(*sizes, of=Conv1d, **options)


def _3d(*sizes: Any, **options: Any) -> Make:
    return convolution(*sizes, of=Conv3d, **options)


def _transposed(*sizes: Any, **options: Any) -> Make:
    return convolution(*sizes, of=ConvTranspose2d, **options)


def _transposed_1d(*sizes: Any, **options: Any) -> Make:
    return convolution(*sizes, of=ConvTranspose1d, **options)


def _network(rng: Generator) -> Module:
    return Sequential(
        convolution(2, 8, 3, padding=1)(rng),
        ReLU(),
        convolution(8, 6, 3, stride=2, padding=1)(rng),
        ReLU(),
        Flatten(),
        dense(6 * 3 * 2, 4)(rng),
    )


def _transposed_3d(*sizes: Any, **options: Any) -> Make:
    return convolution(*sizes, of=ConvTranspose3d, **options)


def _image(height: int, width: int, channels: int) -> Callable[[Generator], tuple[Any, ...]]:
    return real((BATCH, height, width, channels))


def _volume(*sizes: int) -> Callable[[Generator], tuple[Any, ...]]:
    return real((BATCH, *sizes))


_ODD = _image(5, 4, 3)
_UNEVEN = ((1, 0), (2, 1))

CASES = (
    Case("Conv2d", convolution(3, 4, 3), _ODD),
    Case("Conv2d without bias", convolution(3, 4, 3, bias=False), _ODD),
    # ---- windows
    Case("Conv2d of size 1", convolution(3, 4, 1), _ODD),
    Case("Conv2d of size 5", convolution(2, 3, 5, padding=2), _image(5, 4, 2)),
    Case("Conv2d of unequal size", convolution(3, 4, (2, 3)), _ODD),
    Case("Conv2d of the image's size", convolution(3, 4, (5, 4)), _ODD),
    Case("Conv2d of padding 1", convolution(3, 4, 3, padding=1), _ODD),
    Case("Conv2d of unequal padding", convolution(3, 2, 3, padding=(1, 2)), _ODD),
    Case(
        "Conv2d of padding beyond the window",
        convolution(3, 2, (1, 2), padding=(1, 2)),
        _image(3, 2, 3),
    ),
    Case(
        "Conv2d of padding beyond the window, many channels",
        convolution(9, 2, (1, 2), padding=(1, 2)),
        _image(3, 2, 9),
    ),
    Case("Conv2d of stride 2", convolution(3, 4, 3, stride=2), _image(5, 6, 3)),
    Case("Conv2d of stride 2, padding 1", convolution(3, 4, 3, stride=2, padding=1), _ODD),
    Case("Conv2d of unequal stride", convolution(3, 4, 3, stride=(2, 1), padding=1), _ODD),
    Case(
        "Conv2d of stride beyond the window",
        convolution(3, 4, (1, 2), stride=(2, 3)),
        _image(4, 6, 3),
    ),
    Case("Conv2d of dilation 2", convolution(3, 4, 2, dilation=2), _ODD),
    Case(
        "Conv2d of dilation 2, many channels",
        convolution(9, 4, 2, dilation=2, padding=1),
        _image(4, 3, 9),
    ),
    Case(
        "Conv2d of unequal everything",
        convolution(3, 4, (2, 3), stride=(1, 2), padding=(2, 1), dilation=(3, 1)),
        _ODD,
    ),
    Case(
        "Conv2d of stride 2, dilation 2",
        convolution(3, 4, (2, 3), stride=2, padding=2, dilation=2),
        _ODD,
    ),
    Case("Conv2d same", convolution(3, 4, 3, padding="same"), _ODD),
    Case("Conv2d same of even size", convolution(3, 4, (2, 4), padding="same"), _ODD),
    Case(
        "Conv2d same of stride 2", convolution(3, 4, 3, stride=2, padding="same"), _image(5, 6, 3)
    ),
    Case(
        "Conv2d same of stride 2, even size",
        convolution(3, 4, (4, 2), stride=2, padding="same"),
        _image(5, 6, 3),
    ),
    Case("Conv2d same of dilation 2", convolution(3, 4, (3, 2), dilation=2, padding="same"), _ODD),
    Case("Conv2d valid", convolution(3, 4, 3, padding="valid"), _ODD),
    Case("Conv2d of padding on one side", convolution(3, 4, 3, padding=_UNEVEN), _ODD),
    # ---- borders that are made from the image
    Case(
        "Conv2d reflecting",
        convolution(3, 4, 3, padding=(2, 1), padding_mode="reflect"),
        _ODD,
    ),
    Case(
        "Conv2d reflecting, on one side, in groups of stride 2",
        convolution(4, 6, 3, padding=_UNEVEN, padding_mode="reflect", groups=2, stride=2),
        _image(3, 4, 4),
    ),
    Case(
        "Conv2d reflecting same of even size",
        convolution(3, 4, (2, 4), padding="same", padding_mode="reflect"),
        _ODD,
    ),
    Case(
        "Conv2d reflecting by Winograd",
        convolution(16, 16, 3, padding=1, padding_mode="reflect"),
        _image(4, 3, 16),
    ),
    Case(
        "Conv2d replicating, beyond the image",
        convolution(3, 4, (3, 2), padding=(1, 5), padding_mode="replicate", dilation=2),
        _image(4, 3, 3),
    ),
    Case(
        "Conv2d replicating and ReLU",
        rectified(convolution(3, 4, 3, padding=1, padding_mode="replicate")),
        _ODD,
    ),
    Case(
        "Conv2d circular",
        convolution(3, 4, 3, padding=((2, 1), (0, 4)), padding_mode="circular"),
        _image(3, 4, 3),
    ),
    Case(
        "Conv2d circular, depthwise",
        convolution(9, 9, 3, padding=1, padding_mode="circular", groups=9, bias=False),
        _image(4, 3, 9),
    ),
    Case(
        "Conv2d circular, ReLU and MaxPool2d",
        lambda rng: Sequential(
            convolution(3, 5, 3, padding=1, padding_mode="circular")(rng), ReLU(), MaxPool2d(2)
        ),
        _image(4, 6, 3),
    ),
    # ---- groups
    Case("Conv2d in groups", convolution(4, 6, 3, groups=2, padding=1), _image(4, 3, 4)),
    Case(
        "Conv2d in groups of stride 2",
        convolution(4, 6, 3, groups=2, padding=1, stride=2, dilation=(1, 2)),
        _image(5, 6, 4),
    ),
    Case("Conv2d in groups of many channels", convolution(18, 34, 2, groups=2), _image(3, 2, 18)),
    Case("Conv2d depthwise", convolution(3, 3, 3, groups=3, padding=1), _ODD),
    Case(
        "Conv2d depthwise, two outputs each",
        convolution(3, 6, 3, groups=3, stride=2, padding=1, bias=False),
        _ODD,
    ),
    Case(
        "Conv2d depthwise of odd channels",
        convolution(11, 11, (2, 5), groups=11, padding=(0, 2)),
        _image(4, 9, 11),
    ),
    Case(
        "Conv2d depthwise of every option",
        convolution(9, 9, (3, 2), groups=9, stride=(2, 3), padding=(1, 3), dilation=2),
        _image(5, 6, 9),
    ),
    Case(
        "Conv2d depthwise, three outputs each",
        convolution(2, 6, 2, groups=2, padding=1, dilation=(1, 2)),
        _image(3, 4, 2),
    ),
    Case(
        "Conv2d depthwise and ReLU",
        rectified(convolution(8, 8, 3, groups=8, padding=1)),
        _image(4, 12, 8),
    ),
    # ---- numbers of channels, which fill no vector or several
    Case("Conv2d of one channel", convolution(1, 1, 3, padding=1), _image(5, 4, 1)),
    Case("Conv2d from one channel", convolution(1, 11, (3, 2), padding=1), _image(5, 4, 1)),
    Case("Conv2d of odd channels", convolution(9, 19, 2, padding=1), _image(3, 2, 9)),
    Case("Conv2d of more channels than a panel", convolution(5, 35, (2, 1)), _image(4, 2, 5)),
    # ---- Winograd's algorithm, whose tiles the odd images do not fill
    Case("Conv2d by Winograd", convolution(16, 16, 3, padding=1), _image(4, 4, 16)),
    Case(
        "Conv2d by Winograd, odd image",
        convolution(16, 16, 3, padding=1, bias=False),
        _image(5, 5, 16),
    ),
    Case("Conv2d by Winograd, 24 channels", convolution(24, 16, 3), _image(5, 6, 24)),
    Case("Conv2d by Winograd, padding 2", convolution(16, 24, 3, padding=(2, 0)), _image(3, 7, 16)),
    Case(
        "Conv2d fastest", convolution(16, 16, 3, padding=1, algorithm="fastest"), _image(4, 6, 16)
    ),
    Case(
        "Conv2d fastest, 24 channels",
        convolution(16, 24, 3, padding=(1, 2), algorithm="fastest"),
        _image(4, 5, 16),
    ),
    Case("Conv2d direct", convolution(16, 16, 3, padding=1, algorithm="direct"), _image(4, 3, 16)),
    # ---- with what follows
    Case("Conv2d and ReLU", rectified(convolution(3, 4, 3, padding=1)), _ODD),
    Case(
        "Conv2d and ReLU without bias", rectified(convolution(3, 4, 3, stride=2, bias=False)), _ODD
    ),
    Case(
        "Conv2d and ReLU by Winograd",
        rectified(convolution(16, 16, 3, padding=1)),
        _image(3, 4, 16),
    ),
    Case(
        "Conv2d and ReLU fastest",
        rectified(convolution(16, 16, 3, padding=1, algorithm="fastest")),
        _image(4, 3, 16),
    ),
    Case(
        "Conv2d, ReLU and MaxPool2d",
        lambda rng: Sequential(convolution(3, 5, 3, padding=1)(rng), ReLU(), MaxPool2d(2)),
        _image(4, 6, 3),
    ),
    Case("Conv2d network", _network, _image(5, 4, 2)),
    # ---- sequences
    Case("Conv1d", _1d(3, 4, 3), real((BATCH, 6, 3))),
    Case(
        "Conv1d of every option",
        _1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, bias=False),
        real((BATCH, 6, 4)),
    ),
    Case("Conv1d same", _1d(3, 4, 4, padding="same"), real((BATCH, 5, 3))),
    Case("Conv1d and ReLU", rectified(_1d(3, 4, 3, padding=1)), real((BATCH, 5, 3))),
    Case("Conv1d of padding before", _1d(3, 4, 3, padding=(4, 0), dilation=2), real((BATCH, 5, 3))),
    Case(
        "Conv1d circular",
        _1d(3, 4, 3, padding=2, padding_mode="circular"),
        real((BATCH, 4, 3)),
    ),
    # ---- volumes
    Case("Conv3d", _3d(2, 3, 2), _volume(3, 3, 4, 2)),
    Case("Conv3d without bias", _3d(2, 3, (3, 2, 1), bias=False), _volume(4, 3, 2, 2)),
    Case("Conv3d of padding 1", _3d(3, 4, 3, padding=1), _volume(3, 4, 2, 3)),
    Case("Conv3d of stride 2", _3d(2, 3, 3, stride=2, padding=1), _volume(4, 3, 5, 2)),
    Case(
        "Conv3d of unequal everything",
        _3d(2, 3, (2, 1, 3), stride=(2, 1, 3), padding=((2, 0), 1, (0, 2)), dilation=(2, 1, 1)),
        _volume(3, 2, 4, 2),
    ),
    Case("Conv3d same", _3d(2, 3, (2, 3, 2), padding="same"), _volume(3, 2, 4, 2)),
    Case("Conv3d of single slices", _3d(3, 4, (1, 3, 2)), _volume(2, 4, 3, 3)),
    Case("Conv3d of single pixels", _3d(9, 4, (3, 1, 1), padding=(1, 0, 0)), _volume(4, 1, 2, 9)),
    Case(
        "Conv3d of every second slice", _3d(3, 4, (1, 2, 2), stride=(2, 1, 1)), _volume(3, 2, 3, 3)
    ),
    Case("Conv3d in groups", _3d(4, 6, 2, groups=2, padding=1), _volume(2, 3, 2, 4)),
    Case("Conv3d depthwise", _3d(3, 3, 2, groups=3), _volume(3, 2, 3, 3)),
    Case(
        "Conv3d depthwise and ReLU, two outputs each",
        rectified(_3d(3, 6, (3, 2, 2), groups=3, padding=1, padding_mode="replicate")),
        _volume(2, 3, 2, 3),
    ),
    Case("Conv3d by Winograd", _3d(16, 16, (2, 3, 3), padding=(0, 1, 1)), _volume(2, 4, 3, 16)),
    Case(
        "Conv3d fastest",
        _3d(16, 16, (2, 3, 3), padding=1, algorithm="fastest"),
        _volume(2, 4, 3, 16),
    ),
    Case(
        "Conv3d reflecting",
        _3d(2, 3, 3, padding=(2, 1, 1), padding_mode="reflect"),
        _volume(3, 2, 3, 2),
    ),
    Case(
        "Conv3d replicating in groups",
        _3d(4, 2, 2, padding=((1, 2), 0, 1), padding_mode="replicate", groups=2, stride=(1, 2, 1)),
        _volume(2, 3, 2, 4),
    ),
    Case(
        "Conv3d circular",
        _3d(2, 3, (3, 2, 2), padding=(1, (0, 1), 2), padding_mode="circular", dilation=(2, 1, 1)),
        _volume(3, 2, 3, 2),
    ),
    Case("Conv3d and ReLU", rectified(_3d(2, 3, 2, padding=1)), _volume(2, 3, 2, 2)),
    # ---- transposed
    Case("ConvTranspose2d", _transposed(3, 4, 3), _image(3, 2, 3)),
    Case("ConvTranspose2d without bias", _transposed(3, 4, (3, 2), bias=False), _image(3, 2, 3)),
    Case(
        "ConvTranspose2d of many channels", _transposed(5, 11, (3, 2), padding=1), _image(3, 4, 5)
    ),
    Case("ConvTranspose2d of stride 2", _transposed(3, 4, 3, stride=2, padding=1), _image(3, 2, 3)),
    Case(
        "ConvTranspose2d of stride beyond the window",
        _transposed(3, 4, (1, 2), stride=(2, 3)),
        _image(3, 2, 3),
    ),
    Case(
        "ConvTranspose2d of output padding",
        _transposed(3, 4, 3, stride=2, padding=1, output_padding=1),
        _image(3, 2, 3),
    ),
    Case(
        "ConvTranspose2d of unequal output padding",
        _transposed(3, 4, 2, stride=(3, 2), output_padding=(2, 0)),
        _image(3, 2, 3),
    ),
    Case(
        "ConvTranspose2d of dilation 2",
        _transposed(3, 4, 2, dilation=2, padding=(1, 0), output_padding=(0, 1)),
        _image(3, 2, 3),
    ),
    Case(
        "ConvTranspose2d in groups",
        _transposed(4, 6, 3, stride=(2, 1), padding=1, groups=2),
        _image(3, 2, 4),
    ),
    Case("ConvTranspose2d depthwise", _transposed(3, 3, 3, groups=3, bias=False), _image(3, 2, 3)),
    Case(
        "ConvTranspose2d depthwise, two channels each",
        _transposed(6, 3, 3, stride=2, padding=(1, 0), output_padding=1, groups=3),
        _image(3, 2, 6),
    ),
    Case("ConvTranspose2d by Winograd", _transposed(16, 16, 3, padding=1), _image(4, 3, 16)),
    Case(
        "ConvTranspose2d fastest",
        _transposed(16, 16, 3, padding=1, algorithm="fastest"),
        _image(4, 3, 16),
    ),
    Case("ConvTranspose3d", _transposed_3d(2, 3, 2), _volume(2, 3, 2, 2)),
    Case(
        "ConvTranspose3d of every option",
        _transposed_3d(
            4,
            2,
            (2, 3, 2),
            stride=(3, 2, 1),
            padding=(1, 0, 1),
            output_padding=(2, 1, 0),
            dilation=(1, 1, 2),
            groups=2,
        ),
        _volume(2, 3, 2, 4),
    ),
    Case(
        "ConvTranspose3d of single slices",
        _transposed_3d(3, 4, (1, 2, 2), stride=(1, 2, 1)),
        _volume(3, 2, 2, 3),
    ),
    Case(
        "ConvTranspose3d depthwise",
        _transposed_3d(3, 3, 2, stride=2, padding=1, output_padding=1, groups=3),
        _volume(3, 2, 3, 3),
    ),
    Case(
        "ConvTranspose3d by Winograd",
        _transposed_3d(16, 16, (2, 3, 3), padding=(0, 1, 1), bias=False),
        _volume(2, 4, 3, 16),
    ),
    Case("ConvTranspose1d", _transposed_1d(3, 4, 3), real((BATCH, 4, 3))),
    Case(
        "ConvTranspose1d of every option",
        _transposed_1d(
            4, 6, 3, stride=3, padding=2, output_padding=2, dilation=2, groups=2, bias=False
        ),
        real((BATCH, 3, 4)),
    ),
)
