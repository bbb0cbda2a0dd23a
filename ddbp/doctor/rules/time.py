"""Diseases of where the time goes."""

import numpy as np

from ddbp.doctor.chart import Chart
from ddbp.doctor.rule import Evidence, rule

_SHARE = 0.3
_SECONDS = 2e-3
_ROWS = 8
_STEPS = 20
"""Of shorter epochs what comes between two of them is a large part."""


@rule(
    "The cores wait for data: training takes longer than it need.",
    "Prepare the samples once, before training, or make batches in another thread.",
)
def waits_for_data(chart: Chart) -> Evidence | None:
    """A good part of each step goes by between two steps, where batches are made."""
    if chart.recorded < _ROWS or chart.step < _STEPS * max(chart.epochs, 1):
        return None
    names = [name for name in chart.recording.quantities if name.startswith("seconds_")]
    # Summed, as of ranks there may be fewer than at other times: NaN for those.
    seconds = {name: np.nansum(chart.values(name)[-_ROWS:], axis=1) for name in names}
    ranks = np.isfinite(chart.values("seconds_data")[-_ROWS:]).sum(axis=1)
    whole = np.sum([*seconds.values()], axis=0) / np.maximum(ranks, 1)
    share = float(np.median(seconds["seconds_data"] / np.maximum(whole * ranks, 1e-12)))
    if not share > _SHARE or np.median(whole) < _SECONDS:
        return None
    text = f"{share:.0%} of the time goes by between steps"
    return Evidence(text, numbers={"share": share})
