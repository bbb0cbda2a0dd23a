"""Tables of compressed gradients: what each costs, sends and learns, and its bits on ranks."""

from .table import milliseconds, result, source, table


def compressions() -> str:
    """Return the table, if it was measured."""
    if not (measured := result("compression")):
        return ""
    whole = measured["rows"][0]["bytes"]
    lines = [
        [
            row["compression"],
            f"{row['bytes']:,}",
            f"{whole / row['bytes']:.1f}",
            "" if row["rounded"] else milliseconds(row["write_ms"]),
            milliseconds(row["sum_ms"]),
            "" if row["rounded"] else milliseconds(row["keep_ms"]),
            f"{row['loss']:.4f} ± {row['loss_sd']:.4f}",
        ]
        for row in measured["rows"]
    ]
    head = ["gradients", "bytes a host sends", "times less", "to write, ms", "to sum, ms"]
    head += ["to keep, ms", "loss of the digits"]
    load = measured["machine"]["load"][0]
    return f"{table(head, lines)}\n\n{source('compression', after=f'; the load was {load:.1f}')}"


def bits() -> str:
    """Return the table of digests on several ranks and hosts, if they were measured."""
    measured = result("compression")
    if not (measured and "bits" in measured):
        return ""
    rows = measured["bits"]
    places = list(rows[0]["digests"])
    lines = [
        [f"`{row['way']}`" if row["way"] != "as it is" else row["way"]]
        + [row["digests"][place][:6] for place in places]
        for row in rows
    ]
    return table(["", *places], lines, words=len(places) + 1)
