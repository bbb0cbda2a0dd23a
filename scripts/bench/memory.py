"""Measure the memory that ranks take for a network of 25 million parameters with Adam, ours and
PyTorch's DDP over gloo.

    python scripts/bench/memory.py [--ranks 1,2,4] [--json FILE]

With eight shards, a deeper network of as many parameters shows what partial sums of the shards'
gradients take.

RSS counts a page once for every process that maps it, PSS divides it among them: the sum of PSS
over the ranks is what the host gives. Both are read from /proc (Linux) after steps of a tiny
network of the same layers, so that libraries and kernels are loaded, and again after three steps of
the large one; the difference is the large network's.
"""

import argparse
import itertools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from lib import harness, scaling, steps, workers

import numpy as np
import workloads

from ddbp import communicator

TINY, BATCH, STEPS, MB = (64, 64, 64, 16), 64, 3, 1e6


class Kind(NamedTuple):
    """A contestant: its name, its network, and how many shards it has (one per rank: "ranks")."""

    name: str
    sizes: tuple[int, ...] = (1024, 4096, 4096, 1000)
    shards: int | str = "ranks"


DEEP = (1024,) * 25
KINDS = {
    "ours": Kind("ddbp"),
    "ddp": Kind("PyTorch DDP"),
    "sums": Kind("ddbp, 24 layers, 8 shards", DEEP, 8),
}


def layers_of(kind: Kind) -> list[int]:
    """Return how many parameters each layer of its network has."""
    return [(inputs + 1) * outputs for inputs, outputs in itertools.pairwise(kind.sizes)]


def expected(kind: Kind, ranks: int, shared: bool) -> dict[str, int]:
    """Return the bytes that the arrays of the ranks take on a host."""
    # Of several shards partial sums: one for each rank, where these have equal shares.
    return scaling.state(sum(layers_of(kind)), ranks, shared=shared)


def resident() -> dict[str, int]:
    """Return this process's resident and proportional set size in bytes."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        fields[name] = 1024 * int(value.split()[0])
    return {"rss": fields["Rss"], "pss": fields["Pss"]}


def worker(kind: str, ranks: int, rank: int) -> None:
    """Take the steps on one rank; the first prints what all of them measured, before the network is
    made and after.
    """
    gather = _ddp_gathers(ranks, rank) if kind == "ddp" else _ours_gathers
    before, after = (
        _after_steps(kind, sizes, ranks, rank, gather) for sizes in (TINY, KINDS[kind].sizes)
    )
    if rank == 0:
        print(json.dumps({"before": before, "after": after}), flush=True)


def _after_steps(
    kind: str, sizes: tuple[int, ...], ranks: int, rank: int, gather: Any
) -> list[dict[str, int]]:
    """Return what all ranks measure after steps of a dense network of these sizes, which is still
    there.
    """
    network, rate = workloads.dense("mlp", sizes, BATCH), steps.TIMING_RATE
    if kind == "ddp":
        step = steps.torch_adam(network, rate, "fused", ranks=ranks, rank=rank)
    else:
        step = steps.ours(network, rate, KINDS[kind].shards)
    for _ in range(STEPS):
        step()
    return _together(gather)


def _together(gather: Any) -> list[dict[str, int]]:
    """Return what all ranks measure while all of them are there."""
    gather(np.zeros(2))
    mine = resident()
    return [
        {"rss": int(rss), "pss": int(pss)}
        for rss, pss in gather(np.array([mine["rss"], mine["pss"]], np.float64))
    ]


def _ours_gathers(numbers: Any) -> Any:
    return communicator().all_gather(numbers)


def _ddp_gathers(ranks: int, rank: int) -> Any:
    import torch

    torch.set_num_threads(1)
    if ranks > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)

    def gather(numbers: Any) -> Any:
        parts = [torch.zeros(2, dtype=torch.float64) for _ in range(ranks)]
        if ranks == 1:
            return [numbers]
        torch.distributed.all_gather(parts, torch.from_numpy(numbers))
        return [part.numpy() for part in parts]

    return gather


def measured(kind: str, ranks: int) -> dict[str, Any]:
    """Start the ranks of one contestant and return what they measured."""
    script = [str(Path(__file__).resolve()), "--worker", kind, "--ranks", str(ranks)]
    if kind == "ddp":
        result = workers.over_gloo(ranks, script)
    elif ranks > 1:
        result = workers.on_ranks(ranks, script)
    else:
        result = workers.alone(script)
    found: dict[str, Any] = result
    return found


def row(kind: str, ranks: int) -> dict[str, Any]:
    """Return the row of one contestant, in millions of bytes over all ranks."""
    found = measured(kind, ranks)
    theory = expected(KINDS[kind], ranks, shared=kind != "ddp")

    def total(when: str, what: str) -> float:
        return round(sum(rank[what] for rank in found[when]) / MB, 1)

    return {
        "kind": kind,
        "name": KINDS[kind].name,
        "parameters": sum(layers_of(KINDS[kind])),
        "ranks": ranks,
        "rss_mb": total("after", "rss"),
        "pss_mb": total("after", "pss"),
        "libraries_pss_mb": total("before", "pss"),
        "network_pss_mb": round(total("after", "pss") - total("before", "pss"), 1),
        "expected_mb": round(sum(theory.values()) / MB, 1),
        "expected": {name: round(size / MB, 1) for name, size in theory.items()},
        "pss_of_ranks_mb": [round(rank["pss"] / MB, 1) for rank in found["after"]],
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--ranks", default="1,2,4", help="numbers of ranks (%(default)s)")
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        rank = int(os.environ.get("RANK", "0")) if options.worker == "ddp" else communicator().rank
        worker(options.worker, int(options.ranks), rank)
        return
    facts = harness.machine()
    rows = []
    print(
        f"{'':6}{'ranks':>6}{'RSS MB':>10}{'PSS MB':>10}{'libraries':>11}"
        f"{'network':>10}{'expected':>10}"
    )
    line = (
        "{kind:6}{ranks:>6}{rss_mb:>10.0f}{pss_mb:>10.0f}{libraries_pss_mb:>11.0f}"
        "{network_pss_mb:>10.0f}{expected_mb:>10.0f}"
    )
    for kind, ranks in itertools.product(KINDS, map(int, options.ranks.split(","))):
        rows.append(row(kind, ranks))
        print(line.format(**rows[-1]), flush=True)
    harness.write(
        options.json,
        facts,
        rows,
        sizes={kind: KINDS[kind].sizes for kind in KINDS},
        batch=BATCH,
        steps=STEPS,
    )


if __name__ == "__main__":
    main()
