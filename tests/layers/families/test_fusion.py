"""Fused layers: the bits of the same layers one by one, random masks included; what is fused."""

import copy

import numpy as np
import pytest

import layers
from layers import (
    GELU,
    AvgPool2d,
    BatchNorm,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    Conv3d,
    Dropout,
    Dropout2d,
    EncoderBlock,
    GroupNorm,
    InstanceNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    Linear,
    MaxPool1d,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    Tape,
)
from layers.fusion import PATTERNS, Fused, fuse

ROWS, IMAGES, SEQUENCES = (7, 6), (7, 6, 6, 3), (7, 5, 8)
SHARDS = (0, 3, 7)


def linear(rng, inputs, outputs):
    return Linear(inputs, outputs, rng=rng)


def convolution(rng, inputs, outputs):
    return Conv2d(inputs, outputs, 3, padding=1, rng=rng)


def perceptron(rng):
    return linear(rng, 6, 9), ReLU(), Dropout(0.4), linear(rng, 9, 5), ReLU(), Dropout(0.3)


def images(rng):
    pooled = (convolution(rng, 3, 5), ReLU(), MaxPool2d(2), Dropout2d(0.4))
    return *pooled, ReLU(), MaxPool2d(3), Dropout(0.4)


def normalised(rng):
    return convolution(rng, 3, 5), BatchNorm2d(5), ReLU(), Dropout(0.4)


def normalised_rows(rng):
    return linear(rng, 6, 5), BatchNorm(5), ReLU(), Dropout(0.4), linear(rng, 5, 2)


def residual(rng):
    body = (convolution(rng, 3, 3), Dropout2d(0.2), convolution(rng, 3, 3), BatchNorm2d(3))
    return Residual(Sequential(*body)), ReLU(), Dropout(0.4)


def residual_without_norm(rng):
    return Residual(linear(rng, 6, 6)), ReLU(), Dropout(0.4), linear(rng, 6, 3), GELU()


def feed_forward(rng):
    return linear(rng, 8, 32), GELU(), Dropout(0.1), linear(rng, 32, 8), Dropout(0.1)


def transformer(rng):
    return (
        EncoderBlock(8, 2, rng=rng, dropout=0.3),
        linear(rng, 8, 8),
        ReLU(),
        EncoderBlock(8, 2, rng=rng, causal=True, dropout=0.3, activation=ReLU()),
    )


def nested(rng):
    inner = Sequential(linear(rng, 9, 9), ReLU(), Dropout(0.2), Dropout(0.2))
    return linear(rng, 6, 9), ReLU(), Sequential(inner, Dropout(0.3)), linear(rng, 9, 4), GELU()


def drawing_thrice(rng):
    return linear(rng, 6, 9), ReLU(), DrawsThrice(), linear(rng, 9, 4), ReLU(), DrawsThrice()


NETWORKS = {
    perceptron: ROWS,
    images: IMAGES,
    normalised: IMAGES,
    normalised_rows: ROWS,
    residual: IMAGES,
    residual_without_norm: ROWS,
    feed_forward: SEQUENCES,
    transformer: SEQUENCES,
    nested: ROWS,
    drawing_thrice: ROWS,
}


class DrawsThrice(layers.Layer):
    """x times a number for each of three random keys, which differ in the draw alone."""

    def forward(self, call, x):
        keys = [call.random_key() for _ in range(3)]
        assert len({(first, step, seed) for first, step, _, seed in keys}) == 1
        scale = x.dtype.type(np.prod([1 + draw / 10 for _, _, draw, _ in keys]))
        call.save(scale)
        return x * scale

    def backward(self, call, dy):
        return (dy * call.saved[0],)


def trained(model, x, dtype, shards):
    """Return the bits of output, gradients and states, and the number of calls."""
    tape = Tape(training=True, shards=shards, seed=5, step=3)
    value = tape.input(x.astype(dtype))
    y = model(value)
    y.backward(np.cos(np.arange(y.array.size, dtype=dtype)).reshape(y.shape))
    found = [y.array, value.grad, *(parameter.gradients for parameter in model.parameters())]
    found += [state.value for _, state in model.named_states()]
    return [array.tobytes() for array in found], len(tape.calls)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_fused_layers_have_the_bits_of_the_same_layers_one_by_one(make, dtype):
    x = np.random.default_rng(1).standard_normal(NETWORKS[make])
    for shards in (None, SHARDS):
        fused, apart = (
            trained(
                Sequential(*make(np.random.default_rng(2)), fuse=fuse).astype(dtype),
                x,
                dtype,
                shards,
            )
            for fuse in (True, False)
        )
        assert fused[0] == apart[0]
        assert fused[1] < apart[1], "nothing was fused"


class ApartTape(Tape):
    """A tape on which fused layers are called apart."""

    def record(self, layer, inputs):
        return layer.apart(*inputs) if isinstance(layer, Fused) else super().record(layer, inputs)


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_parts_of_fused_layers_called_apart_have_the_bits_of_their_one_call(make):
    x = np.random.default_rng(1).standard_normal(NETWORKS[make]).astype(np.float32)
    found = []
    for kind in (Tape, ApartTape):
        model, tape = Sequential(*make(np.random.default_rng(2))), kind(training=True, seed=5)
        value = tape.input(x)
        y = model(value)
        y.backward(np.cos(np.arange(y.array.size, dtype=np.float32)).reshape(y.shape))
        gradients = [parameter.gradient for parameter in model.parameters()]
        found.append([array.tobytes() for array in (y.array, value.grad, *gradients)])
    assert found[0] == found[1]
    assert all(not call.layer.parts for call in tape.calls)


class ByHand(layers.Composite):
    """Layers called one by one."""

    def __init__(self, parts):
        self.parts = parts

    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return x


def test_layers_called_by_hand_have_the_bits_of_a_sequential():
    x = np.random.default_rng(1).standard_normal(ROWS)
    apart, fused = (
        trained(made(perceptron(np.random.default_rng(2))), x, np.float32, SHARDS)[0]
        for made in (ByHand, lambda parts: Sequential(*parts))
    )
    assert apart == fused


# ---- what is fused


def test_sequential_without_fusion_has_a_call_for_every_layer():
    rng = np.random.default_rng(0)
    model = Sequential(linear(rng, 6, 4), ReLU(), Residual(linear(rng, 4, 4)), ReLU(), fuse=False)
    assert repr(model).endswith(", ReLU(), fuse=False)")
    tape = Tape()
    model(tape.input(np.ones(ROWS, np.float32)))
    assert [type(call.layer).__name__ for call in tape.calls] == [
        *("Linear", "ReLU", "Linear", "Add", "ReLU")
    ]


def test_body_without_fusion_keeps_its_last_norm_apart():
    tape = Tape(training=True)
    body = Sequential(BatchNorm(6), fuse=False)
    Sequential(Residual(body), ReLU())(tape.input(np.ones(ROWS, np.float32)))
    assert [repr(call.layer) for call in tape.calls] == ["BatchNorm(6)", "Add() + ReLU()"]


def samples_of(rng):
    """Return one layer of every type in the table."""
    made = (
        *(linear(rng, 3, 3), GELU(), ReLU(), MaxPool1d(2), MaxPool2d(2)),
        *(BatchNorm(3), BatchNorm2d(3), GroupNorm(1, 3)),
        *(InstanceNorm(3), InstanceNorm1d(3), InstanceNorm2d(3)),
        *(Conv1d(3, 3, 1, rng=rng), Conv2d(3, 3, 1, rng=rng), Conv3d(3, 3, 1, rng=rng)),
        Residual(ReLU()),
    )
    return {type(layer): layer for layer in made}


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda types: " ".join(t.__name__ for t in types))
def test_fused_layer_names_its_parts_and_has_their_parameters(pattern):
    known = samples_of(np.random.default_rng(0))
    parts = [known[kind] for kind in pattern]
    (fused,) = fuse(parts)
    assert list(fused.parts) == parts
    assert repr(fused) == " + ".join(map(repr, parts))
    if Residual not in pattern:
        assert fused.own_parameters() == [p for part in parts for p in part.own_parameters()]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda types: " ".join(t.__name__ for t in types))
def test_subclasses_of_what_is_fused_are_not(pattern):
    known = samples_of(np.random.default_rng(0))
    for place, kind in enumerate(pattern):
        parts = [known[kind] for kind in pattern]
        parts[place].__class__ = type(f"My{kind.__name__}", (kind,), {})
        for step in fuse(parts):
            assert step is parts[place] or parts[place] not in getattr(step, "parts", ())
        known = samples_of(np.random.default_rng(0))


def test_subclass_of_sequential_as_a_body_runs_as_it_defines():
    class Twice(Sequential):
        def __call__(self, x):
            return super().__call__(super().__call__(x))

    x = np.random.default_rng(1).standard_normal(ROWS)
    norm = BatchNorm(6, dtype=np.float64)
    fused, apart = (
        trained(Sequential(Residual(Twice(norm)), ReLU(), fuse=fuse), x, float, None)[0][:2]
        for fuse in (True, False)
    )
    assert fused == apart


def test_subclass_of_a_norm_at_the_end_of_a_body_is_not_joined():
    class Mine(BatchNorm):
        pass

    tape = Tape(training=True)
    model = Sequential(Residual(Sequential(Mine(6))), ReLU())
    model(tape.input(np.ones(ROWS, np.float32)))
    assert [repr(call.layer) for call in tape.calls] == ["Mine(6)", "Add() + ReLU()"]


def test_what_the_kernels_do_not_know_is_not_fused():
    rng = np.random.default_rng(0)
    for pair in (
        (linear(rng, 3, 2), GELU("tanh")),
        (linear(rng, 3, 2), Tanh()),
        (ReLU(), AvgPool2d(2)),
        (Tanh(), MaxPool2d(2)),
        (Dropout(), ReLU()),
    ):
        assert fuse(pair) == list(pair)


def test_what_has_been_fused_cannot_be_exchanged():
    body = Sequential(ReLU(), MaxPool2d(2))
    residual = Residual(body)
    Sequential(residual, ReLU())
    for owner, name in ((body, "layers"), (body, "fuse"), (residual, "body")):
        before = getattr(owner, name)
        must = rf"`{name}` must be given when it is made; got \.{name} = .*Make another "
        with pytest.raises(AttributeError, match=must):
            setattr(owner, name, ())
        assert getattr(owner, name) is before
    assert copy.deepcopy(body).layers[0] is not body.layers[0]


def test_first_layer_that_can_be_fused_takes_the_following_one():
    norm, relu, pooling = BatchNorm2d(3), ReLU(), MaxPool2d(2)
    assert [repr(step) for step in fuse([norm, relu, pooling])] == [
        *("BatchNorm2d(3) + ReLU()", "MaxPool2d(2)")
    ]
