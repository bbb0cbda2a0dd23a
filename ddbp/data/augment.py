"""Augmentation: samples changed at random each time that they are trained on, keyed by (seed,
epoch, sample).

What becomes of a sample depends on the seed, the epoch, the sample's number in the data set and the
place of the augmentation in the list; so it has the same bits on any number of ranks, in batches of
any size, when training goes on from a checkpoint and when a step is replayed. No state is kept.
"""

import ast
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ddbp import written
from layers.checks import boolean, fraction, non_negative_int, number, positive, positive_int
from layers.errors import message
from layers.kernels import augmentation as kernels
from layers.kernels import elementary
from layers.types import Array, Integers

__all__ = [
    "Affine",
    "Augmentation",
    "Crop",
    "CutOut",
    "Flip",
    "Keys",
    "MixUp",
    "Noise",
    "Shift",
]

_UNIT = 2.0**-32
_MOST_PIXELS = 2**20
_MOST_CLASSES = 2**20
_PADDINGS = {
    "constant": kernels.ZERO,
    "edge": kernels.EDGE,
    "wrap": kernels.WRAP,
    "reflect": kernels.REFLECT,
}


class Keys(NamedTuple):
    """What the random numbers of an augmentation are a function of.

    Attributes
    ----------
    numbers
        Those of the samples in the data set (R,).
    epoch, seed
        As of the run.
    draw
        Which of the augmentations it is.
    """

    numbers: Integers
    epoch: int
    seed: int
    draw: int

    @property
    def key(self) -> tuple[int, int, np.uint64]:
        """What kernels take beside the samples' numbers."""
        return self.epoch, self.draw, np.uint64(self.seed)

    def words(self, count: int) -> Array:
        """Return random 32-bit integers of each sample (R, count), uint32."""
        words = np.empty((len(self.numbers), -(-count // 4) * 4), np.uint32)
        kernels.random_words(words, self.numbers, *self.key)
        return words[:, :count]

    def uniform(self, count: int) -> Array:
        """Return random numbers in (0, 1) of each sample (R, count), float64."""
        return (self.words(count) + 0.5) * _UNIT

    def integers(self, count: int, least: int, most: int) -> Integers:
        """Return random integers from `least` to `most` of each sample (R, count)."""
        span = np.uint64(most - least + 1)
        drawn = self.words(count).astype(np.uint64) * span >> np.uint64(32)
        return drawn.astype(np.int64) + least


class Augmentation:
    """Base of what changes samples at random; derive from it for one of your own.

    `apply(y, x, keys)` writes the changed samples to y, which has the shape and type of x, (R, …):
    any number of them, which must not depend on each other. What is random must come from `keys`,
    as in `keys.uniform(2)`, two numbers for each sample. Arguments are kept as attributes of their
    names: what `repr` shows is compared between ranks and stands in the run folder.
    """

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def apply(self, y: Array, x: Array, keys: Keys) -> None:
        """Write the samples x, changed, to y."""
        raise NotImplementedError

    def require(self, x: Array) -> None:
        """Refuse samples that it cannot change."""
        _require_kind(self, x)


class _OfImages(Augmentation):
    """What changes images (N, H, W, C)."""

    def require(self, x: Array) -> None:
        _require_kind(self, x)
        if x.ndim != 4:
            must, fix = (
                "samples must be images (N, H, W, C)",
                "Add the axis of channels with x[..., None]; it comes last.",
            )
            raise ValueError(message(type(self).__name__, must, f"shape {x.shape}", fix))


class Flip(_OfImages):
    """Turn images left to right, and top to bottom if `vertical`.

    Parameters
    ----------
    p
        The probability of each.
    vertical
        Turn top to bottom, too.
    """

    def __init__(self, p: float = 0.5, vertical: bool = False) -> None:
        self.p = fraction("Flip", "p", p, "Flip() turns half of them.", closed=True)
        self.vertical = boolean("Flip", "vertical", vertical)

    def apply(self, y: Array, x: Array, keys: Keys) -> None:
        turned = keys.uniform(2) < self.p
        kernels.flip(y, x, turned[:, 0] + 2 * (turned[:, 1] & self.vertical))


class Crop(_OfImages):
    """Pad images on each side, and cut a part of their own size out at random.

    Each of the (2 padding + 1)² places is as likely as the others.

    Parameters
    ----------
    padding
        Pixels.
    mode
        What they are: "constant", `fill`; "edge", the last pixel; "reflect", those before it in
        reverse order; "wrap", those of the other end.
    fill
        The value of "constant", in the units of the images.
    """

    def __init__(self, padding: int, mode: str = "constant", fill: float = 0.0) -> None:
        fix = "Crop(4) is usual for 32 x 32."
        self.padding = positive_int("Crop", "padding", padding, fix, _MOST_PIXELS)
        self.mode = _padding("Crop", mode)
        self.fill = number("Crop", "fill", fill, "0 is usual.")

    def require(self, x: Array) -> None:
        super().require(x)
        if self.mode == "constant":
            _require_less(self, "padding", self.padding, min(x.shape[1:3]))

    def apply(self, y: Array, x: Array, keys: Keys) -> None:
        offsets = keys.integers(2, -self.padding, self.padding)
        _move(self, y, x, offsets)


class Shift(Augmentation):
    """Move samples along their first axes: images (N, H, W, …) by rows and columns, sequences
    (N, T, …) by time steps.

    Parameters
    ----------
    most
        The most places along the first axis, either way.
    across
        The most along the second one.
    mode, fill
        What comes in: see `Crop`; "edge" unless given.
    """

    def __init__(self, most: int, across: int = 0, mode: str = "edge", fill: float = 0.0) -> None:
        fix = "Shift(2) moves by up to two places."
        for name, places in (("most", most), ("across", across)):
            if non_negative_int("Shift", name, places, fix) > _MOST_PIXELS:
                must = f"{name} must be at most {_MOST_PIXELS}"
                raise ValueError(message("Shift", must, places, fix))
        self.most, self.across = int(most), int(across)
        self.mode = _padding("Shift", mode)
        self.fill = number("Shift", "fill", fill, "0 is usual.")

    def require(self, x: Array) -> None:
        super().require(x)
        axes = 3 if self.across else 2
        if x.ndim < axes:
            must = f"samples must have {axes} axes or more, the first of them that of the samples"
            fix = "Sequences are (N, T, …), images (N, H, W, C)."
            raise ValueError(message("Shift", must, f"shape {x.shape}", fix))
        if self.mode == "constant":
            _require_less(self, "most", self.most, x.shape[1])
            if self.across:
                _require_less(self, "across", self.across, x.shape[2])

    def apply(self, y: Array, x: Array, keys: Keys) -> None:
        down = keys.integers(1, -self.most, self.most)
        right = keys._replace(draw=keys.draw + 1).integers(1, -self.across, self.across)
        axes = 3 if self.across else 2
        width, features = math.prod(x.shape[2:axes]), math.prod(x.shape[axes:])
        images = (*x.shape[:2], width, features)
        _move(self, y.reshape(images), x.reshape(images), np.concatenate((down, right), axis=1))


class Affine(_OfImages):
    """Turn, scale and move images about their centre, between pixels by the four around.

    Parameters
    ----------
    degrees
        The most that they are turned, either way.
    scale
        The most that they grow or shrink: 0.1 is from 1 / 1.1 times to 1.1 times the size.
    shift
        The most that they move along each axis, in pixels or parts of such.
    shear
        The most that columns slant: rows move by so many pixels for each pixel from the middle.
    fill
        What comes in, in the units of the images.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        scale: float = 0.0,
        shift: float = 0.0,
        shear: float = 0.0,
        fill: float = 0.0,
    ) -> None:
        fix = "Affine(10, 0.1, 2) is usual for digits."
        named = {"degrees": degrees, "scale": scale, "shift": shift, "shear": shear}
        for name, value in named.items():
            most = {"degrees": 180.0, "scale": 9.0, "shift": 1e6, "shear": 10.0}[name]
            if not 0 <= number("Affine", name, value, fix) <= most:
                must = f"{name} must be from 0 to {most:g}"
                raise ValueError(message("Affine", must, value, fix))
        self.degrees, self.scale = float(degrees), float(scale)
        self.shift, self.shear = float(shift), float(shear)
        self.fill = number("Affine", "fill", fill, "0 is usual.")

    def apply(self, y: Array, x: Array, keys: Keys) -> None:
        drawn = 2 * keys.uniform(5) - 1
        angle = drawn[:, 0] * (self.degrees * (np.pi / 180))
        cosine, sine = np.empty_like(angle), np.empty_like(angle)
        elementary.cos(cosine, angle)
        elementary.sin(sine, angle)
        # Where a pixel comes from: the image grows as the steps in it become shorter.
        grown = 1 + self.scale * np.abs(drawn[:, 1])
        step = np.where(drawn[:, 1] < 0, grown, 1 / grown)
        slant = drawn[:, 4] * self.shear
        maps = np.empty((len(x), 6))
        maps[:, 0], maps[:, 1] = step * cosine, -(step * sine)
        maps[:, 3], maps[:, 4] = step * sine, step * cosine
        maps[:, 3] += slant * maps[:, 0]
        maps[:, 4] += slant * maps[:, 1]
        middle = (x.shape[1] - 1) / 2, (x.shape[2] - 1) / 2
        for row, at in ((0, 0), (3, 1)):
            turned = maps[:, row] * middle[0] + maps[:, row + 1] * middle[1]
            maps[:, row + 2] = middle[at] + drawn[:, 2 + at] * self.shift - turned
        rounded(kernels.resample, y, x, maps, self.fill)


class CutOut(_OfImages):
    """Cover a square of each image, wherever its middle is (DeVries and Taylor, "Improved
    regularization of convolutional neural networks with cutout", 2017): at the border less of it is
    within the image.

    Parameters
    ----------
    size
        The side of the square, pixels.
    fill
        What covers it, in the units of the images: their mean, 0, if they are standardised.
    """

    def __init__(self, size: int, fill: float = 0.0) -> None:
        fix = "CutOut(8) is usual for 32 x 32."
        self.size = positive_int("CutOut", "size", size, fix, _MOST_PIXELS)
        self.fill = number("CutOut", "fill", fill, "0 is usual.")

    def require(self, x: Array) -> None:
        super().require(x)
        _require_less(self, "size", self.size, min(x.shape[1:3]))

    def apply(self, y: Array, x: Array, keys: Keys) -> None:
        # Of each axis a draw of its own, as they differ in length.
        middles = [
            keys._replace(draw=keys.draw + axis).integers(1, 0, x.shape[1 + axis] - 1)[:, 0]
            for axis in range(2)
        ]
        first = [middle - self.size // 2 for middle in middles]
        boxes = np.stack([bound for at in first for bound in (at, at + self.size)], axis=1)
        kernels.cut_out(y, x, boxes, _fill(self.fill, x))


class Noise(Augmentation):
    """Add normal noise to each element, independently.

    Parameters
    ----------
    deviation
        Its standard deviation, in the units of the samples; uint8 is rounded and kept in 0..255.
    """

    def __init__(self, deviation: float) -> None:
        fix = "Noise(0.1) is usual where inputs are standardised."
        self.deviation = positive("Noise", "deviation", deviation, fix, finite=True)

    def apply(self, y: Array, x: Array, keys: Keys) -> None:
        arguments = keys.numbers, *keys.key, self.deviation
        rounded(kernels.add_normal, rows_of(y), rows_of(x), *arguments)


class MixUp(Augmentation):
    """Mix each sample with another one of the data set, and their targets alike (Zhang et al.,
    "mixup: beyond empirical risk minimization", 2018).

    x becomes (1 - s) x + s x', where s is of Beta(alpha, alpha), and the target (1 - s) y + s y'.
    Both s and the other sample are functions of (seed, epoch, sample); the other one is any of the
    whole data set, each as likely, as it is in that epoch after the augmentations before this. A
    rank reads it itself, wherever in the batch it may be. With weights w of the samples s of the
    targets is s w' / ((1 - s) w + s w'), and that sum is the weight.

    Parameters
    ----------
    alpha
        From 0.05, where one of the two nearly makes up the whole, to 4.
    classes
        The number of classes, if targets are labels: they become probabilities (N, classes), which
        `SoftmaxCrossEntropy` takes. Targets that are floating numbers are mixed as they are.
    """

    def __init__(self, alpha: float = 0.2, classes: int | None = None) -> None:
        fix = "MixUp(0.2, classes=10) is usual."
        if not 0.05 <= positive("MixUp", "alpha", alpha, fix) <= 4:
            raise ValueError(message("MixUp", "alpha must be from 0.05 to 4", alpha, fix))
        self.alpha = float(alpha)
        self.classes = None
        if classes is not None:
            self.classes = positive_int("MixUp", "classes", classes, fix, _MOST_CLASSES)

    def partners(self, keys: Keys, samples: int) -> Integers:
        """Return the number of the other sample of each, of so many samples."""
        return keys.integers(1, 0, samples - 1)[:, 0]

    def shares(self, keys: Keys) -> Array:
        """Return s, how much the other sample makes up of each."""
        shares = np.empty(len(keys.numbers))
        after = keys._replace(draw=keys.draw + 1)
        kernels.beta_shares(shares, keys.numbers, *after.key, self.alpha)
        return shares

    def apply(self, y: Array, x: Array, keys: Keys) -> None:
        raise NotImplementedError

    def targets(self, y: Any, dtype: Any) -> Array:
        """Return targets as numbers that can be mixed."""
        if not isinstance(y, np.ndarray) or y.dtype.kind not in "fiu":
            must, fix = "targets must be one array of numbers", "Leave MixUp out."
            raise ValueError(message("MixUp", must, type(y).__name__, fix))
        if y.dtype.kind == "f":
            return y
        if self.classes is None or y.ndim != 1:
            must = "targets must be floating numbers, or labels (N,) of which it knows the number"
            got = f"{y.dtype} {y.shape}"
            raise ValueError(message("MixUp", must, got, "Write MixUp(classes=10)."))
        if y.size and not 0 <= y.min() <= y.max() < self.classes:
            must = f"labels must be in 0..{self.classes - 1}"
            got = f"{y.min()}..{y.max()}"
            raise ValueError(message("MixUp", must, got, "Pass classes=, all that there are."))
        result = np.zeros((len(y), self.classes), dtype)
        result[np.arange(len(y)), y] = 1
        return result


KINDS: dict[str, type[Augmentation]] = {
    kind.__name__: kind for kind in (Flip, Crop, Shift, Affine, CutOut, Noise, MixUp)
}
"""Those that a configuration names."""


def chosen(given: Any) -> tuple[Augmentation, ...]:
    """Return augmentations in their order; each may be given as the text that its `repr` is, and
    all of them as one text: "Flip(), Crop(4)".

    Raises
    ------
    ValueError
        It is none of these, or mixes twice.
    """
    if isinstance(given, str):
        try:
            parsed: Any = ast.parse(f"[{given}]", mode="eval").body
            given = [ast.unparse(each) for each in parsed.elts]
        except (AttributeError, MemoryError, RecursionError, SyntaxError, ValueError):
            raise _refused(given) from None
    given = [given] if isinstance(given, Augmentation) else given
    if given is None or not isinstance(given, Sequence):
        if given is None:
            return ()
        raise _refused(given)
    result = tuple(map(_made, given))
    if sum(isinstance(each, MixUp) for each in result) > 1:
        raise _refused(given, "augment must mix samples once", "Leave one MixUp out.")
    return result


def _made(given: Any) -> Augmentation:
    if isinstance(given, Augmentation):
        return given
    if not isinstance(given, str):
        raise _refused(given)
    result: Augmentation = written.made(given, KINDS, _refused(given))
    return result


def _refused(
    given: Any,
    must: str = "",
    fix: str = "Write augment=[Flip(), Crop(4)], of ddbp.data.augment.",
) -> ValueError:
    must = must or f"augment must be a list of augmentations, each of {', '.join(KINDS)}"
    return ValueError(message("Trainer", must, repr(given), fix))


def rows_of(x: Array) -> Array:
    """Return samples as rows (R, D)."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def _require_kind(owner: Augmentation, x: Array) -> None:
    if x.dtype not in (np.float32, np.float64, np.uint8):
        must, fix = "samples must be floating numbers or uint8", "Convert them with astype."
        raise ValueError(message(type(owner).__name__, must, x.dtype, fix))


def _require_less(owner: Augmentation, name: str, value: int, side: int) -> None:
    """Refuse what may leave nothing of a sample."""
    if value >= side:
        must = f"{name} must be less than the samples are long, {side}"
        fix = "An eighth to a half of it is usual."
        raise ValueError(message(type(owner).__name__, must, value, fix))


def _padding(owner: str, mode: str) -> str:
    if not isinstance(mode, str) or mode not in _PADDINGS:
        must = f"mode must be one of {', '.join(_PADDINGS)}"
        raise ValueError(message(owner, must, repr(mode), 'Leave it out for "constant".'))
    return mode


def _fill(fill: float, x: Array) -> Any:
    """Return the number that fills in the type of the samples."""
    return x.dtype.type(min(max(round(fill), 0), 255) if x.dtype == np.uint8 else fill)


def _move(step: Any, y: Array, x: Array, offsets: Integers) -> None:
    kernels.move(y, x, offsets, _PADDINGS[step.mode], _fill(step.fill, x))


def rounded(kernel: Any, y: Array, *arguments: Any) -> None:
    """Run a kernel whose results are rounded if y holds integers: in float32 then."""
    if y.dtype != np.uint8:
        kernel(y, *arguments)
        return
    exact = np.empty(y.shape, np.float32)
    kernel(exact, *arguments)
    kernels.to_bytes(y.reshape(-1), exact.reshape(-1))
