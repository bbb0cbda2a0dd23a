"""Measure the memory and the time of attention, forward and backward, as sequences get longer.

    python scripts/bench/attention_memory.py [--json FILE] [--rounds R]

Memory is that of all buffers of the tape's workspace, and the greatest size of what NumPy allocated
during a step, both without the input. The time is the median, next to that of PyTorch's
scaled_dot_product_attention.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

from lib import harness

import numpy as np

from layers import Attention, Tape, Workspace

SAMPLES, HEADS, WIDTH = 1, 4, 32
LENGTHS = (256, 512, 1024, 2048, 4096)


def step(x: Any, causal: bool, workspace: Workspace) -> Callable[[], Any]:
    """Return our forward and backward pass."""
    layer, dy = Attention(HEADS, causal=causal), np.ones((*x.shape[:2], HEADS * WIDTH), np.float32)

    def run() -> None:
        tape = Tape(training=True, workspace=workspace)
        layer(tape.input(x)).backward(dy)
        tape.release()

    return run


def torch_step(x: Any, causal: bool) -> Callable[[], Any]:
    """Return PyTorch's."""
    import torch

    torch.set_num_threads(harness.THREADS)
    n, length, _ = x.shape
    value, dy = torch.tensor(x, requires_grad=True), torch.ones(n, length, HEADS * WIDTH)

    def run() -> None:
        value.grad = None
        q, k, v = (
            part.view(n, length, HEADS, WIDTH).transpose(1, 2)
            for part in value.split(HEADS * WIDTH, dim=2)
        )
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        y.transpose(1, 2).reshape(n, length, -1).backward(dy)

    return run


def main() -> None:
    """Measure, print a table and write the file."""
    options = harness.arguments(str(__doc__).splitlines()[0], 7).parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    rows = []
    for causal in (False, True):
        for length in LENGTHS:
            x = (
                np.random.default_rng(0)
                .standard_normal((SAMPLES, length, 3 * HEADS * WIDTH))
                .astype(np.float32)
            )
            workspace = Workspace()
            ours = step(x, causal, workspace)
            ours()
            fresh = Workspace()
            tracemalloc.start()
            step(x, causal, fresh)()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            times = harness.interleaved(
                {"ours": ours, "torch": torch_step(x, causal)}, options.rounds, 0.05
            )
            rows.append(
                {
                    "name": f"{'causal ' if causal else ''}T{length}",
                    "causal": causal,
                    "length": length,
                    "workspace_bytes": workspace.nbytes,
                    "peak_bytes": peak,
                    "bytes_of_all_scores": 4 * SAMPLES * HEADS * length**2,
                    **{
                        f"{which}_ms": harness.spread(seconds)["median"]
                        for which, seconds in times.items()
                    },
                    **harness.ratio(times["torch"], times["ours"]),
                }
            )
            row = rows[-1]
            print(
                f"{row['name']:>12}: {row['workspace_bytes'] / 2**20:6.2f} MiB in buffers,"
                f" {peak / 2**20:6.2f} MiB at most (all scores:"
                f" {row['bytes_of_all_scores'] / 2**20:.0f}); {row['ours_ms']:.2f} ms, PyTorch"
                f" {row['torch_ms']:.2f} ms"
            )
    harness.write(options.json, facts, rows, samples=SAMPLES, heads=HEADS, width=WIDTH)


if __name__ == "__main__":
    main()
