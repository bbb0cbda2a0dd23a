"""Figures of a page: what is drawn, as data for its script, and the same as a table for those who
read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from layers.types import Array

from . import thin

_CELLS = 16_000
"""Cells of a map."""
_ROWS = 128
"""Rows of a map, or layers of whose distributions there is one."""
_BIN_CELLS = 120_000
"""Cells of the distributions over time of all layers."""
_LISTED = 10
"""Rows of a table beside a curve."""


@dataclass
class Figure:
    """A figure.

    Attributes
    ----------
    title, note
        What it shows, and how to read it.
    data
        What the script draws: see `page/page.js`.
    heads, rows
        The table that says the same.
    """

    title: str
    note: str
    data: dict[str, Any]
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass
class Series:
    """A curve: its name and its points (n,), and what they lie between, if that is known."""

    label: str
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None


def lines(
    title: str,
    series: Sequence[Series],
    *,
    note: str = "",
    x: str = "step",
    log: bool = False,
    kind: str = "lines",
) -> Figure | None:
    """Return a figure of curves, points or bars, as `kind` says; None if none has a number."""
    series = [each for each in series if np.isfinite(each.y).any()]
    if not series:
        return None
    if log and not any((each.y > 0).any() for each in series):
        log = False
    drawn = [
        {
            "label": each.label,
            **(
                thin.points(each.x, each.y)
                if kind == "points"
                else thin.curve(each.x, each.y, each.low, each.high)
            ),
        }
        for each in series
    ]
    rows = []
    for each in series:
        places = thin.chosen(len(each.x), max(2, _LISTED // len(series)))
        rows += [(each.label, text(each.x[i]), text(each.y[i])) for i in places]
    data = {"kind": kind, "x": x, "log": log, "series": drawn}
    return Figure(title, note, data, ("", x, "value"), rows)


def heat_map(
    title: str,
    steps: Array,
    names: Sequence[str],
    values: Array,
    *,
    of: str,
    note: str = "",
    log: bool = False,
    bounds: tuple[float, float] | None = None,
) -> Figure | None:
    """Return a figure of values (n, rows), a column for each step and a row for each name, of
    which `of` says what they are, in colours between bounds; None if there is no number.
    """
    if not np.isfinite(values).any():
        return None
    rows = thin.chosen(len(names), _ROWS)
    columns = thin.chosen(len(steps), max(2, _CELLS // len(rows)))
    if len(rows) < len(names):
        note = f"{note} {len(rows)} of {len(names)} {of} are shown.".strip()
    shown = values[np.ix_(columns, rows)].T
    data = {
        "kind": "map",
        "x": "step",
        "of": of,
        "steps": steps[columns].tolist(),
        "names": [str(names[row]) for row in rows],
        **thin.coded(shown, log=log, bounds=bounds),
    }
    listed = [
        (str(names[row]), *map(text, (found[0], np.median(found), found[-1])))
        if (found := values[:, row][np.isfinite(values[:, row])]).size
        else (str(names[row]), "", "", "")
        for row in rows
    ]
    return Figure(title, note, data, (of, "first", "median", "last"), listed)


def distributions(
    title: str,
    steps: Array,
    names: Sequence[str],
    edges: Array,
    shares: Array,
    *,
    of: str,
    note: str = "",
) -> Figure | None:
    """Return a figure of shares (n, rows, B) of magnitudes in bins with edges (B + 1,), of one row
    at a time; None if there is no number.
    """
    if not np.isfinite(shares).any():
        return None
    totals = np.nansum(shares, axis=-1)
    kept = thin.chosen(len(names), _ROWS // 2)
    used = np.flatnonzero(np.nansum(shares, axis=(0, 1)))
    first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, shares.shape[-1])
    columns = thin.chosen(len(steps), max(2, _BIN_CELLS // (len(kept) * (last - first))))
    part = shares[np.ix_(columns, kept, np.arange(first, last))]
    with np.errstate(all="ignore"):
        part = part / totals[np.ix_(columns, kept)][..., np.newaxis]
    codes = np.round(254 * np.sqrt(np.clip(np.nan_to_num(part), 0, 1)))
    codes[~np.isfinite(part)] = 255
    if len(kept) < len(names):
        note = f"{note} {len(kept)} of {len(names)} {of} are shown.".strip()
    data = {
        "kind": "distributions",
        "x": "step",
        "of": of,
        "steps": steps[columns].tolist(),
        "names": [str(names[row]) for row in kept],
        "edges": thin.shortened(edges[first : last + 1]),
        "cells": thin.packed(codes.transpose(1, 0, 2).astype(np.uint8)),
    }
    rows = []
    for row in kept:
        medians = [_median(edges, shares[step, row]) for step in (0, -1)]
        rows.append((str(names[row]), *map(text, medians)))
    return Figure(title, note, data, (of, "median at first", "median at last"), rows)


def _median(edges: Array, shares: Array) -> float:
    """Return the upper edge of the bin that holds the median."""
    below = np.cumsum(shares)
    if not np.isfinite(below[-1]) or below[-1] <= 0:
        return float("nan")
    return float(edges[1:][np.argmax(below >= below[-1] / 2)])


def text(value: float) -> str:
    """Return a number for people, with four digits."""
    if value != value:
        return "NaN"
    if abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """Return a table in HTML; the first column names the rows."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(each)}</td>" for each in row[1:])
        + "</tr>"
        for row in rows
    )
    start = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{title}{start}<tbody>{body}</tbody></table></div>'
    )


def rendered(figure: Figure, number: int) -> str:
    """Return a figure in HTML, whose data are those of this number in the page."""
    note = f'<p class="note">{escape(figure.note)}</p>' if figure.note else ""
    numbers = ""
    if figure.rows:
        shown = table(figure.heads, figure.rows)
        numbers = f"<details><summary>Numbers</summary>{shown}</details>"
    return (
        f'<figure data-figure="{number}"><figcaption><h3>{escape(figure.title)}</h3>{note}'
        f'</figcaption><div class="plot"></div>{numbers}</figure>'
    )
