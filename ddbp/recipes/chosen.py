"""The recipes by name, and by what a bundle holds."""

from collections.abc import Mapping
from typing import Any

from layers.errors import message

from .images import Images
from .recipe import Recipe
from .series import SeriesOfNumbers
from .table import Tables
from .text import Texts

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe for recipe in (Images(), Texts(), SeriesOfNumbers(), Tables())
}
"""By the names that commands have for them."""


def of_preprocessing(owner: str, preprocessing: Any) -> Recipe:
    """Return the recipe that has made such preprocessing, or refuse what none has."""
    kind = getattr(preprocessing, "kind", None)
    for recipe in RECIPES.values():
        if recipe.kind == kind:
            return recipe
    must, got = "the bundle must hold the preprocessing of a recipe", repr(kind)
    fix = "ddbp train writes such bundles; of others call ddbp.export.load_bundle(…).predict."
    raise ValueError(message(owner, must, got, fix))
