"""Time whole training steps against PyTorch, JAX and scikit-learn.

    python scripts/bench/train_step.py [WORKLOAD ...] [--ranks N] [--json FILE_OR_FOLDER] [--peers
    all] [--rounds R]

With one rank, all contestants take turns in one process on one core, and the rate of multiply-adds
is measured around each sample: ratios are given as they are, and in units of what that took then.
With more, our ranks under mpirun and the peers, PyTorch with as many threads and DDP over gloo with
as many processes, run one after the other, again and again, each in processes of its own.
"""

import argparse
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, peak, steps, workers

from workloads import WORKLOADS
from workloads.workload import Workload


def best(times: dict[str, list[float]], peer: str) -> str:
    """Return the faster of a peer's variants."""
    return min(
        (name for name in times if name.split()[0] == peer), key=lambda name: median(times[name])
    )


def row(
    workload: Workload,
    ranks: int,
    times: dict[str, list[float]],
    peers: list[str],
    clock: dict[str, list[float]] | None = None,
) -> dict[str, Any]:
    """Return the row of a workload; the peer of `torch_ms` and `ratio` is PyTorch's eager steps or,
    with ranks, the best.

    `clock` has what the peak's multiply-adds took around each time.
    """
    ours = times["ours"]
    chosen = {
        peer: best(times, peer) for peer in peers if any(name.split()[0] == peer for name in times)
    }
    same = [peer for peer in chosen if not steps.in_bfloat16(peer)]
    medians = {peer: median(times[chosen[peer]]) for peer in same}
    result: dict[str, Any] = {
        "workload": workload.name,
        "ranks": ranks,
        "threads": 1,
        "ours_ms": harness.spread(ours)["median"],
    }
    eager = "torch" if ranks == 1 else min(medians, key=lambda peer: medians[peer])
    if eager in chosen:
        against = harness.ratio(times[chosen[eager]], ours)
        result |= {
            "torch_ms": round(medians[eager] * 1e3, 5),
            "torch": chosen[eager],
            "ratio": against["ratio"],
            "ratio_quartiles": [against["low"], against["high"]],
        }
    if medians:
        fastest = min(medians, key=lambda peer: medians[peer])
        result |= {
            "peers_ms": {chosen[peer]: round(value * 1e3, 5) for peer, value in medians.items()},
            "best_peer": chosen[fastest],
            "ratio_best": round(medians[fastest] / median(ours), 3),
        }
    if "torch-autocast" in chosen:
        pair = best(times, "ours-bf16"), chosen["torch-autocast"]
        result["bf16"] = {
            "ours": pair[0].split()[1],
            "ours_ms": harness.spread(times[pair[0]])["median"],
            "torch": pair[1],
            "torch_ms": harness.spread(times[pair[1]])["median"],
            "ratio": harness.ratio(times[pair[1]], times[pair[0]])["ratio"],
        }
    if clock is not None:
        units = {name: harness.normalised(times[name], clock[name]) for name in times}
        result["normalised"] = {
            name: harness.ratio(units[name], units["ours"])["ratio"] for name in chosen.values()
        }
        if "bf16" in result:
            result["bf16"]["normalised"] = harness.ratio(units[pair[1]], units[pair[0]])["ratio"]
        rates = [peak.OPERATIONS / seconds for each in clock.values() for seconds in each]
        result["peak_gflops"] = harness.spread(rates, 1e-9)
    return result | {"spread_ms": {name: harness.spread(values) for name, values in times.items()}}


def one_rank(workload: Workload, peers: list[str], rounds: int) -> dict[str, Any]:
    """Measure in this process."""
    steps.require_equal_work(workload, peers)
    contestants = steps.all_of(workload, peers, steps.TIMING_RATE)
    times, clock = harness.clocked(contestants, rounds, peak.contestant())
    for name, values in times.items():
        times[name] = [seconds / steps.steps_per_call(name) for seconds in values]
    result = row(workload, 1, times, peers, clock)
    products = peak.operations(workload)
    if products is not None:
        # What the products would take at the rate of the peak, of what the step takes.
        units = harness.normalised(times["ours"], clock["ours"])
        result["products_gflop"] = round(products / 1e9, 6)
        result["of_peak"] = round(products / peak.OPERATIONS / median(units), 3)
    return result


# Several ranks


def worker(workload: Workload, kind: str, ranks: int) -> dict[str, list[float]]:
    """Measure one contestant in this process, which may be one of several."""
    if kind == "ours":
        from ddbp import communicator

        return {
            "ours": workers.blocks(
                steps.ours(workload, steps.TIMING_RATE), lambda n: workers.agreed(communicator(), n)
            )
        }
    import torch

    if kind == "torch-threads":
        torch.set_num_threads(ranks)
        kinds = {
            name: steps.torch_adam(workload, steps.TIMING_RATE, name)
            for name in steps.torch_variants(workload)
        }
        return {f"{kind} {name}": workers.blocks(step, lambda n: n) for name, step in kinds.items()}
    rank = rank_of(kind)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)

    def agree(count: int) -> int:
        shared = torch.tensor([count])
        torch.distributed.broadcast(shared, 0)
        return int(shared.item())

    times = {}
    for name in steps.torch_variants(workload):
        step = steps.torch_adam(workload, steps.TIMING_RATE, name, ranks=ranks, rank=rank)
        times[f"{kind} {name}"] = workers.blocks(step, agree)
    torch.distributed.destroy_process_group()
    return times


def rank_of(kind: str) -> int:
    """Return the rank of this worker among those of its contestant."""
    if kind == "ours":
        from ddbp import communicator

        return int(communicator().rank)
    return int(os.environ.get("RANK", "0"))


def spawn(workload: Workload, kind: str, ranks: int) -> dict[str, list[float]]:
    """Run the workers of one contestant and return what the first of them measured."""
    script = [str(Path(__file__).resolve()), workload.name, "--ranks", str(ranks), "--worker", kind]
    if kind == "ours":
        result = workers.on_ranks(ranks, script, BENCH_THREADS="1")
    elif kind == "torch-ddp":
        result = workers.over_gloo(ranks, script, BENCH_THREADS="1")
    else:
        result = workers.alone(script, BENCH_THREADS=str(ranks))
    times: dict[str, list[float]] = result
    return times


def several_ranks(workload: Workload, ranks: int, rounds: int) -> dict[str, Any]:
    """Measure in processes of their own, which take turns; a run counts with its median."""
    kinds = ("ours", "torch-threads", "torch-ddp")
    times: dict[str, list[float]] = {}
    for turn in harness.turns(kinds, rounds):
        for kind in turn:
            for name, values in spawn(workload, kind, ranks).items():
                times.setdefault(name, []).append(median(values))
    return row(workload, ranks, times, ["torch-threads", "torch-ddp"])


def main() -> None:
    """Read the command line, measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=f"of {', '.join(WORKLOADS)}; all unless named",
    )
    parser.add_argument(
        "--ranks",
        type=int,
        default=1,
        help="our ranks; the peers get as many threads or processes (%(default)s)",
    )
    parser.add_argument(
        "--peers",
        default="torch",
        help=f"with one rank, of {','.join(steps.PEERS)}, or all of them (%(default)s)",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.workloads if name not in WORKLOADS]
    peers = (
        list(steps.PEERS)
        if options.peers == "all"
        else list(filter(None, options.peers.split(",")))
    )
    if unknown or not set(peers) <= set(steps.PEERS):
        parser.error(
            f"workloads are {', '.join(WORKLOADS)}; peers are {', '.join(steps.PEERS)}; got"
            f" {unknown or peers}"
        )
    chosen = [WORKLOADS[name] for name in options.workloads or WORKLOADS]
    if options.worker:
        times = worker(chosen[0], options.worker, options.ranks)
        if rank_of(options.worker) == 0:
            print(json.dumps(times), flush=True)
        return
    facts = harness.machine()
    missing = {peer: why for peer in peers if (why := steps.left_out(peer))}
    for peer, why in missing.items():
        print(f"left out: {peer}, as {why}")
    peers = [peer for peer in peers if peer not in missing]
    if options.ranks == 1:
        harness.pin_to_one_core()
        _one_thread_of_torch(peers)
    rows = []
    heads = ("ours ms", "torch ms", "ratio", "normalised", "bf16")
    print(f"{'workload':16}{'ranks':>6}{''.join(f'{head:>11}' for head in heads)}   best peer")
    for workload in chosen:
        many = (
            several_ranks(workload, options.ranks, options.rounds or 5)
            if options.ranks > 1
            else None
        )
        rows.append(many or one_rank(workload, peers, options.rounds or 15))
        print(_line(rows[-1]), flush=True)
        harness.write(options.json, facts, rows, left_out=missing)


def _line(row: dict[str, Any]) -> str:
    unknown = float("nan")
    numbers = [row["ours_ms"], row.get("torch_ms", unknown), row.get("ratio", unknown)]
    numbers += [row.get("normalised", {}).get(row.get("torch"), unknown)]
    numbers += [row.get("bf16", {}).get("ratio", unknown)]
    best_peer = f"{row['best_peer']} {row['ratio_best']:.2f}" if "best_peer" in row else "none"
    shown = "".join(f"{number:11.3f}" for number in numbers)
    return f"{row['workload']:16}{row['ranks']:6}{shown}   {best_peer}"


def _one_thread_of_torch(peers: list[str]) -> None:
    if any(peer.startswith("torch") for peer in peers):
        import torch

        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)


if __name__ == "__main__":
    main()
