"""Train a small network of each kind for a few steps; rank 0 prints the digests of their
parameters and losses as JSON.

Usage: train_kinds.py [KIND …]; all of them unless named.
"""

import hashlib
import json
import sys
from collections.abc import Callable

import numpy as np
from drawn_data import CLASSES, FEATURES, classification, sentences, texts, trees

import ddbp
from ddbp.training import precision
from layers import (
    GRU,
    LSTM,
    BatchNorm2d,
    Composite,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    MultiHeadAttention,
    ReLU,
    Reshape,
    Sequential,
    SinusoidalPositions,
    SoftmaxCrossEntropy,
    TreeLSTM,
    models,
)

POINTS = classification(96, 1)


def mlp(rng: np.random.Generator) -> tuple[object, ...]:
    """Return a network, its data and its optimizer."""
    network = Sequential(
        Linear(FEATURES, 40, rng=rng), ReLU(), Dropout(0.1), Linear(40, CLASSES, rng=rng)
    )
    return network, POINTS, ddbp.Adam(ddbp.Cosine(0.01, steps=20))


def cnn(rng: np.random.Generator) -> tuple[object, ...]:
    """Return one of convolutions with so many channels that only some vectors divide them."""
    network = Sequential(
        Linear(FEATURES, 64, rng=rng),
        Reshape(8, 8, 1),
        Conv2d(1, 24, 3, padding=1, rng=rng),
        BatchNorm2d(24),
        ReLU(),
        Conv2d(24, 24, 3, padding=1, rng=rng),
        MaxPool2d(2),
        Flatten(),
        Linear(24 * 16, CLASSES, rng=rng),
    )
    return network, POINTS, ddbp.SGD(ddbp.Exponential(0.05, factor=0.9), momentum=0.9)


def lstm(rng: np.random.Generator) -> tuple[object, ...]:
    """Return a recurrent one of sentences."""
    network = Sequential(
        Embedding(CLASSES, 8, rng=rng),
        LSTM(8, 32, last=True, rng=rng),
        Linear(32, CLASSES, rng=rng),
    )
    return network, sentences(96, 6), ddbp.LAMB(0.02)


def gru(rng: np.random.Generator) -> tuple[object, ...]:
    """Return a recurrent one in float64."""
    network = Sequential(
        Embedding(CLASSES, 8, rng=rng, dtype=np.float64),
        GRU(8, 20, rng=rng, dtype=np.float64),
        Linear(20, CLASSES, rng=rng, dtype=np.float64),
    )
    return network, texts(96, 6), ddbp.RAdam(0.01)


def gpt(rng: np.random.Generator) -> tuple[object, ...]:
    """Return a transformer."""
    network = models.gpt(rng, CLASSES, 12, 24, 2, 3, dropout=0.1)
    return network, texts(96, 6), ddbp.AdamW(ddbp.OneCycle(0.01, steps=10))


class Attending(Composite):
    """Attention between tokens with positions of sines."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.embedding, self.positions = (
            Embedding(CLASSES, 16, rng=rng),
            SinusoidalPositions(12, 16),
        )
        self.attention, self.head = MultiHeadAttention(16, 2, rng=rng), Linear(16, CLASSES, rng=rng)

    def __call__(self, x):
        return self.head(self.attention(self.positions(self.embedding(x))))


def attention(rng: np.random.Generator) -> tuple[object, ...]:
    """Return one of attention alone, in float64."""
    return Attending(rng).astype(np.float64), texts(96, 6), ddbp.Muon(0.02)


class Counting(Composite):
    """A Tree-LSTM on trees whose nodes are all alike, and a dense layer on the root."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.cell, self.head = TreeLSTM(3, 12, rng=rng), Linear(12, CLASSES, rng=rng)

    def __call__(self, x):
        nodes = np.ones((*x.array.shape, 3), np.float32)
        return self.head(self.cell(x.tape.input(nodes, gradient=False), x.array))


def tree(rng: np.random.Generator) -> tuple[object, ...]:
    """Return one of trees."""
    return Counting(rng), trees(96, 6), ddbp.LARS(ddbp.WarmUp(1.0, steps=5))


KINDS: dict[str, Callable[[np.random.Generator], tuple[object, ...]]] = {
    make.__name__: make for make in (mlp, cnn, lstm, gru, gpt, attention, tree)
}
IN_BF16 = [f"{kind} in bf16" for kind in ("mlp", "cnn", "lstm", "gpt")]
IN_BF16 += [f"{kind} in bf16x3" for kind in ("mlp", "lstm")]
# What is refused where it takes longer than float32 is tried there all the same.
precision.times_float32 = lambda name: 1.0


def digest(kind: str) -> str:
    """Return that of a network of a kind after two epochs on four shards."""
    name, _, rounding = kind.partition(" in ")
    network, data, optimizer = KINDS[name](np.random.default_rng(7))
    trainer = ddbp.Trainer(
        network,
        loss=SoftmaxCrossEntropy(),
        optimizer=optimizer,
        batch_size=32,
        shards=4,
        clip_norm=0.5,
        seed=11,
        precision=rounding or "float32",
        quiet=True,
    )
    history = trainer.fit(data, epochs=2, validation=data)
    losses = [[record["loss"], record["validation_loss"]] for record in history]
    whole = hashlib.sha256(np.array(losses).tobytes() + trainer.parameters_sha256().encode())
    return whole.hexdigest()[:12]


def main() -> None:
    """Train all."""
    digests = {kind: digest(kind) for kind in sys.argv[1:] or [*KINDS, *IN_BF16]}
    if ddbp.communicator().rank == 0:
        print(json.dumps(digests))


if __name__ == "__main__":
    main()
