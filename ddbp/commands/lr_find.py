"""Looks for a learning rate for a recipe: `ddbp lr-find images|text|series|table --data NAME|PATH`,
with the flags of `ddbp train`, of which those that say how long to train and what to write change
nothing.

It takes one step at each of a hundred rates that rise; the suggestion is a tenth of the rate at
which the smoothed loss is least. The last line is one JSON object.
"""

import argparse
from collections.abc import Sequence

from rich.table import Table

from ddbp import terminal
from ddbp.comm.threads import use_one_thread
from ddbp.optim.rate_range import RateRange
from ddbp.recipes.recipe import Recipe
from ddbp.training import script
from ddbp.training.rate_search import lr_find
from ddbp.training.run_folder import load_parameters

from .refusals import told_in_a_line
from .train import chosen, trainer_of

_SHOWN = 12
"""Rows of the table."""


def run(arguments: Sequence[str]) -> int:
    """Look for a rate; return the exit status: 1 if the data cannot be read."""
    recipe, rest = chosen("lr-find", __doc__, arguments)
    flags = recipe.flags("lr-find", rest)
    flags.add_size("--steps", 100, "rates to try")
    for name, rate, which in (("--lowest", 1e-6, "first"), ("--highest", 10.0, "last")):
        about = f"the {which} rate (%(default)s)"
        flags.add_argument(name, type=script.positive_float, default=rate, help=about)
    flags.add_argument(
        "--picture",
        type=script.output_file,
        metavar="FILE",
        help="draw the curve: rates.svg, .png or .pdf",
    )
    options = flags.parse_args(rest)
    return told_in_a_line(lambda: _find(recipe, options), options)


def _find(recipe: Recipe, options: argparse.Namespace) -> None:
    use_one_thread()
    recipe.require_readable(f"ddbp lr-find {recipe.name}", [options.data])
    if options.picture is not None:
        RateRange.require_picture(options.picture)
    # A step of the test is one of a window, which begins where nothing was read before.
    recipe.use_windows(options)
    prepared = recipe.prepare(options)
    if options.parameters:
        load_parameters(prepared.model, options.parameters)
    others = {name: each for name, each in prepared.trainer.items() if name != "callbacks"}
    trainer = trainer_of(options, prepared, **others)
    found = lr_find(
        trainer,
        prepared.data.training,
        lowest=options.lowest,
        highest=options.highest,
        steps=options.steps,
    )
    if not trainer.comm.leads:
        return
    if not options.quiet:
        _show(found)
    line = terminal.json_line(
        {
            "suggestion": found.suggestion,
            "verdict": found.verdict,
            "rates": found.rates,
            "losses": found.losses,
        }
    )
    print(line, flush=True)
    if options.json:
        script.write_line("ddbp lr-find", options.json, line)
    if options.picture is not None:
        found.save(options.picture)


def _show(found: RateRange) -> None:
    """Print some of the rates, and what they say."""
    table = Table("learning rate", "loss", "smoothed")
    step = -(-len(found.rates) // _SHOWN)
    for rate, loss, smoothed in [*zip(found.rates, found.losses, found.smoothed, strict=True)][
        ::step
    ]:
        table.add_row(f"{rate:.2g}", f"{loss:.4g}", f"{smoothed:.4g}")
    console = terminal.console(errors=True)
    console.print(table)
    console.print(found.verdict)
