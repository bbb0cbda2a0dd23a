"""The rules of other diagnosers, written anew from their published thresholds, on our records.

Each diagnoser is a function from a record to its checks: by the name of a rule whether that held,
one entry for each time that it looked. A rule alarms if it held once; `FITS` says which diseases an
alarm may stand for, generously.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

import numpy as np

from .records import OfLayer, OfStep, Record

Checks = dict[str, list[bool]]


def sagemaker(record: Record) -> Checks:
    """Amazon SageMaker Debugger's built-in rules with their defaults: awsdocs,
    amazon-sagemaker-developer-guide, doc_source/debugger-built-in-rules.md (commit c6db92f).

    LossNotDecreasing has no default share by which the loss must fall; here it must fall at all
    within num_steps = 10. DeadRelu, SaturatedActivation: more than half of the units of a layer.
    """
    found = _empty(
        "VanishingGradient",
        "ExplodingTensor",
        "DeadRelu",
        "SaturatedActivation",
        "PoorWeightInitialization",
        "WeightUpdateRatio",
        "AllZero",
        "UnchangedTensor",
        "LossNotDecreasing",
    )
    losses, unchanged = record.losses, 0
    found["ExplodingTensor"].append(record.stopped)
    for each in record.steps:
        weights = each.parameters
        found["VanishingGradient"].append(any(w.gradient_mean < 1e-7 for w in weights))
        found["ExplodingTensor"].append(not _finite(each, losses))
        found["DeadRelu"].append(any(y.silent_units > 0.5 for y in _of(each, "ReLU")))
        found["SaturatedActivation"].append(_beyond(each, "sagemaker") > 0.5)
        if each.step <= 10 and weights:
            variances = [w.variance for w in weights]
            narrow = any(w.gradient_range < 1e-3 for w in weights)
            apart = max(variances) / max(min(variances), 1e-30) > 10
            found["PoorWeightInitialization"].append(apart or narrow)
        ratios = [w.update / (w.norm + 1e-9) for w in weights]
        found["WeightUpdateRatio"].append(any(not 1e-8 <= ratio <= 10 for ratio in ratios))
        found["AllZero"].append(any(w.gradient_zeros == 1 for w in weights))
        still = any(w.update <= 1e-5 * w.norm + 1e-8 for w in weights)
        unchanged = unchanged + 1 if still else 0
        found["UnchangedTensor"].append(unchanged >= 3)
        if each.step >= 10:
            falls = losses[each.step] < losses[each.step - 10]
            found["LossNotDecreasing"].append(not falls)
    found["Overfit"] = [
        each.validation_loss - each.loss > 0.1 * max(each.loss, 1e-12) for each in record.epochs
    ]
    if record.classes > 1:
        least = min(record.shares)
        found["ClassImbalance"] = [max(record.shares) > 10 * least]
    if record.options.family == "cnn" and record.inputs is not None:
        found["CheckInputImages"] = [abs(record.inputs[0]) > 0.2]
    return found


def autotrainer(record: Record) -> Checks:
    """AUTOTRAINER (Zhang et al. 2021, ICSE): shiningrain/AUTOTRAINER, AutoTrainer/utils/monitor.py.

    Once the accuracy is 0.6 the training has converged, and nothing is looked for.
    """
    found = _empty("vanish", "explode", "dying", "oscillating", "slow")
    accuracies = [each.accuracy for each in record.epochs]
    if not record.stopped and max(accuracies, default=0.0) >= 0.6:
        return found
    found["explode"].append(record.stopped)
    for each in record.steps:
        weights = each.parameters
        if not weights:
            continue
        first, last = weights[0].gradient_norm, weights[-1].gradient_norm
        ratio = first / max(last, 1e-30)
        found["vanish"].append(ratio < 1e-3 and first < 1e-4)
        large = ratio > 70 or record.losses[each.step] >= 1e3
        found["explode"].append(large or not _finite(each, record.losses))
        found["dying"].append(any(w.gradient_zeros >= 0.7 for w in weights))
    if record.classes:
        steps = np.diff(accuracies)
        swings = np.sum((np.abs(steps[:-1]) >= 0.03) & (steps[:-1] * steps[1:] < 0))
        found["oscillating"].append(bool(len(steps) > 1 and swings >= 0.2 * len(accuracies)))
        found["slow"].append(bool(len(steps) > 0 and steps.max() < 0.01))
    return found


def deepdiagnosis(record: Record) -> Checks:
    """DeepDiagnosis (Wardat et al. 2022, ICSE): its callbacks.py."""
    found = _empty("dead", "saturated", "vanishing", "variance", "rate", "numerical")
    found["numerical"].append(record.stopped)
    for each in record.steps:
        found["dead"].append(any(y.not_positive >= 0.7 for y in _of(each, "ReLU")))
        found["saturated"].append(_beyond(each, "deepdiagnosis") > 0.5)
        found["vanishing"].append(any(w.gradient_mean < 1e-7 for w in each.parameters))
        variances = [y.deviation**2 for y in each.layers]
        found["variance"].append(any(not 1e-5 <= variance <= 10 for variance in variances))
        found["numerical"].append(not _finite(each, record.losses))
    found["rate"].append(not 1e-5 <= record.options.rate <= 1e-1)
    return found


def umlaut(record: Record) -> Checks:
    """UMLAUT (Schoop et al. 2021, CHI): its heuristics.py."""
    o, epochs = record.options, record.epochs
    found: Checks = {}
    if record.inputs is not None:
        _, least, largest = record.inputs
        found["inputs beyond 1"] = [least < -1 or largest > 1]
    found["loss not finite"] = [record.stopped]
    found["rate"] = [o.rate > 0.01 or o.rate < 1e-7]
    found["overfitting"] = [
        later.validation_loss > each.validation_loss and later.loss <= each.loss
        for each, later in pairwise(epochs)
    ]
    if record.classes:
        found["accuracy too high"] = [
            each.validation_accuracy > 0.95 or each.validation_accuracy > each.accuracy + 0.05
            for each in epochs
        ]
        found["softmax"] = [o.softmax]
    found["no activation"] = [o.linear]
    found["dropout"] = [o.dropout > 0.5]
    return found


def deepchecker(record: Record) -> Checks:
    """TheDeepChecker (Ben Braiek and Khomh 2022): deep_checker/config/settings.yaml; without its
    check of a single batch in 1,000 steps.
    """
    found = _empty(
        "initial loss",
        "labels",
        "dead",
        "saturated",
        "deviation",
        "vanishing",
        "exploding",
        "dead weights",
        "update ratio",
        "loss",
        "fluctuating",
    )
    losses = np.array(record.losses)
    if record.classes > 1 and not record.options.squares:
        most = math.log(record.classes)
        shares = np.array(record.shares)
        entropy = -float(np.sum(shares * np.log(np.maximum(shares, 1e-30))))
        if len(losses):
            found["initial loss"].append(bool(abs(losses[0] - most) > most))
        found["labels"].append(entropy < 0.5 * most)
    for each in record.steps:
        weights = each.parameters
        found["dead"].append(any(y.tiny_units > 0.5 for y in _of(each, "ReLU")))
        found["saturated"].append(_beyond(each, "deepchecker") > 0.85)
        activations = _of(each, "ReLU", "Tanh", "Sigmoid", "GELU", "SiLU")
        found["deviation"].append(any(not 0.5 <= y.deviation <= 2 for y in activations))
        found["vanishing"].append(any(w.gradient_mean < 1e-6 for w in weights))
        found["exploding"].append(any(not w.gradient_mean <= 1e6 for w in weights))
        found["dead weights"].append(any(w.tiny > 0.95 for w in weights))
        ratios = [
            math.log10(max(w.update, 1e-30) / max(w.norm, 1e-30))
            if math.isfinite(w.update)
            else math.inf
            for w in weights
        ]
        found["update ratio"].append(any(not -4 <= ratio <= -1 for ratio in ratios))
    found["exploding"].append(record.stopped)
    for i in range(10, len(losses), 5):
        before, window = losses[i - 10 : i - 5].mean(), losses[i - 5 : i].mean()
        found["loss"].append(not window <= 0.95 * before)
    for i in range(50, len(losses), 10):
        steps = np.diff(losses[i - 50 : i])
        found["fluctuating"].append(bool(np.mean(steps[1:] * steps[:-1] < 0) > 0.5))
    return found


def _empty(*names: str) -> Checks:
    return {name: [] for name in names}


def _finite(step: OfStep, losses: list[float]) -> bool:
    norms = [w.gradient_norm for w in step.parameters]
    finite = all(y.finite for y in step.layers)
    return finite and all(map(math.isfinite, [*norms, losses[step.step]]))


def _of(step: OfStep, *kinds: str) -> list[OfLayer]:
    return [y for y in step.layers if y.kind in kinds]


def _beyond(step: OfStep, name: str) -> float:
    """Return the largest share of saturated outputs of a layer."""
    return max((y.beyond[name] for y in step.layers if y.beyond), default=0.0)


PEERS: Mapping[str, Callable[[Record], Checks]] = {
    "SageMaker Debugger": sagemaker,
    "AUTOTRAINER": autotrainer,
    "DeepDiagnosis": deepdiagnosis,
    "UMLAUT": umlaut,
    "TheDeepChecker": deepchecker,
}

_HIGH = {
    "rate too high",
    "rate swings",
    "too much momentum",
    "sum for mean",
    "gradient flipped",
    "gradients not cleared",
    "clipping missing",
}
_LOW = {
    "rate too low",
    "loss scaled down",
    "decays by steps, not epochs",
    "warm-up without end",
    "large epsilon",
    "always clipped",
    "underflow",
}
_EXPLODE = {
    "exploding activations",
    "saturated units",
    "large last layer",
    "inputs not normalised",
    "column not normalised",
    "targets not scaled",
}
_VANISH = {
    "vanishing gradients",
    "vanishing through time",
    "saturated units",
    "saturated gates",
    "attention saturated",
    "dead units",
    "weights of zero",
    "gradient cut",
    "underflow",
    "loss scaled down",
    "inputs divided twice",
}
_DEAD = {"dead units", "weights of zero", "output squashed", "rate too high", "sum for mean"}
_SQUASHED = {"saturated units", "squared error of classes", "output squashed"}
_STILL = {"layer that idles", "frozen by accident", "stale parameters", "gradient cut"}
_UNLEARNABLE = {
    "constant input",
    "shuffled labels",
    "labels shifted by one",
    "drowned in noise",
    "sorted data",
}
_GAP = {
    "few samples",
    "shuffled labels",
    "labels shifted by one",
    "validation scaled otherwise",
    "drowned in noise",
    "stale statistics",
    "tiny batch norm",
    "one label",
    "equal seeds of loaders",
}
_LABELS = {"rare labels", "one label", "padding counted"}
FITS: Mapping[str, Mapping[str, set[str]]] = {
    "SageMaker Debugger": {
        "VanishingGradient": _VANISH,
        "ExplodingTensor": _HIGH | _EXPLODE | {"missing values"},
        "DeadRelu": _DEAD,
        "SaturatedActivation": _SQUASHED,
        "PoorWeightInitialization": _EXPLODE | _VANISH | {"equal weights"},
        "WeightUpdateRatio": _HIGH | _LOW | _STILL,
        "AllZero": _STILL | _DEAD | {"underflow"},
        "UnchangedTensor": _STILL | _LOW,
        "LossNotDecreasing": _HIGH | _LOW | _UNLEARNABLE | {"too much decay"},
        "Overfit": _GAP,
        "ClassImbalance": _LABELS,
        "CheckInputImages": {"inputs not normalised", "column not normalised"},
    },
    "AUTOTRAINER": {
        "vanish": _VANISH,
        "explode": _HIGH | _EXPLODE | {"missing values"},
        "dying": _DEAD | {"underflow"},
        "oscillating": _HIGH | {"sorted data"},
        "slow": _LOW | _UNLEARNABLE | {"too much decay", "too much dropout"},
    },
    "DeepDiagnosis": {
        "dead": _DEAD,
        "saturated": _SQUASHED,
        "vanishing": _VANISH,
        "variance": _EXPLODE | {"inputs divided twice", "constant input", "weights of zero"},
        "rate": {"rate too high", "rate swings", "rate too low"},
        "numerical": _HIGH | _EXPLODE | {"missing values"},
    },
    "UMLAUT": {
        "inputs beyond 1": {"inputs not normalised", "column not normalised"},
        "loss not finite": _HIGH | _EXPLODE | {"missing values"},
        "rate": {"rate too high", "rate swings", "rate too low"},
        "overfitting": _GAP,
        "accuracy too high": set(),
        "softmax": {"softmax twice"},
        "no activation": {"linear network"},
        "dropout": {"too much dropout"},
    },
    "TheDeepChecker": {
        "initial loss": _EXPLODE | {"sum for mean", "loss scaled down"},
        "labels": _LABELS,
        "dead": _DEAD,
        "saturated": _SQUASHED,
        "deviation": _EXPLODE | _VANISH | {"inputs divided twice", "constant input"},
        "vanishing": _VANISH,
        "exploding": _HIGH | _EXPLODE,
        "dead weights": {"weights of zero", "too much decay"},
        "update ratio": _HIGH | _LOW | _STILL,
        "loss": _LOW | _UNLEARNABLE | {"too much decay", "too much dropout"},
        "fluctuating": _HIGH | {"sorted data"},
    },
}
"""By diagnoser and rule: the diseases that an alarm may stand for."""


def alarms(checks: Checks, least: float = 0.0) -> set[str]:
    """Return the rules that held in more than a share of their checks."""
    return {name for name, held in checks.items() if held and np.mean(held) > least}


def fits(peer: str, disease: str, raised: Iterable[str]) -> bool:
    """Return whether one of the alarms may stand for a disease."""
    return any(disease in FITS[peer][name] for name in raised)
