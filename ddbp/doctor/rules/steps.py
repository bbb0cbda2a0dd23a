"""Diseases of the size of steps, and of what comes of them."""

import numpy as np

from ddbp.doctor.chart import EARLY, Chart
from ddbp.doctor.rule import Evidence, rule
from ddbp.optim.adam import Adam
from ddbp.optim.rmsprop import RMSProp
from ddbp.optim.sgd import SGD

_EPSILON = 0.01
_CLIPPED = 0.05
_PENALTY, _SHRUNK = 0.03, 0.8
_GROWTH = 2.0
_STUCK, _UNLEARNT = 0.85, 0.95
_LOW = 1e-4
_COHERENT = 5.0
_GAP, _TIMES = 0.35, 30.0
_LEAST_STEPS, _STEPS = 16, 60
_EPOCHS = 2
_MANY_STEPS = 200


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
    if not columns or rate <= 0 or not chart.recent > 0.1 * chart.base:
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
    return Evidence(text, numbers={"size": size, "epsilon": epsilon})


@rule(
    "Each step is cut to a small part of the gradient: that is a lower learning rate in disguise.",
    "Raise clip_norm to about the usual norm of the gradient.",
)
def clips_always(chart: Chart) -> Evidence | None:
    """Nearly all gradients of plain SGD are clipped, to a small part."""
    clip = chart.options.clip_norm
    if clip is None or not isinstance(chart.optimizer, SGD) or chart.recorded < 4:
        return None
    norms = np.sqrt(np.nansum(np.square(chart.values("gradient_norm")[-8:]), axis=1))
    part = clip / float(np.median(norms)) if np.median(norms) > 0 else 1.0
    if np.mean(norms > clip) <= 0.95 or part >= _CLIPPED:
        return None
    text = f"clip_norm={clip:g} leaves {part:.1g} of the gradient, in every step"
    remedy = f"Try clip_norm={float(np.median(norms)):.1g}."
    return Evidence(text, numbers={"part": part}, remedy=remedy)


@rule(
    "The penalty outweighs the data: weights shrink to where little can be told.",
    "Divide weight_decay (or l2) by 100.",
)
def decay_high(chart: Chart) -> Evidence | None:
    """Weights shrink under a penalty that is a good part of the gradient, and little is learnt."""
    penalty = chart.options.l2 + (0 if chart.optimizer.decoupled else chart.optimizer.weight_decay)
    if not penalty or chart.step < _STEPS or not chart.recent > 0.15 * chart.base:
        return None
    columns = chart.weight_columns
    if not columns or not chart.from_beginning:
        return None
    norms = chart.values("parameter_norm")[:, columns]
    whole = np.sqrt(np.nansum(np.square(norms), axis=1))
    gradients = np.sqrt(np.nansum(np.square(chart.values("gradient_norm")), axis=1))
    share = float(np.median(penalty * whole[-8:] / np.maximum(gradients[-8:], 1e-30)))
    shrunk = float(np.median(whole[-8:]) / whole[0]) if whole[0] > 0 else 1.0
    if share <= _PENALTY or shrunk >= _SHRUNK:
        return None
    text = (
        f"the penalty is {share:.2g} of the gradient, and weights have {shrunk:.0%} of their norm"
    )
    return Evidence(text, numbers={"share": share, "shrunk": shrunk})


@rule(
    "Steps are larger than the weights can bear: they grow, and what was learnt is lost.",
    "Divide the learning rate by 10.",
)
def rate_high(chart: Chart) -> Evidence | None:
    """The loss is not finite, or weights multiply early while the loss stays high or rises."""
    remedy = f"Try a learning rate of {chart.learning_rate / 10:.1g}."
    if not chart.finite:
        if not chart.step:
            return None
        numbers = {"learning_rate": chart.learning_rate}
        return Evidence(f"the loss was not finite by step {chart.step}", "", numbers, remedy)
    if chart.step < _LEAST_STEPS or not chart.from_beginning:
        return None
    grown = chart.growth > _GROWTH
    start = float(np.median(chart.begun[:8]))
    rose = chart.recent > 1.15 * start and chart.recent > _UNLEARNT * chart.base
    stuck = grown and chart.recent > _STUCK * chart.base
    if not (stuck or (rose and chart.early > (0.02 if grown else 0.08))):
        return None
    text = (
        f"weights grew {chart.growth:.1f}-fold within {min(chart.step, EARLY)} steps, an update is"
        f" {chart.early:.2g} of them, and the loss is {chart.recent:.3g} after {start:.3g}"
    )
    return Evidence(text, numbers={"growth": chart.growth, "update": chart.early}, remedy=remedy)


@rule(
    "It learns, but with steps so large that it swings about what it could reach.",
    "Divide the learning rate by 5.",
)
def rate_swings(chart: Chart) -> Evidence | None:
    """Weights multiply early, and the loss falls nevertheless."""
    if not chart.finite or chart.step < _LEAST_STEPS or not chart.growth > _GROWTH:
        return None
    text = f"weights grew {chart.growth:.1f}-fold within {min(chart.step, EARLY)} steps"
    remedy = f"Try a learning rate of {chart.learning_rate / 5:.1g}."
    return Evidence(text, numbers={"growth": chart.growth}, remedy=remedy)


@rule(
    "Steps are so small that training takes far longer than it need.",
    "Multiply the learning rate by 30.",
)
def rate_low(chart: Chart) -> Evidence | None:
    """Updates are tiny against the weights, and the loss is still high."""
    if not chart.finite or chart.step < _STEPS or not chart.recent > 0.3 * chart.base:
        return None
    if not (chart.from_beginning and 0 < chart.ratio < _LOW):
        return None
    remedy = f"Try a learning rate of {30 * chart.learning_rate:.1g}."
    text = f"an update is {chart.ratio:.1g} of the weights, and the loss is {chart.recent:.3g}"
    return Evidence(text, numbers={"update": chart.ratio}, remedy=remedy)


@rule(
    "After two epochs nothing was found that inputs tell of the targets.",
    "Look whether inputs and targets belong together: shuffled apart, or shifted by one?",
)
def learns_nothing(chart: Chart) -> Evidence | None:
    """The loss is that of a constant guess while weights move, and gradients of shards have nothing
    in common or, where that is not known, it falls no more after many steps.
    """
    if not chart.finite or chart.step < _STEPS or chart.epochs < _EPOCHS:
        return None
    if not chart.recent > _UNLEARNT * chart.base or chart.ratio < 2 * _LOW:
        return None
    if not chart.from_beginning:
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
