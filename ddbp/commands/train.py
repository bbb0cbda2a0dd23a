"""Trains a model on data of a kind by a recipe, with usual values for all that is not said: `ddbp
train images|text|series|table --data NAME|PATH`.

The run folder gets a report, and a bundle, which `ddbp evaluate`, `ddbp predict` and `ddbp export`
take.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddbp import terminal
from ddbp.comm.threads import use_one_thread
from ddbp.export import save_bundle
from ddbp.recipes.chosen import RECIPES
from ddbp.recipes.recipe import Prepared, Recipe, example_of
from ddbp.training import script
from ddbp.training.trainer import Trainer

from .bundles import NAME
from .refusals import told_in_a_line


def run(arguments: Sequence[str]) -> int:
    """Train; return the exit status: 1 if the data cannot be read, or the model cannot be made."""
    recipe, rest = chosen("train", __doc__, arguments)
    options = recipe.flags("train", rest).parse_args(rest)
    return told_in_a_line(lambda: _train(recipe, options), options)


def chosen(
    command: str, about: str | None, arguments: Sequence[str]
) -> tuple[Recipe, Sequence[str]]:
    """Return the recipe that the first argument names, and the others."""
    parser = argparse.ArgumentParser(
        prog=f"ddbp {command}", description=about, usage=f"ddbp {command} RECIPE --data DATA …"
    )
    listed = "; ".join(f"{name}: {recipe.about}" for name, recipe in RECIPES.items())
    fix = f"`ddbp {command} RECIPE --help` lists its flags"
    parser.add_argument("recipe", choices=[*RECIPES], metavar="RECIPE", help=f"{listed} {fix}")
    name = parser.parse_args(arguments[:1]).recipe
    return RECIPES[name], arguments[1:]


def _train(recipe: Recipe, options: argparse.Namespace) -> None:
    use_one_thread()
    recipe.require_readable(f"ddbp train {recipe.name}", [options.data])
    if options.run_dir is None:
        options.run_dir = script.new_folder(f"train-{recipe.name}")
    prepared = recipe.prepare(options)
    data = prepared.data
    trainer, result = script.fit(
        options,
        prepared.model,
        prepared.goal.loss,
        prepared.optimizer,
        data.training,
        data.validation,
        metrics=prepared.goal.metrics,
        **prepared.trainer,
    )
    metrics = result["metrics"]
    if options.early_stopping:
        # The parameters are those of another epoch than the last.
        found = trainer.evaluate(data.validation)
        metrics = {**found, "validation_loss": found["loss"]}
        del metrics["loss"]
    result["metrics"] = prepared.goal.told(metrics)
    if trainer.comm.leads:
        # Not as the flag says, where `ddbp doctor --fix` has it in another.
        assert trainer.run_dir is not None
        path = trainer.run_dir / NAME
        read = data.preprocessing
        labels, example = read.classes or None, example_of(data.training)
        save_bundle(
            path,
            trainer.predictor,
            preprocessing=read,
            task=prepared.task,
            labels=labels,
            example=example,
        )
        result["bundle"] = str(path)
        if not options.quiet:
            terminal.say(_next_steps(trainer.run_dir))
    script.finish(options, trainer, result)


def _next_steps(folder: Path) -> str:
    return "\n".join(
        (
            f"The report is {folder / 'report.html'}, the model {folder / NAME}. Next:",
            f"  ddbp predict {folder / NAME} FILE…",
            f"  ddbp export {folder} --onnx model.onnx",
        )
    )


def trainer_of(options: argparse.Namespace, prepared: Prepared, **others: Any) -> Trainer:
    """Return a trainer by the flags that writes nothing."""
    return Trainer(
        prepared.model,
        loss=prepared.goal.loss,
        metrics=prepared.goal.metrics,
        optimizer=prepared.optimizer,
        **script.options_of_steps(options),
        **others,
    )
