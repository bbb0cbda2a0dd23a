"""Images: a classifier of folders with a sub-folder for each class, of CIFAR's files, or of a set
that is known by name.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddbp.data.augment import chosen as augmentations
from ddbp.data.cifar import read_cifar
from ddbp.data.images import SUFFIXES, ImageArrays, ImageFolder, ImageReader, image_files
from ddbp.data.statistics import of_sums
from ddbp.export import Bundle
from ddbp.files import expanded
from ddbp.optim.adam import AdamW
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.schedule import WarmUp
from ddbp.optim.sgd import SGD
from ddbp.training import script
from ddbp.training.metrics import accuracy
from layers import SoftmaxCrossEntropy
from layers.errors import message
from layers.types import Array

from . import classification, networks
from .recipe import (
    BUNDLES,
    TABLES,
    Goal,
    Predictions,
    Prepared,
    Recipe,
    Split,
    Usual,
    callbacks,
    generator,
    is_name,
    limit_batch,
    named,
    split,
    tell_skipped,
)

_OWNER = "ddbp train images"
_SIDE = 32
"""Of images from a folder, unless `--size` says how large."""
_TRAINING, _VALIDATION = ("train", "training"), ("validation", "val", "valid", "test")
"""Sub-folders that are no classes: what is trained on, and what is not."""
_CNN = "cnn"
_CNN_SIDE = 4
"""The least side of the images of a network that halves them twice."""
_RESNET = Usual(epochs=182, batch_size=128, learning_rate=0.1)
_WARM_UP = 5
"""Epochs of a residual network in which the rate grows."""
_AUGMENT = "Flip(), Crop(4)"
_CIFAR_FILES = ("data_batch_1.bin", "train.bin")
_CHANNELS = {"colour": 3, "grey": 1}


class Images(Recipe):
    """Classifies images."""

    name = "images"
    about = "Train a classifier of images."
    kind = "images"
    data = (
        "a folder with a sub-folder of images for each class, or with train/ and validation/ of"
        " such folders; CIFAR's binary files; or a name, as digits or cifar10"
    )
    others: Mapping[str, Sequence[str]] = {
        **TABLES,
        "a text": (".txt",),
        "series": (".ts",),
        **BUNDLES,
    }
    models: Mapping[str, Usual] = {
        _CNN: Usual(epochs=20, batch_size=64, learning_rate=0.003),
        "mlp": Usual(epochs=30, batch_size=64, learning_rate=0.003),
        "lenet": Usual(epochs=20, batch_size=64, learning_rate=0.003),
        **dict.fromkeys(networks.RESNETS, _RESNET),
    }

    def add_flags(self, flags: script.Flags) -> None:
        flags.add_size("--size", None, "side of the images of a folder (32; lenet: 28)")
        flags.add_choice("--colour", _CHANNELS, "of the images of a folder")
        flags.add_size("--hidden", 128, "width of the hidden layer, but for residual networks")
        flags.add_argument(
            "--augment",
            metavar="LIST",
            help=f'change images at random: "{_AUGMENT}" (usual for residual networks), or none',
        )

    def prepare(self, options: argparse.Namespace) -> Prepared:
        read = self._read(options)
        limit_batch(options, read.training)
        reader: ImageReader = read.preprocessing
        classes = classification.require_classes(_OWNER, reader.classes)
        height, width, _ = reader.shape
        if options.model == "lenet" and (height, width) != (networks.LENET_SIDE,) * 2:
            must, fix = "images of LeNet-5 must be of 28 x 28", "Take --model cnn, or --size 28."
            raise ValueError(message(_OWNER, must, f"{height} x {width}", fix))
        if options.model == _CNN and min(height, width) < _CNN_SIDE:
            must = f"images of --model {_CNN} must be of {_CNN_SIDE} x {_CNN_SIDE} or more"
            fix = "Take a larger --size, or --model mlp."
            raise ValueError(message(_OWNER, must, f"{height} x {width}", fix))
        rng = generator(options)
        model = networks.of_images(options.model, reader.shape, len(classes), options.hidden, rng)
        goal = Goal(
            SoftmaxCrossEntropy(label_smoothing=0.0 if _is_residual(options) else 0.1),
            {"accuracy": accuracy},
        )
        optimizer = self._optimizer(options, read.training)
        usual = _AUGMENT if _is_residual(options) else "none"
        chosen = usual if options.augment is None else options.augment
        more = callbacks(options)
        if chosen != "none":
            more["augment"] = augmentations(chosen)
        return Prepared(read, model, optimizer, "classification", goal, more)

    def goal(self, task: str, preprocessing: Any) -> Goal:
        return Goal(SoftmaxCrossEntropy(), classification.metrics(preprocessing.classes))

    def _optimizer(self, options: argparse.Namespace, training: Any) -> Optimizer:
        schedule = script.cosine(options, training)
        if not _is_residual(options):
            return AdamW(schedule, weight_decay=0.01)
        steps = -(-len(training) // options.batch_size) * min(_WARM_UP, options.epochs)
        # He et al. 2015, section 4.2, with a cosine in place of two steps.
        return SGD(WarmUp(schedule, steps=steps), momentum=0.9, nesterov=True, weight_decay=1e-4)

    def _read(self, options: argparse.Namespace) -> Split:
        path = expanded(options.data)
        if is_name(options.data):
            return _standardised(*named(_OWNER, options.data, ImageReader))
        if _is_cifar(path):
            return _standardised(_of_cifar(path, "training"), _of_cifar(path, "test"))
        side = options.size or (networks.LENET_SIDE if options.model == "lenet" else _SIDE)
        first, second = (_sub_folder(path, names) for names in (_TRAINING, _VALIDATION))
        images = ImageFolder(
            first or path,
            size=side,
            channels=_CHANNELS[options.colour],
            standardize=True,
            in_memory=True,
            skip_bad=options.skip_bad,
        )
        tell_skipped(images.skipped)
        reader = images.preprocessing
        if first is None or second is None:
            return split(images, reader, options, stratified=True)
        others = ImageFolder(second, reader, in_memory=True, skip_bad=options.skip_bad)
        tell_skipped(others.skipped)
        return Split(images, others, reader)

    def samples(self, preprocessing: Any, options: argparse.Namespace) -> Any:
        path = expanded(options.data)
        if is_name(options.data):
            return _read_by(preprocessing, named("ddbp evaluate", options.data, ImageReader)[1])
        if _is_cifar(path):
            return _read_by(preprocessing, _of_cifar(path, "test"))
        part = _sub_folder(path, _VALIDATION) or path
        images = ImageFolder(part, preprocessing, in_memory=True, skip_bad=options.skip_bad)
        tell_skipped(images.skipped)
        return images

    def predict(
        self, bundle: Bundle, preprocessing: Any, options: argparse.Namespace
    ) -> Predictions:
        names, logits, skipped = list[str](), list[Array](), list[str]()
        paths = [each for path in options.files for each in _images_at(path)]
        for start in range(0, len(paths), options.batch_size):
            pixels = []
            for path in paths[start : start + options.batch_size]:
                try:
                    pixels.append(preprocessing.pixels(path))
                    names.append(str(path))
                except (OSError, ValueError) as error:
                    if not options.skip_bad:
                        raise
                    skipped.append(str(error))
            if pixels:
                logits.append(bundle.predict(preprocessing.inputs(np.stack(pixels))))
        if not logits:
            must, fix = "there must be an image that can be read", "Name other files."
            raise ValueError(message("ddbp predict", must, "none", fix))
        scores = classification.columns(np.concatenate(logits), preprocessing.classes)
        return Predictions({"file": names, **scores}, skipped)


def _is_residual(options: argparse.Namespace) -> bool:
    return options.model in networks.RESNETS


def _is_cifar(path: Path) -> bool:
    """Return whether a path is that of CIFAR's files, or refuse an image, which has no class."""
    if path.suffix.lower() in SUFFIXES and os.path.isfile(path):
        must, fix = "images must be in a folder for each class", "Name the folder of these folders."
        raise ValueError(message("ddbp", must, f"{path}, an image", fix))
    return os.path.isfile(path) or any(os.path.isfile(path / name) for name in _CIFAR_FILES)


def _of_cifar(path: Path, part: str) -> ImageArrays:
    """Return a part of CIFAR."""
    found = read_cifar(path, part)
    count = 10 if found.coarse is None else 100
    classes = found.classes or tuple(map(str, range(count)))
    return ImageArrays(found.images, found.labels, ImageReader(_SIDE, 3, classes=classes))


def _standardised(training: Any, test: Any) -> Split:
    """Return images standardised by the statistics of those that are trained on."""
    pixels = training.pixels.reshape(-1, training.pixels.shape[-1])
    bytes_ = np.arange(256)
    found = []
    for channel in pixels.T:
        counts = np.bincount(channel, minlength=256)
        total, squares = (int(counts @ powers) for powers in (bytes_, bytes_**2))
        found.append(of_sums(len(channel), total, squares, 255))
    old = training.preprocessing
    mean, std = [each.mean for each in found], [each.deviation for each in found]
    reader = ImageReader(old.size, old.channels, mean=mean, std=std, classes=old.classes)
    return Split(_read_by(reader, training), _read_by(reader, test), reader)


def _read_by(reader: ImageReader, images: Any) -> ImageArrays:
    """Return images as inputs of a model."""
    return ImageArrays(images.pixels, images.labels, reader)


def _sub_folder(path: Path, names: Sequence[str]) -> Path | None:
    """Return the sub-folder with one of these names, if there is one that is no class: a class has
    images, and others beside it.
    """
    found = next((path / name for name in names if os.path.isdir(path / name)), None)
    if found is None:
        return None
    beside = {each.name for each in path.iterdir() if each.is_dir() and each.name[0] != "."}
    parts = beside <= {*_TRAINING, *_VALIDATION} or any(each.is_dir() for each in found.iterdir())
    return found if parts else None


def _images_at(path: Path) -> list[Path]:
    """Return an image, or all of them in a folder."""
    if not os.path.isdir(path):
        return [path]
    found = image_files(path)
    if not found:
        must, fix = "a folder must have images", f"Their names end in {', '.join(SUFFIXES)}."
        raise ValueError(message("ddbp predict", must, f"{path}, which has none", fix))
    return found
