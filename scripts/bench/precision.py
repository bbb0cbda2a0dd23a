"""Time training steps whose products are in bfloat16 against those in float32, ours and PyTorch's.

    python scripts/bench/precision.py [WORKLOAD ...] [--json FILE] [--rounds R]

PyTorch's bfloat16 is `torch.autocast`. All take turns in one process on one core.
"""

from typing import Any

from lib import harness, steps

from workloads import WORKLOADS
from workloads.workload import Workload

from layers.kernels.llvm.simd_bf16 import HAS_DOTS

DEFAULT = ("mlp", "mlp-large", "lstm-128", "lstm-256", "gru-256", "rnn-256", "gpt")


def row(workload: Workload, rounds: int) -> dict[str, Any]:
    """Measure a workload."""
    names = ["float32", "bf16", *["bf16-dot"] * HAS_DOTS, "float16"]
    contestants: dict[str, steps.Step] = {
        name: steps.ours(workload, steps.TIMING_RATE, precision=name) for name in names
    }
    for name, autocast in (("torch float32", False), ("torch autocast", True)):
        contestants[name] = steps.torch_adam(
            workload, steps.TIMING_RATE, "fused", autocast=autocast
        )
    times = harness.interleaved(contestants, rounds)
    found: dict[str, Any] = {"name": workload.name}
    found["ms"] = {name: harness.spread(values) for name, values in times.items()}
    found["to_float32"] = {name: harness.ratio(times["float32"], times[name]) for name in names[1:]}
    found["to_autocast"] = {
        name: harness.ratio(times["torch autocast"], times[name]) for name in names[1:]
    }
    return found


def main() -> None:
    """Measure and write."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 15)
    parser.add_argument("workloads", nargs="*", default=DEFAULT, help="(%(default)s)")
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    rows = []
    for name in options.workloads:
        rows.append(row(WORKLOADS[name], options.rounds))
        medians = {kind: of["median"] for kind, of in rows[-1]["ms"].items()}
        print(name, medians, {k: v["ratio"] for k, v in rows[-1]["to_autocast"].items()})
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
