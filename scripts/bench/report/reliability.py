"""Tables of what disturbed runs have come to, and of what checkpoints cost."""

from collections import Counter
from typing import Any

from faults.plan import MISSED, WAYS

from .table import result, source, table

_MODES = ("alone", "restart", "survive", "hosts")
_PLACES = ("data", "forward", "backward", "reduction", "update", "publish", "after")
_MORE = ("evaluation", "epoch", "disk", "start")
_MORE_RUNS = {
    "chaos_again": " more, drawn from another seed",
    "chaos_open_mpi": " under Open MPI's launcher",
}
_WAYS = "chaos_ways", "chaos_ways_again", "chaos_ways_survive"
_WRONG = {
    "HANG": "hangs",
    "LOST CHECKPOINT": "lost checkpoints",
    "WRONG": "runs with other bits",
    "ERROR": "that did not come to their end",
    "UNCLEAR": "without a word on one of them",
}
_IN_WORDS = {
    "data": "while a batch is made",
    "after": "after a step",
    "evaluation": "in an evaluation",
    "epoch": "at the end of an epoch",
    "disk": "between two calls that write a checkpoint",
    "start": "while it starts",
}


def chaos() -> str:
    """Return the table of disturbances, if there was a campaign."""
    if not (measured := result("chaos")):
        return ""
    counts: dict[str, Counter[str]] = {}
    bad: Counter[str] = Counter()
    for row in measured["rows"]:
        numbers = {k: v for k, v in row.items() if k not in ("mode", "fault", MISSED)}
        if not numbers:
            continue
        name = _merged(row["fault"])
        counts.setdefault(name, Counter())[row["mode"]] += sum(numbers.values())
        bad[name] += sum(numbers.values()) - numbers.get("same bits", 0)
    lines: list[list[Any]] = [
        [name, *(counts[name][mode] or "" for mode in _MODES), bad[name]]
        for name in sorted(counts, key=_order)
    ]
    whole = [sum(counts[name][mode] for name in counts) for mode in _MODES]
    lines.append(["**all**", *whole, sum(bad.values())])
    head = ["disturbance", "one rank", "restarts", "`--survive`", "two hosts", "other end"]
    verdicts = measured["verdicts"]
    wrong = [f"{verdicts.get(each, 0)} {words}" for each, words in _WRONG.items()]
    said = (
        f"{measured['faults']} disturbances of {measured['runs']} runs in"
        f" {measured['seconds'] / 60:.0f} minutes, `chaos.py --seed {measured['seed']}"
        f" --faults 1000`: {', '.join(wrong)}; {verdicts.get('same bits', 0)} runs came to the bits"
        " and the history of the undisturbed one, and said of each disturbance what they should. "
    )
    if missed := measured.get("missed"):
        said += f"{missed} more that were drawn found nothing to happen to. "
    more = [
        f"{found['faults']} disturbances{words}: {found['verdicts'].get('same bits', 0)} of"
        f" {found['runs']} runs came to the same bits (`docs/results/{name}.json`)."
        for name, words in _MORE_RUNS.items()
        if (found := result(name))
    ]
    return "\n\n".join([table(head, lines), source("chaos", said), *more])


def chaos_of_ways() -> str:
    """Return the table of disturbances of trainers with further options, if there were
    campaigns.
    """
    campaigns = {name: found for name in _WAYS if (found := result(name))}
    counts: dict[str, Counter[str]] = {}
    bad: Counter[str] = Counter()
    for row in (row for found in campaigns.values() for row in found["rows"]):
        verdicts = {k: v for k, v in row.items() if k not in ("mode", "way", "fault", MISSED)}
        if not verdicts:
            continue
        counts.setdefault(row["way"], Counter())[row["mode"]] += sum(verdicts.values())
        bad[row["way"]] += sum(verdicts.values()) - verdicts.get("same bits", 0)
    if not counts:
        return ""
    lines = [
        [f"`{next(f'{name}={value!r}' for name, value in options.items())}`"]
        + [counts[way][mode] or "" for mode in _MODES]
        + [bad[way]]
        for way, options in WAYS.items()
        if way in counts
    ]
    head = ["trained with", "one rank", "restarts", "`--survive`", "two hosts", "other end"]
    said = [
        source(
            name,
            f"{found['faults']} disturbances of {found['runs']} runs,"
            f" {found['verdicts'].get('same bits', 0)} of which came to the same bits,"
            f" with the seed {found['seed']}. ",
        )
        for name, found in campaigns.items()
    ]
    return "\n\n".join([table(head, lines), *said])


def checkpoints() -> str:
    """Return what checkpoints cost, if it was measured."""
    if not (measured := result("checkpoint")):
        return ""
    rates, steps = measured["rows"]
    speed = rates["gigabytes_per_second"]
    said = (
        f"A checkpoint of {rates['parameters'] / 1e6:.0f} million parameters with Adam's moments"
        f" ({rates['bytes'] / 1e6:.0f} MB) is written at {speed['checkpoint']:.2f} GB/s with fsync,"
        f" {rates['ratio_to_plain']['ratio']:.2f} of the rate of a plain file there, and compared"
        f" with its digests at {speed['verify']:.2f} GB/s. One every {steps['every']} steps in the"
        f" background makes a step {steps['cost']['ratio']:.3f} times as long"
        f" ({steps['workload']}). The load was {measured['machine']['load'][0]:.1f}. "
    )
    return source("checkpoint", said)


def survivals() -> str:
    """Return how soon ranks go on after a death, and what that costs, if it was measured."""
    if not (measured := result("survive")):
        return ""
    deaths = [row for row in measured["rows"] if "kills" in row]
    lines = [
        [
            row["ranks"],
            row["kills"],
            *(
                f"{row[until]['median']:,.0f} ms ({row[until]['most']:,.0f})"
                for until in ("to_completed_step_ms", "to_newcomer_in_step_ms")
            ),
        ]
        for row in deaths
    ]
    head = ["ranks", "kills", "to the completed step, median (most)", "to the newcomer's first"]
    costs = [
        f"{row['ratio']['ratio']:.2f} for {row['name']} ({row['ms']['mpirun']['median']:.1f} ms;"
        f" quartiles {row['ratio']['low']:.2f} to {row['ratio']['high']:.2f})"
        for row in measured["rows"]
        if "ratio" in row
    ]
    said = (
        "A newcomer shares the cores with those that train meanwhile. Against the same two ranks"
        f" under `mpirun` a step takes {', '.join(costs)} times as long. The load was"
        f" {measured['machine']['load'][0]:.1f}. "
    )
    return f"{table(head, lines)}\n\n{source('survive', said)}"


def watchdogs() -> str:
    """Return what the watchdog costs, if it was measured."""
    if not (measured := result("watchdog")):
        return ""
    rows = measured["rows"]
    parts = " and ".join(
        f"{row['looks_and_header_to_step']:.3%} of {row['network']}'s step of"
        f" {row['step_ms']:.2f} ms"
        for row in rows
    )
    ratios = " and ".join(
        f"{ratio['ratio']:.3f} (quartiles {ratio['low']:.3f} to {ratio['high']:.3f})"
        for ratio in (row["thread_and_step_to_step"] for row in rows)
    )
    said = (
        f"A look takes {rows[0]['look_us']:.0f} µs of a second and the number in the exchange"
        f" {rows[0]['header_us']:.1f} µs: together {parts}. Steps with the thread take {ratios}"
        " times those without. "
    )
    return source("watchdog", said)


def _merged(fault: str) -> str:
    """Return the line of the table that a fault belongs to: places are told apart for deaths."""
    what, _, place = fault.rpartition(", ")
    if not what:
        return fault
    if what != "SIGKILL":
        return what
    return f"{what} {_IN_WORDS.get(place, f'in {place}')}"


def _order(name: str) -> tuple[int, str]:
    places = [f"SIGKILL {_IN_WORDS.get(each, f'in {each}')}" for each in (*_PLACES, *_MORE)]
    return places.index(name) if name in places else len(places), name
