"""Attributions from gradients with respect to the input."""

from typing import Any

import numpy as np

from layers import Module
from layers.checks import non_negative, non_negative_int, positive_int
from layers.errors import wording
from layers.kernels import random
from layers.types import Array

from .explained import BATCH, Explained, Found, Part
from .result import Attribution
from .target import Target


@wording("saliency")
def saliency(
    model: Module, x: Any, target: Target = None, *, batch_size: int = BATCH
) -> Attribution:
    """Return how much the explained output changes with each input: |∂f / ∂x| (Simonyan et al.
    2013, arXiv 1312.6034).

    Parameters
    ----------
    model
        A model; nothing of it is changed, and it runs as in evaluation.
    x
        Samples as `Trainer.predict` takes them: an array (N, …), a list of arrays of different
        lengths, or a tuple or dict of such. Masks (booleans) are handed on; inputs of integers are
        tokens, which the model must give to an `Embedding`.
    target
        What is explained: a class for all samples or one for each (N,); indices into all axes of
        the output but the first, as a tuple or for each sample (N, k); a function from the output
        to one number for each sample (N,). Unless given, the largest output of each sample.
    batch_size
        How many samples the model gets at once; no bit depends on it.

    Raises
    ------
    ValueError
        The target is not among the outputs, or the output has more axes than it has indices.
    TypeError
        An input of integers reaches no `Embedding`, or the output is no floating numbers.

    Notes
    -----
    Attributions have the shape of x. Of tokens they are one number each: the sum over the vector.
    """

    def one(part: Part) -> Found:
        gradients, numbers = part.gradients(part.run())
        return [np.abs(each) for each in gradients], numbers, None

    return Explained("saliency", model, x, target, batch_size).attributions(one)


@wording("gradient_times_input")
def gradient_times_input(
    model: Module, x: Any, target: Target = None, *, batch_size: int = BATCH
) -> Attribution:
    """Return the contribution of each input if the model were linear there: x ∂f / ∂x.

    Parameters
    ----------
    model, x, target, batch_size
        See `saliency`.
    """

    def one(part: Part) -> Found:
        done = part.run()
        gradients, numbers = part.gradients(done)
        return [g * p for g, p in zip(gradients, done.points, strict=True)], numbers, None

    return Explained("gradient_times_input", model, x, target, batch_size).attributions(one)


@wording("smooth_grad")
def smooth_grad(
    model: Module,
    x: Any,
    target: Target = None,
    *,
    draws: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    first_sample: int = 0,
    batch_size: int = BATCH,
) -> Attribution:
    """Return the mean of the gradient at `draws` noisy copies of each sample (Smilkov et al. 2017,
    arXiv 1706.03825).

    Parameters
    ----------
    model, x, target, batch_size
        See `saliency`.
    draws
        How many copies.
    noise
        Standard deviation of the normal noise, as a share of the range of a sample's numbers.
    seed, first_sample
        The noise is a function of the seed, the draw, the element and the sample's number, which
        counts from `first_sample`: it does not depend on how samples are spread over calls.
    """
    owner = "smooth_grad"
    draws = positive_int(owner, "draws", draws, "25 is usual.")
    noise = non_negative(owner, "noise", noise, "0.15 is usual.", finite=True)
    seed = non_negative_int(owner, "seed", seed, "Leave it out for 0.")
    first = non_negative_int(owner, "first_sample", first_sample, "Leave it out for 0.")
    explained = Explained(owner, model, x, target, batch_size)

    def one(part: Part) -> Found:
        done = part.run()
        numbers, points = part.numbers(done), [point.copy() for point in done.points]
        ranges = [
            _range(point, part.valid(place)) * point.dtype.type(noise)
            for place, point in enumerate(points)
        ]
        total = [np.zeros(point.shape) for point in points]
        for draw in range(draws):
            noisy = []
            for place, (point, spread) in enumerate(zip(points, ranges, strict=True)):
                key = first + part.rows.start, draw, place, np.uint64(seed)
                noisy.append(point + spread * standard_normal(point, key))
            for mean, gradient in zip(total, part.gradients(part.run(noisy))[0], strict=True):
                mean += gradient
        means = [(s / draws).astype(p.dtype) for s, p in zip(total, points, strict=True)]
        return means, numbers, None

    return explained.attributions(one)


def _range(point: Array, valid: Any) -> Array:
    """Return the largest less the smallest of each sample's valid numbers (n, 1, …)."""
    axes = tuple(range(1, point.ndim))
    largest, smallest = (
        extreme(point, axis=axes, keepdims=True, initial=initial, where=valid)
        for extreme, initial in ((np.max, -np.inf), (np.min, np.inf))
    )
    result: Array = largest - smallest
    return result


def standard_normal(like: Array, key: tuple[int, int, int, np.uint64]) -> Array:
    """Return normal numbers in the shape and type of an array, keyed as those of `Dropout`: by the
    first sample, step, draw and seed.
    """
    z = np.empty((len(like), like[0].size), like.dtype)
    random.standard_normal(z, *key)
    return z.reshape(like.shape)


@wording("integrated_gradients")
def integrated_gradients(
    model: Module,
    x: Any,
    target: Target = None,
    *,
    baseline: Any = None,
    steps: int = 50,
    batch_size: int = BATCH,
) -> Attribution:
    """Return the contribution of each input to the difference from a baseline b: (x - b) times the
    mean of ∂f / ∂x on the straight line from b to x (Sundararajan et al. 2017, arXiv 1703.01365).

    Contributions add up to f(x) - f(b). The mean is over the middles of equal pieces of the line,
    so this holds up to the `error` of the result, which falls as the steps grow.

    Parameters
    ----------
    model, x, target, batch_size
        See `saliency`.
    baseline
        Numbers that stand for "nothing there": one for all, or what broadcasts to a sample or to x;
        of tokens, a token. Zeros unless given, of tokens vectors of zeros. Of several inputs a
        tuple or dict as x is, None for zeros.
    steps
        How many pieces.
    """
    owner = "integrated_gradients"
    steps = positive_int(owner, "steps", steps, "50 is usual; more make the error smaller.")
    explained = Explained(owner, model, x, target, batch_size, baseline)

    def one(part: Part) -> Found:
        done = part.run()
        numbers, points = part.numbers(done), [point.copy() for point in done.points]
        others = part.baseline(points)
        at_baseline = part.numbers(part.run(others))
        total = [np.zeros(point.shape) for point in points]
        ways = [point - other for point, other in zip(points, others, strict=True)]
        for step in range(steps):
            share = (step + 0.5) / steps
            between = [
                other + way * way.dtype.type(share) for other, way in zip(others, ways, strict=True)
            ]
            for mean, gradient in zip(total, part.gradients(part.run(between))[0], strict=True):
                mean += gradient
        found = [(way * (s / steps)).astype(way.dtype) for way, s in zip(ways, total, strict=True)]
        return found, numbers, at_baseline

    return explained.attributions(one)
