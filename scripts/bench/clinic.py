"""How often the doctor names a disease, and how often it alarms where there is none.

    python scripts/bench/clinic.py [--json FILE] [--seeds S] [--healthy N] [--only DISEASE]

Patients are drawn from numbers: seeds, doses, sizes, optimizers, data. Thresholds may be chosen on
those with even numbers; what is published is from those with odd ones.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from lib import harness
from lib.diseases import DISEASES, healthy, patient
from lib.patients import Options, Result, run


def wilson(hits: int, of: int) -> list[float]:
    """Return the interval that holds a share with a chance of 95 % (Wilson 1927)."""
    if not of:
        return [0.0, 1.0]
    z, share = 1.96, hits / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return [round((middle + sign * half) / (1 + z * z / of), 4) for sign in (-1, 1)]


def sick(seeds: int, only: list[str]) -> Iterator[tuple[str, str, Options]]:
    """Yield disease, kind of run and options of all patients that have a disease."""
    for disease, (_, kinds) in DISEASES.items():
        if only and disease not in only:
            continue
        for kind in kinds:
            for seed in range(seeds):
                yield disease, kind, patient(disease, kind, seed)


def told(result: Result) -> str:
    """Return how a run came out, in a line."""
    return f"{result.score:6.2f}  {', '.join(result.findings) or '-'}"


def of_diseases(seeds: int, only: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each disease and half."""
    counts: dict[tuple[str, int], Counter[str]] = {}
    for disease, kind, options in sick(seeds, only):
        result = run(options)
        names = DISEASES[disease][0]
        row = counts.setdefault((disease, options.seed % 2), Counter())
        row["runs"] += 1
        row["suffer"] += not result.good
        row["found"] += bool(result.findings)
        row["found of those that suffer"] += bool(result.findings) and not result.good
        row["named"] += result.findings[:1] != [] and result.findings[0] in names
        print(f"{disease:28} {kind:12} {options.seed} {told(result)}", flush=True)
    for (disease, half), row in counts.items():
        yield {"disease": disease, "half": "test" if half else "tuning", **row}


def of_healthy(number: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each half of the healthy runs: those that came to the result asked."""
    rows = {"tuning": Counter[str](), "test": Counter[str]()}
    rules = {half: Counter[str]() for half in rows}
    for seed in range(number):
        half = "test" if seed % 2 else "tuning"
        result = run(healthy(seed))
        rows[half]["runs"] += 1
        rows[half]["good"] += result.good
        if result.good and result.findings:
            rows[half]["alarmed"] += 1
            rules[half][result.findings[0]] += 1
        if result.findings or not result.good:
            family = result.options.family
            print(f"{'healthy':28} {family:12} {seed} {told(result)}", flush=True)
    for half, row in rows.items():
        interval = wilson(row["alarmed"], row["good"])
        yield {"half": half, **row, "interval": interval, "rules": dict(rules[half])}


def total(rows: Iterable[dict[str, Any]], half: str) -> dict[str, int]:
    """Return the sums of the rows of a half."""
    sums = Counter[str]()
    for row in rows:
        if row.get("half") == half:
            sums.update({name: value for name, value in row.items() if isinstance(value, int)})
    return dict(sums)


def main() -> None:
    """Run the clinic."""
    parser = harness.arguments(str(__doc__), None)
    parser.add_argument("--seeds", type=int, default=2, help="of each disease and kind of run")
    parser.add_argument("--healthy", type=int, default=600, metavar="N", help="healthy runs")
    parser.add_argument("--only", action="append", default=[], metavar="DISEASE")
    options = parser.parse_args()
    ill = list(of_diseases(options.seeds, options.only))
    well = list(of_healthy(options.healthy))
    for half in ("tuning", "test"):
        print(half, total(ill, half), *[row for row in well if row["half"] == half])
    harness.write(options.json, harness.machine(), [*ill, *well])


if __name__ == "__main__":
    sys.exit(main())
