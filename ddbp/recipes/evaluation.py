"""What the model of a bundle makes of data with targets."""

import argparse
from typing import Any

from ddbp.export import Bundle
from ddbp.training.trainer import Trainer

from . import classification
from .recipe import Recipe


def evaluate(
    bundle: Bundle, recipe: Recipe, preprocessing: Any, options: argparse.Namespace
) -> dict[str, Any] | None:
    """Return loss and metrics, and what is known of each class, on the first rank; collective."""
    options.example, options.task, options.model = bundle.example, bundle.task, bundle.model
    samples = recipe.samples(preprocessing, options)
    goal = recipe.goal(bundle.task, preprocessing)
    trainer = Trainer(
        bundle.model,
        loss=goal.loss,
        optimizer="adam",
        batch_size=options.batch_size,
        metrics=goal.metrics,
        quiet=True,
    )
    found = trainer.evaluate(samples)
    if not trainer.comm.leads:
        return None
    loss = found.pop("loss")
    classes = classification.of_classes(found, preprocessing.classes, len(samples))
    told = {"loss": loss, "metrics": goal.told(found), "samples": len(samples)}
    return told | ({"classes": classes} if classes else {})
