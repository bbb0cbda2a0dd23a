"""Time a forward and a backward pass over a batch of random trees: by levels, and one node after
the other.

The same cells with the same weights, 64 full binary trees of 32 leaves each, float32, one thread.
One node after the other means the recursion that a user writes without `TreeBatch`: on our tape,
and in PyTorch. The features of each node are there an input of their own, so that no time goes into
slicing an array.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness

import numpy as np

import layers

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "layers" / "families"))

TREES, LEAVES, FEATURES = 64, 32, 64
CELLS = {"TreeRNN": layers.TreeRNN, "TreeLSTM": layers.TreeLSTM}
HIDDEN = (32, 128)


def by_levels(cell: Any, x: Any, parents: Any, dy: Any) -> Callable[[], Any]:
    """Return a step by our layer, that builds the batch of trees anew each time."""
    workspace = layers.Workspace()

    def step() -> Any:
        for parameter in cell.parameters():
            parameter.zero_gradient()
        tape = layers.Tape(workspace=workspace)
        y = cell(tape.input(x), parents)
        y.backward(dy)
        tape.release()
        return y.array

    return step


def on_our_tape(cell: Any, x: Any, parents: Any, dy: Any) -> Callable[[], Any]:
    """Return a step that records a few calls for each node."""
    import node_by_node

    workspace = layers.Workspace()

    def step() -> Any:
        for parameter in cell.parameters():
            parameter.zero_gradient()
        tape = layers.Tape(workspace=workspace)
        states = node_by_node.on_a_tape(
            cell, tape, lambda n, node: tape.input(x[n, node : node + 1]), parents
        )
        y = layers.Concatenate(0)(*states)
        y.backward(dy)
        tape.release()
        return y.array

    return step


def in_pytorch(cell: Any, x: Any, parents: Any, dy: Any) -> Callable[[], Any]:
    """Return the same step in PyTorch."""
    import node_by_node
    import torch

    weights = [torch.tensor(parameter.value, requires_grad=True) for parameter in cell.parameters()]
    inputs = [[torch.tensor(row, requires_grad=True) for row in tree] for tree in x]
    leaves, gradient = [*weights, *(row for tree in inputs for row in tree)], torch.from_numpy(dy)

    def step() -> Any:
        for tensor in leaves:
            tensor.grad = None
        y = torch.stack(
            node_by_node.in_pytorch(torch, cell, weights, lambda n, node: inputs[n][node], parents)
        )
        y.backward(gradient)
        return y.detach().numpy()

    return step


def measure(name: str, hidden: int, rounds: int) -> dict[str, Any]:
    """Return the row of a cell."""
    import node_by_node

    rng = np.random.default_rng(0)
    parents = node_by_node.random_trees(rng, TREES, LEAVES)
    x = rng.standard_normal((*parents.shape, FEATURES), np.float32)
    dy = rng.standard_normal((TREES, hidden), np.float32)
    makers = {"by levels": by_levels, "on our tape": on_our_tape, "PyTorch": in_pytorch}
    contestants = {
        label: make(CELLS[name](FEATURES, hidden, rng=np.random.default_rng(1)), x, parents, dy)
        for label, make in makers.items()
    }
    results = [step() for step in contestants.values()]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=0, atol=1e-5)
    times = harness.interleaved(contestants, rounds)
    return {
        "cell": name,
        "hidden": hidden,
        "levels": len(layers.TreeBatch(parents).level_starts) - 1,
        **{
            f"{label.replace(' ', '_').lower()}_ms": round(1e3 * median(seconds), 4)
            for label, seconds in times.items()
        },
        "ratio_to_tape": harness.ratio(times["on our tape"], times["by levels"])["ratio"],
        "ratio_to_torch": harness.ratio(times["PyTorch"], times["by levels"])["ratio"],
    }


def main() -> None:
    """Measure, print a table and write the file."""
    import torch

    options = harness.arguments(str(__doc__).splitlines()[0], 7).parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    torch.set_num_threads(1)
    print(
        f"{'cell':10}{'hidden':>7}{'by levels, ms':>15}{'on our tape':>13}"
        f"{'ratio':>8}{'PyTorch':>10}{'ratio':>8}"
    )
    rows = []
    for name in CELLS:
        for hidden in HIDDEN:
            row = measure(name, hidden, options.rounds)
            rows.append(row)
            ours = (
                "{cell:10}{hidden:7}{by_levels_ms:15.3f}{on_our_tape_ms:13.1f}{ratio_to_tape:8.1f}"
            ).format(**row)
            print(ours + "{pytorch_ms:10.1f}{ratio_to_torch:8.1f}".format(**row), flush=True)
    harness.write(options.json, facts, rows, trees=TREES, leaves=LEAVES, features=FEATURES)


if __name__ == "__main__":
    main()
