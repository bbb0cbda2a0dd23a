"""What the runs of the clinic come to: recall, causes named, false alarms; of rules and others."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from .diseases import DISEASES
from .patients import Options, Result
from .peers import PEERS, alarms, fits

ERROR = "(error)"
"""Stands for a refusal among the rules that name a disease."""
HALVES = ("tuning", "test")
"""Of even numbers and of odd ones."""
DOSES = "doses"
"""In place of a half: runs of the grid of doses, of which ": " and the dose follow the disease."""
_PEERS_SHARE = 0.5


class Appointment(NamedTuple):
    """A run to be made: its disease ("" if it is healthy), its kind, its half, and its options."""

    disease: str
    kind: str
    half: str
    options: Options


@dataclass(frozen=True)
class Case:
    """A run of a half, of a patient with a disease ("" if there is none) and a kind of network."""

    disease: str
    kind: str
    half: str
    result: Result

    @property
    def first(self) -> str:
        """The first finding, "(error)" if training was refused without one, "" if there is none."""
        refused = ERROR if self.result.error else ""
        return self.result.findings[0] if self.result.findings else refused

    @property
    def named(self) -> bool:
        """Whether the first finding names the disease."""
        return self.first in DISEASES[self.disease][0]

    @cached_property
    def checks(self) -> dict[str, dict[str, list[bool]]]:
        """What other diagnosers have checked, by their names."""
        record = self.result.record
        return {} if record is None else {name: look(record) for name, look in PEERS.items()}


def lines(cases: Iterable[Case]) -> Iterator[str]:
    """Yield a line for each run with an even number that was missed, blamed on something else, or
    alarmed without need, and for each that is called healthy and came to no good result.
    """
    for case in cases:
        if case.half != "tuning":
            continue
        result = case.result
        right = case.named if case.disease else result.good and not result.findings
        if right:
            continue
        told = zip(result.findings, result.steps, strict=True)
        found = ", ".join(f"{rule} at {step}" for rule, step in told)
        name = case.disease or "healthy"
        good = "good" if result.good else "suffers"
        yield (
            f"{name:28} {case.kind:14} {result.options.seed:5} {result.score:7.2f} {good:7}"
            f" {found or result.error or '-'}"
        )


def wilson(hits: int, of: int) -> list[float]:
    """Return the interval that holds a share with a chance of 95 % (Wilson 1927)."""
    if not of:
        return [0.0, 1.0]
    z, share = 1.96, hits / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return [round((middle + sign * half) / (1 + z * z / of), 4) for sign in (-1, 1)]


def rows_of(cases: Sequence[Case]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row for each disease and half; and by name the totals of halves, the rules, the
    other diagnosers and the doses.
    """
    doses = [case for case in cases if case.half == DOSES]
    sick = [case for case in cases if case.disease in DISEASES]
    well = [case for case in cases if not case.disease]
    rows = [
        {"disease": disease, "half": half, **_counts(found)}
        for disease in DISEASES
        for half in HALVES
        if (found := [case for case in sick if (case.disease, case.half) == (disease, half)])
    ]
    more: dict[str, Any] = {"totals": [], "rules": [], "peers": [], "doses": _doses(doses)}
    for half in HALVES:
        ill = [case for case in sick if case.half == half]
        healthy = [case for case in well if case.half == half and case.result.good]
        drawn = sum(case.half == half for case in well)
        alarmed = sum(bool(case.first) for case in healthy)
        more["totals"].append(
            {
                "half": half,
                **_counts(ill),
                "healthy drawn": drawn,
                "healthy": len(healthy),
                "alarmed": alarmed,
                "interval": wilson(alarmed, len(healthy)),
            }
        )
        more["rules"] += [{"half": half, **row} for row in _rules(ill, healthy)]
        more["peers"] += [{"half": half, **row} for row in _peers(ill, healthy)]
    return rows, more


def _counts(cases: Iterable[Case]) -> dict[str, int]:
    row = Counter[str]()
    for case in cases:
        suffers, found = not case.result.good, bool(case.first)
        row["runs"] += 1
        row["suffer"] += suffers
        row["found"] += found
        row["found of those that suffer"] += found and suffers
        row["named"] += case.named
        row["named of those that suffer"] += case.named and suffers
        row["refused"] += case.first == ERROR
    return dict(row)


def _rules(ill: Sequence[Case], healthy: Sequence[Case]) -> Iterable[dict[str, Any]]:
    """Yield a row for each rule: how many runs have the disease that it ought to name, in how many
    it was the first finding; how many of its first findings are right; false alarms.
    """
    names = {names[0] for names, _ in DISEASES.values()} | {case.first for case in (*ill, *healthy)}
    for rule in sorted(names - {""}):
        own = [case for case in ill if DISEASES[case.disease][0][0] == rule]
        raised = [case for case in ill if case.first == rule]
        false = sum(case.first == rule for case in healthy)
        right = sum(case.named for case in raised)
        hits = sum(case.first == rule for case in own)
        yield {
            "rule": rule,
            "runs": len(own),
            "hits": hits,
            "named": sum(case.named for case in own),
            "recall": wilson(hits, len(own)),
            "raised": len(raised) + false,
            "right": right,
            "precision": wilson(right, len(raised) + false),
            "false alarms": false,
            "false alarm rate": wilson(false, len(healthy)),
        }


def _peers(ill: Sequence[Case], healthy: Sequence[Case]) -> Iterable[dict[str, Any]]:
    """Yield a row for each other diagnoser, whose rules alarm if they held once, and one if they
    held in most checks. Runs that were refused are left out.
    """
    ill = [case for case in ill if case.first != ERROR]
    for peer in PEERS:
        for least in (0.0, _PEERS_SHARE):
            row = Counter[str]()
            for case in ill:
                raised = alarms(case.checks[peer], least)
                row["found"] += bool(raised)
                row["named"] += fits(peer, case.disease, raised)
                row["suffer"] += not case.result.good
                row["found of those that suffer"] += bool(raised) and not case.result.good
                row["named of those that suffer"] += (
                    fits(peer, case.disease, raised) and not case.result.good
                )
            alarmed = sum(bool(alarms(case.checks[peer], least)) for case in healthy)
            yield {
                "peer": peer,
                "held": "in most checks" if least else "once",
                "runs": len(ill),
                **row,
                "healthy": len(healthy),
                "alarmed": alarmed,
                "interval": wilson(alarmed, len(healthy)),
            }


def _doses(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Return a row for each dose, from mild to severe."""
    rows = []
    for case in cases:
        disease, _, dose = case.disease.partition(": ")
        rows.append(
            {
                "disease": disease,
                "kind": case.kind,
                "dose": dose,
                "score": round(case.result.score, 3),
                "good": case.result.good,
                "finding": case.first,
                "named": case.first in DISEASES.get(disease, ((), {}))[0],
            }
        )
    return rows
