"""Images: folders of them, one for each class, and how pixels become a model's inputs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from layers.checks import array, boolean, pair, require_room
from layers.errors import message
from layers.types import Array, Integers

from .cells import number_of
from .paths import existing_folder
from .preprocess import Preprocessing, State, checked_classes, several
from .skipped import BadSamples, Skipped, listed, shown
from .source import Rows, Source
from .statistics import of_sums

SUFFIXES = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif"),
    *(".tiff", ".webp"),
)
"""Files with these names, in small or capital letters, are taken for images."""
_WHITE = 255
_LEAST = 1e-6
"""The least deviation; that of one white pixel in a million is 1e-3."""
_MOST = 1_000_000
_FIX = "Convert it to 8 bits a channel."


class ImageReader(Preprocessing):
    """How images become arrays: grey or colour, of one size, as numbers in [0, 1] or standardised.

    An image is turned as its camera says (EXIF), made grey or colour, and resized by Pillow's
    bilinear filter, without regard to its proportions. What is transparent becomes opaque, of
    several frames the first is taken, and 16 bits a channel become 8.

    Parameters
    ----------
    size
        Rows and columns, or one number for both.
    channels
        1 for grey, 3 for colour.
    mean, std
        Of each channel, of numbers in [0, 1]: if they are given, inputs are (x - mean) / std.
        `ImageFolder(…, standardize=True)` finds those of its images.
    classes
        The names of the labels.

    Notes
    -----
    Files are read by Pillow: `pip install "ddbp[images]"`.
    """

    kind = "images"

    def __init__(
        self,
        size: int | tuple[int, int],
        channels: int = 3,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        owner = "ImageReader"
        self.size = pair(owner, "size", size, 1)
        whole = isinstance(channels, int | np.integer) and not isinstance(channels, bool)
        if not whole or channels not in (1, 3):
            fix = "Write channels=1 for grey, channels=3 for colour."
            raise ValueError(message(owner, "channels must be 1 or 3", repr(channels)[:80], fix))
        self.channels = int(channels)
        self.mean = self._of_channels("mean", mean)
        self.std = self._of_channels("std", std)
        if (self.mean is None) != (self.std is None) or min(self.std or (1.0,)) < _LEAST:
            must, fix = "mean and std must be given both, std above 0", "Leave both out for [0, 1]."
            raise ValueError(message(owner, must, f"{mean}, {std}", fix))
        self.classes = checked_classes(owner, classes)

    def __repr__(self) -> str:
        return f"ImageReader({self.size}, {self.channels}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (H, W, C) of an input."""
        return (*self.size, self.channels)

    def _of_channels(self, name: str, given: Any) -> tuple[float, ...] | None:
        if given is None:
            return None
        numbers = several(given) or []
        given_numbers = (number_of(each) for each in numbers if not isinstance(each, str))
        result = tuple(each for each in given_numbers if each is not None)
        if (
            len(result) != self.channels
            or len(numbers) != len(result)
            or not all(abs(each) < _MOST for each in result)
        ):
            must = f"{name} must be {self.channels} numbers below {_MOST:,}, one for each channel"
            fix = "Leave it out for inputs in [0, 1]."
            raise ValueError(message("ImageReader", must, shown(repr(given)), fix))
        return result

    def _state(self) -> dict[str, Any]:
        mean, std = (None if each is None else [*each] for each in (self.mean, self.std))
        return {"size": [*self.size], "channels": self.channels, "mean": mean, "std": std}

    @classmethod
    def _from_state(cls, state: State) -> Self:
        size = state.items("size")
        channels = state.whole("channels")
        mean, std = state.optional_numbers("mean"), state.optional_numbers("std")
        return cls(tuple(size), channels, mean=mean, std=std)

    def pixels(self, image: Any) -> Array:
        """Return an image as bytes (H, W, C).

        Parameters
        ----------
        image
            A path, an image of Pillow, or an array of bytes (h, w) or (h, w, 1, 3 or 4).

        Raises
        ------
        ValueError
            It cannot be read; the file is named.
        """
        pillow = _pillow()
        if isinstance(image, str | Path):
            try:
                with pillow.open(image) as opened:
                    return self._pixels(opened)
            except FileNotFoundError as error:
                must, fix = "an image must be there", "Check the path."
                raise FileNotFoundError(message("ImageReader", must, image, fix)) from error
            except Exception as error:
                must, fix = "an image must be readable", "Mend or remove it."
                got = f"{shown(image)}: {shown(error)}"
                raise ValueError(message("ImageReader", must, got, fix)) from error
        try:
            given = image if isinstance(image, pillow.Image) else pillow.fromarray(_bytes(image))
            return self._pixels(given)
        except Exception as error:
            must, fix = "an image must be a path, one of Pillow, or bytes (h, w, 3)", _FIX
            got = shown(getattr(image, "shape", None) or repr(image))
            raise ValueError(message("ImageReader", must, f"{got}: {shown(error)}", fix)) from error

    def _pixels(self, image: Any) -> Array:
        from PIL import ImageOps

        # The size that a file claims takes memory before it is known to be there.
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = _pillow().fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ValueError(f"its pixels are of 32 bits (mode {image.mode})")
        image = image.convert("L" if self.channels == 1 else "RGB")
        rows, columns = self.size
        if image.size != (columns, rows):
            image = image.resize((columns, rows), _pillow().Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(self.shape)

    def inputs(self, pixels: Array) -> Array:
        """Return a model's inputs (N, H, W, C) of bytes (N, H, W, C), in float32."""
        x: Array = pixels / np.float32(_WHITE)
        if self.mean is not None:
            x -= np.array(self.mean, np.float32)
            x /= np.array(self.std, np.float32)
        return x

    def transform(self, raw: Any) -> Array:
        """Return a model's inputs (N, H, W, C) of images.

        Parameters
        ----------
        raw
            Paths, images of Pillow, or arrays of bytes; of each kind any number, or one array (N,
            h, w) or (N, h, w, C).
        """
        if isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and raw.shape[1:] == self.shape:
            return self.inputs(raw)
        images = None if isinstance(raw, Path) else several(raw)
        if images is None:
            must, fix = "images must be a list", "Write reader.transform([image])."
            raise TypeError(message("ImageReader", must, shown(repr(raw)), fix))
        pixels = [self.pixels(image) for image in images]
        if not pixels:
            return np.zeros((0, *self.shape), np.float32)
        return self.inputs(np.stack(pixels))

    def _with(self, **new: Any) -> "ImageReader":
        """Return one with some arguments replaced."""
        old = {"mean": self.mean, "std": self.std, "classes": self.classes}
        return ImageReader(self.size, self.channels, **{**old, **new})


class ImageArrays(Source):
    """Images in memory as bytes, a quarter of what they take as numbers: a source of samples.

    Parameters
    ----------
    pixels
        Bytes (N, H, W, C).
    labels
        (N,), from 0.
    reader
        What makes them a model's inputs.

    Attributes
    ----------
    preprocessing
        The reader.
    """

    def __init__(self, pixels: Array, labels: Integers, reader: Any) -> None:
        owner = "ImageArrays"
        pixels, labels = array(owner, "pixels", pixels), array(owner, "labels", labels)
        if not isinstance(reader, ImageReader):
            must, fix = "reader must be an ImageReader", "Write ImageReader((28, 28), 1)."
            raise TypeError(message(owner, must, shown(repr(reader)), fix))
        if pixels.dtype != np.uint8 or pixels.shape[1:] != reader.shape or not len(pixels):
            must = f"pixels must be bytes (N, {', '.join(map(str, reader.shape))})"
            got, fix = f"{pixels.shape} {pixels.dtype}", "One that is grey has a last axis of 1."
            raise ValueError(message(owner, must, got, fix))
        if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
            must = f"labels must be {len(pixels)} integers, one for each image"
            raise ValueError(
                message(owner, must, f"{labels.shape} {labels.dtype}", "Number the classes from 0.")
            )
        self.pixels = pixels
        self.labels: Integers = labels.astype(np.int64)
        self.preprocessing: ImageReader = reader
        self.classes = reader.classes

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"ImageArrays({len(self)} of {self.preprocessing!r})"

    def take(self, numbers: Integers) -> Rows:
        """Return the samples of these numbers."""
        return Rows(self.preprocessing.inputs(self.pixels[numbers]), self.labels[numbers])

    def targets(self, numbers: Integers) -> Integers:
        """Return the labels of samples."""
        return self.labels[numbers]


class ImageFolder(Source):
    """A folder with a sub-folder of images for each class: a source of samples.

    Classes are the names of the sub-folders in their order (that of code points); images lie in
    these or deeper. What is no image by its name, or begins with a dot, is left out.

    Parameters
    ----------
    path
        The folder.
    reader
        What makes images a model's inputs; classes are those of the folder, unless it has some.
    size, channels
        Of a reader, if none is given.
    standardize
        Whether inputs have mean 0 and deviation 1 in each channel over these images, by exact sums;
        in [0, 1] otherwise.
    in_memory
        Whether images are decoded once, and kept as bytes; if not, each is when it is asked for.
    skip_bad
        Whether images that cannot be read are left out, and listed in `skipped`: all are decoded
        once in the beginning. If not, the first that is met is an error.

    Attributes
    ----------
    files, labels
        The images in their order, and their labels (N,).
    preprocessing
        The reader, which knows the classes.
    skipped
        What has been left out, with the reason.

    Raises
    ------
    NotADirectoryError
        There is no such folder.
    ValueError
        There are no sub-folders, or one alone, or one without images, or one that is no class of
        the reader; or an image cannot be read, and its file is named.
    """

    skipped: Sequence[Skipped]

    def __init__(
        self,
        path: str | os.PathLike[str],
        reader: Any = None,
        *,
        size: int | tuple[int, int] = 32,
        channels: int = 3,
        standardize: bool = False,
        in_memory: bool = False,
        skip_bad: bool = False,
    ) -> None:
        owner = "ImageFolder"
        folder = existing_folder(owner, "path", path)
        if reader is not None and not isinstance(reader, ImageReader):
            must, fix = "reader must be an ImageReader", "Write reader=ImageReader((32, 32))."
            raise TypeError(message(owner, must, shown(repr(reader)), fix))
        reader = reader or ImageReader(size, channels)
        classes = _classes_of(folder, reader.classes)
        self.preprocessing: ImageReader = reader._with(classes=reader.classes or tuple(classes))
        self.classes = self.preprocessing.classes
        numbers = {name: number for number, name in enumerate(self.classes)}
        labels = [numbers[name] for name, files in classes.items() for _ in files]
        self.path, self.files = folder, [file for files in classes.values() for file in files]
        self._pixels: Array | None = None
        bad = BadSamples(owner, boolean(owner, "skip_bad", skip_bad))
        in_memory = boolean(owner, "in_memory", in_memory)
        standardize = boolean(owner, "standardize", standardize)
        self.labels: Integers = np.array(labels, np.int64)
        if bad.skip or in_memory or standardize:
            self._read_all(bad, in_memory, standardize)
        self.skipped = tuple(bad.skipped)

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"ImageFolder({str(self.path)!r}, {len(self)} of {self.preprocessing!r})"

    def take(self, numbers: Integers) -> Rows:
        """Return the samples of these numbers."""
        reader = self.preprocessing
        if self._pixels is not None:
            return Rows(reader.inputs(self._pixels[numbers]), self.labels[numbers])
        pixels = np.empty((len(numbers), *reader.shape), np.uint8)
        for place, number in enumerate(numbers):
            pixels[place] = reader.pixels(self.files[number])
        return Rows(reader.inputs(pixels), self.labels[numbers])

    def targets(self, numbers: Integers) -> Integers:
        """Return the labels of samples."""
        return self.labels[numbers]

    def where(self, name: str, number: int) -> str:
        """Return the file of a sample."""
        return str(self.files[number])

    def _read_all(self, bad: BadSamples, in_memory: bool, standardize: bool) -> None:
        """Decode all images once, to keep them, or to know which can be, and their statistics."""
        reader = self.preprocessing
        good: list[int] = []
        if in_memory:
            require_room("ImageFolder", (len(self.files), *reader.shape), 1)
            self._pixels = np.empty((len(self.files), *reader.shape), np.uint8)
        counts = np.zeros((256, reader.channels), np.int64)
        for number, file in enumerate(self.files):
            try:
                pixels = reader.pixels(file)
            except (ValueError, OSError) as error:
                reason = error.__cause__ or error
                bad.found("every image must be readable", str(file), reason, "Mend or remove it.")
                continue
            if self._pixels is not None:
                self._pixels[len(good)] = pixels
            if standardize:
                for channel in range(reader.channels):
                    counts[:, channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
            good.append(number)
        bad.require_some(len(good), "an image that can be read")
        if bad.skipped:
            self.files = [self.files[number] for number in good]
            self.labels = self.labels[good]
            self._require_all_classes(bad)
            if self._pixels is not None:
                self._pixels = self._pixels[: len(good)]
        if standardize:
            found = [_of_counts(column.tolist()) for column in counts.T]
            mean = [each.mean for each in found]
            std = [each.deviation if each.deviation >= _LEAST else 1.0 for each in found]
            self.preprocessing = reader._with(mean=mean, std=std)

    def _require_all_classes(self, bad: BadSamples) -> None:
        """Refuse it if a class has lost all of its images."""
        lost = set(range(len(self.preprocessing.classes))) - {*self.labels.tolist()}
        if lost:
            names = listed([self.preprocessing.classes[number] for number in sorted(lost)])
            must, first = "every class must have an image that can be read", bad.skipped[0]
            got = f"none of {names}; {len(bad.skipped)} are bad, first {first.place}"
            fix = "Mend the images, or remove the sub-folder."
            raise ValueError(message("ImageFolder", must, got, fix))


def _of_counts(counts: list[int]) -> Any:
    """Return the statistics of bytes as numbers in [0, 1], of how often each occurs."""
    total = sum(byte * count for byte, count in enumerate(counts))
    squares = sum(byte * byte * count for byte, count in enumerate(counts))
    return of_sums(sum(counts), total, squares, _WHITE)


def _classes_of(folder: Path, known: Sequence[str]) -> dict[str, list[Path]]:
    """Return the images of each class, by its name, all in their order."""
    owner = "ImageFolder"
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir()]
    if not folders:
        images = sum(_is_image(path) for path in entries)
        got = f"{folder}, which has {images} images and no sub-folder"
        must = "a folder of images must have a sub-folder for each class"
        raise ValueError(message(owner, must, got, "Move cats to cat/, and dogs to dog/."))
    names = [path.name for path in folders]
    if known:
        strangers = [name for name in names if name not in known]
        missing = [name for name in known if name not in names]
        if strangers or missing:
            must = f"sub-folders must be the classes of the reader, {listed(known)}"
            got = f"{folder}, " + (
                f"with {listed(strangers)}" if strangers else f"without {listed(missing)}"
            )
            fix = "The model knows these classes, and no others."
            raise ValueError(message(owner, must, got, fix))
    elif len(names) == 1:
        must = "there must be two classes or more"
        got = f"{folder}, whose only sub-folder is {names[0]}"
        fix = "Pass the folder above the classes, and give the others sub-folders of their own."
        raise ValueError(message(owner, must, got, fix))
    found = {path.name: image_files(path) for path in folders}
    empty = [name for name, files in found.items() if not files]
    if empty:
        must = f"every sub-folder must have images ({', '.join(SUFFIXES)})"
        got = f"{folder}, where {listed(empty)} {'has' if len(empty) == 1 else 'have'} none"
        raise ValueError(message(owner, must, got, "Remove it, or put images there."))
    return found


def image_files(folder: Path) -> list[Path]:
    """Return the images in a folder and below it, in their order."""
    return sorted(path for path in folder.rglob("*") if _is_image(path))


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _bytes(image: Any) -> Array:
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise ValueError(f"it is an array of {array.dtype}")
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        must, fix = "Pillow must be installed", "Run: pip install 'ddbp[images]'."
        raise ModuleNotFoundError(message("ImageReader", must, "none", fix)) from error
    return Image
