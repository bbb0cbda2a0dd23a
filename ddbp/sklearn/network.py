"""What an estimator's network is made of: layers, loss and optimizer, from the names that
scikit-learn has for them.
"""

import copy
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ddbp.architecture.description import architecture, build_for, require_precision
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.sgd import SGD
from ddbp.training import arguments
from layers import (
    ELU,
    GELU,
    Dropout,
    Identity,
    LeakyReLU,
    Linear,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Tanh,
    init,
)
from layers.checks import one_of, positive_int
from layers.errors import message
from layers.types import Array

Factory = Callable[[int, int, np.random.Generator], Module]
"""What makes a network: given the numbers of features and of outputs, and a generator."""

ACTIVATIONS: Mapping[str, type[Module]] = {
    "identity": Identity,
    "logistic": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SiLU,
}
"""Activations by their names."""


def sizes(owner: str, given: Any) -> tuple[int, ...]:
    """Return the sizes of hidden layers: one number for one layer, or a sequence of them."""
    several = isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.ndim)
    listed = given if several else (given,)
    fix = "Write hidden_layer_sizes=(100,)."
    return tuple(positive_int(owner, "hidden_layer_sizes", size, fix) for size in listed)


def dense(
    owner: str,
    widths: tuple[int, ...],
    activation: str,
    dropout: float,
    rng: np.random.Generator,
    dtype: Any,
) -> Module:
    """Return a dense network, from the number of features to that of outputs, with the initial
    weights of scikit-learn's.
    """
    kind = ACTIVATIONS[one_of(owner, "activation", activation, ACTIVATIONS)]
    options: dict[str, Any] = {"weight_init": init.xavier_uniform, "rng": rng, "dtype": dtype}
    *pairs, last = pairwise(widths)
    layers: list[Module] = []
    for inputs, outputs in pairs:
        layers += [Linear(inputs, outputs, **options), kind()]
        if dropout:
            layers.append(Dropout(dropout))
    return Sequential(*layers, Linear(*last, **options))


def made(
    owner: str,
    factory: Factory,
    features: int,
    outputs: int,
    rng: np.random.Generator,
    dtype: Any,
) -> Module:
    """Return what a user's factory makes, in a type."""
    network: Any = factory(features, outputs, rng)
    if not isinstance(network, Module):
        must, fix = "model(features, outputs, rng) must return a layer", "Return a Sequential."
        raise TypeError(message(owner, must, repr(network), fix))
    types = {parameter.value.dtype for parameter in network.parameters()}
    return network if types <= {np.dtype(dtype)} else network.astype(dtype)


def described(network: Module) -> dict[str, Any]:
    """Return what a network is made of, as JSON can hold it; of one with layers that have no names
    in files no more than the precision.
    """
    try:
        return architecture(network)
    except TypeError:
        return {"precision": network.precision.name}


def rebuilt(
    description: Mapping[str, Any], arrays: Mapping[str, Array], anew: Callable[[], Module]
) -> Module:
    """Return the network of a description, for arrays to be put into, or one that is made anew
    where layers are not described; in the precision that there was.
    """
    network = build_for(description, arrays) if "root" in description else anew()
    require_precision(network, description)
    return network


def optimizer(owner: str, solver: Any, learning_rate: float) -> Optimizer:
    """Return an optimizer by its name, with a rate; or a copy of one."""
    if isinstance(solver, Optimizer):
        return copy.deepcopy(solver)
    name = solver if isinstance(solver, str) else ""
    if name == "sgd":
        # What scikit-learn means by it.
        return SGD(learning_rate, momentum=0.9, nesterov=True)
    kind = arguments.optimizer_kind(name)
    if kind is None:
        must = "solver must be the name of an optimizer, or an Optimizer"
        fix = 'Write solver="adam", or solver=ddbp.AdamW(1e-3).'
        if name == "lbfgs":
            fix = 'Networks are trained by batches: write solver="adam".'
        raise ValueError(message(owner, must, repr(solver), fix))
    made: Optimizer = kind(learning_rate)
    return made
