"""Small data sets that networks can learn, drawn at random."""

import numpy as np

import ddbp

FEATURES, CLASSES = 20, 7


def classification(samples: int, seed: int) -> ddbp.ArrayDataset:
    """Return random points with labels that a network can learn."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, FEATURES))
    labels = (x @ np.random.default_rng(99).standard_normal((FEATURES, CLASSES))).argmax(axis=1)
    return ddbp.ArrayDataset(x, labels)


def regression(samples: int, seed: int) -> ddbp.ArrayDataset:
    """Return random points with two smooth targets."""
    x = np.random.default_rng(seed).standard_normal((samples, FEATURES))
    return ddbp.ArrayDataset(x, np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2]], axis=1))


def texts(samples: int, seed: int) -> ddbp.ArrayDataset:
    """Return sequences of 12 tokens, each twice in a row, and the tokens that follow."""
    tokens = np.random.default_rng(seed).integers(0, CLASSES, (samples, 7)).repeat(2, axis=1)
    return ddbp.ArrayDataset(tokens[:, :12], tokens[:, 1:13])


def spoken(samples: int, seed: int) -> ddbp.ArrayDataset:
    """Return sequences of 12 tokens, each four times in a row, and which these are, without
    repetitions.
    """
    kinds = np.cumsum(np.random.default_rng(seed).integers(1, 3, (samples, 3)), axis=1) % 3
    return ddbp.ArrayDataset(kinds.repeat(4, axis=1), kinds + 1)


def trees(samples: int, seed: int) -> ddbp.ArrayDataset:
    """Return random trees of 5 nodes, as rows of their parents, and how many children the root
    has.
    """
    parents = np.array(
        [
            [-1, *(rng.integers(0, i) for i in range(1, 5))]
            for rng in np.random.default_rng(seed).spawn(samples)
        ]
    )
    return ddbp.ArrayDataset(parents, (parents == 0).sum(axis=1))


def sentences(samples: int, seed: int) -> ddbp.ArrayDataset:
    """Return sentences of 1 to 9 tokens, each with a label and a weight."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, CLASSES, n) for n in rng.integers(1, 10, samples)]
    labels = np.array([sentence[-1] for sentence in tokens])
    return ddbp.ArrayDataset(tokens, labels, weights=rng.uniform(0.5, 2, samples))


def tagged(samples: int, seed: int) -> ddbp.ArrayDataset:
    """Return points beside sentences, whose words all have a label, and a number for each."""
    points, texts = classification(samples, seed), sentences(samples, seed)
    words = np.split(texts.x.values, np.cumsum(texts.x.lengths)[:-1])
    y = {"label": points.y, "number": np.array([[word.mean()] for word in words])}
    return ddbp.ArrayDataset({"point": points.x, "words": words}, y)
