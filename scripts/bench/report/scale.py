"""Tables of several ranks: reduction, overlap, efficiency, memory, the model of scale."""

import itertools
from statistics import median
from typing import Any

from .table import factor, milliseconds, result, source, table


def reductions() -> str:
    """Return the table of reductions over the ranks of a host, if they were measured."""
    if not (measured := result("reduction")):
        return ""
    head = ["KiB", "ours, µs", "MPI, µs", "gloo, µs", "MPI / ours", "gloo / ours"]
    lines = []
    for row in measured["rows"]:
        times = [milliseconds(row[f"{name}_us"]) for name in ("ours", "mpi", "gloo")]
        ratios = [f"{row[name]:.1f}" for name in ("ratio_mpi", "ratio_gloo")]
        lines.append([row["bytes"] // 1024, *times, *ratios])
    ranks = f"{measured['rows'][0]['ranks']} ranks. "
    return f"{table(head, lines, words=0)}\n\n{source('reduction', before=ranks)}"


def overlaps() -> str:
    """Return the table of steps on two hosts with and without overlap, if they were measured."""
    if not (measured := result("overlap")):
        return ""
    names = measured["rows"][0]["ms"]
    head = ["workload", "MB", "network", *(f"{name}, ms" for name in names)]
    lines = [
        [row["name"], row["megabytes"], row["network"], *map(milliseconds, row["ms"].values())]
        for row in measured["rows"]
    ]
    return f"{table(head, lines)}\n\n{source('overlap')}"


def whole_hosts() -> str:
    """Return the table of hosts that publish parameters or sums, if they were measured."""
    if not (measured := result("whole_hosts")):
        return ""
    head = ["workload", "ranks", "parameters, ms", "sums, ms", "sums / parameters"]
    head += ["sent, MB", "sent as sums, MB", "moments, MB", "whole moments, MB"]
    lines = []
    for row in measured["rows"]:
        kinds = ("parameters", "sums")
        times = [milliseconds(row["ms"][kind]) for kind in kinds]
        sizes = [row["bytes"][kind][of] for of in ("sent", "moments") for kind in kinds]
        megabytes = [f"{size / 1e6:.2f}" for size in sizes]
        lines.append([row["name"], row["ranks"], *times, factor(row["ratio"]["ratio"]), *megabytes])
    return f"{table(head, lines)}\n\n{source('whole_hosts')}"


def efficiencies() -> str:
    """Return the table of one rank against several, if they were measured."""
    if not (measured := result("efficiency")):
        return ""
    head = ["workload", "ranks", "1 rank, ms", "ranks, ms", "efficiency"]
    head += ["of unrelated processes", "8 shards / one per rank", "more ranks than cores / 1 rank"]
    keys = ("efficiency", "efficiency_apart", "shards_ratio", "crowd_ratio")
    lines = [
        [
            row["name"],
            row["ranks"],
            *(milliseconds(row["ms"][name]) for name in ("one", "several")),
            *(factor(row.get(key)) for key in keys),
        ]
        for row in measured["rows"]
    ]
    return f"{table(head, lines)}\n\n{source('efficiency')}"


def shards() -> str:
    """Return the table of several shards against one, if they were measured."""
    if not (measured := result("shards")):
        return ""
    several = measured["rows"][0]["shards"]
    head = ["workload", "1 shard, ms", f"{several} shards, ms", "ratio", "quartiles"]
    lines = [
        [
            row["name"],
            *(milliseconds(row[f"{which}_ms"]) for which in ("one", "several")),
            factor(row["ratio"]),
            f"{row['low']:.2f} to {row['high']:.2f}",
        ]
        for row in measured["rows"]
    ]
    return f"{table(head, lines)}\n\n{source('shards')}"


def update() -> str:
    """Return a sentence on the reduction with Adam's update, if it was measured."""
    if not (measured := result("update")):
        return ""
    (row,) = measured["rows"]
    told = (
        f"{row['parameters'] / 1e6:.0f} million parameters on {row['ranks']} ranks:"
        f" {milliseconds(row['ms'])} ms, {factor(row['ratio'])} of the"
        f" {milliseconds(row['at_bandwidth_ms'])} ms that its bytes take at the"
        f" {row['gb_per_second']:.1f} GB/s of a sum of arrays."
    )
    return f"{told}\n\n{source('update')}"


def guards() -> str:
    """Return the table of what guards of updates cost, if it was measured."""
    if not (measured := result("update_guards")):
        return ""
    lines = []
    for row in measured["rows"]:
        count = f" of {row['parameters'] / 1e6:.0f} million by Adam" if "parameters" in row else ""
        ratios = [
            factor(row["ratio"][name]["ratio"]) if name in row["ratio"] else ""
            for name in ("log", "checksums", "both", "skip", "rollback")
        ]
        lines.append([row["name"] + count, milliseconds(row["ms"]["plain"]), *ratios])
    head = ["", "without, ms", "undo log", "checksums", "both", "skip", "rollback"]
    return f"{table(head, lines)}\n\n{source('update_guards')}"


def memory() -> str:
    """Return the table of the memory of ranks, if it was measured."""
    if not (measured := result("memory")):
        return ""
    head = ["", "ranks", "RSS, MB", "PSS, MB", "of it the network, MB", "its arrays, MB"]
    head += ["parameters", "gradients", "optimizer"]
    lines = []
    for row in measured["rows"]:
        sizes = [row["rss_mb"], row["pss_mb"], row["network_pss_mb"], row["expected_mb"]]
        sizes += row["expected"].values()
        lines.append([row["name"], row["ranks"], *(f"{size:.0f}" for size in sizes)])
    return f"{table(head, lines)}\n\n{source('memory')}"


def data_memory() -> str:
    """Return the table of the memory of an epoch over a mapped file, if it was measured."""
    if not (measured := result("data_memory")):
        return ""
    head = ["ranks", "the set, MB", "the epoch needs, MB a rank", "its own", "pages of files"]
    head += ["the whole process, MB"]
    names = ("set_mb", "needed_mb", "own_mb", "files_mb", "process_mb")
    lines = [[row["ranks"], *(f"{row[name]:.0f}" for name in names)] for row in measured["rows"]]
    return f"{table(head, lines)}\n\n{source('data_memory')}"


def validation() -> str:
    """Return the steps that the model of scale predicts beside the measured ones, if it was
    computed.
    """
    if not (computed := result("scaling_model")):
        return ""
    head = ["workload", "ranks", "hosts", "predicted, ms", "measured, ms", "error"]
    lines = [
        [
            *(row[key] for key in ("name", "ranks", "hosts")),
            *(milliseconds(row[key]) for key in ("predicted_ms", "measured_ms")),
            f"{row['error']:+.0%}",
        ]
        for row in computed["validation"]
    ]
    return f"{table(head, lines)}\n\n{source('scaling_model')}"


def scaling() -> str:
    """Return the efficiencies that the model of scale predicts for 16 ranks on a host, if it was
    computed.
    """
    if not (computed := result("scaling_model")):
        return ""
    chosen = [
        row
        for row in computed["rows"]
        if row["ranks_per_host"] == 16 and row["ranks"] in (2, 4, 8, 16, 32, 64, 256, 1024, 4096)
    ]
    networks = list(dict.fromkeys(row["network"] for row in chosen))
    calm = networks[1]
    head = ["workload", "ranks", "hosts"]
    head += [
        f"{kind}, {network}"
        for kind in ("weak", "strong")
        for network in [*networks, f"{calm} without skew"]
    ]
    by_place: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in chosen:
        place = row["name"], row["ranks"], row["hosts"]
        by_place.setdefault(place, {})[row["network"]] = row
    lines = []
    for place, of in by_place.items():
        shares = []
        for kind in ("weak", "strong"):
            shares += [factor(of[network].get(f"{kind}_efficiency")) for network in networks]
            shares.append(factor(of[calm].get(f"{kind}_without_skew")))
        lines.append([*place, *shares])
    return f"{table(head, lines)}\n\nFrom `docs/results/scaling_model.json`."


def published() -> str:
    """Return published efficiencies between the bounds that the model gives, if it was computed."""
    if not (computed := result("scaling_model")):
        return ""
    head = ["run", "hosts", "Gbit/s", "without overlap", "published", "with overlap"]
    keys = ("without_overlap", "efficiency", "with_overlap")
    return table(
        head,
        [
            [row["name"], row["hosts"], row["gbit"], *(factor(row[key]) for key in keys)]
            for row in computed["published"]
        ],
    )


def networks() -> str:
    """Return the table of times to a loss on networks of several speeds, if they were measured: of
    each task, number of hosts and way, on each network the seconds to the loss and how many times
    faster that is than by gradients as they are.
    """
    if not (measured := result("network")):
        return ""
    rows = [row for row in measured["rows"] if row.get("curve") and row["times"]]
    links = sorted({_link(there) for row in rows for there in row["times"]})
    head = ["task", "hosts", "exchange", "MB a batch", "best loss", "batches to the loss"]
    head += [f"{megabits:,} Mbit/s, {delay} ms" for megabits, delay in links]
    lines = []
    for plain in (row for row in rows if row["way"] == "all-reduce"):
        target = 1.01 * min(loss for _, loss in plain["curve"])
        slowest = _seconds_to(plain, target)
        for row in (r for r in rows if all(r[of] == plain[of] for of in ("task", "hosts"))):
            seconds = _seconds_to(row, target)
            lines.append(
                [
                    *(row[of] for of in ("task", "hosts", "way")),
                    f"{row['times'][0]['bytes'] / 1e6:.3f}",
                    f"{min(loss for _, loss in row['curve']):.4f}",
                    _batches_to(row["curve"], target) or "not reached",
                    *(_beside(seconds.get(link), slowest.get(link)) for link in links),
                ]
            )
    if not lines:
        return ""
    # The ranks of the hosts themselves are a part of it.
    beside = max(there.get("load", 0) - row["hosts"] for row in rows for there in row["times"])
    shared = f" Other work kept the cores busy meanwhile, with a load of up to {beside:.0f}."
    return f"{table(head, lines, words=3)}\n\n{source('network')}{shared if beside > 1 else ''}"


def _link(there: dict[str, Any]) -> tuple[float, float]:
    """Return the megabits of a second and the delay of the network that a time was measured on."""
    return there["megabits"], there["delay"]


def _seconds_to(row: dict[str, Any], target: float) -> dict[tuple[float, float], float]:
    """Return how long a way takes to a loss on each network, if it comes to it."""
    count = _batches_to(row["curve"], target)
    return {_link(there): count * there["ms"] / 1e3 for there in row["times"]} if count else {}


def _beside(seconds: float | None, others: float | None) -> str:
    """Return a time and how many times as fast it is as another."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" + (f", {others / seconds:.1f}x" if others else "")


def _batches_to(curve: list[list[float]], target: float) -> int:
    """Return after how many batches a loss was first reached, 0 if it was not."""
    return int(next((batches for batches, loss in curve if loss <= target), 0))


def exchange_errors() -> str:
    """Return how far predicted times of batches are from measured ones, by the way to exchange and
    the number of hosts, if they were computed.
    """
    errors: dict[str, dict[str, list[float]]] = {}
    for row in result("scaling_model").get("exchanges", []):
        before, _, way = row["name"].partition(" hosts, ")
        of_way = errors.setdefault(way, {})
        of_way.setdefault(before.rpartition(" ")[2], []).append(row["error"])
    if not errors:
        return ""
    hosts = sorted({number for each in errors.values() for number in each})
    told = {"least": min, "median": median, "most": max}
    head = [f"{number} hosts: {what}" for number in hosts for what in ("runs", *told)]
    lines = [[way] for way in errors]
    for line, number in itertools.product(lines, hosts):
        found = errors[line[0]][number]
        line += [str(len(found)), *(f"{of(found):+.0%}" for of in told.values())]
    return table(["exchange", *head], lines)


def seldom() -> str:
    """Return the efficiencies that the model of scale predicts of ways to exchange on slow
    networks, if it was computed.
    """
    rows = result("scaling_model").get("seldom", [])
    if not rows:
        return ""
    ways = list(rows[0]["efficiency"])
    head = ["workload", "network", "hosts", *(f"`{way}`" if "=" in way else way for way in ways)]
    lines = [
        [row["name"], row["network"], row["hosts"], *map(factor, row["efficiency"].values())]
        for row in rows
    ]
    return f"{table(head, lines, words=2)}\n\nFrom `docs/results/scaling_model.json`."
