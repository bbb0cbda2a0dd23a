"""The table of runs that were repaired as the doctor proposes."""

from .table import result, source, table


def repairs() -> str:
    """Return how many runs came to a good result by what was proposed, if that was tried."""
    if not (measured := result("repair")):
        return ""
    head = ["disease", "cured by", "bad results", "good after it", "and nothing found then"]
    rows = [row for row in measured["rows"] if row["cured by"] != "none"]
    lines = [
        [row["disease"], row["cured by"], *(row.get(name, 0) for name in _COUNTS)] for row in rows
    ]
    for kind in ("option", "code"):
        sums = [
            sum(row.get(name, 0) for row in rows if row["cured by"] == kind) for name in _COUNTS
        ]
        if sums[0]:
            lines.append(["all", kind, *sums])
    return f"{table(head, lines, words=2)}\n\n{source('repair')}"


_COUNTS = ("bad", "repaired", "silent")
