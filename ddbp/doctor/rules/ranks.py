"""Diseases of ranks that must have the same, and have not: told exactly, by bits."""

from ddbp.doctor.chart import Chart
from ddbp.doctor.ranks import Difference
from ddbp.doctor.rule import Evidence, rule


@rule(
    "Ranks of different code or packages compute different things.",
    "Start all ranks with the same files and packages, and look at the PATH and PYTHONPATH of each"
    " host.",
)
def versions_differ(chart: Chart) -> Evidence | None:
    """A package, or a module of the script, is another one on some ranks."""
    found = chart.ranks.versions
    if found is None:
        return None
    return Evidence(_both(found))


@rule(
    "The batch is put together of samples that do not belong to one data set.",
    "Have every rank make the same arrays: the same files, the same seed, and no changes in place"
    " on some ranks only.",
)
def data_differ(chart: Chart) -> Evidence | None:
    """The data, or the global batch that a script gives, are others on some ranks."""
    found = chart.ranks.data
    if found is None:
        return None
    text = f"{found.name} is another array on {found.others} than on {found.most}"
    return Evidence(text + found.doubt)


@rule(
    "What was written there is not what is read: the memory may be faulty.",
    "Go on from a checkpoint, on another machine; if a script has changed that number in place,"
    " have it do so within ddbp.modify_parameters(trainer).",
)
def memory_corrupted(chart: Chart) -> Evidence | None:
    """A single bit of a parameter, or of a moment, has flipped between two updates."""
    if not chart.ranks.flipped:
        return None
    return Evidence(f"a bit has flipped in {chart.ranks.flipped}")


@rule(
    "Ranks with different copies train different models, and share one update.",
    "Look for what only some ranks do: a branch on the rank, a random generator of its own, an"
    " array that is changed in place.",
)
def ranks_differ(chart: Chart) -> Evidence | None:
    """A parameter, a state of a layer, or what updates go by, is another one on some ranks."""
    found = chart.ranks.copies
    if found is None:
        return None
    if "optimizer" in found.name:
        return Evidence(_both(found))
    text = f"other bits on {found.others} than on {found.most}{found.doubt}"
    return Evidence(text, found.name)


def _both(found: Difference) -> str:
    """Return what a thing is on the one ranks and on the others."""
    text = f"{found.name} is {found.there} on {found.others}, and {found.here} on {found.most}"
    return text + found.doubt
