"""The table of what the report of a run weighs."""

from .table import result, source, table

_NAME = "report"


def weights() -> str:
    """Return the table of sizes and times of reports."""
    found = result(_NAME)
    if not found:
        return ""
    rows = [
        (
            f"{row['layers']} layers on {row['ranks']} ranks",
            f"{row['bytes'] / 1e6:.2f} MB",
            f"{row['seconds']['median']:.2f} s",
        )
        for row in found["rows"]
    ]
    said = f"Runs of {found['steps']:,} steps with all that can be in a folder; one core. "
    return table(("run", "report", "made in"), rows) + "\n\n" + source(_NAME, said)
