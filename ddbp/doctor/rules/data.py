"""Diseases of the data, which are told exactly."""

import math

import numpy as np

from ddbp.doctor.chart import Chart
from ddbp.doctor.guess import counted, weighed
from ddbp.doctor.rule import Evidence, rule

_ENTROPY, _OF_SEQUENCES = 0.2, 0.5
_RMS, _OF_TARGETS = 16.0, 100.0
_TINY = 1e-4
_APART = 2.0
_WITHIN = 0.55
_BATCHES, _SAMPLES = 8, 4


@rule(
    "A model can only learn a constant from samples that do not differ.",
    "Look at how the inputs are read: print a few samples of the data set.",
)
def constant_input(chart: Chart) -> Evidence | None:
    """All samples are the same."""
    data = chart.training
    if data is None or not data.alike:
        return None
    return Evidence(f"all of the {data.samples} samples are the same", numbers={"distinct": 1})


@rule(
    "The loss is least for a model that says the frequent label, whatever it sees.",
    'Weigh the labels: fit(…, class_weight="balanced"), and ignore padding: SoftmaxCrossEntropy('
    "ignore=…).",
)
def imbalance(chart: Chart) -> Evidence | None:
    """A few labels make up nearly all of the data."""
    data = chart.training
    if data is None or not chart.of_classes or not data.classes or chart.weighted:
        return None
    shares = weighed(chart.loss, *counted(chart.loss, data.labels, data.counts))
    shares = shares[shares > 0]
    if not len(shares):
        return None
    most = float(shares.max())
    if len(shares) == 1:
        return Evidence("all labels are the same", numbers={"most": 1.0, "entropy": 0.0})
    share = float(-(shares * np.log(shares)).sum()) / math.log(len(shares))
    if share >= (_OF_SEQUENCES if data.several else _ENTROPY):
        return None
    text = f"{most:.0%} of the labels are the same, of {len(shares)}"
    numbers = {"most": most, "entropy": share}
    if data.several:
        return Evidence(text, numbers=numbers)
    return Evidence(text, numbers=numbers, changes={"class_weight": "balanced"})


@rule(
    "Inputs far from the order of 1 saturate units, or make steps of the first layer wild or tiny.",
    "Standardise the inputs: x = (x - mean) / std, both of the training data.",
)
def inputs_not_normalised(chart: Chart) -> Evidence | None:
    """The inputs are large or tiny, and so is what reaches the first weights."""
    data = chart.training
    if data is None or chart.normalises_inputs:
        return None
    if not all(rms > _RMS or 0 < rms < _TINY for rms in (data.rms, chart.input_rms)):
        return None
    return Evidence(
        f"the root mean square of the inputs is {data.rms:.3g}", numbers={"rms": data.rms}
    )


@rule(
    "Squared errors of large targets give gradients that drive the weights away.",
    "Standardise the targets: y = (y - mean) / std, and undo that when you predict.",
)
def targets_not_scaled(chart: Chart) -> Evidence | None:
    """Targets of a squared error are large, and so must be what the last layer puts out."""
    data = chart.training
    if data is None or not chart.of_squares or not data.target_rms > _OF_TARGETS:
        return None
    if chart.asked is not None and not chart.asked > _OF_TARGETS:
        return None
    text = f"the root mean square of the targets is {data.target_rms:.3g}"
    return Evidence(text, numbers={"rms": data.target_rms})


@rule(
    "The validation measures another problem than that which is learnt.",
    "Apply the same preparation, with the numbers of the training data, to both sets.",
)
def validation_scaled_otherwise(chart: Chart) -> Evidence | None:
    """Inputs of training and validation are of other sizes or places."""
    data, other = chart.training, chart.validation
    if data is None or other is None or not (data.std > 0 and other.std > 0):
        return None
    times = other.std / data.std
    apart = abs(other.mean - data.mean) / data.std
    if 1 / _APART <= times <= _APART and apart <= _APART:
        return None
    text = (
        f"inputs are {data.mean:.3g} ± {data.std:.3g} in training and"
        f" {other.mean:.3g} ± {other.std:.3g} in validation"
    )
    return Evidence(text, numbers={"times": times, "apart": apart})


@rule(
    "Each batch pulls the model to what its own samples have in common, away from the others.",
    "Shuffle the samples: let fit or batches draw them, or permute them in each epoch.",
)
def data_sorted(chart: Chart) -> Evidence | None:
    """The targets within a batch are far more alike than those of all batches."""
    means, spreads = (chart.of_run(f"target_{name}")[-40:] for name in ("mean", "std"))
    steps = chart.recording.steps[-40:]
    known = np.isfinite(means) & np.isfinite(spreads) & (steps >= chart.since[0])
    within = np.square(spreads[known].astype(np.float64))
    samples = chart.options.batch_size
    if len(within) < _BATCHES or samples < _SAMPLES:
        return None
    # Of batches drawn at random the expectation is that of the whole.
    whole = within.mean() + means[known].astype(np.float64).var()
    shares = within / whole / (1 - 1 / samples)
    if not shares.mean() < _WITHIN or np.mean(shares < _WITHIN) < 0.9:
        return None
    text = f"the variance of targets within a batch is {shares.mean():.0%} of that of all"
    return Evidence(text, numbers={"share": float(shares.mean())})
