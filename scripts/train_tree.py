"""Train a recursive network to evaluate boolean expressions: on trees up to a depth, tested on
deeper ones.
"""

from typing import Any

import numpy as np
from problems.expressions import TOKENS, expressions

from ddbp import Adam, script
from layers import Composite, Linear, Module, SoftmaxCrossEntropy, TreeLSTM, TreeRNN, Value

CELLS: dict[str, Any] = {"lstm": TreeLSTM, "rnn": TreeRNN}


class Evaluator(Composite):
    """A recursive network over expressions, and a dense layer on the state of the root.

    Expressions are an array of their nodes' tokens and parents, (N, 2, M).
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


def main() -> None:
    """Train and print the result."""
    usual = {"epochs": 15, "batch_size": 64, "learning_rate": 0.01}
    flags = script.Flags(__doc__, **usual, without={"--memory": "the model is no Sequential"})
    flags.add_choice("--cell", CELLS, "which network")
    flags.add_size("--hidden", 32, "size of a node's state")
    flags.add_size("--trees", 8000, "expressions to train on")
    flags.add_size("--depth", 4, "their largest depth; test depths are twice it")
    options = flags.parse_args()
    rng = np.random.default_rng(0)
    training = expressions(rng, options.trees, (1, options.depth))
    test = expressions(rng, 1000, (options.depth + 1, 2 * options.depth))
    rng = np.random.default_rng(options.seed)
    cell = CELLS[options.cell](TOKENS, options.hidden, rng=rng)
    model = Evaluator(cell, Linear(options.hidden, 2, rng=rng))
    optimizer = Adam(script.cosine(options, training))
    script.run(options, model, SoftmaxCrossEntropy(), optimizer, training, test)


if __name__ == "__main__":
    script.start(main)
