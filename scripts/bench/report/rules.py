"""Tables of learning rules: what they reach, beside what is published, and how long passes take."""

from typing import Any

from .table import factor, milliseconds, result, source, table

_NAME = "learning_rules"
_TASKS = ("digits", "MNIST-5000", "MNIST-1D")
_SPARSE = "MNIST-5000, 3x500"


def _within(of: dict[str, Any], key: str = "mean", width: str = "interval", sign: str = "") -> str:
    """Return a mean and its interval, which one seed has not."""
    interval = f" ± {of[width]:.2f}" if len(of["errors"]) > 1 else ""
    return f"{of[key]:{sign}.2f}{interval}"


def _seeds(count: int) -> str:
    return f"{count} seeds, 95 % intervals of means" if count > 1 else "One seed"


def _source() -> str:
    """Return where a table comes from, and what else the machine was doing."""
    return source(_NAME, after=f", load {result(_NAME)['machine']['load'][0]:.0f}")


def errors() -> str:
    """Return the table of test errors in percent, if they were measured."""
    if not (measured := result(_NAME)):
        return ""
    tasks = [name for name in _TASKS if name in measured["rows"][0]]
    lines = []
    for row in measured["rows"]:
        gap = _within(row["MNIST-5000"], "gap", "gap_interval", "+")
        published = row.get("published")
        there = ["", "", ""]
        if published:
            both = published["backpropagation"], published["error"]
            there = [f"{both[0]:.2f} → {both[1]:.2f}", f"{both[1] - both[0]:+.2f}"]
            there.append(published["source"])
        lines.append([row["rule"], *(_within(row[name]) for name in tasks), gap, *there])
    head = ["rule", *tasks, "less backpropagation, MNIST-5000", "published, all of MNIST"]
    head += ["less backpropagation", "by"]
    epochs = ", ".join(f"{measured['epochs'][name]} of {name}" for name in tasks)
    words = f"{_seeds(measured['seeds'])}, epochs: {epochs}. "
    return f"{table(head, lines)}\n\n{words}{_source()}"


def sparse() -> str:
    """Return the table of meProp on the network of its paper, if it was measured."""
    measured = result(_NAME)
    rows = [row for row in measured.get("rows", ()) if _SPARSE in row]
    if not rows:
        return ""
    lines = [
        [
            row["rule"],
            _within(row[_SPARSE]),
            _within(row[_SPARSE], "gap", "gap_interval", "+"),
            milliseconds(row["backward"]["median"]),
            factor(row["backward"]["faster"]),
        ]
        for row in rows
    ]
    head = ["rule", "test error, %", "less backpropagation", "backward, ms", "times as fast"]
    words = f"{_seeds(measured['seeds'])}, {measured['epochs'][_SPARSE]} epochs. "
    return f"{table(head, lines)}\n\n{words}{_source()}"


def passes() -> str:
    """Return the table of the times of passes, if they were measured."""
    if not (measured := result(_NAME)):
        return ""
    lines = []
    for row in measured["rows"]:
        both = row["pass"], row["backward"]
        lines.append(
            [
                row["rule"],
                *(milliseconds(of["median"]) for of in both),
                *(factor(of["faster"]) for of in both),
            ]
        )
    head = ["rule", "pass, ms", "backward, ms", "pass, times as fast", "backward, times as fast"]
    return f"{table(head, lines)}\n\n{_source()}"
