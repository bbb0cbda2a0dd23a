"""Buffers that are reused: no allocation when warm, and no trace of what they held."""

import numpy as np
import pytest

import layers
from layers import ReLU, Sequential, SoftmaxCrossEntropy, Tape

from ..spy import Spy, linear


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def train(model, x, labels, workspace):
    for parameter in model.parameters():
        parameter.zero_gradient()
    tape = Tape(training=True, workspace=workspace)
    loss = SoftmaxCrossEntropy()(model(tape.input(x)), labels)
    loss.backward()
    return [loss.array.copy()] + [parameter.gradient.copy() for parameter in model.parameters()]


def test_warm_workspace_allocates_nothing_also_for_a_smaller_last_batch(rng):
    model = Sequential(
        linear(rng, 6, 9),
        ReLU(),
        layers.Residual(linear(rng, 9, 9)),
        layers.GELU(),
        layers.Dropout(0.2),
        linear(rng, 9, 3),
    )
    x, labels = rng.standard_normal((8, 6)), rng.integers(0, 3, 8)
    workspace = layers.Workspace()
    train(model, x, labels, workspace)
    train(model, x, labels, workspace)
    warm, size = workspace.allocations, workspace.nbytes
    for rows in (8, 5, 8, 1, 5, 8):
        train(model, x[:rows], labels[:rows], workspace)
    assert workspace.allocations == warm
    assert workspace.nbytes == size


def test_gradients_of_large_activations_share_memory_and_nothing_is_allocated_when_warm(rng):
    model = Sequential(*(layers.Tanh() for _ in range(6)))
    workspace = layers.Workspace()
    sizes = []
    for rows in (256, 256, 200, 100, 256):
        tape = Tape(workspace=workspace)
        x = tape.input(rng.standard_normal((rows, 512)))
        model(x).sum().backward()
        expected = np.ones((rows, 512))
        y = x.array
        for _ in range(6):
            y = np.tanh(y)
            expected = expected * (1 - y * y)
        np.testing.assert_allclose(x.grad, expected, rtol=1e-6)
        sizes.append((workspace.allocations, workspace.nbytes))
        # The gradient that is still referred to is not among the memory that the next step takes.
        tape.release()
        del x
    one = 256 * 512 * 8
    # Six outputs, and gradients for no more than three of them at a time.
    assert sizes[0][1] <= 9 * one + 1024
    assert sizes[1:] == sizes[1:2] * 4


def test_gradient_that_is_still_referred_to_is_not_overwritten(rng):
    workspace = layers.Workspace()
    kept = []
    for factor in (1.0, 2.0, 3.0):
        tape = Tape(workspace=workspace)
        x = tape.input(np.zeros((256, 512)))
        (layers.Tanh()(x) * factor).sum().backward()
        kept.append(x.grad)
    assert [float(gradient[0, 0]) for gradient in kept] == [1, 2, 3]
    assert [float(gradient[-1, -1]) for gradient in kept] == [1, 2, 3]


def test_warm_workspace_allocates_nothing_for_an_input_that_is_used_twice():
    workspace = layers.Workspace()
    tapes = []
    counts = []
    for _ in range(5):
        tape = Tape(workspace=workspace)
        tapes.append(tape)  # So that no two inputs have the same address.
        x = tape.input(np.ones(8))
        layers.Add()(x, x, x).sum().backward()
        assert (x.grad == 3).all()
        counts.append(workspace.allocations)
    assert counts[1:] == counts[1:2] * 4


@pytest.mark.parametrize("warm", [0, 5])
@pytest.mark.parametrize("rows", [8, 5])
def test_a_tape_whose_memory_another_has_used_is_refused_its_backward_pass(rng, warm, rows):
    model, criterion = (
        Sequential(linear(rng, 6, 9), ReLU(), linear(rng, 9, 3)),
        SoftmaxCrossEntropy(),
    )
    x, labels, workspace = rng.standard_normal((8, 6)), rng.integers(0, 3, 8), layers.Workspace()
    for _ in range(warm):
        train(model, x, labels, workspace)
    first, second = (Tape(training=True, workspace=workspace) for _ in range(2))
    loss = criterion(model(first.input(x)), labels)
    later = criterion(model(second.input(x[:rows])), labels[:rows])
    with pytest.raises(ValueError, match="memory another tape with its workspace has used since"):
        loss.backward()
    for parameter in model.parameters():
        parameter.zero_gradient()
    later.backward()
    found = [parameter.gradient.copy() for parameter in model.parameters()]
    for one, other in zip(found, train(model, x[:rows], labels[:rows], None)[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_results_do_not_depend_on_what_the_workspace_held(rng):
    model = Sequential(
        linear(rng, 6, 9),
        ReLU(),
        layers.Residual(linear(rng, 9, 9)),
        layers.GELU(),
        linear(rng, 9, 3),
    )
    x, labels = rng.standard_normal((8, 6)), rng.integers(0, 3, 8)
    workspace = layers.Workspace()
    for rows in (8, 3, 8, 5):
        used = train(model, x[:rows], labels[:rows], workspace)
        fresh = train(model, x[:rows], labels[:rows], layers.Workspace())
        for a, b in zip(used, fresh, strict=True):
            assert (a == b).all()


def test_gradient_of_an_input_may_be_changed_without_harm_to_the_next_step():
    workspace = layers.Workspace()
    for _ in range(2):
        x = Tape(workspace=workspace).input(np.array(2.0))
        x.reshape(1).reshape(()).backward()
        assert x.grad == 1
        x.grad[...] = 9


def test_buffer_grows_for_a_larger_batch_and_is_cut_for_a_smaller_one():
    workspace = layers.Workspace()

    def buffer(name, shape, dtype=np.float32, call=0):
        value = Tape(workspace=workspace).input(np.ones(2))
        for _ in range(call + 1):
            value = Spy()(value)
        return value.call.buffer(name, shape, dtype)

    small = buffer("y", (2, 3))
    assert np.shares_memory(small, buffer("y", (2, 3)))
    large = buffer("y", (4, 3))
    assert not np.shares_memory(small, large)
    for shape, dtype in (
        ((2, 3), np.float32),
        ((5,), np.float64),
        ((0, 3), np.float32),
        ((4, 3), np.int32),
    ):
        again = buffer("y", shape, dtype)
        assert again.shape == shape
        assert again.dtype == dtype
        assert again.size == 0 or np.shares_memory(large, again)
    assert workspace.allocations == 2
    assert workspace.nbytes == 4 * 3 * 4
    assert not np.shares_memory(large, buffer("x", (4, 3)))
    assert not np.shares_memory(large, buffer("y", (4, 3), call=1))
    assert workspace.allocations == 4


def test_memory_begins_at_a_cache_line_and_is_known_by_its_views(rng):
    workspace = layers.Workspace()
    workspace.current(0)
    arrays = [workspace.cut(0, "y", (n,), np.float32) for n in (1, 1000, 100_000)] + [
        workspace.pooled((99, 1001), np.float64)
    ]
    arrays += workspace.scratch(np.dtype(np.float32), (7, 9))
    flat = layers.FlatParameters(linear(rng, 5, 3), shards=2)
    assert all(array.ctypes.data % 64 == 0 for array in (*arrays, flat.values, flat.gradients))
    held = arrays[3][1:]
    del arrays
    assert not np.shares_memory(workspace.pooled((99, 1001), np.float64), held)
