"""Show what of the gradient arrives at each layer of deep networks, and what they then learn.

    python scripts/bench/gradient_flow.py [--json FILE]

Dense networks over the handwritten digits, by activation and initial weights, as in Glorot and
Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010;
the last has residual blocks, as in He et al., "Identity mappings in deep residual networks", ECCV
2016. The norms are those before the first step.
"""

from collections.abc import Callable
from typing import Any

from lib import harness

import numpy as np

from ddbp import Adam, Trainer
from ddbp.data import digits
from layers import (
    LayerNorm,
    Linear,
    Module,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
    Tape,
    init,
)

DEPTH, WIDTH, EPOCHS = 20, 64, 20
Blocks = Callable[[np.random.Generator], list[Module]]


def _activated(activation: Callable[[], Module], weight_init: Any) -> Blocks:
    return lambda rng: [Linear(WIDTH, WIDTH, rng=rng, weight_init=weight_init), activation()]


def _residual(rng: np.random.Generator) -> list[Module]:
    return [Residual(Sequential(LayerNorm(WIDTH), Linear(WIDTH, WIDTH, rng=rng), ReLU()))]


BLOCKS: dict[str, Blocks] = {
    "sigmoid": _activated(Sigmoid, init.xavier_uniform),
    "tanh, Xavier": _activated(Tanh, init.xavier_uniform),
    "ReLU, He": _activated(ReLU, init.he_normal),
    "ReLU, residual": _residual,
}


def network(blocks: Blocks) -> Module:
    """Return a network of so many blocks and a linear output, always the same."""
    rng = np.random.default_rng(0)
    hidden = [layer for _ in range(DEPTH) for layer in blocks(rng)]
    return Sequential(*hidden, Linear(WIDTH, 10, rng=rng))


def norms(model: Module, x: Any, y: Any) -> list[float]:
    """Return the norm of the gradient of each dense layer's weight, the first layer first."""
    SoftmaxCrossEntropy()(model(Tape(training=True).input(x.astype(np.float32))), y).backward()
    weights = [parameter for parameter in model.parameters() if parameter.value.ndim == 2]
    found = [np.linalg.norm(weight.gradient.astype(np.float64)) for weight in weights]
    return [float(f"{norm:.4g}") for norm in found]


def main() -> None:
    """Measure, print and write the file."""
    options = harness.arguments(str(__doc__).splitlines()[0], None).parse_args()
    training, test = digits()
    rows = []
    for name, blocks in BLOCKS.items():
        gradients = norms(network(blocks), training.x, training.y)
        trainer = Trainer(
            network(blocks),
            loss=SoftmaxCrossEntropy(),
            optimizer=Adam(0.001),
            clip_norm=1.0,
            batch_size=64,
            shards=8,
            quiet=True,
        )
        history = trainer.fit(training, epochs=EPOCHS, validation=test)
        accuracy = [round(record["validation_accuracy"], 4) for record in history]
        rows.append({"name": name, "gradients": gradients, "accuracy": accuracy})
        print(f"{name:15} first {gradients[0]:8.1e}, last {gradients[-2]:8.1e}: {accuracy[-1]}")
    harness.write(options.json, harness.machine(), rows, depth=DEPTH, width=WIDTH)


if __name__ == "__main__":
    main()
