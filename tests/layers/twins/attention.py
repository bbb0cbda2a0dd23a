"""The twins of `layers.gradient_check.cases.attention`."""

import math

import numpy as np

from .activation import gelu
from .dropout import philox
from .embedding import looked_up
from .layer_norm import normalised
from .linear import affine

KEYS = 96


def attention(q, k, v, heads, causal=False, mask=None, lengths=None, dropout=0.0):
    n_samples, queries, features = q.shape
    width = features // heads
    y = np.zeros(q.shape)
    for n in range(n_samples):
        for h in range(heads):
            for i in range(queries):
                seen = []
                for j in range(k.shape[1]):
                    hidden = (causal and j > i) or (lengths is not None and j >= lengths[n])
                    if mask is not None:
                        whole = np.broadcast_to(mask, (n_samples, heads, queries, k.shape[1]))
                        hidden = hidden or not whole[n, h, i, j]
                    if not hidden:
                        seen.append(j)
                scores = [
                    sum(q[n, i, h * width + d] * k[n, j, h * width + d] for d in range(width))
                    / math.sqrt(width)
                    for j in seen
                ]
                top = max(scores, default=0.0)
                total = math.fsum(math.exp(s - top) for s in scores)
                for j, s in zip(seen, scores, strict=True):
                    p = math.exp(s - top) / total
                    if dropout:
                        p *= kept(n, h * queries + i, j, dropout) / (1 - dropout)
                    for d in range(width):
                        y[n, i, h * width + d] += p * v[n, j, h * width + d]
    return y


def kept(sample, row, j, p):
    """Return 1 where a probability is kept, with seed 0, step 0 and draw 0, else 0."""
    block, place = divmod(j, KEYS)
    quarter = KEYS // 4
    counter = ((row * 1024 + block) * quarter + place % quarter) % 2**32
    return int(philox((counter, sample, 0, 0), (0, 0))[place // quarter] >= round(p * 2**32))


def parts(*inputs):
    """Return q, k and v."""
    if len(inputs) == 1:
        return np.split(inputs[0], 3, axis=-1)
    if len(inputs) == 2:
        return [inputs[0], *np.split(inputs[1], 2, axis=-1)]
    return inputs


def core(heads, **options):
    return lambda p, *inputs: attention(*parts(*inputs), heads, **options)


def with_mask(heads):
    return lambda p, x, mask: attention(*parts(x), heads, mask=mask)


def with_lengths(heads, **options):
    return lambda p, x, lengths: attention(*parts(x), heads, lengths=lengths, **options)


def dense(p, name, x):
    return affine(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def several(p, prefix, x, heads, **options):
    return dense(
        p,
        f"{prefix}output",
        attention(*parts(dense(p, f"{prefix}projection", x)), heads, **options),
    )


def crossed(p, prefix, x, z, heads):
    return dense(
        p,
        f"{prefix}output",
        attention(*parts(dense(p, f"{prefix}query", x), dense(p, f"{prefix}memory", z)), heads),
    )


def norm(p, name, x):
    return normalised(x, p[f"{name}.weight"], p[f"{name}.bias"])


def feed_forward(p, prefix, x):
    h = dense(p, f"{prefix}dense.layers.0", norm(p, f"{prefix}norm_dense", x))
    for i in np.ndindex(h.shape):
        h[i] = gelu(h[i])
    return x + dense(p, f"{prefix}dense.layers.2", h)


def encoder(p, x, heads, prefix="", **options):
    h = x + several(
        p, f"{prefix}attention.", norm(p, f"{prefix}norm_attention", x), heads, **options
    )
    return feed_forward(p, prefix, h)


def decoder(p, x, z):
    h = x + several(p, "attention.", norm(p, "norm_attention", x), 2, causal=True)
    return feed_forward(p, "", h + crossed(p, "cross.", norm(p, "norm_cross", h), z, 2))


def sinusoids(_, x):
    y = x.copy()
    for n, t, c in np.ndindex(x.shape):
        angle = t / 10000 ** (2 * (c // 2) / x.shape[2])
        y[n, t, c] += math.cos(angle) if c % 2 else math.sin(angle)
    return y


def learned(p, x, name="weight"):
    y = x.copy()
    for n, t, c in np.ndindex(x.shape):
        y[n, t, c] += p[name][t, c]
    return y


def gpt(depth, tied=False):
    def twin(p, ids):
        x = learned(p, looked_up(p["layers.0.weight"], ids), "layers.1.weight")
        for block in range(depth):
            x = encoder(p, x, 2, f"layers.{2 + block}.", causal=True)
        x = norm(p, f"layers.{2 + depth}", x)
        head = f"layers.{3 + depth}"
        return affine(
            x, p["layers.0.weight"] if tied else p[f"{head}.weight"], p.get(f"{head}.bias")
        )

    return twin


TWINS = {
    "Attention": core(2),
    "Attention causal": core(3, causal=True),
    "Attention of keys and values side by side": core(1),
    "Attention with mask": with_mask(2),
    "Attention with mask of keys": with_mask(2),
    "Attention with lengths": with_lengths(2),
    "Attention causal with lengths": with_lengths(2, causal=True),
    "Attention of several blocks": core(1),
    "Attention of several blocks, causal": core(1, causal=True),
    "Attention with dropout": core(2, dropout=0.4),
    "MultiHeadAttention": lambda p, x: several(p, "", x, 2),
    "MultiHeadAttention causal without bias": lambda p, x: several(p, "", x, 3, causal=True),
    "MultiHeadAttention of two sequences": lambda p, x, z: crossed(p, "", x, z, 2),
    "MultiHeadAttention with masks": lambda p, x, lengths, keys, mask: several(
        p, "layer.", x, 2, lengths=lengths, mask=mask & keys[:, np.newaxis, np.newaxis]
    ),
    "SinusoidalPositions": sinusoids,
    "LearnedPositions": learned,
    "EncoderBlock": lambda p, x: encoder(p, x, 2),
    "EncoderBlock causal": lambda p, x: encoder(p, x, 3, causal=True),
    "DecoderBlock": decoder,
    "gpt": gpt(2),
    "gpt tied": gpt(1, tied=True),
}
