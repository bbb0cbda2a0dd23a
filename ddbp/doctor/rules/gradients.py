"""Diseases of gradients on their way from the layers to the parameters, most of them exact."""

import numpy as np

from ddbp.doctor.chart import Chart
from ddbp.doctor.rule import Evidence, rule

_UPWARDS, _SHARE = 0.05, 0.9
_EXCESS, _KEPT = 0.02, 0.995
_LAST = 12
_ROWS = 3
_LOST = 0.5
_UNMOVED, _LEARNT = 0.9, 0.3


@rule(
    "Each step goes up the gradient: the loss rises as fast as it can.",
    "Look for a sign that is wrong: in transforms=, in an optimizer or in a loss of your own.",
)
def gradient_flipped(chart: Chart) -> Evidence | None:
    """Updates and gradients point the same way."""
    # Where training ends at once, there are no more.
    least = _ROWS if chart.finite else 1
    found = chart.cosines[np.isfinite(chart.cosines)][-40:]
    if len(found) < least or np.mean(found > 0) < _SHARE or found.mean() <= _UPWARDS:
        return None
    text = f"the cosine of updates and gradients is {found.mean():.2f} on average"
    return Evidence(text, numbers={"cosine": float(found.mean())})


@rule(
    "Each step follows the gradients of all steps before it, whose weights are long gone.",
    "Look for what adds to gradients: a second backward, a layer of your own that adds where it"
    " should overwrite, a transform that keeps what it has got.",
)
def gradient_not_cleared(chart: Chart) -> Evidence | None:
    """Gradients contain more than those of the step."""
    for name, most in (("gradient_excess", _EXCESS), ("gradient_kept", _KEPT)):
        found = chart.of_run(name)[1:][-_LAST:]
        found = found[np.isfinite(found)]
        if len(found) < _ROWS - 1 or np.median(found) <= most:
            continue
        share = float(np.median(found))
        text = f"transforms add {share:.0%} of the step before"
        if name == "gradient_excess":
            text = f"the gradient of the last bias is off by {share:.2g} of what it must be"
        return Evidence(text, numbers={"share": share})
    return None


@rule(
    "All shards have the same samples: a batch is worth one of them, and the rest is time lost.",
    "Give each rank and worker samples of its own: draw them by seed and rank, or pass the whole"
    " batch to train_step, which cuts it.",
)
def shards_alike(chart: Chart) -> Evidence | None:
    """The gradients of all shards are of the same norm, to the last bit."""
    found = chart.values("shard_gradient_norm")[-_LAST:]
    if len(found) < _ROWS or found.shape[1] < 2:
        return None
    if not ((found > 0) & np.isfinite(found) & (found == found[:, :1])).all():
        return None
    text = f"all {found.shape[1]} shards have the same gradient, in {len(found)} steps running"
    return Evidence(text, numbers={"shards": float(found.shape[1])})


@rule(
    "What is too small for the type of its numbers is 0, and what it would have taught is lost.",
    "Scale the loss up where gradients are cast (and down again after), use bfloat16, or"
    " raise the learning rate if it is the updates that are small.",
)
def underflows(chart: Chart) -> Evidence | None:
    """Gradients become 0 where they are cast, or updates where they are added."""
    if chart.recorded < _ROWS + 1:
        return None
    lost = chart.of_run("gradient_lost")[-_LAST:]
    lost = lost[np.isfinite(lost)]
    if len(lost) >= _ROWS and np.median(lost) > _LOST:
        share = float(np.median(lost))
        return Evidence(f"{share:.0%} of the gradient's numbers become 0", numbers={"share": share})
    columns = chart.weight_columns
    if not columns or chart.left < _LEARNT:
        return None
    # The first bin: zeros, and what is below all powers of two that are counted. Of all steps, as
    # schedules may end, or begin, with a rate of next to nothing.
    updates, gradients = (
        np.median(chart.values(f"{name}_histogram")[:, columns, 0], axis=0)
        for name in ("update", "gradient")
    )
    share = float(np.median((updates - gradients) / np.maximum(1 - gradients, _LOST)))
    if not share > _UNMOVED:
        return None
    text = f"{share:.0%} of the weights stay as they are, which have gradients"
    return Evidence(text, numbers={"share": share})
