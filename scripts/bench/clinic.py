"""How often the doctor names a disease, and how often it alarms where there is none; beside it the
rules of others on the same runs.

    python scripts/bench/clinic.py [--json FILE] [--jobs J] [--seeds S] [--healthy N]
                                   [--only DISEASE] [--half HALF] [--records FOLDER] [--judge]

Patients are drawn from numbers: seeds, doses, sizes, optimizers, data. Thresholds may be chosen on
those with even numbers, of which misses and false alarms are told one by one; what is published is
from those with odd ones. Records of runs are kept in a folder if one is given; with --judge they
are read from there, and nothing is trained.
"""

import pickle
import sys
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from lib import harness
from lib.clinic_tables import DOSES, HALVES, Appointment, Case, lines, rows_of
from lib.diseases import DISEASES, patient
from lib.doses import doses
from lib.healthy import healthy
from lib.patients import Result, run


def half_of(number: int) -> str:
    """Return the half that a number belongs to."""
    return HALVES[number % 2]


def appointments(options: Namespace) -> Iterator[Appointment]:
    """Yield all runs that are asked for."""
    wanted = HALVES if options.half == "both" else (options.half,)
    for disease, (_, kinds) in DISEASES.items():
        if options.only and disease not in options.only:
            continue
        for kind in kinds:
            for seed in range(options.seeds):
                if half_of(seed) in wanted:
                    yield Appointment(disease, kind, half_of(seed), patient(disease, kind, seed))
    for number in range(options.healthy):
        if half_of(number) in wanted:
            drawn = healthy(number)
            yield Appointment("", drawn.family, half_of(number), drawn)
    if options.doses:
        for disease, dose, drawn in doses():
            yield Appointment(f"{disease}: {dose}", drawn.family, DOSES, drawn)


def results(todo: list[Appointment], jobs: int) -> Iterator[tuple[Appointment, Result]]:
    """Run all on so many processes, and yield how they came out, in any order."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run, each.options): each for each in todo}
        for done, future in enumerate(as_completed(futures), 1):
            if done % 50 == 0 or done == len(todo):
                print(f"{done} of {len(todo)} runs", file=sys.stderr, flush=True)
            yield futures[future], future.result()


def kept(folder: Path) -> Iterator[tuple[Appointment, Result]]:
    """Yield the runs whose records are in a folder."""
    for path in sorted(folder.glob("*.pickle")):
        yield from pickle.loads(path.read_bytes())


def main() -> None:
    """Run the clinic."""
    parser = harness.arguments(str(__doc__), None)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seeds", type=int, default=6, help="of each disease and kind of run")
    parser.add_argument("--healthy", type=int, default=1400, metavar="N", help="healthy runs")
    parser.add_argument("--doses", action="store_true", help="run the grid of doses, too")
    parser.add_argument("--only", action="append", default=[], metavar="DISEASE")
    parser.add_argument("--half", choices=(*HALVES, "both"), default="both")
    parser.add_argument("--records", type=Path, metavar="FOLDER", help="where records are kept")
    parser.add_argument("--judge", action="store_true", help="judge the records, train nothing")
    options = parser.parse_args()
    if options.judge:
        found = [*kept(options.records)]
    else:
        found = [*results([*appointments(options)], options.jobs)]
        if options.records is not None:
            options.records.mkdir(parents=True, exist_ok=True)
            (options.records / "runs.pickle").write_bytes(pickle.dumps(found))
    cases = [Case(each.disease, each.kind, each.half, result) for each, result in found]
    cases.sort(key=lambda case: (case.disease, case.kind, case.result.options.seed))
    print(*lines(cases), sep="\n")
    rows, more = rows_of(cases)
    for half in HALVES:
        print(half, *(row for row in more["totals"] if row["half"] == half))
    harness.write(options.json, harness.machine(), rows, **more)


if __name__ == "__main__":
    sys.exit(main())
