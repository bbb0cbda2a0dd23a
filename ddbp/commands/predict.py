"""What the model of a bundle says of files: `ddbp predict model.ddbp FILE… --output
predictions.csv`.

Files are images (or folders of them), tables, texts or series, as the model was trained on. Without
--output the predictions are printed.
"""

import argparse
import csv
import glob
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ddbp import terminal
from ddbp.comm.current import communicator
from ddbp.comm.threads import use_one_thread
from ddbp.recipes import outputs
from ddbp.recipes.chosen import RECIPES
from ddbp.recipes.recipe import add_skip_bad
from ddbp.training import script
from layers.errors import message

from .bundles import add_bundle, opened
from .refusals import told_in_a_line

_SHOWN = 20
"""Rows that are printed where more are asked for than a screen holds."""


def run(arguments: Sequence[str]) -> int:
    """Predict; return the exit status: 1 if the bundle or a file cannot be read."""
    parser = argparse.ArgumentParser(prog="ddbp predict", description=__doc__)
    add_bundle(parser)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what to predict for")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="predictions.csv, .parquet or .npz"
    )
    add_skip_bad(parser)
    parser.add_argument(
        "--batch-size",
        type=script.positive_int,
        default=256,
        help="at a time (%(default)s)",
    )
    parser.add_argument(
        "--characters",
        type=script.positive_int,
        default=200,
        help="of a language model: how far it continues each text (%(default)s)",
    )
    for recipe in RECIPES.values():
        recipe.add_reading(parser)
    options = parser.parse_args(arguments)
    return told_in_a_line(lambda: _predict(options), options)


def _predict(options: argparse.Namespace) -> None:
    use_one_thread()
    if not communicator().leads:
        # Of several ranks one predicts.
        return
    if options.output is not None:
        outputs.check(options.output)
    bundle, recipe, preprocessing = opened("ddbp predict", options.bundle)
    options.files = _expanded(options.files)
    if options.output is not None:
        _require_another(options.output, [options.bundle, *options.files])
    recipe.require_readable("ddbp predict", options.files)
    found = recipe.predict(bundle, preprocessing, options)
    for sentence in found.skipped:
        terminal.say(f"left out: {terminal.plain(sentence)}")
    if options.output is not None:
        outputs.write(options.output, found.columns)
        count = len(next(iter(found.columns.values())))
        terminal.say(f"{count} predictions in {terminal.plain(options.output)}")
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        # It may have no letters for names of classes.
        sys.stdout.reconfigure(errors="backslashreplace")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows(outputs.rows(found.columns))


def _require_another(output: Path, read: Sequence[Path]) -> None:
    """Refuse a file for predictions that is one of those that are read."""
    for path in read:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            must, fix = "--output must be another file than those that are read", "Name another."
            raise ValueError(message("ddbp predict", must, output, fix))


def _expanded(paths: Sequence[Path]) -> list[Path]:
    """Return files, with those that a pattern stands for where the shell has not named them."""
    result = []
    for path in paths:
        pattern = str(path)
        if not glob.has_magic(pattern) or os.path.lexists(path):
            result.append(path)
            continue
        found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            must, fix = "a pattern must stand for a file", f"The folder is {Path.cwd()}."
            raise FileNotFoundError(message("ddbp predict", must, f"none for {pattern}", fix))
        result += map(Path, found)
    return result
