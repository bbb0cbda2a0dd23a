"""Batch normalisation: against PyTorch, running statistics, accuracy, joined layers, and what is
refused.
"""

import copy

import numpy as np
import pytest

import layers
from layers import BatchNorm, BatchNorm2d, Linear, ReLU, Residual, Sequential, Tanh, Tape
from layers.engine.parameter import Parameter
from layers.gradient_check.mutants.batch_norm import RIGHT
from layers.kernels import batch_norm as kernels

from .oracle import torch

RNG = np.random.default_rng(5)
IMAGES = (6, 5, 4, 8)
LARGE = (9, 20, 20, 12)


def norm(shape, dtype=np.float32, **options):
    """Return a layer for inputs of a shape, with parameters that are not those of the beginning."""
    rng = np.random.default_rng(1)
    layer = (BatchNorm2d if len(shape) == 4 else BatchNorm)(shape[-1], dtype=dtype, **options)
    if layer.weight is not None:
        layer.weight.value, layer.bias.value = (
            rng.uniform(0.5, 1.5, shape[-1]),
            rng.standard_normal(shape[-1]),
        )
    return layer


def drawn(shape, dtype=np.float32, mean=1.0, deviation=2.0):
    return (np.random.default_rng(2).standard_normal(shape) * deviation + mean).astype(dtype)


def passes(layer, *inputs, training=True, shards=None, **options):
    """Return the output, the gradients of the inputs, and those of the parameters' shards."""
    for parameter in layer.parameters():
        parameter.forget_gradients()
    tape = Tape(training=training, shards=shards, **options)
    values = [tape.input(x) for x in inputs]
    y = layer(*values)
    dy = np.random.default_rng(3).standard_normal(y.shape).astype(y.dtype)
    y.backward(dy)
    return (
        y.array.copy(),
        [value.grad.copy() for value in values],
        [p.gradients.copy() for p in layer.parameters()],
    )


def bits(result):
    y, dx, gradients = result
    return [array.tobytes() for array in (y, *dx, *gradients)]


def exact(x, epsilon=1e-5):
    """Return the normalised x in float64."""
    x = x.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    centred = x - x.mean(axis=axes)
    return centred / np.sqrt((centred**2).mean(axis=axes) + epsilon)


# ---- PyTorch


def their_norm(ours):
    theirs = (torch.nn.BatchNorm2d if isinstance(ours, BatchNorm2d) else torch.nn.BatchNorm1d)(
        ours.features,
        ours.epsilon,
        ours.momentum,
        affine=ours.weight is not None,
        dtype=torch.float64,
    )
    with torch.no_grad():
        if ours.weight is not None:
            theirs.weight.copy_(torch.from_numpy(ours.weight.value))
            theirs.bias.copy_(torch.from_numpy(ours.bias.value))
    return theirs


def channels_second(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


@pytest.mark.parametrize("shape", [IMAGES, LARGE, (9, 13), (4, 7, 3)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"momentum": 0.3, "epsilon": 0.1}], ids=str
)
@pytest.mark.parametrize("rectified", [False, True])
def test_training_and_evaluation_are_those_of_pytorch(shape, options, rectified):
    ours = norm(shape, np.float64, **options)
    theirs = their_norm(ours)
    model = Sequential(ours, ReLU()) if rectified else ours
    for step, training in enumerate((True, True, True, False)):
        x = drawn(shape, np.float64, mean=step)
        y, (dx,), gradients = passes(model, x, training=training)
        theirs.train(training)
        theirs.zero_grad()
        their_x = torch.from_numpy(channels_second(x)).requires_grad_()
        their_y = theirs(their_x)
        if rectified:
            their_y = torch.relu(their_y)
        their_y.backward(
            torch.from_numpy(channels_second(np.random.default_rng(3).standard_normal(shape)))
        )
        found = [channels_second(y), channels_second(dx), *(g[0] for g in gradients)]
        expected = [their_y.detach(), their_x.grad, *(p.grad for p in theirs.parameters())]
        found += [ours.running_mean.value, ours.running_variance.value]
        expected += [theirs.running_mean, theirs.running_var]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-11)


# ---- accuracy


@pytest.mark.parametrize("shape", [IMAGES, LARGE, (40, 6)], ids=str)
@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (1e3, 1), (1e5, 1), (-1e3, 10), (0, 1e-2)])
def test_mean_that_is_large_next_to_the_deviation_costs_no_accuracy(shape, mean, deviation):
    x = drawn(shape, mean=mean, deviation=deviation)
    y = Tape(training=True).record(BatchNorm(shape[-1]), (Tape().input(x),)).array
    assert np.abs(y - exact(x)).max() < 2e-6


@pytest.mark.parametrize("outlier", [0.0, 1e5])
def test_first_pixel_far_from_the_others_costs_no_accuracy(outlier):
    x = drawn(LARGE, mean=1e3, deviation=1)
    x[0, 0, 0] = outlier
    y = Tape(training=True).record(BatchNorm2d(12), (Tape().input(x),)).array
    assert np.abs(y - exact(x)).max() < 1e-6 * np.abs(exact(x)).max()


def test_gradients_in_float32_are_those_in_float64_to_rounding():
    x = drawn(LARGE, mean=1e3, deviation=1)
    _, (dx,), gradients = passes(norm(LARGE), x)
    _, (exact_dx,), exact_gradients = passes(norm(LARGE).astype(np.float64), x.astype(np.float64))
    for found, expected in ((dx, exact_dx), *zip(gradients, exact_gradients, strict=True)):
        # The cotangents were drawn in float64 and rounded: half a unit each, and as much for what
        # follows.
        assert np.abs(found - expected).max() < 2e-6 * np.abs(expected).max()


def test_constant_channel_gives_the_bias():
    layer = norm(IMAGES)
    y, (dx,), _ = passes(layer, np.full(IMAGES, 3.7, np.float32))
    assert (y == layer.bias.value).all()
    assert np.isfinite(dx).all()


def test_moments_of_a_shard_do_not_depend_on_where_it_stands():
    x = drawn((7000, 6)).reshape(-1)
    bounds = np.array([0, 13, 13, 5000, 7000])
    moments = np.full((4, 13), np.nan)
    kernels.statistics(moments, x, bounds)
    for s in (0, 2, 3):
        alone = np.empty((1, 13))
        kernels.statistics(
            alone,
            x[bounds[s] * 6 : bounds[s + 1] * 6].copy(),
            np.array([0, bounds[s + 1] - bounds[s]]),
        )
        assert alone.tobytes() == moments[s].tobytes()
    assert not moments[1].any()


# ---- running statistics


def test_running_statistics_are_those_of_the_global_batch_however_it_is_cut():
    x = drawn(IMAGES)
    ends = []
    for shards in (None, (0, 1, 6), (0, 0, 3, 4, 6)):
        layer = norm(IMAGES, np.float64)
        passes(layer, x.astype(np.float64), shards=shards)
        ends.append((layer.running_mean.value, layer.running_variance.value))
    for mean, variance in ends:
        np.testing.assert_allclose(mean, 0.1 * x.astype(float).mean(axis=(0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(
            variance, 0.9 + 0.1 * x.astype(float).var(axis=(0, 1, 2), ddof=1), rtol=1e-12
        )


def test_layer_used_twice_learns_twice():
    layer, once = norm(IMAGES), norm(IMAGES)
    x = drawn(IMAGES)
    tape = Tape(training=True)
    layer(tape.input(x))
    layer(tape.input(x + 1))
    for part in (x, x + 1):
        once(Tape(training=True).input(part))
    assert layer.running_mean.value.tobytes() == once.running_mean.value.tobytes()


def test_deferred_statistics_are_applied_by_settle_and_forgotten_by_restart():
    layer = norm(IMAGES)
    before = layer.running_mean.value.copy()
    tape = Tape(training=True, deferred=True)
    layer(tape.input(drawn(IMAGES)))
    assert layer.running_mean.value.tobytes() == before.tobytes()
    tape.restart()
    assert tape.pending == ()
    layer(tape.input(drawn(IMAGES)))
    tape.settle()
    at_once = norm(IMAGES)
    at_once(Tape(training=True).input(drawn(IMAGES)))
    assert layer.running_mean.value.tobytes() == at_once.running_mean.value.tobytes()


def test_evaluation_arrays_and_the_gradient_check_leave_running_statistics_alone():
    layer = norm(IMAGES)
    x = drawn(IMAGES)
    before = copy.deepcopy([state.value for _, state in layer.named_states()])
    passes(layer, x, training=False)
    layer(x)
    layers.gradcheck(layer, x).raise_if_wrong()
    layers.gradcheck(lambda x: layer(x), x).raise_if_wrong()
    after = [state.value for _, state in layer.named_states()]
    assert [a.tobytes() for a in before] == [a.tobytes() for a in after]


# ---- shards and the whole batch


@pytest.mark.parametrize("shards", [(0, 2, 6), (0, 1, 1, 6), (0, 0, 3, 3, 6)], ids=str)
def test_synchronized_shards_are_one_batch_to_rounding(shards):
    x = drawn(IMAGES, np.float64)
    layer = norm(IMAGES, np.float64, synchronized=True)
    whole, cut = passes(layer, x), passes(layer, x, shards=shards)
    for a, b in zip((whole[0], *whole[1]), (cut[0], *cut[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(whole[2], cut[2], strict=True):
        np.testing.assert_allclose(a[0], b.sum(axis=0), rtol=1e-12, atol=1e-12)


def test_shards_are_normalised_apart():
    x = drawn(IMAGES, np.float64)
    y, _, _ = passes(norm(IMAGES, np.float64, affine=False), x, shards=(0, 2, 6))
    np.testing.assert_allclose(y[:2], exact(x[:2]), atol=1e-12)
    np.testing.assert_allclose(y[2:], exact(x[2:]), atol=1e-12)


# ---- joined layers


class Apart(layers.Composite):
    """Layers one after the other, never joined."""

    def __init__(self, *steps):
        self.steps = steps

    def __call__(self, x):
        for step in self.steps:
            x = step(x)
        return x


@pytest.mark.parametrize("shape", [IMAGES, LARGE, (9, 13)], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shards", [None, (0, 2, 2, 6)], ids=str)
def test_norm_and_relu_in_one_call_have_the_bits_of_two(shape, training, shards):
    layer, x = norm(shape), drawn(shape)
    shards = None if shards is None else (*shards[:-1], shape[0])
    apart = passes(Apart(layer, ReLU()), x, training=training, shards=shards)
    assert bits(passes(Sequential(layer, ReLU()), x, training=training, shards=shards)) == bits(
        apart
    )


@pytest.mark.parametrize("shape", [IMAGES, LARGE, (9, 13)], ids=str)
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_tail_of_a_residual_block_in_one_call_has_the_bits_of_three(
    shape, shortcut, nested, training
):
    last, x = norm(shape), drawn(shape)
    body = Sequential(Tanh(), Sequential(last)) if nested else Sequential(Tanh(), last)
    block = Residual(body, norm(shape, affine=False) if shortcut else None)
    joined = Sequential(block, ReLU())
    assert bits(passes(joined, x, training=training)) == bits(
        passes(Apart(block, ReLU()), x, training=training)
    )
    tape = Tape(training=training)
    joined(tape.input(x))
    assert len(tape.calls) == (3 if shortcut else 2)


def test_residual_without_a_norm_and_a_relu_have_the_bits_of_two_calls():
    block = Residual(Linear(12, 12, rng=np.random.default_rng(0)))
    assert bits(passes(Sequential(block, ReLU()), drawn(LARGE))) == bits(
        passes(Apart(block, ReLU()), drawn(LARGE))
    )


def test_shortcut_that_broadcasts_still_works():
    class FirstPixel(layers.Composite):
        def __call__(self, x):
            return x[:, :1, :1]

    block = Residual(Sequential(Tanh(), norm(IMAGES)), FirstPixel())
    assert bits(passes(Sequential(block, ReLU()), drawn(IMAGES))) == bits(
        passes(Apart(block, ReLU()), drawn(IMAGES))
    )


def test_joined_layers_keep_the_names_of_parameters_and_states():
    net = Sequential(norm(IMAGES), ReLU(), Residual(Sequential(Tanh(), norm(IMAGES))), ReLU())
    places = ["layers.0.", "layers.2.body.layers.1."]
    assert [name for name, _ in net.named_parameters()] == [
        f"{place}{name}" for place in places for name in ("weight", "bias")
    ]
    expected = [f"{place}running_{name}" for place in places for name in ("mean", "variance")]
    assert [name for name, _ in net.named_states()] == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda n: Sequential(n, ReLU()),
        lambda n: Sequential(Residual(Sequential(Tanh(), n)), ReLU()),
    ],
)
def test_nan_stays_nan(make):
    x = drawn(IMAGES)
    x[2, 1, 1, 3] = np.nan
    y, (dx,), _ = passes(make(norm(IMAGES)), x)
    assert np.isnan(y[..., 3]).all()
    assert np.isfinite(y[..., :3]).all()
    assert np.isfinite(dx[..., 4:]).all()


def test_rule_of_feedback_stands_for_the_gain():
    class Twice(layers.Rule):
        def feedback(self, parameter: Parameter):
            return 2 * parameter.value

    layer, x = Sequential(norm(IMAGES), ReLU()), drawn(IMAGES)
    gradients = []
    for rule in (None, Twice()):
        value = Tape(training=True).input(x)
        layer(value).sum().backward(rule=rule)
        gradients.append(value.grad)
    np.testing.assert_allclose(gradients[1], 2 * gradients[0], rtol=1e-6, atol=1e-6)


# ---- the mistakes' right original


@pytest.mark.parametrize("right", RIGHT)
def test_layers_that_the_mistakes_are_made_in_are_right(right):
    layers.gradcheck(right(np.random.default_rng(0)), RNG.standard_normal((7, 4))).raise_if_wrong()


# ---- refusals


@pytest.mark.parametrize(
    ("x", "options", "error", "words"),
    [
        (
            np.ones((0, 4)),
            {},
            ValueError,
            ["BatchNorm(4): ", "a batch of 0 samples", "not training"],
        ),
        (
            np.ones((1, 4)),
            {},
            ValueError,
            ["each shard", "more than one value per channel", "synchronized=True"],
        ),
        (
            np.ones((1, 4)),
            {"synchronized": True},
            ValueError,
            ["BatchNorm(4, synchronized=True): ", "the batch must", "larger"],
        ),
        (np.ones((3, 5)), {}, ValueError, ["(N, ..., 4)", "(3, 5)", "last axis"]),
        (np.ones(4), {}, ValueError, ["(N, ..., 4)", "(4,)", "x[np.newaxis]"]),
        (
            np.ones((3, 4), np.int64),
            {"affine": False},
            TypeError,
            ["BatchNorm(4, affine=False): ", "floating", "int64"],
        ),
        (np.ones((3, 4), np.float16), {}, TypeError, ["float64", "float16", "astype"]),
    ],
)
def test_wrong_inputs_are_refused_by_name_and_fix(x, options, error, words):
    layer = BatchNorm(4, dtype=np.float64, **options)
    with pytest.raises(error) as caught:
        layer(Tape(training=True).input(x))
    assert all(word in str(caught.value) for word in [*words, "; got "]), caught.value


def test_images_are_refused_without_four_axes():
    with pytest.raises(
        ValueError,
        match=r"^BatchNorm2d\(4\): the input must have shape \(N, H, W, 4\); got \(3, 4\)\. ",
    ):
        BatchNorm2d(4)(np.ones((3, 4), np.float32))


def test_shard_of_one_value_is_refused_beside_others_and_an_empty_one_is_not():
    x = drawn((5, 4))
    with pytest.raises(ValueError, match="Use fewer shards"):
        passes(norm(x.shape), x, shards=(0, 1, 5))
    passes(norm(x.shape), x, shards=(0, 0, 5))


def test_part_of_a_batch_without_rows_is_nothing_to_normalise():
    x = np.ones((0, 4), np.float32)
    y, (dx,), gradients = passes(norm((0, 4)), x, shards=(0, 0, 0), samples=9)
    assert y.shape == dx.shape == (0, 4)
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((0,), "channels"), ((2.5,), "channels"), ((4, 1.5), "momentum"), ((4, 0.1, 0.0), "epsilon")],
)
def test_options_out_of_range_are_refused(arguments, word):
    with pytest.raises(ValueError, match=rf"^BatchNorm2d: .*{word}.*; got "):
        BatchNorm2d(*arguments)
