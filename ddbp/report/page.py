"""The page: one file of HTML with all that it needs, which asks the network for nothing."""

import json
import os
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from ddbp import files
from layers.errors import message

from . import sections
from .figures import Figure, rendered
from .run import Run, number
from .sections import Section

NAME = "report.html"
"""The page of a run in its folder."""

MOST_RUNS = 16
"""So many runs can be told apart in a figure."""


def page(runs: Sequence[Run]) -> str:
    """Return the page of a run, or of several that it compares."""
    if len(runs) == 1:
        title, parts = runs[0].name, _of_one(runs[0])
    else:
        _tell_apart(runs)
        title = f"{len(runs)} runs"
        parts = [*sections.comparison(runs), sections.curves(runs)]
    parts = [part for part in parts if part.blocks]
    figures: list[dict[str, Any]] = []
    bodies, links = [], []
    for n, part in enumerate(parts):
        body = []
        for block in part.blocks:
            if isinstance(block, Figure):
                body.append(rendered(block, len(figures)))
                figures.append({"title": block.title, **block.data})
            else:
                body.append(block)
        heading = escape(part.title)
        bodies.append(
            f'<section id="s{n}" aria-labelledby="h{n}"><h2 id="h{n}">{heading}</h2>'
            f"{''.join(body)}</section>"
        )
        links.append(f'<a href="#s{n}">{heading}</a>')
    marks = [mark for run in runs for mark in _marks(run)]
    data = json.dumps({"figures": figures, "marks": marks}, allow_nan=False)
    return _filled(
        title=escape(f"{title} - ddbp"),
        heading=escape(title),
        links="".join(links),
        sections="\n".join(bodies),
        # Within a script element nothing but "<" could end it.
        data=data.replace("<", "\\u003c").replace("\u2028", "").replace("\u2029", ""),
    )


def _of_one(run: Run) -> list[Section]:
    samples = sections.of_samples(run)
    return [
        sections.overview(run),
        sections.findings(run),
        sections.curves([run]),
        *sections.instruments(run),
        samples,
        *sections.configuration(run),
    ]


def _marks(run: Run) -> list[dict[str, Any]]:
    """Return the findings on the time axis."""
    found = [(number(each.get("step")), str(each.get("rule", "finding"))) for each in run.findings]
    return [{"x": step, "text": rule} for step, rule in found if step >= 0 and step < 2**53]


def _tell_apart(runs: Sequence[Run]) -> None:
    """Name the runs by as much of their paths as tells them apart."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = str(run.path.relative_to(os.path.commonpath([each.path for each in runs])))


def _filled(**texts: str) -> str:
    """Return the page with texts in the places of {{name}}."""
    place = resources.files(__package__) / "page"
    files = {
        "style": "page.css",
        "script": "page.js",
        "plots": "vendor/uPlot.iife.min.js",
        "plots_style": "vendor/uPlot.min.css",
        "license": "vendor/LICENSE.uPlot",
    }
    texts |= {name: (place / path).read_text(encoding="utf-8") for name, path in files.items()}
    parts = (place / "page.html").read_text(encoding="utf-8").split("{{")
    result = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition("}}")
        result += [texts[name], rest]
    return "".join(result)


def write(runs: Sequence[Run], path: Path) -> None:
    """Write the page of runs to a file, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    text = page(runs).encode("utf-8", errors="replace")
    try:
        with files.whole(path) as place:
            place.write_bytes(text)
    except OSError as error:
        fix = "Name another with -o FILE."
        got = f"{path}: {error.strerror}"
        raise OSError(message("ddbp.report", "the page must be writable", got, fix)) from error
