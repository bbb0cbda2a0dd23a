"""Whether attributions depend on what the model has learned."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from ddbp.data.samples import Ragged, leaves
from layers import Module
from layers.checks import boolean, non_negative_int
from layers.errors import message, wording
from layers.types import Array

from .result import Attribution


@wording("sanity_check")
def sanity_check(
    explain: Callable[[Any], Attribution], model: Module, *, signed: bool = False, seed: int = 0
) -> dict[str, float]:
    """Return how alike attributions stay while the weights of more and more layers are shuffled,
    from the output down: the cascading randomisation of Adebayo et al. 2018, arXiv 1810.03292.

    A method whose similarity stays near 1 shows the input, not what the model has learned of it.
    Where attributions are multiplied by the input, zeros of the input keep their sizes alike; their
    signs tell more.

    Parameters
    ----------
    explain
        Returns attributions of a model: `lambda model: saliency(model, x, labels)`. Give the
        target, as without one each model explains its own choice.
    model
        A trained model, which stays as it is.
    signed
        Whether attributions are compared with their signs, not by their sizes.
    seed
        Of the shuffling.

    Returns
    -------
    By the name of each layer with parameters, from the last to the first: Spearman's rank
    correlation between the attributions of the model and those of a copy in which this layer and
    all behind it are shuffled, the mean over samples. 0 where attributions are constant.
    """
    owner = "sanity_check"
    rng = np.random.default_rng(non_negative_int(owner, "seed", seed, "Leave it out for 0."))
    if not isinstance(model, Module) or not model.parameters():
        must, fix = "model must have parameters", "Without any there is nothing to shuffle."
        raise ValueError(message(owner, must, repr(model), fix))
    signed = boolean(owner, "signed", signed)
    whole = _ranks(owner, explain(model), signed)
    shuffled = copy.deepcopy(model)
    layers = [
        (name, parameters)
        for name, layer in shuffled.named_layers()
        if not layer.parts and (parameters := layer.own_parameters())
    ]
    result = {}
    for name, parameters in reversed(layers):
        for parameter in parameters:
            mixed = rng.permutation(parameter.value.reshape(-1))
            parameter.value = mixed.reshape(parameter.shape)
        ranks = _ranks(owner, explain(shuffled), signed)
        pairs = zip(whole, ranks, strict=True)
        result[name] = float(np.mean([_correlation(a, b) for a, b in pairs]))
    return result


def _ranks(owner: str, found: Any, signed: bool) -> list[Array]:
    """Return the ranks of each sample's attributions, or of their sizes."""
    if not isinstance(found, Attribution):
        fix = "Write lambda model: saliency(model, x, labels)."
        must = "explain must return an Attribution"
        raise TypeError(message(owner, must, f"a {type(found).__name__}", fix))
    parts = [leaf for _, leaf in leaves("values", found.values) if leaf is not None]
    result = []
    for n in range(len(found)):
        sample = [leaf[n : n + 1].values if isinstance(leaf, Ragged) else leaf[n] for leaf in parts]
        numbers = np.concatenate([np.ravel(each) for each in sample])
        result.append(_rank(numbers if signed else np.abs(numbers)))
    return result


def _rank(numbers: Array) -> Array:
    """Return the rank of each of the numbers (n,), from 1; equal ones have the mean of theirs."""
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else 0.0
