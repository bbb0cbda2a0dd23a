"""Time training steps with badly scaled inputs against the same steps with inputs of size 1.

    python scripts/bench/bad_scales.py [--json FILE] [--rounds R] [--no-torch]

Saturated functions and vanished gradients are made of numbers that many processors are slow with,
if they are let in: those below the normal ones. `kept` is the step that lets them, for comparison;
how many there are then is counted, too. The last row is what the change of the processor's mode
costs in the smallest step.
"""

from statistics import median
from typing import Any

from lib import harness, steps

import numpy as np
from workloads import WORKLOADS
from workloads.scales import PAIRS
from workloads.workload import Workload

import layers
from layers.kernels import underflow

# Learning changes what saturates: a rate that networks learn by, and some steps of it.
RATE, BEFORE = 1e-3, 20


def keeping(step: steps.Step) -> steps.Step:
    """Return a step without the change of mode: numbers below the normal ones are kept."""

    def kept() -> Any:
        flush, restore = underflow.flush, underflow.restore
        underflow.flush, underflow.restore = int, id
        try:
            return step()
        finally:
            underflow.flush, underflow.restore = flush, restore

    return kept


class _Count(layers.TapeHook):
    """Counts numbers, and those below the normal ones, among outputs and parameters' gradients."""

    def __init__(self) -> None:
        self.numbers = 0
        self.subnormal = 0

    def _add(self, x: Any) -> None:
        self.numbers += x.size
        self.subnormal += int(((x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny)).sum())

    def on_forward_end(self, call: Any) -> None:
        for x in call.output.arrays:
            self._add(x)

    def on_parameter_ready(self, parameter: Any) -> None:
        self._add(parameter.gradient)


def trained(workload: Workload, *callbacks: layers.TapeHook) -> steps.Step:
    """Return the step of a network that has learnt for a while."""
    step = steps.ours(workload, RATE, callbacks=callbacks)
    for _ in range(BEFORE):
        step()
    return step


def of_pair(name: str, pair: tuple[Workload, Workload], peer: bool, rounds: int) -> dict[str, Any]:
    """Measure both of a pair, alternately."""
    well, badly = pair
    count = _Count()
    counted = keeping(trained(badly, count))
    count.numbers = count.subnormal = 0
    counted()
    contestants = {"well": trained(well), "badly": trained(badly), "kept": keeping(trained(badly))}
    if peer:
        for kind, each in (("well", well), ("badly", badly)):
            contestants[f"torch {kind}"] = steps.torch_adam(each, RATE, "fused")
    times = harness.interleaved(contestants, rounds)
    result: dict[str, Any] = {
        "name": name,
        "well_ms": round(median(times["well"]) * 1e3, 5),
        "badly_ms": round(median(times["badly"]) * 1e3, 5),
        "ratio": harness.ratio(times["badly"], times["well"]),
        "ratio_kept": harness.ratio(times["kept"], times["well"]),
        "subnormal_if_kept": count.subnormal,
        "numbers": count.numbers,
    }
    if peer:
        result["torch_ratio"] = harness.ratio(times["torch badly"], times["torch well"])
    return result


def cost(rounds: int) -> dict[str, Any]:
    """Measure what the changes of mode of a step take, by themselves."""
    step, calls = steps.ours(WORKLOADS["mlp-tiny"], steps.TIMING_RATE), 0
    for _ in range(BEFORE):
        step()

    def change() -> None:
        underflow.restore(underflow.flush())

    flush = underflow.flush

    def counted() -> int:
        nonlocal calls
        calls += 1
        return flush()

    underflow.flush = counted
    step()
    underflow.flush = flush
    # Rounds so short that most of them meet nobody else on the core.
    contestants = {"step": step, "change": change, "nothing": lambda: None}
    times = harness.interleaved(contestants, 20 * rounds, seconds=0.001)
    each = median(times["change"]) - median(times["nothing"])
    return {
        "name": "mlp-tiny",
        "step_us": round(median(times["step"]) * 1e6, 2),
        "changes": calls,
        "changes_us": round(calls * each * 1e6, 3),
    }


def main() -> None:
    """Read the command line, measure, print and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 15)
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    if not options.no_torch:
        import torch

        torch.set_num_threads(1)
    small = cost(options.rounds)
    print(
        "{name}: {changes} changes of mode, {changes_us} of {step_us} microseconds".format(**small)
    )
    rows = []
    for name, pair in PAIRS.items():
        rows.append(of_pair(name, pair, not options.no_torch, options.rounds))
        line = "{name:38}{well_ms:>10.3f} ms{badly_ms:>10.3f} ms"
        print(
            line.format(**rows[-1]), *(rows[-1][key]["ratio"] for key in rows[-1] if "ratio" in key)
        )
        harness.write(options.json, facts, rows, change_of_mode=small)


if __name__ == "__main__":
    main()
