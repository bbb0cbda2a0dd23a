"""How often a sick run becomes a good one when what the doctor proposes is applied, and nothing
else.

    python scripts/bench/repair.py [--json FILE] [--seeds S] [--even] [--only DISEASE]

The patients are those of clinic.py with odd numbers, which no threshold was chosen on; with --even
the others.
"""

import sys

from lib import harness
from lib.diseases import DISEASES, patient
from lib.patients import run
from lib.repair import rate, totals


def main() -> None:
    """Make the patients ill, and repair them."""
    parser = harness.arguments(str(__doc__), None)
    parser.add_argument("--seeds", type=int, default=2, help="of each disease and kind of run")
    parser.add_argument("--even", action="store_true", help="those on which thresholds are chosen")
    parser.add_argument("--only", action="append", default=[], metavar="DISEASE")
    options = parser.parse_args()
    ill = (
        (disease, run(patient(disease, kind, seed)))
        for disease, (_, kinds) in DISEASES.items()
        if disease in options.only or not options.only
        for kind in kinds
        for seed in range(int(not options.even), options.seeds, 2)
    )
    rows = rate(ill)
    for row in totals(rows):
        print(row)
    harness.write(options.json, harness.machine(), rows, totals=totals(rows))


if __name__ == "__main__":
    sys.exit(main())
