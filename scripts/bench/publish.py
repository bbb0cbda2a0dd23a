"""Write the tables of README.md and the docs, and the pictures of docs/images, from the results in
docs/results.

    python scripts/bench/publish.py [--check]

Pictures are drawn by matplotlib; to check them needs nothing, as each carries a digest of what it
was drawn from.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from report import pages as report_pages
from report import pictures, quality, reliability, scale, speed
from report.table import ROOT

TABLES: dict[str, Callable[[], str]] = {
    "verified": quality.verified,
    "numbers": speed.training_steps,
    "scales": speed.scales,
    "breakdown": speed.breakdown,
    "compilation": speed.compilation,
    "accuracy": quality.accuracies,
    "convolutions": speed.convolutions,
    "convolution errors": speed.convolution_errors,
    "attributions": quality.attributions,
    "gradients": quality.gradients,
    "trees": speed.trees,
    "language": quality.language,
    "clinic": quality.clinic,
    "reductions": scale.reductions,
    "overlaps": scale.overlaps,
    "whole hosts": scale.whole_hosts,
    "update": scale.update,
    "guards": scale.guards,
    "efficiencies": scale.efficiencies,
    "validation": scale.validation,
    "scaling": scale.scaling,
    "published": scale.published,
    "memory": scale.memory,
    "chaos": reliability.chaos,
    "checkpoints": reliability.checkpoints,
    "reports": report_pages.weights,
    "survivals": reliability.survivals,
    "watchdogs": reliability.watchdogs,
}


def pages() -> list[Path]:
    """Return the pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str, name: str, table: str) -> str:
    """Return the text with a table between the markers of that name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(
            f"publish: the page must have the markers {begin} and {end}. Put them where the table"
            " shall stand."
        )
    body = f"{begin}\n{table}\n{end}" if table else f"{begin}\n{end}"
    return before + body + after


def stale_pages(check: bool) -> list[str]:
    """Return the pages whose tables do not agree with the results; write them unless `check`."""
    stale = []
    for page in pages():
        text = new = page.read_text()
        for marker, table in TABLES.items():
            if f"<!-- {marker}:" in text:
                new = filled(new, marker, table())
        if new != text:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(new)
    return stale


def main() -> int:
    """Write, or with --check say what is out of date; return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if something is out of date"
    )
    options = parser.parse_args()
    stale = stale_pages(options.check)
    for picture in pictures.stale_pictures():
        stale.append(pictures.path_of(picture).relative_to(ROOT).as_posix())
        if not options.check:
            pictures.write(picture)
    print(
        f"{'out of date' if options.check else 'written'}: {', '.join(stale) or 'nothing'}",
        file=sys.stderr,
    )
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
