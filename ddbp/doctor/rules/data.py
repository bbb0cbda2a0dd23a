"""Diseases of the data, which are told exactly."""

import math

from ddbp.doctor.chart import Chart
from ddbp.doctor.rule import Evidence, rule

_ENTROPY = 0.5
_RMS = 8.0
_APART = 2.0


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
    'Weigh the labels: fit(…, class_weight="balanced").',
)
def imbalance(chart: Chart) -> Evidence | None:
    """A few labels make up nearly all of the data."""
    data = chart.training
    if data is None or not chart.of_classes or data.classes < 2 or chart.weighted:
        return None
    share = data.entropy / math.log(data.classes)
    if share >= _ENTROPY:
        return None
    text = f"{data.most:.0%} of the labels are the same, of {data.classes}"
    return Evidence(text, numbers={"most": data.most, "entropy": share})


@rule(
    "Inputs far from the order of 1 saturate units, and make steps of the first layer too large.",
    "Standardise the inputs: x = (x - mean) / std, both of the training data.",
)
def inputs_not_normalised(chart: Chart) -> Evidence | None:
    """The inputs are large, and no layer normalises them."""
    data = chart.training
    if data is None or not data.rms > _RMS or chart.normalises_inputs:
        return None
    return Evidence(
        f"the root mean square of the inputs is {data.rms:.3g}", numbers={"rms": data.rms}
    )


@rule(
    "Squared errors of large targets give gradients that drive the weights away.",
    "Standardise the targets: y = (y - mean) / std, and undo that when you predict.",
)
def targets_not_scaled(chart: Chart) -> Evidence | None:
    """Targets of a squared error are large."""
    data = chart.training
    if data is None or not chart.of_squares or not data.target_rms > _RMS:
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
