"""Train a little with every script of scripts/, one after the other in one process, in all of their
models and tasks.

Usage: all_scripts.py FOLDER; run folders are made there, one folder for each rank.
"""

import runpy
import sys
from pathlib import Path

import ddbp

SCRIPTS = Path(__file__).parents[3] / "scripts"


def main() -> None:
    """Run all."""
    folder = Path(sys.argv[1]) / f"rank{ddbp.communicator().rank}"
    folder.mkdir(exist_ok=True)
    sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "bench")]
    from lib.verified_scripts import VERIFIED, arguments

    for name, (script, *_) in VERIFIED.items():
        sys.argv = [script, *arguments(name, folder, small=True)]
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")


if __name__ == "__main__":
    main()
