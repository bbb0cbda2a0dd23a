"""Diseases of the signal on its way through the layers, forward and backward."""

import math
from dataclasses import replace

import numpy as np

from ddbp.doctor.chart import Chart
from ddbp.doctor.rule import Evidence, rule
from layers import Attention, Sigmoid, Tanh

_SATURATED, _GATES = 0.55, 0.6
_SCORES = 30.0
_GAIN, _TOTAL = 2.0, 30.0
_HEAD, _FIRST_LOSS = 8.0, 4.0
_DEAD, _ALL, _HARM = 0.65, 0.95, 0.5
_ROWS = 8
_STEPS = 60
_FALL, _ERRORS = 1e-3, 4.0
_FALL_UNLEARNT, _UNLEARNT = 0.05, 0.95


def _gains(chart: Chart) -> np.ndarray:
    """Return the sizes of the input and of what each layer of the chain puts out in the first
    recorded step; empty if they are not known.
    """
    if not chart.input_rms > 0 or not chart.from_beginning:
        return np.zeros(0)
    sizes = chart.values("activation_norm")[0, chart.chain].astype(np.float64)
    return np.array([chart.input_rms, *sizes])


@rule(
    "Each query sees one key only, and next to no gradient comes through the softmax.",
    "Draw smaller weights for the projections: weight_init=layers.init.xavier_uniform.",
)
def attention_saturated(chart: Chart) -> Evidence | None:
    """The scores of attention are large from the beginning."""
    if not chart.from_beginning or chart.unlearnt(chart.begun[0]) < _UNLEARNT:
        return None
    place = {name: i for i, name in enumerate(chart.recording.layers)}
    sizes = chart.values("activation_norm")[0].astype(np.float64)
    for stage in chart.stages:
        if not isinstance(stage.layers[0], Attention):
            continue
        # Queries and keys, which are one array where they are projected together.
        pair = stage.sources[0], stage.sources[min(1, len(stage.sources) - 1)]
        if not all(name in place for name in pair):
            continue
        scores = float(np.prod([sizes[place[name]] for name in pair]))
        if scores > _SCORES:
            text = f"scores are of the order of {scores:.0f} at the beginning"
            return Evidence(text, stage.name, {"scores": scores})
    return None


@rule(
    "Saturated units pass no gradient on.",
    "Draw smaller weights: layers.init.xavier_uniform, and standardise the inputs.",
)
def saturated(chart: Chart) -> Evidence | None:
    """Units of tanh or sigmoid, or gates, are at their limits from the beginning."""
    if not chart.from_beginning:
        return None
    last = chart.stages[-1].name if chart.stages else ""
    inner = [i for i, name in enumerate(chart.recording.layers) if name != last]
    for name, what, limit in (
        ("activation_saturated", "outputs", _SATURATED),
        ("gates_saturated", "gates", _GATES),
    ):
        found = np.nan_to_num(chart.values(name))[:, inner]
        most = found.max(axis=1, initial=0.0)
        if most[0] < 0.8 * limit or _share_above(chart, most, limit) <= 0.6:
            continue
        where = chart.recording.layers[inner[int(np.argmax(found[-1]))]]
        text = f"{most[-1]:.0%} of its {what} are at their limits, {most[0]:.0%} at the beginning"
        return Evidence(text, where, {"share": float(most[-1])})
    return None


def _share_above(chart: Chart, found: np.ndarray, limit: float) -> float:
    """Return in which share of the last steps a number (n,) is above a limit."""
    return chart.share(lambda row: found[row] > limit)


@rule(
    "What grows from layer to layer grows in the gradient, too: steps become wild.",
    "Draw smaller weights: layers.init.he_uniform for ReLU, xavier_uniform for tanh.",
)
def activations_explode(chart: Chart) -> Evidence | None:
    """Outputs grow from layer to layer at the beginning."""
    sizes = _gains(chart)[:-1]
    if len(sizes) < 4 or not (np.isfinite(sizes) & (sizes > 0)).all():
        return None
    total = float(sizes[-1] / sizes[0])
    gain = total ** (1 / (len(sizes) - 1))
    if gain <= _GAIN or total <= _TOTAL:
        return None
    text = f"outputs grow {gain:.1f}-fold per layer at the beginning, {total:.3g}-fold in all"
    return Evidence(text, numbers={"gain": gain, "total": total})


@rule(
    "Wrong and sure from the first step: the loss falls by shrinking the last layer first.",
    "Draw smaller weights for the last layer: weight_init=layers.init.xavier_uniform.",
)
def last_layer_large(chart: Chart) -> Evidence | None:
    """The first loss is far above that of a guess, and the last layer makes it so."""
    sizes = _gains(chart)
    data = chart.training
    if len(sizes) < 3 or data is None or not chart.of_classes or not chart.begun:
        return None
    guess = math.log(max(data.classes, 2))
    head, total = float(sizes[-1] / sizes[-2]), float(sizes[-2] / sizes[0])
    if not (
        chart.begun[0] > _FIRST_LOSS * guess * chart.factor and head > _HEAD and total < _TOTAL
    ):
        return None
    text = f"the first loss is {chart.begun[0]:.3g}, a guess has {guess:.2f}, and outputs grow"
    return Evidence(f"{text} {head:.0f}-fold there", chart.stages[-1].name, {"times": head})


@rule(
    "A unit that is 0 for all samples has no gradient, and never comes back.",
    "Begin with biases of 0 (bias_init), or use LeakyReLU.",
)
def units_dead(chart: Chart) -> Evidence | None:
    """All units of a layer are 0 for all samples from the beginning on, or most while little is
    learnt.
    """
    found = _silent(chart)
    if found is None or not _from_beginning(found):
        return None
    return _dead(chart, found)


@rule(
    "Steps that are too large throw units beyond what any sample reaches.",
    "Divide the learning rate by 10.",
)
def units_die(chart: Chart) -> Evidence | None:
    """All units of a layer become 0 for all samples while training, or most while little is
    learnt.
    """
    found = _silent(chart)
    if found is None or _from_beginning(found):
        return None
    return replace(_dead(chart, found), changes=chart.rate_times(0.1))


def _silent(chart: Chart) -> np.ndarray | None:
    """Return the largest share of silent units of a layer (n,), if it has lasted."""
    if chart.options.batch_size / (chart.options.shards or 1) < _ROWS or not chart.from_beginning:
        return None
    found = np.nan_to_num(chart.values("activation_silent"))
    most: np.ndarray = found.max(axis=1, initial=0.0)
    # Many networks learn well with a third of their units: all but a few, or what harms. Where
    # there is nothing to learn, units die of that.
    # Squared errors of classes stay large where all are told rightly.
    told = chart.training is not None and not chart.training.one_hot
    harms = told and chart.step >= _STEPS and _HARM < chart.left < _UNLEARNT
    return most if _share_above(chart, most, _DEAD if harms else _ALL) > 0.6 else None


def _from_beginning(found: np.ndarray) -> bool:
    """Return whether most of the units that are silent now were so in the first step."""
    return bool(found[0] > 0.5 * found[-1])


def _dead(chart: Chart, found: np.ndarray) -> Evidence:
    column = int(np.argmax(np.nan_to_num(chart.values("activation_silent")[-1])))
    text = f"{found[-1]:.0%} of its units are 0 for all samples, {found[0]:.0%} at the beginning"
    return Evidence(text, chart.recording.layers[column], {"share": float(found[-1])})


@rule(
    "The first layers get next to no gradient, and do not learn.",
    "Use ReLU instead of sigmoid or tanh, a norm after each layer, or Residual.",
)
def gradients_vanish(chart: Chart) -> Evidence | None:
    """Gradients fall by the same factor from layer to layer, towards the first."""
    if chart.recorded < 3 or len(chart.chain) < 4:
        return None
    rows = chart.values("activation_gradient_norm")[-12:, chart.chain].astype(np.float64)
    rows = rows[(np.isfinite(rows) & (rows > 0)).all(axis=1)]
    if len(rows) < 3:
        return None
    depth = np.arange(rows.shape[1], dtype=np.float64)
    falls, errors = zip(*(_slope(depth, np.log(row)) for row in rows), strict=True)
    ratio = float(np.median(np.exp(-np.array(falls) * (len(depth) - 1))))
    # Where nothing is learnt, less is enough.
    unlearnt = chart.step >= _STEPS and chart.left > _UNLEARNT
    if ratio >= (_FALL_UNLEARNT if unlearnt else _FALL) or np.median(errors) <= _ERRORS:
        return None
    text = f"gradients fall {1 / ratio:.1g}-fold from the last layer to the first"
    squashes = [
        layer
        for stage in chart.stages
        for layer in stage.layers
        if isinstance(layer, Sigmoid | Tanh)
    ]
    if squashes:
        text += f", through {len(squashes)} × {type(squashes[0]).__name__}"
    return Evidence(text, chart.recording.layers[chart.chain[0]], {"ratio": ratio})


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the slope of y against x, and how many standard errors that is from 0."""
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    error = math.sqrt(max(float(rest @ rest), 1e-12) / (len(x) - 2) / float(x @ x))
    return slope, slope / error
