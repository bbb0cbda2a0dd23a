"""Train a recursive network to evaluate boolean expressions: on trees up to a depth, tested on
deeper ones.
"""

from typing import Any

import numpy as np

from ddbp import Adam, ArrayDataset, script
from layers import (
    Composite,
    Linear,
    Module,
    SoftmaxCrossEntropy,
    TreeBatch,
    TreeLSTM,
    TreeRNN,
    Value,
)

FALSE, TRUE, NOT, AND, OR, XOR = range(TOKENS := 6)
TABLES = {AND: lambda a, b: a & b, OR: lambda a, b: a | b, XOR: lambda a, b: a ^ b}
CELLS: dict[str, Any] = {"lstm": TreeLSTM, "rnn": TreeRNN}


class Evaluator(Composite):
    """A recursive network over expressions, and a dense layer on the state of the root.

    A sample is an expression as a row of an array: its nodes' tokens and their parents, (N, 2, M).
    """

    def __init__(self, cell: Module, classifier: Linear) -> None:
        self.cell = cell
        self.classifier = classifier

    def __call__(self, x: Any) -> Any:
        tokens, parents = np.asarray(x.array if isinstance(x, Value) else x).swapaxes(0, 1)
        features: Any = np.eye(TOKENS, dtype=self.classifier.weight.dtype)[tokens]
        if isinstance(x, Value):
            features = x.tape.input(features, gradient=False)
        return self.classifier(self.cell(features, parents))


def expression(rng: np.random.Generator, depth: int) -> tuple[Any, int]:
    """Return a random expression of exactly this depth, as nested tuples, and its value."""
    if depth == 0:
        value = int(rng.integers(2))
        return (TRUE if value else FALSE), value
    operator = int(rng.choice([NOT, AND, OR, XOR], p=[0.1, 0.3, 0.3, 0.3]))
    tree, value = expression(rng, depth - 1)
    if operator == NOT:
        return (NOT, tree), 1 - value
    other, second = expression(rng, int(rng.integers(depth)))
    pair = (tree, other) if rng.integers(2) else (other, tree)
    return (operator, *pair), TABLES[operator](value, second)


def expressions(rng: np.random.Generator, count: int, depths: tuple[int, int]) -> ArrayDataset:
    """Return so many expressions, half of them true, of depths drawn evenly from first to last."""
    trees, values = [], []
    for number in range(count):
        depth, wanted = int(rng.integers(depths[0], depths[1] + 1)), number % 2
        tree, value = expression(rng, depth)
        while value != wanted:
            tree, value = expression(rng, depth)
        trees.append(tree)
        values.append(value)
    batch, tokens = TreeBatch.from_nested(trees)
    return ArrayDataset(np.stack((tokens, batch.parents), axis=1), np.array(values))


def main() -> None:
    """Train and print the result."""
    flags = script.Flags(
        "Train a recursive network to evaluate boolean expressions.",
        epochs=15,
        batch_size=64,
        learning_rate=0.01,
    )
    flags.add_choice("--cell", CELLS, "which network")
    flags.add_size("--hidden", 32, "size of a node's state")
    flags.add_size("--trees", 8000, "expressions to train on")
    flags.add_size("--depth", 4, "their largest depth; test depths are twice it")
    options = flags.parse_args()
    rng = np.random.default_rng(0)
    training = expressions(rng, options.trees, (1, options.depth))
    test = expressions(rng, 1000, (options.depth + 1, 2 * options.depth))
    rng = np.random.default_rng(options.seed)
    model = Evaluator(
        CELLS[options.cell](TOKENS, options.hidden, rng=rng), Linear(options.hidden, 2, rng=rng)
    )
    optimizer = Adam(script.cosine(options, training))
    script.run(options, model, SoftmaxCrossEntropy(), optimizer, training, test)


if __name__ == "__main__":
    main()
