"""Verify the scripts of scripts/ on several numbers of ranks by `ddbp verify`.

python scripts/bench/verify_scripts.py --small --json docs/results/verify.json
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lib import harness
from lib.verified_scripts import SCRIPTS, VERIFIED, arguments

ROW = re.compile(r"^ +(\d+) +(\d+) +(\w{12}) +[\d.]+ +(\w+) *$", re.MULTILINE)


def verified(name: str, ranks: str, steps: int, small: bool) -> dict[str, Any]:
    """Return what `ddbp verify` says of a script."""
    script = VERIFIED[name][0]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "ddbp",
            "verify",
            "-n",
            ranks,
            "--steps",
            str(steps),
            str(SCRIPTS / script),
        ]
        command += arguments(name, Path(folder), small=small)
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        print(finished.stdout, finished.stderr, sep="\n", file=sys.stderr)
    runs = [
        {"ranks": int(n), "steps": int(k), "digest": digest, "verdict": verdict}
        for n, k, digest, verdict in ROW.findall(finished.stdout)
    ]
    return {"name": name, "script": script, "equal": not finished.returncode, "runs": runs}


def main() -> int:
    """Verify all; return 1 if a script is not equal on all numbers of ranks."""
    parser = argparse.ArgumentParser(
        description="Verify the scripts of scripts/ on several numbers of ranks."
    )
    parser.add_argument(
        "-n", "--ranks", default="1,2,3,4", metavar="1,2,3", help="numbers of ranks (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=10, metavar="K", help="of each script (%(default)s)"
    )
    parser.add_argument("--small", action="store_true", help="small data and networks")
    parser.add_argument(
        "--only",
        action="append",
        choices=VERIFIED,
        metavar="NAME",
        help="one of them; may be repeated",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write rows and the machine's facts to a file"
    )
    options = parser.parse_args()
    facts: dict[str, Any] = harness.machine()
    rows: list[dict[str, Any]] = []
    for name in options.only or VERIFIED:
        rows.append(verified(name, options.ranks, options.steps, options.small))
        print(f"{name:16} {'equal' if rows[-1]['equal'] else 'DIFFERENT'}", flush=True)
        harness.write(options.json, facts, rows, small=options.small)
    return int(not all(row["equal"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
