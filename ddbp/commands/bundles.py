"""Bundles that commands are given, and which recipe has made them."""

import argparse
import os
from pathlib import Path
from typing import Any

from ddbp.data.kinds import preprocessing as preprocessing_of
from ddbp.export import Bundle, load_bundle
from ddbp.recipes.chosen import of_preprocessing
from ddbp.recipes.recipe import Recipe
from layers.errors import message

NAME = "model.ddbp"
"""The name of the bundle in a run folder."""


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a bundle."""
    about = "a file that `ddbp train` has written, or the folder of its run"
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=about)


def opened(owner: str, path: Path) -> tuple[Bundle, Recipe, Any]:
    """Return a bundle, the recipe that made it, and its preprocessing, or refuse what is none."""
    file = path / NAME if os.path.isdir(path) else path
    if not os.path.lexists(file):
        must = "BUNDLE must be a bundle, or the folder of a run that has one"
        fix = "`ddbp train` writes it at the end of a run."
        raise FileNotFoundError(message(owner, must, f"{file}, which is not there", fix))
    bundle = load_bundle(file)
    state = bundle.preprocessing
    preprocessing = None if state is None else preprocessing_of(state)
    return bundle, of_preprocessing(owner, preprocessing), preprocessing
