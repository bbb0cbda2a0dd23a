"""Time the tape alone: microseconds per recorded call and per backward call on tiny arrays, against
PyTorch's autograd.

    python scripts/bench/tape.py [--json FILE] [--rounds R]

Each graph is a chain of equal calls on a (4, 4) array, so that arithmetic costs next to nothing.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

from lib import harness

import numpy as np
import torch

import layers

CALLS = 100
SIZE = 4


def graphs() -> dict[
    str, tuple[Callable[[Any], Any], Callable[[Any], Any], list[layers.Parameter], list[Any]]
]:
    """Return by name one call by ours and by PyTorch, and the parameters of both."""
    rng = np.random.default_rng(0)
    dense = layers.Linear(SIZE, SIZE, rng=rng)
    dense.weight.value = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
    theirs = torch.nn.Linear(SIZE, SIZE)
    constant = np.ones((SIZE, SIZE), np.float32)
    their_constant = torch.from_numpy(constant)
    relu, copy = layers.ReLU(), layers.Add()
    return {
        "add a constant": (lambda x: x + constant, lambda x: x + their_constant, [], []),
        "multiply by itself": (lambda x: x * x, lambda x: x * x, [], []),
        "copy": (copy, lambda x: x.clone(), [], []),
        "relu": (relu, torch.relu, [], []),
        "dense": (dense, theirs, dense.parameters(), list(theirs.parameters())),
    }


def contestants(name: str) -> dict[str, Callable[[], Any]]:
    """Return recording alone, and recording with backward, for both."""
    call, their_call, parameters, their_parameters = graphs()[name]
    x = np.ones(
        (SIZE, SIZE), np.float32
    )  # Its square is itself: no overflow, no subnormal numbers.
    their_x = torch.from_numpy(x).requires_grad_()
    gradient = np.zeros((SIZE, SIZE), np.float32)  # That of x * x doubles at every call.
    their_gradient = torch.from_numpy(gradient)
    workspace = layers.Workspace()

    def record() -> Any:
        value = layers.Tape(workspace=workspace).input(x)
        for _ in range(CALLS):
            value = call(value)
        return value

    def both() -> None:
        for parameter in parameters:
            parameter.zero_gradient()
        record().backward(gradient)

    def their_record() -> Any:
        value = their_x
        for _ in range(CALLS):
            value = their_call(value)
        return value

    def their_both() -> None:
        their_x.grad = None
        for parameter in their_parameters:
            parameter.grad = None
        their_record().backward(their_gradient)

    return {"record": record, "both": both, "their record": their_record, "their both": their_both}


def main() -> None:
    """Measure every graph, print a table and write the file."""
    options = harness.arguments(str(__doc__).splitlines()[0], 15).parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    torch.set_num_threads(1)
    rows = []
    print("microseconds per call   record: ours torch ratio   backward: ours torch ratio")
    for name in graphs():
        times = harness.interleaved(contestants(name), options.rounds, 0.05)
        each = {key: median(values) * 1e6 / CALLS for key, values in times.items()}
        ours, theirs = each["both"] - each["record"], each["their both"] - each["their record"]
        result = {
            "graph": name,
            "record_us": round(each["record"], 3),
            "torch_record_us": round(each["their record"], 3),
            "ratio_record": round(each["their record"] / each["record"], 2),
            "backward_us": round(ours, 3),
            "torch_backward_us": round(theirs, 3),
            "ratio_backward": round(theirs / ours, 2),
            "spread_us": {
                key: harness.spread(values, 1e6 / CALLS) for key, values in times.items()
            },
        }
        rows.append(result)
        line = "{graph:22} {record_us:12.2f} {torch_record_us:5.2f} {ratio_record:5.2f}"
        line += "   {backward_us:14.2f} {torch_backward_us:5.2f} {ratio_backward:5.2f}"
        print(line.format(**result), flush=True)
    harness.write(options.json, facts, rows, calls=CALLS, shape=[SIZE, SIZE])


if __name__ == "__main__":
    main()
