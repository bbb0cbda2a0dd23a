"""Networks of the literature, built from plain layers. Images are (N, H, W, C), sequences (N, T,
C).
"""

import numpy as np

from .activation import GELU, ReLU
from .batch_norm import BatchNorm2d
from .checks import boolean, pair, positive_int, sizes
from .containers import Sequential
from .conv.conv import Conv2d
from .dropout import Dropout
from .embedding import Embedding
from .engine.module import Module
from .errors import renamed
from .init import he_normal, normal
from .layer_norm import LayerNorm
from .linear import Linear
from .pool import GlobalAveragePool, MaxPool2d
from .positional import LearnedPositions
from .residual import Residual
from .shape import Flatten
from .shortcut import PaddedShortcut
from .transformer import EncoderBlock

Generator = np.random.Generator


def lenet5(rng: Generator, channels: int = 1, classes: int = 10) -> Sequential:
    """Return LeNet-5: LeCun et al. 1998, section II.B, with ReLU, maximum pooling and a linear last
    layer.

    Inputs are images (N, 28, 28, `channels`), outputs logits (N, `classes`).
    """
    return Sequential(
        Conv2d(channels, 6, 5, padding=2, rng=rng),
        ReLU(),
        MaxPool2d(2),
        Conv2d(6, 16, 5, rng=rng),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(400, 120, rng=rng),
        ReLU(),
        Linear(120, 84, rng=rng),
        ReLU(),
        Linear(84, classes, rng=rng),
    )


@renamed(method="algorithm")
def small_cnn(
    rng: Generator,
    image: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    widths: tuple[int, int] = (32, 64),
    hidden: int = 128,
    algorithm: str = "default",
) -> Sequential:
    """Return a network of two convolutions of 3 x 3 with pooling and two dense layers.

    Parameters
    ----------
    rng
        Draws the initial weights.
    image
        H, W and C of the images (N, H, W, C).
    classes
        Size of the outputs, logits (N, classes).
    widths, hidden
        Channels of the two convolutions, and size of the hidden dense layer.
    algorithm
        That of `Conv2d`.
    """
    fix = "Pass (height, width, channels)."
    height, width, channels = sizes("small_cnn", "image", image, 1, 3, fix)
    widths = pair("small_cnn", "widths", widths, 1, "Pass those of the two convolutions.")
    return Sequential(
        Conv2d(channels, widths[0], 3, padding=1, algorithm=algorithm, rng=rng),
        ReLU(),
        MaxPool2d(2),
        Conv2d(widths[0], widths[1], 3, padding=1, algorithm=algorithm, rng=rng),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear((height // 4) * (width // 4) * widths[1], hidden, rng=rng),
        ReLU(),
        Linear(hidden, classes, rng=rng),
    )


def _resnet(
    depth: int, rng: Generator, channels: int, classes: int, algorithm: str, synchronized: bool
) -> Sequential:
    """Return the network of 6 n + 2 layers of He et al. 2015, section 4.2, for images of 32 x
    32.
    """

    def conv(inputs: int, outputs: int, stride: int) -> Conv2d:
        return Conv2d(
            inputs,
            outputs,
            3,
            stride=stride,
            padding=1,
            bias=False,
            algorithm=algorithm,
            weight_init=he_normal,
            rng=rng,
        )

    def norm(width: int) -> BatchNorm2d:
        return BatchNorm2d(width, synchronized=synchronized)

    def block(inputs: int, outputs: int, stride: int) -> list[Module]:
        body = Sequential(
            conv(inputs, outputs, stride),
            norm(outputs),
            ReLU(),
            conv(outputs, outputs, 1),
            norm(outputs),
        )
        shortcut = PaddedShortcut(inputs, outputs, stride) if inputs != outputs else None
        return [Residual(body, shortcut), ReLU()]

    stack: list[Module] = [conv(channels, 16, 1), norm(16), ReLU()]
    width = 16
    for outputs in (16, 32, 64):
        for number in range((depth - 2) // 6):
            stack += block(width, outputs, 2 if number == 0 and outputs > 16 else 1)
            width = outputs
    return Sequential(*stack, GlobalAveragePool(), Linear(64, classes, rng=rng))


@renamed(method="algorithm")
def resnet20(
    rng: Generator,
    channels: int = 3,
    classes: int = 10,
    algorithm: str = "default",
    synchronized: bool = False,
) -> Sequential:
    """Return ResNet-20, 0.27 million parameters: He et al. 2015, section 4.2, with shortcuts of
    option A.

    Inputs are images (N, 32, 32, channels), outputs logits (N, classes).

    Parameters
    ----------
    rng
        Draws the initial weights.
    channels, classes
        Sizes of inputs and outputs.
    algorithm
        That of `Conv2d`.
    synchronized
        Whether the batch norms take their statistics over the global batch.
    """
    return _resnet(20, rng, channels, classes, algorithm, synchronized)


@renamed(method="algorithm")
def resnet32(
    rng: Generator,
    channels: int = 3,
    classes: int = 10,
    algorithm: str = "default",
    synchronized: bool = False,
) -> Sequential:
    """Return ResNet-32, 0.46 million parameters; the parameters are those of `resnet20`."""
    return _resnet(32, rng, channels, classes, algorithm, synchronized)


@renamed(method="algorithm")
def resnet56(
    rng: Generator,
    channels: int = 3,
    classes: int = 10,
    algorithm: str = "default",
    synchronized: bool = False,
) -> Sequential:
    """Return ResNet-56, 0.85 million parameters; the parameters are those of `resnet20`."""
    return _resnet(56, rng, channels, classes, algorithm, synchronized)


def gpt(
    rng: Generator,
    tokens: int,
    context: int = 64,
    features: int = 128,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
    tied: bool = False,
    approximate: str = "none",
) -> Sequential:
    """Return a language model of causal blocks: Radford et al. 2019, section 2.3, with weights from
    N(0, 0.02²).

    Inputs are token numbers (N, T); outputs are logits (N, T, tokens) of the next token.

    Parameters
    ----------
    rng
        Draws the initial weights.
    tokens, context
        How many tokens there are, and the largest T.
    features, depth, heads
        Size of a position's features, number of blocks, heads of each.
    dropout
        Rate of all dropouts, in [0, 1).
    tied
        Whether the output layer shares the weight of the embedding, and has no bias.
    approximate
        Of `GELU`: "tanh" is that of GPT-2, "none" that of nanoGPT.
    """
    depth = positive_int("gpt", "depth", depth, "4 is usual.")
    tied = boolean("gpt", "tied", tied)
    small = normal(0.02)
    table = Embedding(tokens, features, rng=rng, weight_init=small)
    stack: list[Module] = [table, LearnedPositions(context, features, rng=rng, weight_init=small)]
    stack += [Dropout(dropout)] * bool(dropout)
    stack += [
        EncoderBlock(
            features,
            heads,
            rng=rng,
            causal=True,
            dropout=dropout,
            activation=GELU(approximate),
            weight_init=small,
        )
        for _ in range(depth)
    ]
    head = Linear(features, tokens, rng=rng, bias=not tied, weight_init=small)
    if tied:
        head.weight = table.weight
    return Sequential(*stack, LayerNorm(features), head)
