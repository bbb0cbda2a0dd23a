"""The lists of speedruns, from the entries in docs/results/speedrun."""

from functools import cache
from pathlib import Path

from ddbp.speedrun.entry import Entry, read
from ddbp.speedrun.tasks import TASKS
from report.table import RESULTS, table

_VERSIONS = ("ddbp", "numba", "numpy", "python")


@cache
def entries() -> list[tuple[Path, Entry]]:
    """Return all entries with their files; a file that is none is refused."""
    return [(path, read(path)) for path in sorted((RESULTS / "speedrun").glob("*.json"))]


def of_task(name: str) -> str:
    """Return the entries of a task, the best one first."""
    task = TASKS[name]
    found = [(path, entry) for path, entry in entries() if entry.task == name]
    by_speed = task.target is None
    found.sort(key=lambda each: -each[1].samples_per_second if by_speed else each[1].seconds)
    head = ["by", "processor", "ranks", "seconds", "epochs", "samples/s", "reached", "chosen"]
    head += ["versions", "digest", "date, entry"]
    lines = [
        [
            _cell(entry.by or "?"),
            _cell(entry.environment.get("cpu", "?")),
            entry.ranks,
            f"{entry.seconds:.1f}",
            len(entry.epochs),
            f"{entry.samples_per_second:,.0f}",
            "" if by_speed else f"{entry.value:.4g}",
            _cell(_chosen(entry)),
            _cell(", ".join(f"{n} {entry.environment.get(n, '?')}" for n in _VERSIONS)),
            f"`{entry.sha256[:16]}`",
            f"[{entry.date[:10]}](results/speedrun/{path.name})",
        ]
        for path, entry in found
    ]
    return table(head, lines, 2) if lines else "Nobody has entered yet."


def _chosen(entry: Entry) -> str:
    choices = TASKS[entry.task].choices
    return ", ".join(
        f"{name}={value:g}" for name, value in entry.numbers.items() if value != choices[name].usual
    )


def _cell(text: str) -> str:
    """Return anybody's words as they stand in a table."""
    return "".join(f"&#{ord(each)};" if each in "|<>&`[]*_\\!#" else each for each in text)
