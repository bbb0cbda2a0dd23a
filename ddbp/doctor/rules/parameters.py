"""Diseases that are seen in single parameters."""

import numpy as np

from ddbp.doctor.chart import Chart
from ddbp.doctor.rule import Evidence, rule

_LEAST_ROWS = 4
_MOVING = 1e-6
_MOST, _LITTLE = 0.7, 0.55


@rule(
    "Units that begin alike get the same gradients, and stay alike: a layer of one unit.",
    "Draw the weights at random: leave out weight_init=, or use layers.init.he_uniform.",
)
def units_alike(chart: Chart) -> Evidence | None:
    """All units of a layer have the same weights."""
    if not chart.alike:
        return None
    return Evidence("all units have the same weights", chart.alike[0])


@rule(
    "What lies before the place where the gradient is cut is never trained.",
    "Look for .array, detach() or NumPy functions between this layer and the loss.",
)
def no_gradient(chart: Chart) -> Evidence | None:
    """No gradient reaches a layer that is used, although it or one before it is trained."""
    if chart.recorded < 3:
        return None
    outputs = chart.values("activation_norm").sum(axis=0)
    gradients = chart.values("activation_gradient_norm")
    if not np.isfinite(gradients).any():
        return None
    trained = {each.name for each in chart.stages if each.trained}
    for column in chart.chain:
        name = chart.recording.layers[column]
        unreached = np.isfinite(outputs[column]) and np.isnan(gradients[:, column]).all()
        if name in trained and unreached:
            return Evidence("no gradient reaches its output", name)
    return None


@rule(
    "A parameter that never changes does not learn.",
    "Give it to the optimizer: look at groups= (a learning rate of 0?) and transforms=.",
)
def never_changes(chart: Chart) -> Evidence | None:
    """A parameter has gradients, and updates leave it as it is, while others move."""
    if chart.recorded < _LEAST_ROWS or chart.ratio < _MOVING:
        return None
    gradients, updates = chart.values("gradient_norm"), chart.values("update_norm")
    for column in chart.weight_columns:
        if (gradients[:, column] > 0).all() and (updates[:, column] == 0).all():
            return Evidence(
                "it has gradients, and never changes", chart.recording.parameters[column]
            )
    return None


@rule(
    "Most of the model stays as it was made, and the rest cannot learn enough alone.",
    "Train it, too: model.trainable = True; freeze only what has been trained before.",
)
def mostly_frozen(chart: Chart) -> Evidence | None:
    """Most of the weights are frozen, and little is learnt in two epochs and half of the run."""
    if not (chart.late and chart.left > _LITTLE):
        return None
    layers = {id(layer): layer for stage in chart.stages for layer in stage.layers}
    weights = [
        (each.trainable, each.size)
        for layer in layers.values()
        for each in layer.own_parameters()
        if each.value.ndim > 1
    ]
    whole = sum(size for _, size in weights)
    frozen = sum(size for trainable, size in weights if not trainable)
    if not whole or frozen <= _MOST * whole:
        return None
    text = (
        f"{frozen / whole:.0%} of the weights are frozen, and the loss is {chart.recent:.3g}, that"
        f" of the best constant {chart.base:.3g}"
    )
    return Evidence(text, numbers={"frozen": frozen / whole, "loss": chart.recent})
