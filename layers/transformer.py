"""Blocks of transformers (Vaswani et al. 2017), with the norm before each part (Xiong et al. 2020,
figure 1b). x is (N, T, C).
"""

from typing import Any

import numpy as np

from .activation import GELU
from .attention import MultiHeadAttention
from .checks import require_count
from .containers import Sequential
from .dropout import Dropout
from .engine.module import Composite, Module
from .init import Initializer, xavier_uniform
from .layer_norm import LayerNorm
from .linear import Linear


def feed_forward(
    features: int,
    hidden: int,
    *,
    rng: np.random.Generator,
    activation: Module | None = None,
    weight_init: Initializer = xavier_uniform,
) -> Sequential:
    """Return two dense layers with an activation (GELU unless said) between them, applied to each
    position.
    """
    return Sequential(
        Linear(features, hidden, rng=rng, weight_init=weight_init),
        GELU() if activation is None else activation,
        Linear(hidden, features, rng=rng, weight_init=weight_init),
    )


class EncoderBlock(Composite):
    """h = x + A(norm(x)), y = h + F(norm(h)): self-attention and two dense layers, each with a norm
    before and a sum after.

    Parameters
    ----------
    features, heads
        C and H.
    hidden
        Width between the dense layers, 4 C unless said.
    causal
        Whether position i sees positions 0..i only: with that this is the block of GPT.
    dropout
        Of the attention's probabilities, and of both parts before they are added.
    activation
        Between the dense layers; GELU unless said.
    rng, weight_init
        Draw the weights.

    Notes
    -----
    A call takes the masks that `MultiHeadAttention` takes.
    """

    takes_lengths = True
    replayable = True

    def __init__(
        self,
        features: int,
        heads: int,
        hidden: int | None = None,
        *,
        rng: np.random.Generator,
        causal: bool = False,
        dropout: float = 0.0,
        activation: Module | None = None,
        weight_init: Initializer = xavier_uniform,
    ) -> None:
        self.norm_attention = LayerNorm(features)
        self.attention = MultiHeadAttention(
            features, heads, rng=rng, causal=causal, dropout=dropout, weight_init=weight_init
        )
        self.norm_dense = LayerNorm(features)
        width = 4 * features if hidden is None else hidden
        self.dense = feed_forward(
            features, width, rng=rng, activation=activation, weight_init=weight_init
        )
        self.dropout = Dropout(dropout) if dropout else None

    def __call__(self, *inputs: Any, **masks: Any) -> Any:
        require_count(self, 1, inputs)
        (x,) = inputs
        h = x + self._dropped(self.attention(self.norm_attention(x), **masks))
        return h + self._dropped(self.dense(self.norm_dense(h)))

    def _dropped(self, x: Any) -> Any:
        return x if self.dropout is None else self.dropout(x)


class DecoderBlock(EncoderBlock):
    """h = x + A(norm(x)), g = h + B(norm(h), z), y = g + F(norm(g)): causal self-attention,
    attention to z, two dense layers.

    Parameters are those of `EncoderBlock`. Called with x (N, T, C) and the output z (N, U, C) of an
    encoder; the masks of a call are for z.
    """

    takes_lengths = False

    def __init__(
        self,
        features: int,
        heads: int,
        hidden: int | None = None,
        *,
        rng: np.random.Generator,
        causal: bool = True,
        dropout: float = 0.0,
        activation: Module | None = None,
        weight_init: Initializer = xavier_uniform,
    ) -> None:
        super().__init__(
            features,
            heads,
            hidden,
            rng=rng,
            causal=causal,
            dropout=dropout,
            activation=activation,
            weight_init=weight_init,
        )
        self.norm_cross = LayerNorm(features)
        self.cross = MultiHeadAttention(
            features, heads, rng=rng, cross=True, dropout=dropout, weight_init=weight_init
        )

    def __call__(self, *inputs: Any, **masks: Any) -> Any:
        require_count(self, 2, inputs)
        x, context = inputs
        h = x + self._dropped(self.attention(self.norm_attention(x)))
        g = h + self._dropped(self.cross(self.norm_cross(h), context, **masks))
        return g + self._dropped(self.dense(self.norm_dense(g)))
