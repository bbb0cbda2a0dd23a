"""Ways to exchange what is learned, as the model of scale knows them: what `compression.py` has
measured of their processor's time, and `network.py` of batches.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import network

from ddbp.seldom import exchange as seldom
from ddbp.seldom.network import ways

from .scaling import Exchange

_RESULTS = Path(__file__).parents[3] / "docs" / "results"


@cache
def _codecs() -> dict[str, tuple[float, float]]:
    """Return in how many seconds a core writes and keeps a message, and adds one up, for each
    parameter, by the name of the compression.
    """
    found = json.loads((_RESULTS / "compression.json").read_text())
    per = 1e-3 / (found["parameters"] * found["shards"])
    return {
        row["compression"]: (per * (row["write_ms"] + row["keep_ms"]), per * row["sum_ms"])
        for row in [*found["rows"], *found.get("codes", [])]
        if row["compression"] != "as it is"
    }


def _exchange(
    options: Mapping[str, Any], shards: int, messages: float, sent: float
) -> Exchange | None:
    """Return what the model of scale needs of the options of a trainer, None for gradients as they
    are.
    """
    apart, name = seldom.chosen(options.get("exchange")), options.get("compression", "")
    every = 1
    if apart is not None:
        every = apart.every // apart.fragments
        name = f"{apart.bits} bits" if apart.bits else ""
    elif not name and "wire" not in options:
        return None
    return Exchange(every, shards, messages, sent, *_codecs().get(name, (0.0, 0.0)))


def of_model(
    shapes: Sequence[tuple[int, ...]], hosts: int, workers: int
) -> dict[str, Exchange | None]:
    """Return the ways that are recommended of a model with parameters of these shapes, by what is
    written for them without what takes no time: the number of workers, and the outer optimizer.
    """
    result = {}
    besides = f"workers={workers}, ", f", shards={workers}", "outer_rate=1.0, outer_momentum=0.0, "
    for way in ways(shapes, hosts, workers):
        name = way.arguments
        for each in besides:
            name = name.replace(each, "")
        result[name or "gradients"] = _exchange(way.options, workers, way.messages, way.sent)
    return result


@cache
def parameters(task: str) -> int:
    """Return how many parameters the model of a task has."""
    return sum(each.size for each in network.TASKS[task].model().parameters())


def exchange(row: Mapping[str, Any]) -> Exchange | None:
    """Return the way of a row of `network.py`."""
    options = network.ways(row["hosts"])[row["way"]]
    cost = network.cost(network.TASKS[row["task"]], options, row["hosts"])
    return _exchange(options, row["hosts"], cost["messages"], cost["sent"])


def network_of(row: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[float, float]:
    """Return the latency and the bandwidth of the network that a row was measured on: the medians
    of what all runs there have measured.
    """
    there = [
        each["network"]
        for other, each, _ in measured()
        if other["hosts"] == row["hosts"]
        and (each["megabits"], each["delay"]) == (found["megabits"], found["delay"])
    ]
    latencies, bandwidths = ([each[name] for each in there] for name in ("latency", "bandwidth"))
    return median(latencies), median(bandwidths)


def measured() -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Yield rows of `network.py`, what was measured on a network, and what was measured there of
    gradients as they are.
    """
    path = _RESULTS / "network.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    where = ("megabits", "delay")
    plain = {
        (row["task"], row["hosts"], *(found[each] for each in where)): found
        for row in rows
        if row["way"] == "all-reduce"
        for found in row["times"]
    }
    for row in rows:
        for found in row["times"]:
            there = plain.get((row["task"], row["hosts"], *(found[each] for each in where)))
            if there is not None and row["way"] in network.ways(row["hosts"]):
                yield row, found, there
