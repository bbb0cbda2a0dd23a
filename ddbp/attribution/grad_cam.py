"""A map of an image from the channels of a layer."""

from typing import Any

import numpy as np

from ddbp.data.samples import Padded, Ragged, leaves
from layers import Module, Upsample
from layers.engine.sums import sum_over
from layers.errors import message, wording
from layers.types import Array

from .explained import BATCH, Explained, Part, as_given
from .result import Attribution
from .target import Target


@wording("grad_cam")
def grad_cam(
    model: Module,
    x: Any,
    layer: Module | str,
    target: Target = None,
    *,
    batch_size: int = BATCH,
) -> Attribution:
    """Return which places of an image, or steps of a sequence, speak for an output: the channels of
    a layer, weighted by their mean gradient, where positive (Selvaraju et al. 2017, arXiv
    1610.02391): max(Σ_c A_c mean(∂f / ∂A_c), 0).

    Parameters
    ----------
    model, target, batch_size
        See `saliency`.
    x
        See `saliency`; one input.
    layer
        A layer of the model whose output is images (N, H, W, C) or sequences (N, T, C), or its name
        as of `Module.named_layers`. A convolution, or the activation after it, near the output is
        usual. Of one that is called several times the last call counts, and of one that is made of
        layers the last of these.

    Raises
    ------
    ValueError
        The layer is not in the model, is not called, or its output has no such axes.

    Notes
    -----
    Values are maps (N, H, W) of the size of the images in x, interpolated linearly; where x is no
    images, of the size of the layer's output; or (N, T).
    """
    owner = "grad_cam"
    explained = Explained(owner, model, x, target, batch_size)
    watched = _layer(owner, model, layer)
    if isinstance(explained.x, tuple | dict):
        must, fix = "there must be one input", "Pass the images alone."
        names = [name for name, _ in leaves("x", explained.x)]
        raise TypeError(message(owner, must, ", ".join(names), fix))
    maps, scores = [], []
    for part in explained.parts():
        done = part.run(watched=watched)
        seen = done.tape.seen
        if seen is None or not seen.wants:
            must = "the layer must be one that the model calls with what depends on x"
            fix = "Name another: model.named_layers() yields them."
            raise ValueError(message(owner, must, repr(watched), fix))
        if seen.ndim not in (3, 4):
            must = "the output of the layer must have axes of space, (N, H, W, C) or (N, T, C)"
            fix = "Name a convolution or what follows it, before the images become vectors."
            raise ValueError(message(owner, must, f"shape {seen.shape} of {watched!r}", fix))
        _, numbers = part.gradients(done)
        gradient = np.zeros_like(seen.array) if seen.grad is None else seen.grad
        maps.append(_sized(_map(seen.array, gradient, part), part))
        scores.append(numbers)
    values: Any = np.concatenate(maps)
    if isinstance(explained.x, Ragged) and values.shape[1] == explained.steps:
        values = as_given(explained.x, values)
    return Attribution(
        owner,
        values,
        explained.x,
        np.concatenate(scores),
        indices=explained.chosen.indices,
    )


def _layer(owner: str, model: Any, layer: Any) -> Module:
    """Return a layer of a model, given itself or its name."""
    if not isinstance(model, Module):
        fix = "Derive it from layers.Composite."
        raise TypeError(message(owner, "model must be a Module", type(model).__name__, fix))
    # Those with parts stand for layers of the user, which have names of their own.
    named = {name: each for name, each in model.named_layers() if not each.parts}
    for name, each in named.items():
        if layer is each or (isinstance(layer, str) and layer == name):
            return each
    public = [name for name in named if name and not name.startswith("_") and "._" not in name]
    must = f"layer must be one of the model: {', '.join(public)}"
    fix = "Pass the layer itself, or its name as of model.named_layers()."
    raise ValueError(message(owner, must, repr(layer), fix))


def _map(activation: Array, gradient: Array, part: Part) -> Array:
    """Return max(Σ_c A_c mean(∂f / ∂A_c), 0), without the last axis; means of sequences are over
    their valid steps.
    """
    axes = tuple(range(1, activation.ndim - 1))
    (leaf,) = part.leaves
    places: Any = int(np.prod(activation.shape[1:-1]))
    if type(leaf) is Padded and activation.shape[1] == leaf.values.shape[1]:
        places = leaf.lengths[:, np.newaxis]
    weights = sum_over(gradient, axes) / places
    weighted = activation * weights.reshape(len(weights), *(1,) * len(axes), -1)
    return np.maximum(sum_over(weighted, (activation.ndim - 1,)), 0).astype(activation.dtype)


def _sized(maps: Array, part: Part) -> Array:
    """Return maps (n, h, w) in the size of the images of a part, if it is of images."""
    images = part.arrays[0]
    if maps.ndim != 3 or images.ndim not in (3, 4) or images.dtype.kind != "f":
        return maps
    resized: Array = Upsample(size=images.shape[1:3], mode="bilinear")(maps[..., np.newaxis])
    return resized[..., 0]
