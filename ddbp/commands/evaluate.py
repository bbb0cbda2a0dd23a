"""Loss and metrics of a bundle on data: `ddbp evaluate model.ddbp --data NAME|PATH`.

The data are read as the bundle says: sizes of images, columns and categories of tables, vocabulary
of texts. The last line is one JSON object.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ddbp import terminal
from ddbp.comm.threads import use_one_thread
from ddbp.recipes import evaluation
from ddbp.recipes.chosen import RECIPES
from ddbp.recipes.recipe import add_skip_bad
from ddbp.training import script

from .bundles import add_bundle, opened
from .refusals import told_in_a_line


def run(arguments: Sequence[str]) -> int:
    """Evaluate; return the exit status: 1 if the bundle or the data cannot be read."""
    parser = argparse.ArgumentParser(prog="ddbp evaluate", description=__doc__)
    add_bundle(parser)
    parser.add_argument(
        "--data", required=True, metavar="DATA", help="the name of a set, or a path"
    )
    add_skip_bad(parser)
    parser.add_argument(
        "--batch-size", type=script.positive_int, default=256, help="of all ranks (%(default)s)"
    )
    parser.add_argument(
        "--json", type=script.output_file, metavar="FILE", help="write the last line to a file, too"
    )
    parser.add_argument("--quiet", action="store_true", help="show nothing but the last line")
    for recipe in RECIPES.values():
        recipe.add_reading(parser)
    options = parser.parse_args(arguments)
    return told_in_a_line(lambda: _evaluate(options), options)


def _evaluate(options: argparse.Namespace) -> None:
    use_one_thread()
    bundle, recipe, preprocessing = opened("ddbp evaluate", options.bundle)
    recipe.require_readable("ddbp evaluate", [options.data])
    result = evaluation.evaluate(bundle, recipe, preprocessing, options)
    if result is None:
        return
    if not options.quiet:
        _show(result)
    line = terminal.json_line(result)
    print(line, flush=True)
    if options.json:
        script.write_line("ddbp evaluate", options.json, line)


def _show(result: dict[str, Any]) -> None:
    """Print loss and metrics as a table, and what is known of each class."""
    console = terminal.console(errors=True)
    table = Table("metric", "value")
    for name, value in (("loss", result["loss"]), *result["metrics"].items()):
        table.add_row(terminal.plain(name.replace("_", " ")), f"{value:.4f}")
    table.add_row("samples", str(result["samples"]))
    console.print(table)
    if result.get("classes"):
        table = Table("class", "samples", "recall", "precision")
        for name, of_class in result["classes"].items():
            shares = [_percent(of_class[each]) for each in ("recall", "precision")]
            table.add_row(terminal.plain(name), str(of_class["samples"]), *shares)
        console.print(table)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
