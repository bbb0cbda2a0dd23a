"""Write the tables of README.md and the docs, and the pictures of docs/images, from the results in
docs/results.

    python scripts/bench/publish.py [--check]

Pictures are drawn by matplotlib; to check them needs nothing, as each carries a digest of what it
was drawn from.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from report import (
    clinic,
    compressions,
    differentiable,
    estimators,
    optimizers,
    pictures,
    quality,
    reliability,
    repair,
    rules,
    scale,
    speed,
    speedruns,
)
from report import pages as report_pages
from report.table import ROOT

from ddbp.speedrun.tasks import TASKS as RACES

TABLES: dict[str, Callable[[], str]] = {
    "verified": quality.verified,
    "numbers": speed.training_steps,
    "scales": speed.scales,
    "precisions": speed.precisions,
    "activation memory": speed.activation_memory,
    "breakdown": speed.breakdown,
    "recompute": speed.recomputed,
    "augmentation": speed.augmentation,
    **{f"speedrun {name}": partial(speedruns.of_task, name) for name in RACES},
    "compilation": speed.compilation,
    "accuracy": quality.accuracies,
    "precision accuracy": quality.precisions,
    "convolutions": speed.convolutions,
    "convolution errors": speed.convolution_errors,
    "attributions": quality.attributions,
    "gradients": quality.gradients,
    "trees": speed.trees,
    "language": quality.language,
    "learning rules": rules.errors,
    "sparse backward": rules.sparse,
    "passes of rules": rules.passes,
    "clinic": clinic.summary,
    "clinic diagnosers": clinic.diagnosers,
    "clinic diseases": clinic.diseases,
    "clinic rules": clinic.rules,
    "clinic doses": clinic.doses,
    "repairs": repair.repairs,
    "reductions": scale.reductions,
    "overlaps": scale.overlaps,
    "whole hosts": scale.whole_hosts,
    "compressions": compressions.compressions,
    "bits of compressions": compressions.bits,
    "update": scale.update,
    "guards": scale.guards,
    "efficiencies": scale.efficiencies,
    "shards": scale.shards,
    "validation": scale.validation,
    "scaling": scale.scaling,
    "networks": scale.networks,
    "exchange errors": scale.exchange_errors,
    "seldom": scale.seldom,
    "published": scale.published,
    "memory": scale.memory,
    "data memory": scale.data_memory,
    "optimizer states": optimizers.states,
    "projections": optimizers.projections,
    "large batches": optimizers.large_batches,
    "chaos": reliability.chaos,
    "chaos of ways": reliability.chaos_of_ways,
    "checkpoints": reliability.checkpoints,
    "reports": report_pages.weights,
    "replays": report_pages.replays,
    "instruments": report_pages.costs,
    "survivals": reliability.survivals,
    "watchdogs": reliability.watchdogs,
    "estimators": estimators.compared,
    "installations": estimators.installations,
    "differentiable": differentiable.costs,
    "differentiable results": differentiable.results,
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
