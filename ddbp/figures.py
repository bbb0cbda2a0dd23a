"""Figures by matplotlib: of a history, a model summary and a gradient check."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from numbers import Real
from typing import Any

from layers.errors import message
from layers.gradient_check.report import GradientReport
from layers.model_summary import Summary

_WIDTH, _HEIGHT = 7.0, 0.28
"""Inches: of a figure, and of a bar in it."""
_MOST_BARS = 60
_NAMED = ("loss", "accuracy", "error", "score")
"""How the names of numbers end that become curves; the others are times and counts."""


def figure(thing: Any) -> Any:
    """Return a `matplotlib.figure.Figure`, which `savefig` writes to a file and notebooks show.

    Parameters
    ----------
    thing
        What `Trainer.fit` returns: its losses and metrics, epoch by epoch; a `layers.summary`:
        FLOPs and memory, layer by layer; or a `layers.GradientReport`: the error of each block.

    Raises
    ------
    ImportError
        matplotlib is not installed: `pip install "ddbp[report]"`.
    ValueError
        There is nothing to show.
    """
    if find_spec("matplotlib") is None:
        must = "the package matplotlib must be there"
        fix = 'Install it: pip install "ddbp[report]".'
        raise ImportError(message("figure", must, "none", fix))
    if isinstance(thing, Summary):
        return _bars(
            [row.name or row.layer for row in thing.rows],
            {
                "FLOPs": [row.flops for row in thing.rows],
                "bytes kept for backward": [row.memory for row in thing.rows],
            },
        )
    if isinstance(thing, GradientReport):
        names = [f"{block.name}: {block.verdict}" for block in thing.blocks]
        return _bars(names, {"error": [block.error for block in thing.blocks]}, log=True)
    if isinstance(thing, list) and all(isinstance(record, Mapping) for record in thing):
        return _curves(thing)
    must = "it must be a history, a summary or a gradient report"
    fix = "Pass what fit, layers.summary or layers.gradcheck returns."
    raise TypeError(message("figure", must, f"a {type(thing).__name__}", fix))


def _curves(history: Sequence[Mapping[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    names = [
        name
        for name in dict.fromkeys(name for record in history for name in record)
        if any(isinstance(record.get(name), Real) for record in history)
    ]
    losses = [name for name in names if name.endswith("loss")]
    others = [name for name in names if name not in losses and name.endswith(_NAMED)]
    groups = [group for group in (losses, others) if group]
    if not groups:
        must, fix = "a history must have losses or metrics", "Train for an epoch."
        raise ValueError(message("figure", must, names or "no records", fix))
    drawn = Figure(figsize=(_WIDTH, 2.8 * len(groups)), layout="constrained")
    axes = drawn.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    epochs = [record.get("epoch", number) for number, record in enumerate(history, 1)]
    for axis, group in zip(axes, groups, strict=True):
        for name in group:
            values = [record.get(name, math.nan) for record in history]
            axis.plot(epochs, values, label=name.replace("_", " "), marker=".")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return drawn


def _bars(names: list[str], columns: dict[str, list[Any]], *, log: bool = False) -> Any:
    from matplotlib.figure import Figure

    if not names:
        must, fix = "there must be a row to show", "Check a layer with inputs or parameters."
        raise ValueError(message("figure", must, "none", fix))
    # The largest of too many, in their order.
    first = next(iter(columns.values()))
    largest = sorted(range(len(names)), key=lambda i: -first[i])[:_MOST_BARS]
    shown = sorted(largest)
    size = (_WIDTH * len(columns), 1.2 + _HEIGHT * len(shown))
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, (title, values) in zip(axes, columns.items(), strict=True):
        axis.barh(range(len(shown)), [float(values[i]) for i in shown])
        axis.set_xlabel(title)
        axis.grid(axis="x", alpha=0.3)
        if log and any(values[i] > 0 for i in shown):
            axis.set_xscale("log")
    axes[0].set_yticks(range(len(shown)), [names[i] for i in shown])
    axes[0].invert_yaxis()
    return drawn
