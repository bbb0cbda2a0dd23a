"""Diseases of the size of steps, and of what comes of them."""

import math

import numpy as np

from ddbp.doctor.chart import EARLY, Chart
from ddbp.doctor.rule import Evidence, rule
from ddbp.optim.adam import Adam
from ddbp.optim.rmsprop import RMSProp
from ddbp.optim.sgd import SGD

from . import signal

_EPSILON = 0.01
_CLIPPED = 0.05
_FACTOR = 8.0
_JUMPS = 5
_PENALTY, _SHRUNK, _SHRUNK_EARLY = 0.03, 0.8, 0.5
_GROWTH = 2.0
_STUCK, _UNLEARNT = 0.85, 0.95
_LOW, _USUAL, _FASTER = 1e-4, 1e-3, 30.0
_SCHEDULED = 0.1
_COHERENT = 5.0
_GAP, _TIMES = 0.35, 30.0
_LEAST_STEPS, _STEPS = 16, 60
_MANY_STEPS = 200
_LEARNT = 0.1


@rule(
    "Where epsilon outweighs the gradients, the adaptive rate is gone and steps are tiny.",
    "Use the usual epsilon=1e-8.",
)
def epsilon_large(chart: Chart) -> Evidence | None:
    """Updates of Adam or RMSProp are far below the learning rate, and epsilon makes them so."""
    if not isinstance(chart.optimizer, Adam | RMSProp) or chart.step < _LEAST_STEPS:
        return None
    rate = chart.learning_rate
    columns = chart.weight_columns
    if not columns or rate <= 0 or not chart.left > 0.1:
        return None
    sizes = np.array([chart.weights[chart.recording.parameters[i]][0] for i in columns])
    updates = chart.values("update_norm")[-8:, columns] / (rate * np.sqrt(sizes))
    size = float(np.nanmedian(np.nanmax(updates, axis=1)))
    epsilon: float = chart.optimizer.epsilon
    gradients = chart.values("gradient_norm")[-8:, columns] / np.sqrt(sizes)
    outweighs = 0 < 0.1 * float(np.nanmedian(np.nanmax(gradients, axis=1))) < epsilon
    if not (outweighs and 0 < size < _EPSILON):
        return None
    text = f"updates are {size:.1g} of the learning rate, with epsilon={epsilon:g}"
    numbers = {"size": size, "epsilon": epsilon}
    return Evidence(text, numbers=numbers, changes={"epsilon": 1e-8})


@rule(
    "Each step is cut to a small part of the gradient: that is a lower learning rate in disguise.",
    "Raise clip_norm to about the usual norm of the gradient.",
)
def clips_always(chart: Chart) -> Evidence | None:
    """Nearly all gradients of plain SGD are clipped, to a small part."""
    clip = chart.options.clip_norm
    if clip is None or not isinstance(chart.optimizer, SGD) or chart.recorded < 4:
        return None
    norms = chart.whole_gradients[-8:]
    part = clip / float(np.median(norms)) if np.median(norms) > 0 else 1.0
    if np.mean(norms > clip) <= 0.95 or part >= _CLIPPED:
        return None
    text = f"clip_norm={clip:g} leaves {part:.1g} of the gradient, in every step"
    changes = {"clip_norm": float(f"{float(np.median(norms)):.1g}")}
    return Evidence(text, numbers={"part": part}, changes=changes)


@rule(
    "The penalty outweighs the data: weights shrink to where little can be told.",
    "Divide weight_decay (or l2) by 100.",
)
def decay_high(chart: Chart) -> Evidence | None:
    """Weights shrink under a penalty that is a good part of the gradient, or of each step, and
    little is learnt.
    """
    penalty = chart.options.l2 + chart.optimizer.weight_decay
    if not penalty or chart.step < _LEAST_STEPS or not chart.left > 0.15:
        return None
    columns = chart.weight_columns
    if not columns or not chart.from_beginning:
        return None
    norms = chart.values("parameter_norm")[:, columns]
    whole = np.sqrt(np.nansum(np.square(norms), axis=1))
    gradients = chart.whole_gradients[-8:]
    share = float(np.median(penalty * whole[-8:] / np.maximum(gradients, 1e-30)))
    if chart.optimizer.decoupled and not chart.options.l2:
        # So much is taken from the weights in each step.
        share = penalty * chart.learning_rate
    shrunk = float(np.median(whole[-8:]) / whole[0]) if whole[0] > 0 else 1.0
    if share <= _PENALTY or shrunk >= (_SHRUNK if chart.step >= _STEPS else _SHRUNK_EARLY):
        return None
    of = "the weights in each step" if chart.optimizer.decoupled else "the gradient"
    text = f"the penalty is {share:.2g} of {of}, and weights have {shrunk:.0%} of their norm"
    numbers = {"share": share, "shrunk": shrunk}
    penalties = {"l2": chart.options.l2, "weight_decay": chart.optimizer.weight_decay}
    changes = {name: float(f"{value / 100:.1g}") for name, value in penalties.items() if value}
    return Evidence(text, numbers=numbers, changes=changes)


@rule(
    "The loss is not the mean over the samples, and steps of SGD are off by as much.",
    "Leave the factor out: losses are means already.",
)
def loss_scaled(chart: Chart) -> Evidence | None:
    """The loss is multiplied by a number, and steps are too large, or too small, for that."""
    factor = abs(chart.factor)
    if not 0 < factor < math.inf or 1 / _FACTOR <= factor <= _FACTOR:
        return None
    harms = [epsilon_large]
    if isinstance(chart.optimizer, SGD):
        too_large = [rate_high, rate_swings, signal.units_die, clips_always]
        harms = too_large if factor > 1 else [rate_low, signal.gradients_vanish]
    if not any(each.look(chart) for each in harms):
        return None
    text = f"the loss of {chart.loss!r} is multiplied by {factor:.3g}"
    return Evidence(text, numbers={"factor": factor}, changes=chart.rate_times(1 / factor))


@rule(
    "Gradients grow at times by orders of magnitude, and one step undoes what many have learnt.",
    "Limit them: clip_norm=1.0, or about the usual norm of the gradient.",
)
def clipping_missing(chart: Chart) -> Evidence | None:
    """A recurrence is trained by SGD without a limit, and some steps are too large for the weights,
    or the loss jumps.
    """
    options, norms = chart.options, chart.whole_gradients
    limited = options.clip_norm is not None or options.clip_value is not None
    if limited or not chart.recurs or not isinstance(chart.optimizer, SGD) or len(norms) < 3:
        return None
    usual = float(np.median(norms))
    times = float(norms.max()) / usual if usual > 0 else 1.0
    jumps = chart.jumps
    wild = any(each.look(chart) for each in (rate_high, rate_swings))
    if not (wild or jumps >= _JUMPS):
        return None
    text = f"gradients are up to {times:.3g} times the usual"
    text += f", and the loss jumped in {jumps} steps" if jumps else ""
    changes = {"clip_norm": float(f"{min(1.0, usual / 2):.1g}")}
    return Evidence(text, numbers={"times": times, "jumps": float(jumps)}, changes=changes)


@rule(
    "Steps are larger than the weights can bear: they grow, and what was learnt is lost.",
    "Divide the learning rate by 10.",
)
def rate_high(chart: Chart) -> Evidence | None:
    """The loss is not finite, or weights multiply early while the loss stays high or rises."""
    changes = chart.rate_times(0.1)
    if not chart.finite:
        if not chart.step:
            return None
        numbers = {"learning_rate": chart.learning_rate}
        return Evidence(f"the loss was not finite by step {chart.step}", "", numbers, changes)
    if chart.step < _LEAST_STEPS or not chart.from_beginning:
        return None
    grown = chart.growth > _GROWTH
    start = float(np.median(chart.begun[:8]))
    rose = chart.recent > 1.15 * start and chart.left > _UNLEARNT
    stuck = grown and chart.left > _STUCK
    # A slow start passes by; weights that have grown do not.
    lasts = chart.early > 0.02 if grown else chart.step >= _STEPS and chart.early > 0.08
    if not (stuck or (rose and lasts)):
        return None
    text = (
        f"weights grew {chart.growth:.1f}-fold within {min(chart.step, EARLY)} steps, an update is"
        f" {chart.early:.2g} of them, and the loss is {chart.recent:.3g} after {start:.3g}"
    )
    return Evidence(text, numbers={"growth": chart.growth, "update": chart.early}, changes=changes)


@rule(
    "It learns, but with steps so large that it swings about what it could reach.",
    "Divide the learning rate by 5.",
)
def rate_swings(chart: Chart) -> Evidence | None:
    """Weights multiply early, and the loss falls nevertheless, but slowly."""
    if not chart.finite or chart.step < _LEAST_STEPS or not chart.growth > _GROWTH:
        return None
    # A single layer may grow as far as it must; what is learnt is learnt, and what falls with each
    # step does not swing.
    if len(chart.chain) < 2 or not chart.left >= _LEARNT or chart.falls_steadily:
        return None
    text = f"weights grew {chart.growth:.1f}-fold within {min(chart.step, EARLY)} steps"
    return Evidence(text, numbers={"growth": chart.growth}, changes=chart.rate_times(0.2))


@rule(
    "Steps are so small that training takes far longer than it need.",
    "Multiply the learning rate such that an update is a thousandth of the weights.",
)
def rate_low(chart: Chart) -> Evidence | None:
    """Updates are tiny against the weights, and the loss is still high; or they are small, and the
    loss is still that of a constant guess though gradients of shards agree.
    """
    if not chart.finite or chart.step < _STEPS or not chart.left > 0.3:
        return None
    if not (chart.from_beginning and 0 < chart.ratio < (_USUAL if _slow(chart) else _LOW)):
        return None
    text = f"an update is {chart.ratio:.1g} of the weights, and the loss is {chart.recent:.3g}"
    base = chart.optimizer.schedule.base_rate
    part = chart.learning_rate / (chart.optimizer.factor * base)
    changes = chart.rate_times(max(_FASTER, part * _USUAL / chart.ratio))
    if part < _SCHEDULED:
        text += f"; the schedule has the rate {chart.learning_rate:.1g} instead of {base:.1g}"
        changes = {"schedule": None}
    return Evidence(text, numbers={"update": chart.ratio}, changes=changes)


def _unlearnt(chart: Chart) -> bool:
    """Return whether the loss is that of a constant guess after two epochs and half of the run."""
    return chart.late and chart.left > _UNLEARNT


def _slow(chart: Chart) -> bool:
    """Return whether nothing is learnt though shards agree on where to go."""
    return _unlearnt(chart) and (chart.coherence() or 0.0) >= _COHERENT


@rule(
    "In two epochs and half of the run nothing was found that inputs tell of the targets.",
    "Look whether inputs and targets belong together: shuffled apart, or shifted by one?",
)
def learns_nothing(chart: Chart) -> Evidence | None:
    """The loss is that of a constant guess while weights move, and gradients of shards have nothing
    in common or, where that is not known, it falls no more after many steps.
    """
    if not chart.finite or not _unlearnt(chart):
        return None
    if chart.ratio < 2 * _LOW or not chart.from_beginning:
        return None
    agreement = chart.coherence()
    unknown = chart.step < _MANY_STEPS or chart.falls
    if unknown if agreement is None else agreement >= _COHERENT:
        return None
    text = f"the loss is {chart.recent:.3g}, that of the best constant {chart.base:.3g}"
    return Evidence(text, numbers={"loss": chart.recent, "base": chart.base})


@rule(
    "The samples are learnt by heart: what was learnt does not hold for others.",
    "Use more data, dropout, weight_decay, or EarlyStopping().",
)
def overfits(chart: Chart) -> Evidence | None:
    """The loss of validation is far above that of training, twice running."""
    last = [each for each in chart.records if "validation_loss" in each][-2:]
    if len(last) < 2 or not np.isfinite(chart.base):
        return None
    for record in last:
        loss, validation = record["loss"], record["validation_loss"]
        if not (validation - loss > _GAP * chart.base and validation > _TIMES * loss):
            return None
    loss, validation = last[-1]["loss"], last[-1]["validation_loss"]
    text = f"the loss is {loss:.2g} in training and {validation:.2g} in validation"
    return Evidence(text, numbers={"training": loss, "validation": validation})
