"""What rows of the comparison with PyTorch are, and those of activations, normalisations, larger
images and pooling over time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import layers

from .oracle import F, torch

ODD, LARGE, IMAGES = (7, 5, 13), (33, 300), (3, 5, 6, 8)


class Case(NamedTuple):
    """A layer, its inputs' shapes and the same function in PyTorch, called as theirs(*inputs,
    *parameters).
    """

    name: str
    make: Callable[[np.random.Generator], layers.Module]
    shapes: tuple[tuple[int, ...], ...]
    theirs: Callable[..., Any]
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray] = lambda rng, shape: (
        rng.standard_normal(shape) * 3
    )


def layer(make):
    """Return the constructor for a layer that draws nothing."""
    return lambda rng: make()


def with_zeros(rng, shape):
    x = rng.standard_normal(shape)
    x.reshape(-1)[::5] = 0
    return x


def channels_first(theirs):
    """Return a function of images (N, H, W, C), given one of PyTorch's."""
    return lambda x, *p: theirs(x.permute(0, 3, 1, 2), *p).permute(0, 2, 3, 1)


def resized(**options):
    return channels_first(lambda x: F.interpolate(x, **options))


ROWS = (
    Case("elu", layer(lambda: layers.ELU(0.7)), (ODD,), lambda x: F.elu(x, 0.7), with_zeros),
    # PyTorch's own takes 1 / alpha in float32.
    Case(
        "celu",
        layer(lambda: layers.CELU(0.7)),
        (ODD,),
        lambda x: torch.where(x > 0, x, 0.7 * torch.expm1(x / 0.7)),
    ),
    Case("selu", layer(layers.SELU), (ODD,), F.selu, with_zeros),
    Case("softplus", layer(layers.Softplus), (ODD,), F.softplus),
    Case(
        "softplus of beta 2", layer(lambda: layers.Softplus(2)), (ODD,), lambda x: F.softplus(x, 2)
    ),
    Case("mish", layer(layers.Mish), (ODD,), F.mish),
    Case("hardtanh", layer(layers.Hardtanh), (ODD,), F.hardtanh, with_zeros),
    Case("relu6", layer(layers.ReLU6), (ODD,), F.relu6, with_zeros),
    # PyTorch's own takes 1 / 6 in float32.
    Case("hardsigmoid", layer(layers.Hardsigmoid), (ODD,), lambda x: (x / 6 + 0.5).clamp(0, 1)),
    Case("hardswish", layer(layers.Hardswish), (ODD,), F.hardswish),
    Case("prelu", layer(layers.PReLU), (LARGE,), F.prelu, with_zeros),
    Case(
        "prelu of channels",
        layer(lambda: layers.PReLU(13)),
        (ODD,),
        lambda x, a: torch.where(x > 0, x, a * x),
    ),
    Case("identity", layer(layers.Identity), (ODD,), lambda x: x * 1),
    Case("softmax of an axis", layer(lambda: layers.Softmax(1)), (ODD,), lambda x: F.softmax(x, 1)),
    Case("log softmax", layer(layers.LogSoftmax), (ODD,), lambda x: F.log_softmax(x, -1)),
    Case(
        "log softmax of many classes",
        layer(layers.LogSoftmax),
        (LARGE,),
        lambda x: x.log_softmax(1),
    ),
    Case(
        "layer norm of images",
        layer(lambda: layers.LayerNorm((6, 8))),
        (IMAGES,),
        lambda x, w, b: F.layer_norm(x, (6, 8), w, b),
    ),
    Case(
        "layer norm without parameters",
        layer(lambda: layers.LayerNorm(8, affine=False)),
        (IMAGES,),
        lambda x: F.layer_norm(x, (8,)),
    ),
    Case(
        "group norm",
        layer(lambda: layers.GroupNorm(2, 8)),
        (IMAGES,),
        channels_first(lambda x, w, b: F.group_norm(x, 2, w, b)),
    ),
    Case(
        "instance norm",
        layer(lambda: layers.InstanceNorm2d(8)),
        (IMAGES,),
        channels_first(F.instance_norm),
    ),
    Case(
        "upsample", layer(lambda: layers.Upsample((2, 3))), (IMAGES,), resized(scale_factor=(2, 3))
    ),
    Case(
        "upsample to a size",
        layer(lambda: layers.Upsample(size=(7, 4))),
        (IMAGES,),
        resized(size=(7, 4)),
    ),
    *(
        Case(
            f"upsample bilinear, {given}, {corners}",
            layer(partial(layers.Upsample, **ours, mode="bilinear", align_corners=corners)),
            (IMAGES,),
            resized(**theirs, mode="bilinear", align_corners=corners),
        )
        for corners in (False, True)
        for given, ours, theirs in (
            ("scale", {"scale": 3}, {"scale_factor": 3}),
            ("size", {"size": (3, 13)}, {"size": (3, 13)}),
            ("one pixel", {"size": 1}, {"size": 1}),
        )
    ),
    Case("mean over time", layer(layers.PoolOverTime), (ODD,), lambda x: x.mean(1)),
    Case(
        "maximum over time",
        layer(lambda: layers.PoolOverTime("max")),
        (ODD,),
        lambda x: x.max(1)[0],
    ),
    Case("last of time", layer(lambda: layers.PoolOverTime("last")), (ODD,), lambda x: x[:, -1]),
)
