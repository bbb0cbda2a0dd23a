"""`ddbp doctor`: what was found in a run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ddbp.doctor import finding
from ddbp.report.run import is_run
from layers.errors import message


def run(arguments: Sequence[str]) -> int:
    """Print the findings of a run folder; return 0 if there are none, else 1."""
    parser = argparse.ArgumentParser(
        prog="ddbp doctor", description="Print what the doctor has found in a run."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    folder = parser.parse_args(arguments).run
    try:
        if not is_run(folder):
            must, fix = "RUN must be a run folder", "Pass the run_dir= of the trainer."
            raise ValueError(message("ddbp doctor", must, f"{folder}, which is none", fix))
        findings = finding.read(folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for each in findings:
        print(each)
    if not findings:
        print(f"{folder}: nothing was found, or no Doctor() was among the callbacks.")
    return int(bool(findings))
