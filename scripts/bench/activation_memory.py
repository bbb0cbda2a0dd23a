"""Count the memory that training steps take beside parameters, and time them, in float32 and where
backward's needs are kept in 16 bits.

    python scripts/bench/activation_memory.py [WORKLOAD ...] [--json FILE] [--rounds R]

Memory is all that the tape's workspace holds after three steps: outputs, what is kept until
backward, gradients of activations, scratch and packed weights. It is counted, not measured: the
same on every machine with vectors of one width. Steps are forward and backward, in turns in one
process on one core.
"""

import itertools
from typing import Any, NamedTuple

from lib import harness
from lib.steps import Step

from workloads import WORKLOADS
from workloads.workload import Workload

from layers import Tape, Workspace, set_precision
from layers.precision import PRECISIONS

DEFAULT = ("resnet20", "gpt", "lstm-256", "lstm-512", "mlp-large")
STEPS = 3


class Measured(NamedTuple):
    """A step, and the workspace that it uses."""

    step: Step
    workspace: Workspace


def made(workload: Workload, precision: str) -> Measured:
    """Return a step of forward and backward."""
    model, loss, workspace = workload.start(), workload.loss(), Workspace()
    set_precision(model, precision)
    batches = itertools.cycle(workload.batches())

    def step() -> float:
        x, y = next(batches)
        tape = Tape(training=True, shards=(0, len(x)), workspace=workspace)
        for parameter in model.parameters():
            parameter.zero_gradient()
        value = loss(model(tape.input(x, copy=False, gradient=False)), y)
        value.backward()
        tape.release()
        return float(value.item())

    return Measured(step, workspace)


def row(workload: Workload, rounds: int) -> dict[str, Any]:
    """Count and time a workload."""
    found = {
        name: made(workload, name)
        for name, each in PRECISIONS.items()
        if each.storage is not None or name == "float32"
    }
    for each in found.values():
        for _ in range(STEPS):
            each.step()
    held = {name: each.workspace.nbytes for name, each in found.items()}
    times = harness.interleaved({name: each.step for name, each in found.items()}, rounds)
    return {
        "name": workload.name,
        "bytes": held,
        "to_float32": {name: round(held[name] / held["float32"], 3) for name in held},
        "ms": {name: harness.spread(values) for name, values in times.items()},
        "speed": {name: harness.ratio(times["float32"], values) for name, values in times.items()},
        "allocated_later": {
            name: each.workspace.nbytes - held[name] for name, each in found.items()
        },
    }


def main() -> None:
    """Count, print and write."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 15)
    parser.add_argument("workloads", nargs="*", default=DEFAULT, help="(%(default)s)")
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    rows = []
    for name in options.workloads:
        rows.append(row(WORKLOADS[name], options.rounds))
        ratios = {kind: of["ratio"] for kind, of in rows[-1]["speed"].items()}
        print(name, rows[-1]["bytes"], rows[-1]["to_float32"], ratios, flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
