"""Bundles that commands are given, and which recipe has made them."""

import argparse
import os
from pathlib import Path
from typing import Any

from ddbp.data.kinds import preprocessing as preprocessing_of
from ddbp.export import Bundle, load_bundle
from ddbp.recipes.chosen import of_preprocessing
from ddbp.recipes.recipe import Recipe

NAME = "model.ddbp"
"""The name of the bundle in a run folder."""


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a bundle."""
    about = "a file that `ddbp train` has written, or the folder of its run"
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=about)


def opened(owner: str, path: Path) -> tuple[Bundle, Recipe, Any]:
    """Return a bundle, the recipe that made it, and its preprocessing, or refuse what is none."""
    bundle = load_bundle(path / NAME if os.path.isdir(path) else path)
    state = bundle.preprocessing
    preprocessing = None if state is None else preprocessing_of(state)
    return bundle, of_preprocessing(owner, preprocessing), preprocessing
