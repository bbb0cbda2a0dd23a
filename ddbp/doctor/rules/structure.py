"""Diseases of the model and of options, which are told exactly."""

from typing import Any

from ddbp.doctor.chart import Chart
from ddbp.doctor.facts import Stage
from ddbp.doctor.rule import Evidence, rule
from layers import BatchNorm, Dropout, Linear, Module, ReLU, Sigmoid, Softmax, Tanh

_SQUASHES: dict[type, tuple[float, float]] = {
    ReLU: (0.0, float("inf")),
    Sigmoid: (0.0, 1.0),
    Tanh: (-1.0, 1.0),
}
"""What these layers can put out."""
_VALUES, _ENOUGH_VALUES = 4, 16
_DROPOUT = 0.8
_MOMENTUM = 0.99
_OUTSIDE = 0.01
_STALE, _WORSE = 0.5, 1.3
_EPOCHS, _STEPS = 2, 60


@rule(
    "The loss takes logits and applies softmax itself; twice, gradients nearly vanish.",
    "Leave out the softmax at the end of the model.",
)
def softmax_twice(chart: Chart) -> Evidence | None:
    """A cross-entropy of logits gets probabilities."""
    if not chart.of_classes or not chart.probabilities:
        return None
    last = _last(chart)
    layer = chart.stages[-1].name if isinstance(last, Softmax) else ""
    return Evidence("the rows that the loss gets are positive and sum to 1", layer)


@rule(
    "Squared errors behind a squashing layer have next to no gradient where a guess is most wrong.",
    "Use SoftmaxCrossEntropy on labels, without an activation at the end.",
)
def squared_error_of_classes(chart: Chart) -> Evidence | None:
    """Classes are learnt by squared errors of squashed outputs."""
    data = chart.training
    if data is None or not (chart.of_squares and data.one_hot):
        return None
    if not isinstance(_last(chart), Sigmoid | Tanh | ReLU | Softmax):
        return None
    text = f"targets are rows with a single one, and the last layer is {_last(chart)!r}"
    return Evidence(text, chart.stages[-1].name)


@rule(
    "The model cannot put out what is asked of it.",
    "Leave out the activation at the end of the model.",
)
def output_squashed(chart: Chart) -> Evidence | None:
    """The last layer cannot take the values of the targets, or logits of both signs."""
    last = _last(chart)
    bounds = _SQUASHES.get(type(last))
    if bounds is None:
        return None
    name = chart.stages[-1].name
    if chart.of_classes:
        return Evidence(f"logits come out of {last!r}", name)
    data = chart.training
    if data is None or not chart.of_squares:
        return None
    least, largest = bounds
    room = _OUTSIDE * (data.largest - data.least)
    if data.least >= least - room and data.largest <= largest + room:
        return None
    text = f"targets are in {data.least:.3g} to {data.largest:.3g}, and the last layer is {last!r}"
    return Evidence(text, name)


@rule(
    "Two linear maps in a row are one: depth without an activation adds no power.",
    "Put an activation, such as ReLU(), between the two.",
)
def linear_twice(chart: Chart) -> Evidence | None:
    """A dense layer follows a dense layer, and is no narrower: no bottleneck is meant."""
    for before, stage in zip(chart.stages, chart.stages[1:], strict=False):
        first, second = before.layers[-1], stage.layers[0]
        if not (stage.follows and isinstance(first, Linear) and isinstance(second, Linear)):
            continue
        inner, outer = first.weight.shape[0], min(first.weight.shape[1], second.weight.shape[0])
        if inner >= outer:
            return Evidence(f"{second!r} takes what {first!r} puts out", stage.names[0])
    return None


@rule(
    "Means and variances of a few values are noise, which differs in validation.",
    "Use fewer shards or a larger batch, BatchNorm(…, synchronized=True), or a LayerNorm.",
)
def batch_norm_of_few(chart: Chart) -> Evidence | None:
    """Batch norm over a few values of each channel in each shard."""
    rows = chart.options.batch_size / (chart.options.shards or 1)
    for stage, name, layer in _layers(chart):
        values = rows * stage.positions
        if isinstance(layer, BatchNorm) and not layer.synchronized and values <= _VALUES:
            text = f"{layer!r} takes its means over {values:g} values"
            shards = int(chart.options.batch_size * stage.positions / _ENOUGH_VALUES)
            return Evidence(text, name, {"values": values}, {"shards": shards} if shards else {})
    return None


@rule(
    "Predictions use means and variances that training has hardly moved from 0 and 1.",
    "Use the usual momentum=0.1 of BatchNorm.",
)
def batch_norm_stale(chart: Chart) -> Evidence | None:
    """The running statistics of batch norm are still what they began with, and validation is much
    worse than training.
    """
    record = chart.records[-1] if chart.records else {}
    loss, validation = record.get("loss", 0.0), record.get("validation_loss", 0.0)
    if chart.step < _STEPS or chart.epochs < _EPOCHS or validation <= _WORSE * loss:
        return None
    for _, name, layer in _layers(chart):
        if not isinstance(layer, BatchNorm):
            continue
        kept = (1 - layer.momentum) ** chart.step
        if kept > _STALE:
            text = (
                f"{kept:.0%} of the running statistics is what they began with, after"
                f" {chart.step} steps with momentum={layer.momentum:g}; the loss is {loss:.3g} and"
                f" {validation:.3g} in validation"
            )
            return Evidence(text, name, {"kept": kept})
    return None


@rule("Little of the signal is left, and its gradient is mostly noise.", "Try p = 0.5 or less.")
def dropout_high(chart: Chart) -> Evidence | None:
    """Dropout leaves out nearly all."""
    for _, name, layer in _layers(chart):
        if isinstance(layer, Dropout) and layer.p >= _DROPOUT:
            text = f"{layer!r} leaves out {layer.p:.0%}"
            return Evidence(text, name, {"p": layer.p}, {"dropout": 0.2})
    return None


@rule(
    "A step is felt for hundreds more: the weights overshoot and swing.",
    "Use momentum=0.9, and a higher learning rate if it is slow then.",
)
def momentum_high(chart: Chart) -> Evidence | None:
    """The momentum is nearly 1."""
    momentum: float = getattr(chart.optimizer, "momentum", 0.0)
    if momentum <= _MOMENTUM:
        return None
    text = f"with momentum={momentum:g} a step is felt for {1 / (1 - momentum):.0f} more"
    return Evidence(text, numbers={"momentum": momentum}, changes={"momentum": 0.9})


def _layers(chart: Chart) -> list[tuple[Stage, str, Module]]:
    """Return all layers as the user wrote them, each behind its stage and its name."""
    return [
        (stage, name, layer)
        for stage in chart.stages
        for name, layer in zip(stage.names, stage.layers, strict=True)
    ]


def _last(chart: Chart) -> Any:
    """Return the last layer before the loss, as the user wrote it."""
    return chart.stages[-1].layers[-1] if chart.stages else None
