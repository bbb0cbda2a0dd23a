"""The page of a run, or one that compares several: `ddbp report RUN [RUN …]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ddbp.files import place
from ddbp.report import page
from ddbp.report.run import Run
from ddbp.terminal import plain
from layers.errors import message
from layers.kernels.cache_folder import opened

_START = "<!DOCTYPE html>"
"""How a page begins."""


def run(arguments: Sequence[str]) -> int:
    """Write the page; return the exit status: 1 if a folder is not that of a run, or the page
    cannot be written.
    """
    parser = argparse.ArgumentParser(prog="ddbp report", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run (run_dir=)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where the page goes (report.html in the folder of the run; of several runs"
        " comparison.html here)",
    )
    options = parser.parse_args(arguments)
    try:
        paths = list(dict.fromkeys(place(each) for each in options.runs))
        if len(paths) > page.MOST_RUNS:
            must, fix = f"there must be at most {page.MOST_RUNS} runs", "Compare fewer."
            raise ValueError(message("ddbp report", must, len(paths), fix))
        found = [Run.read(path) for path in paths]
        usual = found[0].path / page.NAME if len(found) == 1 else Path("comparison.html")
        target = (options.output or usual).absolute()
        _require_page(target)
        page.write(found, target)
    except (OSError, ValueError) as error:
        print(plain(error), file=sys.stderr)
        return 1
    for each in found:
        for problem in each.problems:
            print(plain(f"{each.name}: {problem}"), file=sys.stderr)
    print(plain(target))
    return 0


def _require_page(path: Path) -> None:
    """Refuse to write over what is no page of ours."""
    try:
        with opened(path, links=True) as file:
            if file.read(len(_START)) == _START.encode():
                return
    except OSError:
        # There is none, or writing will say what is wrong.
        return
    must, fix = "the page must not take the place of another file", "Name another with -o FILE."
    raise ValueError(message("ddbp report", must, path, fix))
