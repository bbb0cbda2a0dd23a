"""Tables of optimizers: what they keep, and the batches that they bear."""

from .table import result, source, table


def states() -> str:
    """Return the table of the memory of optimizers, if it was measured."""
    if not (measured := result("optimizer_memory")):
        return ""
    ranks = sorted({row["ranks"] for row in measured["rows"]})
    rows: dict[str, list[dict[str, float]]] = {}
    for row in measured["rows"]:
        rows.setdefault(row["optimizer"], []).append(row)
    lines = []
    for name, each in rows.items():
        kept = each[0]["kept_mb"]
        an_element = f"{1e6 * kept / measured['parameters']:.2f}"
        lines.append([name, f"{kept:.1f}", an_element, *(f"{row['most_mb']:.0f}" for row in each)])
    head = ["optimizer", "keeps, MB", "bytes a parameter"]
    head += [f"all, MB, {n} rank{'s' * (n > 1)}" for n in ranks]
    return f"{table(head, lines)}\n\n{source('optimizer_memory')}"


def projections() -> str:
    """Return the table of what optimizers of little memory reach, if it was measured."""
    if not (measured := result("projection")):
        return ""
    lines = [
        [
            row["optimizer"],
            f"{row['rate']:g}",
            f"{row['accuracy']:.4f} ± {row['accuracy_sd']:.4f}",
            f"{row['loss']:.4f}",
            f"{row['kept_kb']:.0f}",
            f"{row['seconds']:.1f}",
        ]
        for row in measured["rows"]
    ]
    head = ["optimizer", "rate", "test accuracy", "training loss", "keeps, kB", "seconds"]
    return f"{table(head, lines)}\n\n{source('projection')}"


def large_batches() -> str:
    """Return the table of accuracies by the size of the batch, if it was measured."""
    if not (measured := result("large_batch")):
        return ""
    batches = [*measured["rows"][0]["accuracies"]]
    lines = [
        [
            row["optimizer"],
            row["scaling"],
            f"{row['rate']:g}",
            *(f"{row['accuracies'][batch]['mean']:.3f}" for batch in batches),
            row["largest"],
        ]
        for row in measured["rows"]
    ]
    head = ["optimizer", "rate grows as", "rate at 64", *batches, "largest that keeps it"]
    return f"{table(head, lines, words=2)}\n\n{source('large_batch')}"
