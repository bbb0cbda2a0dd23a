"""Segments that are computed again: the bits of the model without them, in less memory."""

import numpy as np
import pytest

import layers
from layers import (
    GELU,
    BatchNorm,
    Composite,
    Dropout,
    Linear,
    MeanSquaredError,
    Recompute,
    ReLU,
    Rule,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Tape,
    TapeHook,
    Workspace,
    set_precision,
)
from layers.recompute import use_plan
from layers.rules import SignSymmetry

from .oracle import torch
from .segmented import MODELS, mixed, plain

BATCH = 16


def steps(model, count=4, *, loss=None, rule=None, hooks=None, **options):
    """Return the bits of losses, gradients and states of some steps, and their workspace."""
    rng, workspace, found = np.random.default_rng(5), Workspace(), []
    loss = loss or SoftmaxCrossEntropy()
    for step in range(count):
        x = rng.standard_normal((BATCH, 6)).astype(model.parameters()[0].dtype)
        labels = rng.integers(0, 3, BATCH)
        for parameter in model.parameters():
            parameter.zero_gradient()
        tape = Tape(training=True, workspace=workspace, seed=3, step=step, hooks=hooks, **options)
        value = tape.input(x)
        y = loss(model(value), labels)
        y.backward(rule=rule)
        arrays = [y.array, value.grad, *(parameter.gradients for parameter in model.parameters())]
        found.append([array.tobytes() for array in arrays])
        found[-1] += [state.value.tobytes() for _, state in model.named_states()]
        tape.release()
    return found, workspace


@pytest.mark.parametrize("shards", [None, (0, 4, 8, BATCH)], ids=["one shard", "three shards"])
@pytest.mark.parametrize("name", MODELS)
def test_segments_change_no_bit_of_losses_gradients_and_states(name, shards):
    make, options = MODELS[name], {"shards": shards, "samples": BATCH}
    expected, _ = steps(make(plain), **options)
    assert steps(make(Recompute), **options)[0] == expected


@pytest.mark.parametrize("precision", ["bf16", "float16"])
@pytest.mark.parametrize("name", ["mixed", "convolutional", "conditioned", "nested"])
def test_segments_change_no_bit_where_less_is_kept_in_16_bits(name, precision):
    both = [MODELS[name](wrap) for wrap in (plain, Recompute)]
    for model in both:
        set_precision(model, precision)
    (expected, _), (found, _) = map(steps, both)
    assert found == expected


@pytest.mark.parametrize("name", MODELS)
def test_segments_change_no_bit_of_what_a_rule_propagates(name):
    found = []
    for wrap in (plain, Recompute):
        model, rule = MODELS[name](wrap), SignSymmetry()
        rule.bind(model)
        found.append(steps(model, rule=rule)[0])
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["conditioned", "skipped", "nested", "two in one", "passed on"])
def test_segments_change_no_bit_of_large_values_whose_gradients_lie_in_the_pool(name, monkeypatch):
    monkeypatch.setattr(Workspace, "pooled_from", 1)
    expected, _ = steps(MODELS[name](plain))
    assert steps(MODELS[name](Recompute))[0] == expected


@pytest.mark.parametrize("name", ["transformer", "nested", "passed on"])
def test_segments_change_no_bit_of_what_they_give_outside_of_a_tape(name):
    made = [MODELS[name](wrap) for wrap in (plain, Recompute)]
    x = np.random.default_rng(0).standard_normal((BATCH, 6)).astype(np.float32)
    assert made[1](x).tobytes() == made[0](x).tobytes()


def wide(wrap, depth=24):
    rng = np.random.default_rng(6)
    return Sequential(
        Linear(6, 300, rng=rng),
        *(wrap(Sequential(Linear(300, 300, rng=rng), Tanh(), GELU())) for _ in range(depth)),
        Linear(300, 3, rng=rng),
    )


def held(model, rows=600):
    """Return the bytes that a workspace holds after each of three steps, and its allocations."""
    workspace, found = Workspace(), []
    x, target = np.ones((rows, 6), np.float32), np.zeros((rows, 3), np.float32)
    for _ in range(3):
        tape = Tape(training=True, workspace=workspace)
        MeanSquaredError()(model(tape.input(x)), target).backward()
        tape.release()
        found.append((workspace.nbytes, workspace.allocations))
    return found


def test_only_inputs_of_segments_and_one_of_them_are_kept_and_nothing_is_allocated_when_warm():
    (without, _), *_ = held(wide(plain))
    sizes = held(wide(Recompute))
    assert sizes[0] == sizes[1] == sizes[2]
    # Of three arrays for each segment one stays; gradients and two ends are there in both.
    assert sizes[-1][0] < 0.5 * without


def test_segments_in_segments_hold_what_the_deepest_needs_at_once():
    def in_pairs(wrap):
        *ends, last = wide(wrap)
        first, *blocks = ends
        pairs = [Recompute(Sequential(*blocks[i : i + 4])) for i in range(0, len(blocks), 4)]
        return Sequential(first, *pairs, last)

    flat, nested = held(in_pairs(plain))[-1][0], held(in_pairs(Recompute))[-1][0]
    assert nested < 0.75 * flat


def test_running_statistics_learn_once_in_a_step():
    norm = BatchNorm(6, momentum=0.5)
    x = Tape(training=True).input(np.arange(12, dtype=np.float32).reshape(2, 6))
    Recompute(norm)(x).sum().backward()
    assert norm.running_mean.value.tolist() == [1.5, 2, 2.5, 3, 3.5, 4]


def test_loss_in_a_segment_is_that_of_the_shards():
    class Scored(Composite):
        def __init__(self, wrap):
            self.model, self.loss = mixed(plain), SoftmaxCrossEntropy()
            self.scored = wrap(lambda x, labels: self.loss(self.model(x), labels))

    found = []
    for wrap in (plain, Recompute):
        scored, tape = Scored(wrap), Tape(training=True, shards=(0, 4, 8, BATCH), samples=BATCH)
        x = np.random.default_rng(0).standard_normal((BATCH, 6)).astype(np.float32)
        value = scored.scored(tape.input(x), np.arange(BATCH) % 3)
        value.backward()
        gradients = [parameter.gradients.tobytes() for parameter in scored.model.parameters()]
        found.append([value.shard_sums.tobytes(), value.array.tobytes(), *gradients])
    assert found[0] == found[1]


def test_what_averages_over_the_batch_within_a_segment_is_no_loss_of_shards():
    layer = Linear(6, 1, rng=np.random.default_rng(0))
    tape = Tape(training=True, shards=(0, 8, BATCH), samples=BATCH)
    x = tape.input(np.ones((BATCH, 6), np.float32))
    squared = Recompute(lambda x: layer(x).mean() ** 2)
    with pytest.raises(ValueError, match="on several shards a loss must be"):
        layers.engine.shares.required(squared(x), "Test")


class Watching(TapeHook, Rule):
    """Notes what it is told and asked."""

    def __init__(self):
        self.told = []

    def on_forward_end(self, call):
        self.told.append(("forward", type(call.layer)))

    def on_backward_end(self, call):
        self.told.append(("backward", type(call.layer)))

    def on_parameter_ready(self, parameter):
        self.told.append(("ready", id(parameter)))

    def error(self, call, dy):
        self.told.append(("error", type(call.layer)))
        return dy


def test_hooks_and_rules_learn_of_each_call_within_once():
    told = []
    for wrap in (plain, Recompute):
        model, watching = mixed(wrap), Watching()
        steps(model, 1, rule=watching, hooks=[watching])
        names = {id(p): n for n, (_, p) in enumerate(model.named_parameters())}
        told.append(
            [(what, names.get(of, of)) for what, of in watching.told if of is not Recompute]
        )
    assert told[0] == told[1]
    # Three layers, of which a use of one comes last.
    assert sum(what == "ready" for what, _ in told[0]) == 8


def test_second_backward_adds_to_the_first():
    model = mixed(Recompute)
    tape = Tape(training=True)
    y = SoftmaxCrossEntropy()(model(tape.input(np.ones((4, 6), np.float32))), np.arange(4) % 3)
    y.backward()
    once = [parameter.gradient.copy() for parameter in model.parameters()]
    y.backward()
    for parameter, gradient in zip(model.parameters(), once, strict=True):
        np.testing.assert_allclose(parameter.gradient, 2 * gradient, rtol=1e-5, atol=1e-7)


class Returning(layers.Layer):
    """Twice what it gets; its gradient lies where its output was."""

    def forward(self, call, x):
        y = call.buffer("y", x.shape, x.dtype)
        np.multiply(x, 2, out=y)
        return y

    def backward(self, call, dy):
        dx = call.buffer("y", dy.shape, dy.dtype)
        np.multiply(dy, 2, out=dx)
        return (dx,)


def test_gradient_that_lies_where_a_segment_is_computed_again_is_not_lost():
    def gradients(plan):
        rng = np.random.default_rng(8)
        dense = [Linear(6, 6, rng=rng) for _ in range(4)]
        model = Sequential(*dense[:3], Returning(), dense[3])
        use_plan(model, plan)
        workspace = Workspace()
        for _ in range(2):
            for parameter in model.parameters():
                parameter.zero_gradient()
            tape = Tape(training=True, workspace=workspace)
            model(tape.input(np.ones((50, 6), np.float32))).sum().backward()
            tape.release()
        return [parameter.gradient.tobytes() for parameter in model.parameters()]

    assert gradients([[0, 1, 2], 3, 4]) == gradients(None)


def test_functions_of_values_are_segments_whose_layers_belong_to_what_else_has_them():
    def step(wrap):
        layer = Linear(3, 3, rng=np.random.default_rng(0))
        segment = wrap(lambda x: np.tanh(layer(x)) * x)
        tape = Tape(training=True)
        x = tape.input(np.arange(6, dtype=np.float32).reshape(2, 3))
        (segment(x) ** 2).mean().backward()
        return segment, x.grad.tobytes(), layer.weight.gradient.tobytes()

    segment, *found = step(Recompute)
    assert found == [*step(lambda function: function)[1:]]
    assert not [*segment.parameters()]


# ---- what is refused


def test_what_is_no_layer_is_refused():
    for segment in (None, [ReLU()], ReLU):
        with pytest.raises(TypeError, match="Recompute: segment must be a layer; got"):
            Recompute(segment)


@pytest.mark.parametrize("given", [lambda x: x.array, lambda x: (x, None), lambda x: [x]])
def test_segment_that_gives_no_values_is_refused(given):
    with pytest.raises(TypeError, match=r"Recompute.*: the segment must give values; got"):
        Recompute(given)(Tape().input(np.ones(3)))


def test_segment_of_values_from_outside_is_refused():
    tape = Tape()
    x, other = tape.input(np.ones(3)), tape.input(np.ones(3))
    with pytest.raises(ValueError, match="all inputs must be on one tape"):
        Recompute(lambda x: x * other)(x)


class Changing(Composite):
    """Computes something else in each call."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.layers = [Linear(3, 3, rng=rng), Linear(3, 3, rng=rng)]
        self.dropout = Dropout(0.5)
        self.calls = 0


class Scaled(Changing):
    def __call__(self, x):
        self.calls += 1
        return x * self.calls


class Taking(Changing):
    def __call__(self, x):
        self.calls += 1
        return self.layers[self.calls % 2](x)


class Drawing(Changing):
    def __call__(self, x):
        self.calls += 1
        return self.dropout(x) if self.calls % 2 else x


class Resized(Changing):
    def __call__(self, x):
        self.calls += 1
        return x[: self.calls]


@pytest.mark.parametrize("kind", [Scaled, Taking, Drawing, Resized])
def test_segment_that_computes_something_else_in_backward_is_refused(kind):
    y = Recompute(kind())(Tape(training=True).input(np.ones((4, 3), np.float32)))
    with pytest.raises(RuntimeError, match="the segment must compute the same when it is called"):
        y.sum().backward()


def test_error_within_a_segment_leaves_the_tape_and_the_stack_as_they_were():
    workspace = Workspace()
    tape = Tape(training=True, workspace=workspace)
    x = tape.input(np.ones((4, 3), np.float32))
    wrong = Linear(5, 3, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="Linear"):
        Recompute(Sequential(Dropout(0.5), wrong))(x)
    assert tape.calls == []
    assert (tape.draws, workspace.stack.top) == (0, 0)


# ---- beside PyTorch


def test_gradients_are_those_of_checkpoint_in_pytorch():
    checkpoint = pytest.importorskip("torch.utils.checkpoint").checkpoint
    model = wide(Recompute, depth=3)
    x = np.random.default_rng(7).standard_normal((9, 6)).astype(np.float32)
    value = Tape(training=True).input(x)
    (model(value) ** 2).sum().backward()
    parameters = [torch.tensor(p.value, requires_grad=True) for p in model.parameters()]
    theirs = torch.tensor(x, requires_grad=True)
    linear, gelu = torch.nn.functional.linear, torch.nn.functional.gelu
    h = linear(theirs, *parameters[:2])
    for weight, bias in zip(parameters[2:-2:2], parameters[3:-2:2], strict=True):
        segment = lambda h, w, b: gelu(torch.tanh(linear(h, w, b)))  # noqa: E731
        h = checkpoint(segment, h, weight, bias, use_reentrant=False)
    (linear(h, *parameters[-2:]) ** 2).sum().backward()
    for ours, other in zip(
        (value.grad, *(p.gradient for p in model.parameters())), (theirs, *parameters), strict=True
    ):
        np.testing.assert_allclose(ours, other.grad.numpy(), rtol=2e-4, atol=2e-5)
