"""Diseases of where the time goes."""

from collections import Counter

import numpy as np

from ddbp.doctor.chart import Chart
from ddbp.doctor.ranks import OfRanks
from ddbp.doctor.rule import Evidence, rule
from layers.types import Array

_SHARE = 0.5
_SECONDS = 5e-3
_ROWS = 8
_STEPS = 20
"""Of shorter epochs what comes between two of them is a large part."""
_CROWDED = 0.25
_SLOW, _OF_ROWS, _WAITED = 1.5, 0.75, 0.1
_LASTED = 3.0
"""Seconds that training must have taken: another program may take a core for a moment."""


@rule(
    "Ranks that share a core take turns on it, and those that have one wait for them.",
    "Start as many ranks as there are cores (ddbp launch does, without -n): with the same shards="
    " the result has the same bits.",
)
def cores_oversubscribed(chart: Chart) -> Evidence | None:
    """More ranks than cores that they may use, and they wait for one for a good part of the
    time.
    """
    crowd = _crowd(chart.ranks)
    waited = [share for share in chart.ranks.without_core if share > _CROWDED]
    if not crowd or 2 * len(waited) <= len(chart.ranks.hosts):
        return None
    share = float(np.median(waited))
    text = f"{crowd}, and wait for one for {share:.0%} of the time"
    return Evidence(text, numbers={"share": share})


def _crowd(ranks: OfRanks) -> str:
    """Return which ranks share how few cores, in words, "" if each has one."""
    for host in dict.fromkeys(ranks.hosts):
        here = [rank for rank, name in enumerate(ranks.hosts) if name == host]
        where = f" of {host}" * (len({*ranks.hosts}) > 1)
        allowed = {rank: frozenset(ranks.cores[rank]) for rank in here}
        for cores in sorted({*allowed.values()}, key=len, reverse=True):
            sharing = sum(of <= cores for of in allowed.values())
            if cores and sharing > len(cores):
                number = f"{len(cores)} core{'s' * (len(cores) > 1)}"
                return f"{sharing} ranks share {number}{where}"
        for (group, quota), sharing in Counter(ranks.quota[rank] for rank in here).items():
            if sharing >= quota + 1:
                return f"{sharing} ranks share the time of {quota:g} cores of {group}{where}"
    return ""


@rule(
    "All ranks wait in each step for the slowest one.",
    "Look there for other programs (top), a core that is throttled or another processor; or leave"
    " that host out.",
)
def rank_slow(chart: Chart) -> Evidence | None:
    """A rank needs far longer for forward and backward than the others, in nearly all steps."""
    seconds = _seconds(chart)
    ranks = chart.ranks
    if seconds is None or _crowd(ranks):
        return None
    busy = (seconds["forward"] + seconds["backward"]) / np.maximum(ranks.shards, 1)
    slowest = np.argmax(busy, axis=1)
    usual = np.array(
        [np.median(np.delete(row, rank)) for row, rank in zip(busy, slowest, strict=True)]
    )
    times = busy.max(axis=1) / np.maximum(usual, 1e-12)
    (rank, _), *_ = Counter(slowest.tolist()).most_common()
    found = (slowest == rank) & (times > _SLOW)
    others = np.delete(seconds["waiting"], rank, axis=1).mean(axis=1)
    whole = np.sum([*seconds.values()], axis=0)[:, rank]
    waited = float(np.median(others / np.maximum(whole, 1e-12)))
    if found.mean() < _OF_ROWS or waited < _WAITED:
        return None
    factor = float(np.median(times[found]))
    text = (
        f"{ranks.named([rank])} needs {factor:.1f} times as long as the others for forward and"
        f" backward, in {found.sum()} of {len(found)} measured steps, and they wait for it for"
        f" {waited:.0%} of the time"
    )
    return Evidence(text, numbers={"rank": rank, "times": factor, "waited": waited})


def _seconds(chart: Chart) -> dict[str, Array] | None:
    """Return the seconds of each phase (n, ranks) of the last recorded steps, but for the first one
    of the run; None if there are too few that all ranks of now took part in.
    """
    count = len(chart.ranks.hosts)
    names = [name for name in chart.recording.quantities if name.startswith("seconds_")]
    held = {name.removeprefix("seconds_"): chart.values(name)[1:] for name in names}
    if count < 2 or held["forward"].shape[1] != count:
        return None
    whole = np.isfinite(held["forward"]).all(axis=1)
    last = np.flatnonzero(whole)[-12:]
    found = {name: of[last].astype(np.float64) for name, of in held.items()}
    whole_steps = np.sum([*found.values()], axis=0)
    if len(last) < _ROWS or chart.step * np.median(whole_steps) < _LASTED:
        return None
    return found


@rule(
    "The cores wait for data: training takes longer than it need.",
    "Prepare the samples once, before training, or have a thread make batches ahead:"
    " Trainer(prefetch=True).",
)
def waits_for_data(chart: Chart) -> Evidence | None:
    """A good part of each step goes by between two steps, where batches are made."""
    if chart.recorded < _ROWS or chart.step < _STEPS * max(chart.epochs, 1):
        return None
    names = [name for name in chart.recording.quantities if name.startswith("seconds_")]
    # Summed, as of ranks there may be fewer than at other times: NaN for those.
    seconds = {name: np.nansum(chart.values(name)[-_ROWS:], axis=1) for name in names}
    ranks = np.isfinite(chart.values("seconds_data")[-_ROWS:]).sum(axis=1)
    whole = np.sum([*seconds.values()], axis=0) / np.maximum(ranks, 1)
    share = float(np.median(seconds["seconds_data"] / np.maximum(whole * ranks, 1e-12)))
    if not share > _SHARE or np.median(whole) < _SECONDS:
        return None
    text = f"{share:.0%} of the time goes by between steps"
    return Evidence(text, numbers={"share": share})
