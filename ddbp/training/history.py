"""The records of a run."""

import math
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Any

import numpy as np

from ddbp import figures
from layers.errors import message
from layers.tables import html_table


class History(list[dict[str, Any]]):
    """The records of the epochs of a `fit`, a list; in a notebook shown as curves and a table.

    >>> history = trainer.fit(data, epochs=10)
    >>> history[-1]["loss"]
    >>> ddbp.figure(history).savefig("curves.png")

    Parameters
    ----------
    records
        What the list begins with.
    """

    def __init__(self, records: Iterable[dict[str, Any]] = ()) -> None:
        given: Any = records
        held = [*given] if isinstance(given, list | tuple | Iterator) else None
        if held is None or not all(type(record) is dict for record in held):
            must, fix = "records must be dictionaries", "Pass those of a fit, or of metrics.jsonl."
            raise TypeError(message("History", must, type(given).__name__, fix))
        super().__init__(held)

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for record in self for name in record))
        rows = [[_shown(record.get(name, "")) for name in names] for record in self]
        table = html_table(names, rows, left=0) if self else "<p>no epoch yet</p>"
        return f"{_curves(self)}{table}"


def _curves(history: History) -> str:
    """Return the curves as SVG, nothing where matplotlib is not installed."""
    try:
        drawn = figures.figure(history)
    except (ImportError, ValueError):
        return ""
    file = StringIO()
    drawn.savefig(file, format="svg")
    text = file.getvalue()
    return text[text.index("<svg") :]


def _shown(value: Any) -> str:
    value = math.nan if value is None else value
    return f"{float(value):.4g}" if isinstance(value, float | np.floating) else str(value)
