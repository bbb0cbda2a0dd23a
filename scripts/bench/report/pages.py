"""What the pages about runs say of measurements: sizes of reports, replayed steps, the cost of
instruments.
"""

from .table import milliseconds, result, source, table

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


def replays() -> str:
    """Return how many random steps had the bits that were recorded, run by run."""
    if not (rows := result("replay").get("rows")):
        return ""
    runs = dict.fromkeys(row["run"] for row in rows)
    of_run = {name: [row for row in rows if row["run"] == name] for name in runs}
    lines = [
        (name, found[0]["steps"], len(found), sum(row["equal"] for row in found))
        for name, found in of_run.items()
    ]
    equal = sum(row["equal"] for row in rows)
    said = f"{equal} of {len(rows)} random steps, each on one to four ranks, had the recorded bits"
    return f"{said}:\n\n{table(_REPLAYED, lines)}\n\n{source('replay')}"


_REPLAYED = ("run", "its steps", "replayed", "the same bits")


def costs() -> str:
    """Return what instruments cost steps of training, and a doctor runs."""
    found = result("instruments").get("rows", ())
    rows = [row for row in found if "step_ms" in row]
    if not rows:
        return ""
    doctor = {
        (row["network"], row["steps"]): f"{row['share_of_the_doctor']['median']:+.1%}"
        for row in found
        if "share_of_the_doctor" in row
    }
    lines = [
        (
            row["network"],
            f"{milliseconds(row['step_ms']['off']['median'])} ms",
            *(_more(row[name]) for name in ("off_again_to_off", "defaults_to_off")),
            f"{row['measured_step_more_ms']:.3g} ms",
            f"{row['share_by_that']:.2%}",
            *(doctor.get((row["network"], steps), "") for steps in _RUNS),
        )
        for row in rows
    ]
    head = [
        "network",
        "a step",
        "off, once more",
        "defaults",
        "a measured step",
        "defaults by that",
    ]
    head += [f"doctor, {steps:,} steps" for steps in _RUNS]
    said = (
        "Processor time, in turn in one process, with the quartiles of rounds; of a doctor, who"
        " measures more seldom as a run grows, over whole runs. Off, once more, is what the"
        " measurement cannot tell apart. "
    )
    return f"{table(head, lines)}\n\n{source('instruments', said)}"


_RUNS = (1000, 10_000)


def _more(ratio: dict[str, float]) -> str:
    """Return how much more a ratio is than 1, with its quartiles."""
    median, low, high = (100 * (ratio[name] - 1) for name in ("ratio", "low", "high"))
    return f"{median:+.1f} % ({low:+.1f}, {high:+.1f})"
