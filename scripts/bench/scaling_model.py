"""Predict step time and efficiency for 2 to 4096 ranks from what is measured on this machine, and
compare with measured runs.

    python scripts/bench/scaling_model.py --measure machine mlp resnet20 lstm-256 \
        --json docs/results/scaling_model.json
    python scripts/bench/scaling_model.py --json docs/results/scaling_model.json

The first takes minutes, and may be done piece by piece: what is not named stays as it is in the
file. The second only computes. docs/scaling.md explains the model; its equations are in
lib/scaling.py.
"""

import argparse
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lib import harness, scaling, ways
from lib.scaling import Machine, Network, Placement, Work

from workloads import WORKLOADS

US, GB = 1e-6, 1e9
PEER = 0.2 * US
"""Assumed: two cache lines from another core, 100 ns each."""
NETWORKS = (
    Network(
        "10 GbE",
        25 * US,
        1.25 * GB,
        5 * US,
        "line rate; α and o assumed for TCP through the kernel",
    ),
    Network(
        "25 GbE",
        5 * US,
        3.125 * GB,
        2 * US,
        "line rate of the published Horovod run, RoCE; α and o assumed",
    ),
    Network(
        "100 Gb InfiniBand",
        1.5 * US,
        12.5 * GB,
        2 * US,
        "line rate; α assumed, o is two calls of mpi4py",
    ),
)
VALIDATED = ((1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (4, 2), (4, 4))
"""(ranks, hosts played by this machine) of the runs that are measured."""
LOCALS = (2, 16, 64)
SLOW = (
    Network("100 Mbit/s", 200 * US, 12.5e6, 5 * US, "line rate; α and o assumed"),
    Network("1 Gbit/s", 100 * US, 125e6, 5 * US, "line rate; α and o assumed"),
    NETWORKS[0],
)
HOSTS, LOCAL = (2, 8, 32), 16
"""Hosts for which ways to exchange are compared, and the ranks of each."""
SIZES = tuple(2**power for power in range(1, 13))
# Images per second of one P100 at batch 64, synthetic data, from the TensorFlow benchmarks of May
# 2017 (DGX-1); ResNet-101 by its operations between ResNet-50 (219) and ResNet-152 (91.8).
PUBLISHED = (
    {
        "name": "Horovod, Inception V3",
        "hosts": 128,
        "parameters": 23.8e6,
        "samples": 64,
        "rate": 142,
        "gbit": 25,
        "efficiency": 0.90,
    },
    {
        "name": "Horovod, ResNet-101",
        "hosts": 128,
        "parameters": 44.5e6,
        "samples": 64,
        "rate": 129,
        "gbit": 25,
        "efficiency": 0.90,
    },
    {
        "name": "Horovod, VGG-16",
        "hosts": 128,
        "parameters": 138.4e6,
        "samples": 64,
        "rate": 154,
        "gbit": 25,
        "efficiency": 0.68,
    },
    {
        "name": "ChainerMN, ResNet-50",
        "hosts": 32,
        "parameters": 25.6e6,
        "samples": 32,
        "rate": 195,
        "gbit": 54,
        "efficiency": 0.90,
    },
)


# Measuring


def measured_machine() -> dict[str, Any]:
    """Measure what the model needs to know of this machine."""
    import scaling_measure as measure

    found = {str(ranks): measure.on_ranks(ranks, 1, "machine") for ranks in (2, 4, 8)}
    return {"ranks": found, "messages": measure.on_ranks(2, 2, "messages")}


def measured_work(name: str, rounds: int) -> dict[str, Any]:
    """Measure one workload: its computation alone and on all cores at once, and the runs that the
    model is compared with.

    Of several rounds the faster counts.
    """
    import scaling_measure as measure

    found = []
    for _ in range(rounds):
        alone, busy = measure.at_once(1, "compute", name), measure.at_once(2, "compute", name)
        runs = [
            {"ranks": ranks, "hosts": hosts, **measure.on_ranks(ranks, hosts, "training", name)}
            for ranks, hosts in VALIDATED
        ]
        found.append({"alone": alone[0], "busy": busy, "runs": runs})
    return {"rounds": found}


# From measurements to the model


def machine_of(found: dict[str, Any]) -> Machine:
    """Return the facts of the machine that was measured with two ranks on its two cores."""
    two = found["ranks"]["2"]
    rates = {}
    for count, seconds in two["reductions"].items():
        size = scaling.WORD * int(count) * two["ranks"]
        rates[float(size)] = size / max(seconds - 2 * two["meeting"], 0.1 * seconds)
    cores = int(two["ranks"])
    switch = {1.0: 0.0}
    for ranks, crowded in found["ranks"].items():
        own_core = two["meeting"] + (int(ranks) - 2) * PEER
        if int(ranks) > cores:
            switch[int(ranks) / cores] = max(
                0.0, crowded["meeting"] - int(ranks) / cores * own_core
            )
    return Machine(cores, two["meeting"], PEER, switch, two["stream"], rates)


def network_of(found: dict[str, Any]) -> Network:
    """Return the network between the hosts that the machine plays."""
    times = found["messages"]["one"]
    overhead = (found["messages"]["many"] - times["64"]) / 7
    latency, bandwidth = scaling.line({int(size): seconds for size, seconds in times.items()})
    return Network(
        "hosts played by one machine", max(0.0, latency - overhead), bandwidth, overhead, "measured"
    )


def work_of(found: dict[str, Any], wait: str) -> Work:
    """Return the facts of a workload; what was measured on all cores at once with its mean, the
    faster round.

    `wait` says which waiting time counts: wait_mean with all disturbances of this machine,
    wait_median without most.
    """
    alone = [one["alone"] for one in found["rounds"]]
    busy = [table for one in found["rounds"] for table in one["busy"]]

    def fastest(tables: list[Any], what: str) -> dict[float, float]:
        return {float(size): min(table[what][size] for table in tables) for size in tables[0][what]}

    def mean(what: str) -> float:
        return min(fmean(table[what] for table in one["busy"]) for one in found["rounds"])

    compute = {
        float(size): min(
            fmean(table["passes"][size] for table in one["busy"]) for one in found["rounds"]
        )
        for size in busy[0]["passes"]
    }
    waits = [
        run[wait]
        for one in found["rounds"]
        for run in one["runs"]
        if (run["ranks"], run["hosts"]) == (2, 1)
    ]
    skew = min(waits) / compute[max(compute) / 2]
    return Work(
        alone[0]["parameters"],
        compute,
        mean("update"),
        mean("overhead"),
        fastest(alone, "whole"),
        skew,
    )


def measured_runs(found: dict[str, Any]) -> dict[tuple[int, int], float]:
    """Return (ranks, hosts) -> seconds of a step, the faster round."""
    times: dict[tuple[int, int], list[float]] = {}
    for one in found["rounds"]:
        for run in one["runs"]:
            times.setdefault((run["ranks"], run["hosts"]), []).append(median(run["blocks"]))
    return {place: min(values) for place, values in times.items()}


def validation(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return predicted and measured step times of the runs on this machine."""
    machine, network = machine_of(result["host"]), network_of(result["host"])
    rows = []
    for name, found in result["works"].items():
        work = work_of(found, "wait_mean")
        for (ranks, hosts), true in measured_runs(found).items():
            place = Placement(ranks, hosts, 1)
            parts = scaling.step(work, machine, network, place, max(work.compute))
            predicted = sum(parts.values())
            rows.append(
                {
                    "name": name,
                    "ranks": place.ranks,
                    "hosts": place.hosts,
                    "predicted_ms": round(predicted * 1e3, 4),
                    "measured_ms": round(true * 1e3, 4),
                    "error": round(predicted / true - 1, 4),
                    "parts_ms": {part: round(seconds * 1e3, 4) for part, seconds in parts.items()},
                }
            )
    return rows


def predictions(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return step time and efficiency for 2 to 4096 ranks on the networks, with several numbers of
    ranks on a host.
    """
    rows = []
    works = {name: work_of(found, "wait_median") for name, found in result["works"].items()}
    # Every network's ranks do equal work, so what they wait for is the machine: the least disturbed
    # run shows it best.
    skew = min(work.skew for work in works.values())
    for name, work in works.items():
        work, samples = replace(work, skew=skew), max(work.compute)
        for local in LOCALS:
            machine = scaling.bigger(machine_of(result["host"]), local)
            for ranks in SIZES:
                hosts = max(1, ranks // local)
                place = Placement(ranks, hosts, hosts)
                for network in NETWORKS:
                    row = {
                        "name": name,
                        "ranks": ranks,
                        "hosts": hosts,
                        "ranks_per_host": local,
                        "network": network.name,
                    }
                    for kind, batch in (("weak", samples * ranks), ("strong", samples)):
                        if batch < ranks:
                            continue
                        parts = scaling.step(work, machine, network, place, batch)
                        row[f"{kind}_ms"] = round(sum(parts.values()) * 1e3, 4)
                        row[f"{kind}_parts_ms"] = {
                            part: round(seconds * 1e3, 4) for part, seconds in parts.items()
                        }
                        share = scaling.efficiency(
                            work, machine, network, place, samples, weak=kind == "weak"
                        )
                        row[f"{kind}_efficiency"] = round(share, 4)
                        calm = scaling.efficiency(
                            replace(work, skew=0.0),
                            machine,
                            network,
                            place,
                            samples,
                            weak=kind == "weak",
                        )
                        row[f"{kind}_without_skew"] = round(calm, 4)
                    rows.append(row)
    return rows


def published() -> list[dict[str, Any]]:
    """Return the bounds of the efficiency of published runs, beside what was published."""
    rows = []
    for run in PUBLISHED:
        compute = run["samples"] / run["rate"]
        low, high = scaling.bounds(
            compute, scaling.ring(run["parameters"], run["hosts"], run["gbit"] * GB / 8)
        )
        rows.append({**run, "without_overlap": round(low, 3), "with_overlap": round(high, 3)})
    return rows


# Other ways to exchange


def exchanges(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return predicted and measured times of batches on networks, of all that `network.py` has
    measured: passes take the time that they took in the run of gradients as they are, and α and β
    are the medians of what all runs on that network have measured.
    """
    machine = replace(machine_of(result["host"]), cores=1)
    known = work_of(result["works"]["mlp"], "wait_median")
    rows = []
    for row, found, plain in ways.measured():
        n, ranks = ways.parameters(row["task"]), row["hosts"]
        seconds = plain["compute"] / 1e3
        update = n * known.update / known.parameters
        work = Work(n, {1.0: seconds}, update, known.overhead, {1.0: seconds}, 0.0)
        network = Network("measured", *ways.network_of(row, found), 0.0)
        where = work, machine, network, Placement(ranks, ranks, ranks), float(ranks)
        other = ways.exchange(row)
        parts = scaling.step_by(other, *where) if other else scaling.step(*where)
        predicted = 1e3 * sum(parts.values())
        rows.append(
            {
                "name": row["name"],
                "megabits": found["megabits"],
                "delay": found["delay"],
                "predicted_ms": round(predicted, 4),
                "measured_ms": round(found["ms"], 4),
                "error": round(predicted / found["ms"] - 1, 4),
                "parts_ms": {part: round(1e3 * each, 4) for part, each in parts.items()},
            }
        )
    return rows


def seldom(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the efficiency of each way to exchange on hosts of 16 ranks, on slow networks, with as
    many samples on every rank as one has alone.
    """
    machine, rows = scaling.bigger(machine_of(result["host"]), LOCAL), []
    works = {name: work_of(found, "wait_median") for name, found in result["works"].items()}
    skew = min(work.skew for work in works.values())
    for (name, work), network, hosts in itertools.product(works.items(), SLOW, HOSTS):
        shapes = [each.shape for each in WORKLOADS[name].start().parameters()]
        place = Placement(LOCAL * hosts, hosts, hosts)
        where = replace(work, skew=skew), machine, network, place, max(work.compute)
        found = {
            way: round(scaling.efficiency(*where, weak=True, exchange=other), 4)
            for way, other in ways.of_model(shapes, hosts, place.ranks).items()
        }
        rows.append({"name": name, "network": network.name, "hosts": hosts, "efficiency": found})
    return rows


# Output


def show(result: dict[str, Any]) -> None:
    """Print the comparison with measured runs, and the predictions for 16 ranks on a host."""
    print(
        f"{'workload':10}{'ranks':>6}{'hosts':>6}{'predicted ms':>14}"
        f"{'measured ms':>14}{'error':>8}"
    )
    for row in result["validation"]:
        print(
            "{name:10}{ranks:>6}{hosts:>6}{predicted_ms:>14.3f}{measured_ms:>14.3f}{error:>8.0%}".format(
                **row
            )
        )
    print(
        f"\n{'workload':10}{'ranks':>6}{'hosts':>6} "
        f" {'network':18}{'weak ms':>10}{'weak':>7}{'strong ms':>10}{'strong':>7}"
    )
    unknown = {"strong_ms": float("nan"), "strong_efficiency": float("nan")}
    line = (
        "{name:10}{ranks:>6}{hosts:>6} "
        " {network:18}{weak_ms:>10.3f}{weak_efficiency:>7.2f}{strong_ms:>10.3f}"
    )
    for row in result["rows"]:
        if row["ranks_per_host"] == 16:
            print((line + "{strong_efficiency:>7.2f}").format(**unknown | row))


def main() -> None:
    """Measure what is asked for, compute, print and write the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--measure", nargs="+", default=[], metavar="WHAT", help="machine, or workloads"
    )
    parser.add_argument(
        "--json", type=Path, required=True, metavar="FILE", help="measurements and predictions"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        metavar="R",
        help="measure workloads so often (%(default)s)",
    )
    options = parser.parse_args()
    unknown = set(options.measure) - {"machine", *WORKLOADS}
    if unknown:
        parser.error(f"--measure takes machine, {', '.join(WORKLOADS)}; got {', '.join(unknown)}")
    result = json.loads(options.json.read_text()) if options.json.is_file() else {"works": {}}
    for name in options.measure:
        result["machine"] = harness.machine()
        found = measured_machine() if name == "machine" else measured_work(name, options.rounds)
        # Through text, so that it is as if read from the file.
        found = json.loads(json.dumps(found))
        if name == "machine":
            result["host"] = found
        else:
            result["works"][name] = found
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if "host" not in result or not result["works"]:
        return
    machine = machine_of(result["host"])
    result["model"] = {
        "machine": asdict(machine),
        "networks": [asdict(network) for network in (network_of(result["host"]), *NETWORKS)],
    }
    result["model"]["works"] = {
        name: asdict(work_of(found, "wait_median")) for name, found in result["works"].items()
    }
    result |= {
        "validation": validation(result),
        "published": published(),
        "rows": predictions(result),
        "exchanges": exchanges(result),
        "seldom": seldom(result),
    }
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


if __name__ == "__main__":
    main()
