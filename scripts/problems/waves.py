"""Sound in a body: shots around it, what receivers hear of them, and how fast sound is inside.

    d²p/dt² = c² (d²p/dx² + d²p/dy²) + source

on a square, by the usual scheme of second order, with a sponge of damping at the border. Shots are
samples. A shot is where the source is: an image (H, W) of zeros and one 1; what was heard are the
pressures (T, 4 R) along the four sides. The simulation is ordinary Python: called with arrays it
makes the measurements, called with values it is differentiated.
"""

from typing import Any

import numpy as np

from layers import Coefficients, Composite, Recompute, concatenate, exp, pad, stack
from layers.types import Array

SIZE, STEPS, SEGMENT = 32, 120, 10
SPEED, RATIO = 2.0, 0.5  # km/s of the surroundings; c dt / dx there
SPACING = 4  # of the receivers
SPONGE = 4


class Segment(Composite):
    """The pressures of `SEGMENT` steps: values (N, H, W) now and before, squared speeds, the
    sponge, sources, and the strengths of the sources in these steps.
    """

    def __call__(
        self, now: Any, before: Any, squared: Any, kept: Any, source: Any, *strengths: float
    ) -> Any:
        heard = []
        for strength in strengths:
            inner = (
                now[:, 2:, 1:-1]
                + now[:, :-2, 1:-1]
                + now[:, 1:-1, 2:]
                + now[:, 1:-1, :-2]
                - 4 * now[:, 1:-1, 1:-1]
            )
            change = squared * pad(inner, ((0, 0), (1, 1), (1, 1))) + strength * source
            now, before = (2 * now - before + change) * kept, now * kept
            edge, far = SPONGE, SIZE - 1 - SPONGE
            sides = (now[:, edge], now[:, far], now[:, :, edge], now[:, :, far])
            heard.append(concatenate([side[:, ::SPACING] for side in sides], axis=1))
        return now, before, stack(heard, axis=1)


class Body(Composite):
    """What is heard, (N, T, 4 R), of shots (N, H, W); the speeds are those of the surroundings
    times exp(map).
    """

    def __init__(self, speeds: Array, *, recompute: bool = False) -> None:
        self.map = Coefficients(np.zeros_like(speeds))
        self.map.values.value = np.log(speeds / SPEED)
        self.segment = Recompute(Segment()) if recompute else Segment()

    def __call__(self, source: Any) -> Any:
        squared = exp(2 * self.map(source)) * RATIO**2
        now = before = 0 * source
        kept = now + sponge()
        heard = []
        for strengths in ricker().reshape(-1, SEGMENT).tolist():
            now, before, sides = self.segment(now, before, squared, kept, source, *strengths)
            heard.append(sides)
        return 10 * concatenate(heard, axis=1)


def sponge() -> Array:
    """Return what a step leaves of a pressure (H, W): less and less towards the border."""
    depth = np.maximum(SPONGE - np.minimum(np.arange(SIZE), np.arange(SIZE)[::-1]), 0)
    damping = 1 - 0.02 * depth * depth / SPONGE
    return (damping[:, np.newaxis] * damping).astype(np.float32)


def ricker() -> Array:
    """Return the strength of a source in each step (T,): the second derivative of a bell (Ricker
    1953), with a peak at a period of 16 steps.
    """
    phase = (np.pi / 16 * (np.arange(STEPS) - 16)) ** 2
    return (1 - 2 * phase) * exp(-phase)


def body() -> Array:
    """Return the speeds (H, W): a fast disc and a slow one in the surroundings."""
    y, x = np.mgrid[:SIZE, :SIZE]
    speeds = np.full((SIZE, SIZE), SPEED)
    speeds[(y - 12) ** 2 + (x - 11) ** 2 <= 16] = 1.2 * SPEED
    speeds[(y - 20) ** 2 + (x - 21) ** 2 <= 20] = 0.85 * SPEED
    return speeds


def shots() -> Array:
    """Return the sources (N, H, W): sixteen along the sides."""
    near, far = SPONGE + 1, SIZE - SPONGE - 2
    along = np.linspace(near, far, 5).round().astype(int)[:-1]
    back = along[::-1] + along[1] - along[0]
    places = [(near, i) for i in along] + [(i, far) for i in along]
    places += [(far, i) for i in back] + [(i, near) for i in back]
    sources = np.zeros((len(places), SIZE, SIZE), np.float32)
    for source, place in zip(sources, places, strict=True):
        source[place] = 1
    return sources
