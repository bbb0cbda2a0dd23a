"""Figures by matplotlib: of a history, a model summary and a gradient check."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from layers.errors import message
from layers.gradient_check.report import GradientReport
from layers.model_summary import Summary

_WIDTH, _HEIGHT = 7.0, 0.28
"""Inches: of a figure, and of a bar in it."""
_MOST_BARS = 60
_NAMED = ("loss", "accuracy", "error", "score")
"""How the names of numbers end that become curves; the others are times and counts."""


@runtime_checkable
class Drawn(Protocol):
    """What draws itself."""

    def figure(self) -> Any:
        """Return a `matplotlib.figure.Figure`."""


def figure(thing: Any) -> Any:
    """Return a `matplotlib.figure.Figure`, which `savefig` writes to a file and notebooks show.

    Parameters
    ----------
    thing
        What `Trainer.fit` returns: its losses and metrics, epoch by epoch; a `layers.summary`:
        FLOPs and memory, layer by layer; a `layers.GradientReport`: the error of each block; or
        what has a method `figure`, as what `lr_find` returns.

    Raises
    ------
    ImportError
        matplotlib is not installed: `pip install "ddbp[report]"`.
    ValueError
        There is nothing to show.
    """
    _require_matplotlib()
    if isinstance(thing, Drawn) and not isinstance(thing, type):
        return thing.figure()
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


def over_rates(
    rates: Sequence[float], curves: Mapping[str, Sequence[float]], mark: float | None
) -> Any:
    """Return a figure of curves over learning rates, with one of these marked."""
    _require_matplotlib()
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    axis = drawn.subplots()
    finite = [value for curve in curves.values() for value in curve if math.isfinite(value)]
    for name, curve in curves.items():
        known = [value if math.isfinite(value) else math.nan for value in curve]
        axis.plot(rates, known, label=name, alpha=1 if name == "smoothed" else 0.4)
    if mark is not None:
        axis.axvline(mark, color="black", linestyle="--", label=f"suggestion {mark:.2g}")
    if finite:
        # What diverges at the end would hide where the loss falls.
        low, first = min(finite), next(iter(curves.values()))[0]
        room = 0.1 * (first - low) if first > low else 0.1
        axis.set_ylim(low - room, max(first, low) + 3 * room)
    axis.set_xscale("log")
    axis.set_xlabel("learning rate")
    axis.set_ylabel("loss")
    axis.grid(alpha=0.3)
    axis.legend()
    return drawn


def _require_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        must = "the package matplotlib must be there"
        fix = 'Install it: pip install "ddbp[report]".'
        raise ImportError(message("figure", must, "none", fix))


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
            # What was read from JSON has None for numbers that are not finite.
            found = [record.get(name) for record in history]
            values = [math.nan if value is None else value for value in found]
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
