"""Train a classifier of handwritten digits: 8 x 8 images, 10 classes, which come with ddbp."""

from collections.abc import Callable

import numpy as np

from ddbp import Adam, script
from ddbp.data import digits
from layers import Linear, Module, ReLU, Reshape, Sequential, SoftmaxCrossEntropy, models


def mlp(hidden: int, rng: np.random.Generator) -> Module:
    """Return a dense network, 64 - hidden - 10."""
    return Sequential(Linear(64, hidden, rng=rng), ReLU(), Linear(hidden, 10, rng=rng))


def cnn(hidden: int, rng: np.random.Generator) -> Module:
    """Return a network of two convolutions with pooling, and a hidden layer."""
    return Sequential(
        Reshape(8, 8, 1), models.small_cnn(rng, image=(8, 8, 1), widths=(32, 64), hidden=hidden)
    )


MODELS: dict[str, Callable[[int, np.random.Generator], Module]] = {"mlp": mlp, "cnn": cnn}


def main() -> None:
    """Train and print the result."""
    flags = script.Flags(
        "Train a classifier of handwritten digits.", epochs=40, batch_size=64, learning_rate=0.01
    )
    flags.add_choice("--model", MODELS, "which network")
    flags.add_size("--hidden", 128, "width of its hidden layer")
    options = flags.parse_args()
    training, test = digits()
    model = MODELS[options.model](options.hidden, np.random.default_rng(options.seed))
    loss = SoftmaxCrossEntropy(label_smoothing=0.1)
    optimizer = Adam(script.cosine(options, training))
    script.run(options, model, loss, optimizer, training, test)


if __name__ == "__main__":
    script.start(main)
