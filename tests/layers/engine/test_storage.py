"""What backward needs, kept in 16 bits."""

import dataclasses

import numpy as np
import pytest

from layers import (
    GELU,
    GRU,
    LSTM,
    RNN,
    BatchNorm2d,
    Composite,
    Conv2d,
    Dropout,
    EncoderBlock,
    Flatten,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    MultiHeadAttention,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Tape,
    Workspace,
    models,
    set_precision,
)
from layers.engine.live_outputs import LiveOutputs
from layers.engine.precision import BF16, FLOAT32
from layers.engine.storage import BFLOAT16


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


class Characters(Composite):
    """An LSTM of characters, as a language model."""

    def __init__(self, rng):
        self.lstm, self.head = LSTM(64, 256, rng=rng), Linear(256, 96, rng=rng)

    def __call__(self, x):
        return self.head(self.lstm(x))


def tokens(rng, *shape):
    return rng.integers(0, 96, shape)


LARGE = {
    "ResNet-20": (
        lambda rng: models.resnet20(rng),
        lambda rng: (draw(16, 32, 32, 3), rng.integers(0, 10, 16)),
    ),
    "GPT": (
        lambda rng: models.gpt(rng, 96, 64, 128, 4, 4),
        lambda rng: (tokens(rng, 16, 64), tokens(rng, 16, 64)),
    ),
    "LSTM": (Characters, lambda rng: (draw(32, 64, 64), tokens(rng, 32, 64))),
}


def steps_in(precision, make, batch, count=3):
    """Take steps; return the workspace, how often it had allocated after each, and the losses."""
    model = make(np.random.default_rng(0))
    set_precision(model, precision)
    x, y = batch(np.random.default_rng(1))
    workspace, allocations, losses = Workspace(), [], []
    for _ in range(count):
        tape = Tape(training=True, workspace=workspace, shards=(0, len(x)))
        loss = SoftmaxCrossEntropy()(model(tape.input(x, copy=False)), y)
        loss.backward()
        losses.append(loss.item())
        tape.release()
        allocations.append(workspace.allocations)
    return workspace, allocations, losses


@pytest.mark.parametrize("name", LARGE)
def test_memory_of_a_step_is_little_more_than_half_of_that_in_float32(name):
    make, batch = LARGE[name]
    whole, _, losses = steps_in("float32", make, batch, 2)
    half, allocations, in_half = steps_in("bf16", make, batch)
    assert half.nbytes <= 0.55 * whole.nbytes, (half.nbytes, whole.nbytes)
    assert allocations[1] == allocations[2]
    np.testing.assert_allclose(in_half[:2], losses, rtol=0.02)


def images(rng, seed=0):
    return draw(6, 8, 8, 16, seed=seed)


def convolution(rng):
    return Conv2d(16, 16, 3, padding=1, rng=rng)


def residual(rng):
    body = [convolution(rng), BatchNorm2d(16), ReLU(), convolution(rng), BatchNorm2d(16)]
    return Sequential(Residual(Sequential(*body)), ReLU(), convolution(rng))


SMALL = {
    "convolution": (convolution, images),
    "convolution and ReLU": (lambda rng: Sequential(convolution(rng), ReLU()), images),
    "convolution, ReLU and pooling": (
        lambda rng: Sequential(convolution(rng), ReLU(), MaxPool2d(2)),
        images,
    ),
    "pooling": (lambda rng: Sequential(convolution(rng), MaxPool2d(3, 2)), images),
    "batch normalisation": (
        lambda rng: Sequential(BatchNorm2d(16), ReLU(), convolution(rng)),
        images,
    ),
    "group normalisation": (
        lambda rng: Sequential(GroupNorm(4, 16), ReLU(), convolution(rng)),
        images,
    ),
    "residual block": (residual, images),
    "dense": (
        lambda rng: Sequential(
            Flatten(), Linear(1024, 33, rng=rng), ReLU(), Linear(33, 9, rng=rng)
        ),
        images,
    ),
    "leaky ReLU": (
        lambda rng: Sequential(Flatten(), Linear(1024, 33, rng=rng), LeakyReLU()),
        images,
    ),
    "GELU by itself": (lambda rng: Sequential(LayerNorm(16), GELU()), images),
    "layer normalisation": (lambda rng: Sequential(LayerNorm(16), convolution(rng)), images),
    "encoder": (lambda rng: EncoderBlock(16, 4, rng=rng), lambda rng: draw(6, 9, 16)),
    "attention": (
        lambda rng: MultiHeadAttention(16, 4, causal=True, rng=rng),
        lambda rng: draw(6, 9, 16),
    ),
    "LSTM": (lambda rng: LSTM(16, 24, bidirectional=True, rng=rng), lambda rng: draw(6, 9, 16)),
    "GRU": (lambda rng: GRU(16, 24, layers=2, rng=rng), lambda rng: draw(6, 9, 16)),
    "RNN": (lambda rng: RNN(16, 24, rng=rng), lambda rng: draw(6, 9, 16)),
    "RNN with ReLU": (
        lambda rng: RNN(16, 24, nonlinearity="relu", rng=rng),
        lambda rng: draw(6, 9, 16),
    ),
}

# Products in float32 of what is kept in bfloat16: what keeping alone makes of a gradient.
KEEPING = dataclasses.replace(FLOAT32, storage=BFLOAT16)


def of(model, x, dy=None, shards=None, passes=1):
    """Return output, and the gradients of the input and of each shard of the parameters."""
    for each in model.parameters():
        each.zero_gradient()
    tape = Tape(training=True, shards=shards)
    value = tape.input(x)
    y = model(value)
    y = y[0] if isinstance(y, tuple) else y
    dy = draw(*y.shape, seed=5) if dy is None else dy
    for _ in range(passes):
        y.backward(dy.astype(y.dtype))
    found = {name: each.store.apart.copy() for name, each in model.named_parameters()}
    return {"y": y.array.copy(), "dx": value.grad.copy(), **found}


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_those_of_float64_up_to_roundings_of_bfloat16(name):
    make, batch = SMALL[name]
    x = batch(np.random.default_rng(1))
    model = make(np.random.default_rng(0))
    exact = of(model.astype(np.float64), x.astype(np.float64))
    for _, layer in model.named_layers():
        # What recurrent layers keep are operands of products.
        layer.precision = BF16 if name in ("LSTM", "GRU", "RNN", "RNN with ReLU") else KEEPING
    for what, found in of(model, x).items():
        scale = np.linalg.norm(exact[what])
        if scale > 1e-6:
            error = np.linalg.norm(found - exact[what]) / scale
            # A number is off by 2^-9 at most, and layers follow each other. Of those in a window
            # that are the same in 16 bits the first counts as the greatest.
            assert error < (20 if name == "pooling" else 8) * 2**-9, (what, error)


@pytest.mark.parametrize("name", SMALL)
def test_a_shard_has_the_same_bits_beside_others_as_alone(name):
    make, batch = SMALL[name]
    x = batch(np.random.default_rng(1))

    def model():
        result = make(np.random.default_rng(0))
        set_precision(result, "bf16")
        return result

    bounds = (0, 4, len(x))
    together = of(model(), x, shards=bounds)
    dy = draw(*together["y"].shape, seed=5)
    for s in range(2):
        rows = slice(bounds[s], bounds[s + 1])
        alone = of(model(), x[rows], dy[rows], shards=(0, bounds[s + 1] - bounds[s]))
        for what, found in together.items():
            part = found[rows] if what in ("y", "dx") else found[s : s + 1]
            assert part.tobytes() == alone[what].tobytes(), what


@pytest.mark.parametrize("name", SMALL)
def test_a_second_backward_pass_adds_the_same_gradient(name):
    make, batch = SMALL[name]
    x = batch(np.random.default_rng(1))
    model = make(np.random.default_rng(0))
    set_precision(model, "bf16")
    once, twice = of(model, x), of(model, x, passes=2)
    for what in dict(model.named_parameters()):
        np.testing.assert_allclose(twice[what], 2 * once[what], rtol=1e-5, atol=1e-5)


def wide_dense(rng):
    return Sequential(*(Linear(256, 256, rng=rng) for _ in range(4)))


def test_layers_that_take_one_value_share_its_words():
    rng = np.random.default_rng(0)
    first, *others = (Linear(8, 8, rng=rng) for _ in range(3))
    model = Sequential(first, *others)
    set_precision(model, "bf16")
    tape = Tape(training=True)
    h = first(tape.input(draw(5, 8)))
    for layer in others:
        layer(h)
    kept = [call.saved[0] for call in tape.calls[1:]]
    assert kept[0].dtype == np.uint16
    assert np.shares_memory(*kept)
    one = others[0](h), others[1](h)
    (one[0] + one[1]).backward(np.ones((5, 8), np.float32))


def test_an_output_that_somebody_holds_keeps_its_numbers_and_others_are_let_go_of():
    model = wide_dense(np.random.default_rng(0))
    x = draw(512, 256)
    expected = model[0](x)
    set_precision(model, "bf16")
    rounded = model[0](x)
    assert not np.array_equal(expected, rounded)
    tape = Tape(training=True)
    held = model[0](tape.input(x))
    y = held
    for layer in model[1:]:
        y = layer(y)
    y.backward(draw(512, 256))
    np.testing.assert_array_equal(held.array, rounded)
    between = tape.calls[1].output
    assert np.isnan(between.array).all()
    assert between.array.shape == (512, 256)
    (known,) = between.remembered
    np.testing.assert_allclose(known, model[1](rounded), rtol=2**-8)


def test_a_layer_of_a_user_keeps_what_it_saves_in_float32():
    class Square(Layer):
        def forward(self, call, x):
            call.save(x)
            return x * x

        def backward(self, call, dy):
            (x,) = call.saved
            assert x.dtype == np.float32
            np.testing.assert_array_equal(x, seen[0])
            return (2 * x * dy,)

    model = Sequential(
        *wide_dense(np.random.default_rng(0)),
        Square(),
        Linear(256, 9, rng=np.random.default_rng(1)),
    )
    set_precision(model, "bf16")
    tape = Tape(training=True)
    y = tape.input(draw(512, 256))
    seen = []
    for layer in model[:4]:
        y = layer(y)
    seen.append(y.array.copy())
    for layer in model[4:]:
        y = layer(y)
    y.backward(draw(512, 9))


def test_dropout_passes_the_gradient_on_where_it_has_passed_the_input_on():
    model = Dropout(0.3)
    set_precision(model, "bf16")
    x = np.ones((40, 30), np.float32)
    found = of(model, x, np.ones((40, 30), np.float32))
    np.testing.assert_array_equal(found["dx"], found["y"])
    assert 0 < np.count_nonzero(found["y"]) < x.size


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_who_watches_gates_and_cells_sees_their_numbers(kind):
    found = []
    for precision in ("float32", "bf16"):
        layer = kind(16, 24, rng=np.random.default_rng(0))
        set_precision(layer, precision)
        tape = Tape(training=True)
        layer(tape.input(draw(6, 9, 16)))
        (call,) = tape.calls
        parts = call.layer.core.gates_and_cells(call.saved[-1])
        found.append([x[..., first:last] for of in parts for x, first, last in of])
    assert len(found[0]) == len(found[1]) > 0
    for whole, half in zip(*found, strict=True):
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, whole, atol=0.02)


def test_a_tape_in_float32_keeps_no_account_of_outputs(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(LiveOutputs, "__init__", refuse)
    of(wide_dense(np.random.default_rng(0)), draw(512, 256))
