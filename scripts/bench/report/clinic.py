"""How often the doctor is right, and the rules of others on the same runs."""

from collections.abc import Iterable
from typing import Any

from .table import result, source, table

_HALF = "test"


def _rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a part of what was measured, of the half that is published."""
    return [row for row in result("clinic").get(name, []) if row["half"] == _HALF]


def summary() -> str:
    """Return what the clinic comes to, if it was run."""
    if not (totals := _rows("totals")):
        return ""
    (total,) = totals
    diseases = sum("disease" in row for row in _rows("rows"))
    low, high = total["interval"]
    refused = total.get("refused", 0)
    said = (
        f"Of {total['runs']} runs with one of {diseases} diseases, of which {total['suffer']} came"
        f" to a bad result, {total['found']} had a finding"
        + (f" or were refused by an error ({refused})" if refused else "")
        + f", {total['found of those that suffer']} of those that suffered; in {total['named']}"
        f" the first one named the disease. Of {total['healthy']} healthy runs that came to a"
        f" good result {total['alarmed']} had a finding ({_share(total['alarmed'], total)};"
        f" {low:.1%} to {high:.1%} with a chance of 95 %). Networks, data, doses and options are"
        " drawn anew for each run; these are the runs with odd numbers, which no threshold was"
        " chosen on. Diseases, doses and rules have one author. "
    )
    return source("clinic", said)


def _share(alarmed: int, row: dict[str, Any]) -> str:
    return f"{alarmed / max(row['healthy'], 1):.1%}"


def diagnosers() -> str:
    """Return the table of the doctor and of others."""
    if not (peers := _rows("peers")):
        return ""
    (total,) = _rows("totals")
    # Others see nothing of a run that is refused before it begins: these are left out.
    refused = total["refused"]
    ours = {
        "peer": "**ddbp**",
        "held": "",
        "runs": total["runs"] - refused,
        "found": total["found"] - refused,
        "named": total["named"] - refused,
        "suffer": total["suffer"] - refused,
        "named of those that suffer": total["named of those that suffer"] - refused,
        "found of those that suffer": total["found of those that suffer"] - refused,
        **{name: total[name] for name in ("healthy", "alarmed", "interval")},
    }
    head = ("rules", "found", "of those that suffer", "cause named", "healthy runs alarmed")
    return table(head, map(_diagnoser, [*peers, ours]))


def _diagnoser(row: dict[str, Any]) -> Iterable[str]:
    low, high = row["interval"]
    held = f", a rule held {row['held']}" if row["held"] else ""
    healthy = f"{row['alarmed']} of {row['healthy']}: {_share(row['alarmed'], row)}"
    return (
        f"{row['peer']}{held}",
        f"{row['found'] / max(row['runs'], 1):.3f}",
        f"{row['found of those that suffer'] / max(row['suffer'], 1):.3f}",
        f"{row['named'] / max(row['runs'], 1):.3f}",
        f"{healthy} [{low:.1%}, {high:.1%}]",
    )


def diseases() -> str:
    """Return the table of diseases."""
    head = ("disease", "runs", "suffer", "found", "of those that suffer", "named")
    names = ("runs", "suffer", "found", "found of those that suffer", "named")
    rows = [
        (row["disease"] + " ¹" * bool(row.get("refused")), *(row.get(name, 0) for name in names))
        for row in _rows("rows")
        if "disease" in row
    ]
    return table(head, rows) if rows else ""


def rules() -> str:
    """Return the table of rules."""
    head = ("rule", "runs", "recall", "first findings", "right", "precision", "false alarms")
    rows = [
        (
            f"`{row['rule']}`" if row["rule"][0] != "(" else "an error",
            row["runs"],
            _of(row["hits"], row["runs"], row["recall"]),
            row["raised"],
            row["right"],
            _of(row["right"], row["raised"], row["precision"]),
            _of_healthy(row),
        )
        for row in _rows("rules")
    ]
    return table(head, rows) if rows else ""


def _of(hits: int, of: int, interval: list[float]) -> str:
    low, high = interval
    return f"{hits / of:.2f} [{low:.2f}, {high:.2f}]" if of else "–"


def _of_healthy(row: dict[str, Any]) -> str:
    return f"{row['false alarms']} (up to {row['false alarm rate'][1]:.1%})"


def doses() -> str:
    """Return the table of doses, one line for each disease and kind of network."""
    by_grid: dict[tuple[str, str], list[str]] = {}
    for row in result("clinic").get("doses", []):
        score = f"{row['score']:.2f}"
        score = score if row["good"] else f"*{score}*"
        finding = f"`{row['finding']}`" + " ≠" * (not row["named"]) if row["finding"] else "–"
        silent = "**–**" if not row["good"] and not row["finding"] else finding
        name = row["disease"], row["kind"]
        by_grid.setdefault(name, []).append(f"{row['dose']} {score} {silent}")
    rows = [(*name, " · ".join(cells)) for name, cells in by_grid.items()]
    return table(("disease", "network", "dose, result, finding"), rows, words=3) if rows else ""
