"""Lengths of sequences go through a Sequential to the layers that take them."""

import numpy as np
import pytest

from layers import (
    GRU,
    LSTM,
    RNN,
    AvgPool1d,
    BatchNorm,
    Conv1d,
    Dropout,
    Embedding,
    EncoderBlock,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    MultiHeadAttention,
    PoolOverTime,
    ReLU,
    Residual,
    Sequential,
    Tape,
)

LENGTHS = np.array([3, 1, 4])
TOKENS = np.random.default_rng(0).integers(0, 7, (3, 4))


def reader(*middle, fuse=True):
    """Return a network that reads tokens."""
    rng = np.random.default_rng(1)
    first = Sequential(Embedding(7, 8, rng=rng), Dropout(0.1))
    last = LSTM(8, 5, last=True, rng=rng)
    return Sequential(first, *middle, last, Linear(5, 6, rng=rng), ReLU(), fuse=fuse)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda rng: [],
        lambda rng: [GRU(8, 8, rng=rng)],
        lambda rng: [EncoderBlock(8, 2, rng=rng)],
        lambda rng: [MultiHeadAttention(8, 2, rng=rng)],
        lambda rng: [Sequential(Linear(8, 8, rng=rng), GRU(8, 8, rng=rng))],
        lambda rng: [
            Residual(GRU(8, 8, bidirectional=True, rng=rng), Linear(8, 16, rng=rng)),
            RNN(16, 4, bidirectional=True, rng=rng),
        ],
        lambda rng: [Residual(Sequential(GRU(8, 8, rng=rng), EncoderBlock(8, 2, rng=rng))), ReLU()],
    ],
    ids=["one", "recurrent", "block", "attention", "nested", "residual", "residual and ReLU"],
)
def test_sample_in_a_padded_batch_is_the_sample_alone(make, fuse):
    model = reader(*make(np.random.default_rng(2)), fuse=fuse)
    y = model(TOKENS, LENGTHS)
    for n, length in enumerate(LENGTHS):
        assert y[n].tobytes() == model(TOKENS[n : n + 1, :length])[0].tobytes()
    other = np.where(np.arange(4) < LENGTHS[:, np.newaxis], TOKENS, 6)
    assert model(other, LENGTHS).tobytes() == y.tobytes()


@pytest.mark.parametrize("kind", ["mean", "max", "last"])
def test_pool_over_time_in_a_sequential_sees_no_padding(kind):
    rng = np.random.default_rng(3)
    model = Sequential(Embedding(7, 8, rng=rng), PoolOverTime(kind), Linear(8, 3, rng=rng))
    y = model(TOKENS, LENGTHS)
    for n, length in enumerate(LENGTHS):
        assert y[n].tobytes() == model(TOKENS[n : n + 1, :length])[0].tobytes()


def test_lengths_may_be_a_value():
    tape, rng = Tape(), np.random.default_rng(2)
    x = rng.standard_normal((3, 4, 8)).astype(np.float32)
    for layer in (EncoderBlock(8, 2, rng=rng), LSTM(8, 5, rng=rng)):
        y = layer(tape.input(x), lengths=tape.input(LENGTHS))
        assert y.array.tobytes() == layer(x, lengths=LENGTHS).tobytes()
    attention = MultiHeadAttention(8, 2, rng=rng)
    keys = np.arange(4) < LENGTHS[:, np.newaxis]
    mask = keys[:, np.newaxis, np.newaxis]
    y = attention(tape.input(x), keys=tape.input(keys), mask=tape.input(mask))
    assert y.array.tobytes() == attention(x, keys=keys).tobytes()


def test_lengths_that_no_layer_takes_are_refused():
    model = Sequential(Linear(4, 3, rng=np.random.default_rng(0)), ReLU())
    with pytest.raises(ValueError, match="lengths need a layer that takes them; got none"):
        model(np.zeros((2, 4), np.float32), LENGTHS)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda rng: [BatchNorm(8)],
        lambda rng: [BatchNorm(8), ReLU()],
        lambda rng: [Sequential(Linear(8, 8, rng=rng), Residual(BatchNorm(8)))],
        lambda rng: [Residual(Sequential(GRU(8, 8, rng=rng), BatchNorm(8)))],
        lambda rng: [Residual(GRU(8, 8, rng=rng), BatchNorm(8))],
        lambda rng: [GroupNorm(2, 8)],
        lambda rng: [InstanceNorm(8)],
        lambda rng: [LayerNorm((4, 8))],
    ],
    ids=["one", "ReLU", "nested", "in a body", "shortcut", "groups", "instances", "steps"],
)
def test_statistics_that_would_count_padding_are_refused(make, fuse):
    model = reader(*make(np.random.default_rng(2)), fuse=fuse)
    with pytest.raises(ValueError, match=r"must not count their padding; got .*Put LayerNorm"):
        model(Tape(training=True).input(TOKENS), LENGTHS)


def test_batch_norm_takes_what_has_no_padding():
    rng = np.random.default_rng(2)
    pooled = Sequential(Linear(3, 5, rng=rng), PoolOverTime(), BatchNorm(5))
    assert pooled(Tape(training=True).input(rng.random((3, 4, 3), np.float32)), LENGTHS).shape == (
        3,
        5,
    )
    # Running statistics count nothing.
    model = reader(BatchNorm(8))
    assert model(TOKENS, LENGTHS)[1].tobytes() == model(TOKENS[1:2, :1])[0].tobytes()


@pytest.mark.parametrize("layer", [AvgPool1d(2), "conv"], ids=["pooling", "convolution"])
def test_layer_that_changes_the_number_of_steps_lengths_count_is_refused(layer):
    if layer == "conv":
        layer = Conv1d(8, 8, 3, rng=np.random.default_rng(2))
    steps = layer(np.zeros((1, 4, 8), np.float32)).shape[1]
    text = rf"the number of steps must stay .*; got 4 and {steps} before and after .*Keep it"
    with pytest.raises(ValueError, match=text):
        reader(layer)(TOKENS, np.minimum(LENGTHS, steps))
