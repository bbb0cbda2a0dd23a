"""Values and tapes: what is recorded, what flows back, and that nothing is corrupted on the way."""

import numpy as np
import pytest

import layers
from layers import ReLU, Sequential, Tape

from ..spy import Spy, linear


@pytest.fixture
def rng():
    return np.random.default_rng(5)


# ---- what is recorded


def test_arrays_give_an_array_and_values_give_a_value_of_the_same_bits(rng):
    model = Sequential(linear(rng, 5, 7), ReLU(), linear(rng, 7, 3), layers.Softmax())
    x = rng.standard_normal((4, 5))
    y = model(x)
    value = model(Tape().input(x))
    assert type(y) is np.ndarray
    assert isinstance(value, layers.Value)
    assert (y == value.array).all()


def test_calls_stand_on_the_tape_in_the_order_of_execution(rng):
    model = Sequential(linear(rng, 5, 7), layers.Tanh(), linear(rng, 7, 3))
    tape = Tape()
    model(tape.input(np.ones((2, 5))))
    assert [call.layer for call in tape.calls] == list(model)
    assert [call.index for call in tape.calls] == [0, 1, 2]


def test_values_of_two_tapes_are_refused():
    a, b = Tape().input(np.ones(3)), Tape().input(np.ones(3))
    with pytest.raises(ValueError, match="all inputs must be on one tape"):
        a + b


def test_integer_input_takes_part_without_a_gradient():
    tape = Tape()
    indices, x = tape.input(np.array([1, 2, 3])), tape.input(np.array([0.5, 1.5, 2.5]))
    y = (indices * x).sum()
    y.backward()
    assert x.grad.tolist() == [1, 2, 3]
    assert not indices.wants
    with pytest.raises(ValueError, match="takes part in differentiation"):
        indices.grad  # noqa: B018


def test_input_without_gradient_saves_the_layer_its_part_of_backward(rng):
    wanted = []

    class Watch(Spy):
        def backward(self, call, dy):
            wanted.append(call.wants(0))
            return (None,)

    layer = linear(rng, 3, 3)
    tape = Tape()
    x = tape.input(np.ones((2, 3)), gradient=False)
    assert not Watch()(x).wants
    Watch()(layer(x)).backward(np.ones((2, 3)))
    assert wanted == [True]
    layer(x).backward(np.ones((2, 3)))
    assert not layer.weight.store.stale


def test_layers_that_run_as_one_call_give_the_bits_of_two(rng):
    joined = Sequential(linear(rng, 5, 7), ReLU(), linear(rng, 7, 3), ReLU())
    apart = joined.astype(np.float64)
    x, dy = rng.standard_normal((4, 5)), rng.standard_normal((4, 3))
    first, second = Tape().input(x), Tape().input(x)
    y, z = joined(first), second
    for layer in apart:
        z = layer(z)
    y.backward(dy)
    z.backward(dy)
    assert (y.array == z.array).all()
    assert (first.grad == second.grad).all()
    for a, b in zip(joined.parameters(), apart.parameters(), strict=True):
        assert (a.gradient == b.gradient).all()


def test_parameter_that_is_replaced_after_building_is_the_one_that_is_used(rng):
    model = Sequential(linear(rng, 3, 3), ReLU(), linear(rng, 3, 3), ReLU())
    model[2].weight = model[0].weight
    x = rng.standard_normal((4, 3))
    expected = x
    for layer in model:
        expected = layer(expected)
    assert (model(x) == expected).all()
    model(Tape().input(x)).backward(np.ones((4, 3)))
    assert not any(parameter.store.stale for parameter in model.parameters())


# ---- Python is the graph


def test_loops_and_branches_of_python_are_differentiated():
    def collatz_like(x):
        for _ in range(6):
            x = 3 * x + 1 if x < 2 else x * x / 2
        return x

    start = 0.3
    x = Tape().input(np.array(start))
    y = collatz_like(x)
    y.backward()
    h = 1e-7
    assert float(y) == collatz_like(start)
    slope = (collatz_like(start + h) - collatz_like(start - h)) / (2 * h)
    np.testing.assert_allclose(x.grad, slope, rtol=1e-6)


def test_layer_used_twice_gets_the_sum_of_both_gradients(rng):
    layer = linear(rng, 3, 3)
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    layer(layer(Tape().input(x))).backward(dy)
    h = x @ layer.weight.value.T + layer.bias.value
    expected = dy.T @ h + (dy @ layer.weight.value).T @ x
    np.testing.assert_allclose(layer.weight.gradient, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(
        layer.bias.gradient, (dy + dy @ layer.weight.value).sum(axis=0), rtol=1e-13
    )


def test_value_used_in_three_places_gets_the_sum_of_three_gradients(rng):
    tape = Tape()
    x = tape.input(rng.standard_normal((4, 3)))
    h = layers.tanh(x).keep_grad()
    a, b, c = rng.standard_normal((3, 4, 3))
    y = (h * a).sum() + (h * b).sum() + (h * c).sum()
    y.backward()
    np.testing.assert_allclose(h.grad, a + b + c, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(
        x.grad, (a + b + c) * (1 - np.tanh(x.array) ** 2), rtol=1e-13, atol=1e-13
    )


def test_value_added_to_itself_gets_twice_the_gradient(rng):
    dy = rng.standard_normal(5)
    for function, factor in (
        (lambda h: h + h, 2),
        (lambda h: layers.Add()(h, h, h), 3),
        (lambda h: h - h, 0),
    ):
        x = Tape().input(rng.standard_normal(5))
        function(x).backward(dy)
        np.testing.assert_allclose(x.grad, factor * dy, rtol=1e-15)


def test_fan_out_never_writes_into_a_gradient_that_another_branch_holds(rng):
    # Two pass-through branches hold one array; a third contribution to one of them must not show in
    # the other.
    left, right, top = Spy(), Spy(), Spy()
    tape = Tape()
    x = tape.input(rng.standard_normal((2, 3)))
    h = x * 2.0
    a, b = left(h), right(h)
    y = top(a + b) + top(a * 3.0)
    dy = rng.standard_normal((2, 3))
    given = dy.copy()
    y.backward(dy)
    assert (dy == given).all(), "the gradient that was passed in is the caller's"
    for spy in (left, right, top):
        for seen, copy in zip(spy.seen, spy.copies, strict=True):
            assert (seen == copy).all()
    np.testing.assert_allclose(left.copies[0], 4 * dy, rtol=1e-15)
    np.testing.assert_allclose(right.copies[0], dy, rtol=1e-15)
    np.testing.assert_allclose(x.grad, 10 * dy, rtol=1e-15)


def test_gradients_of_every_value_of_a_random_graph_survive_until_the_end(rng):
    # Sums, products and identities at random, every value kept; compared with the chain rule on the
    # matrix of the graph.
    for _ in range(20):
        tape = Tape()
        values = [tape.input(rng.standard_normal(3)) for _ in range(2)]
        slopes = []
        for _ in range(12):
            i, j = rng.integers(0, len(values), 2)
            kind = rng.integers(4)
            if kind == 0:
                values.append((values[i] + values[j]).keep_grad())
                slopes.append([(i, 1.0), (j, 1.0)])
            elif kind == 1:
                values.append((values[i] * values[j]).keep_grad())
                slopes.append([(i, values[j].array), (j, values[i].array)])
            elif kind == 2:
                values.append(values[i].reshape(3).keep_grad())
                slopes.append([(i, 1.0)])
            else:
                values.append((values[i] - values[j]).keep_grad())
                slopes.append([(i, 1.0), (j, -1.0)])
        expected = [np.zeros(3) for _ in values]
        expected[-1] += 1
        for k in range(len(values) - 1, 1, -1):
            for source, slope in slopes[k - 2]:
                expected[source] += expected[k] * slope
        values[-1].backward(np.ones(3))
        for value, gradient in zip(values, expected, strict=True):
            if value.grad is not None:
                np.testing.assert_allclose(value.grad, gradient, rtol=1e-10, atol=1e-10)
            else:
                assert (gradient == 0).all()


def test_layer_may_give_one_buffer_to_several_inputs():
    class Sum(layers.Layer):
        def forward(self, call, condition, a, b):
            return a + b

        def backward(self, call, dy):
            dx = call.buffer("dx", dy.shape, dy.dtype)
            dx[...] = dy
            return None, dx, dx

    tape = Tape()
    a, b = tape.input(np.ones(2)), tape.input(np.ones(2))
    early = a * 3.0
    (Sum()(np.ones(2), a, b) + early).backward(np.ones(2))
    assert a.grad.tolist() == [4, 4]
    assert b.grad.tolist() == [1, 1]


def test_call_that_is_refused_leaves_the_tape_as_it_was(rng):
    tape = Tape()
    x = tape.input(np.ones((2, 3)))
    with pytest.raises(ValueError, match="must have shape"):
        linear(rng, 4, 2)(x)
    (x * 2).sum().backward()
    assert (x.grad == 2).all()


# ---- gradients on demand


def test_nothing_flows_through_a_detached_value():
    tape = Tape()
    x = tape.input(np.array([1.0, 2.0]))
    y = (x * (x * x).detach()).sum()
    y.backward()
    assert x.grad.tolist() == [1, 4]


def test_backward_of_a_constant_is_refused():
    x = Tape().input(np.array(2.0), gradient=False)
    for y in (x, x * x, (Tape().input(np.array(2.0)) * 3).detach()):
        with pytest.raises(ValueError, match="depend on something differentiable"):
            y.backward()


def test_intermediate_value_keeps_its_gradient_only_when_asked():
    tape = Tape()
    x = tape.input(np.array([1.0, 2.0]))
    kept, dropped = (x * x).keep_grad(), x + 1
    (kept * dropped).sum().backward()
    assert kept.grad.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"keep_grad\(\) before backward"):
        dropped.grad  # noqa: B018


def test_every_input_gets_its_gradient_and_one_that_was_not_reached_gets_none():
    tape = Tape()
    a, b, c = (tape.input(np.array(v)) for v in (2.0, 3.0, 5.0))
    a * c
    (a * b).backward()
    assert (float(a.grad), float(b.grad), c.grad) == (3, 2, None)


def test_value_of_several_elements_needs_a_gradient_of_its_shape():
    x = Tape().input(np.ones((2, 3)))
    with pytest.raises(ValueError, match="must have one element"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"the shape of the value, \(2, 3\)"):
        (x * 2).backward(np.ones((3, 2)))
    dy = np.arange(6.0).reshape(2, 3)
    (x * 2).backward(dy)
    assert (x.grad == 2 * dy).all()


def test_backward_twice_adds_to_the_parameters_and_replaces_those_of_inputs(rng):
    layer = linear(rng, 3, 2)
    x = Tape().input(rng.standard_normal((4, 3)))
    y = layer(x)
    dy = rng.standard_normal((4, 2))
    y.backward(dy)
    once, of_input = layer.weight.gradient.copy(), x.grad.copy()
    y.backward(dy)
    assert (layer.weight.gradient == 2 * once).all()
    assert (x.grad == of_input).all()
    layer.weight.zero_gradient()
    y.backward(dy)
    assert (layer.weight.gradient == once).all()


def test_two_losses_of_one_tape_add_up(rng):
    layer = linear(rng, 3, 2)
    x = rng.standard_normal((4, 3))
    tape = Tape()
    h = layer(tape.input(x))
    first, second = (h * h).sum(), h.sum()
    first.backward()
    second.backward()
    apart = layer.weight.gradient.copy()
    layer.weight.zero_gradient()
    (first + second).backward()
    np.testing.assert_allclose(layer.weight.gradient, apart, rtol=1e-13)


def test_backward_from_the_middle_leaves_later_calls_alone(rng):
    tape = Tape()
    x = tape.input(np.array([1.0, 2.0]))
    spy = Spy()
    middle = x * x
    spy(middle)
    middle.backward(np.ones(2))
    assert spy.seen == []
    assert x.grad.tolist() == [2, 4]


def test_input_is_copied_unless_it_is_read_only_or_the_caller_keeps_it_as_it_is():
    for size in (3, 100_000):
        x = np.ones(size)
        workspace = layers.Workspace()
        copied = layers.Tape(workspace=workspace).input(x)
        kept = layers.Tape(workspace=workspace).input(x, copy=False)
        x[...] = 2
        assert copied.array[0] == 1
        assert kept.array is x
    x.flags.writeable = False
    assert layers.Tape().input(x).array is x


def test_large_inputs_are_copied_into_memory_that_is_used_again():
    x, workspace = np.ones((2, 100_000)), layers.Workspace()
    allocations = []
    for _ in range(4):
        tape = layers.Tape(workspace=workspace)
        first, second = tape.input(x[0]), tape.input(x[1])
        (first * x[0] + second).sum().backward()
        allocations.append(workspace.allocations)
    # The values of one step live on until the next has its own.
    assert allocations[1] == allocations[3] > 2
    assert not np.shares_memory(first.array, second.array)


def test_gradients_that_are_kept_leave_the_memory_of_steps_to_the_next():
    x, workspace = np.ones((2, 100_000)), layers.Workspace()
    gradients, allocations = [], []
    for step in range(5):
        value = layers.Tape(workspace=workspace).input(x)
        (layers.ReLU()(value) * float(step)).sum().backward()
        gradients.append(value.grad)
        allocations.append(workspace.allocations)
    assert allocations[1] == allocations[-1]
    assert [gradient[0, 0] for gradient in gradients] == [0, 1, 2, 3, 4]


def test_index_array_and_given_gradient_may_be_filled_anew():
    tape = layers.Tape()
    x, key, gradient = tape.input(np.zeros(3)), np.array([0, 0]), np.ones(2)
    y = x[key]
    key[...] = 2
    y.backward(gradient)
    gradient[...] = 7
    assert x.grad.tolist() == [2, 0, 0]
    z = layers.Add()(x)
    given = np.ones(3)
    z.backward(given)
    given[...] = 7
    assert x.grad.tolist() == [1, 1, 1]
