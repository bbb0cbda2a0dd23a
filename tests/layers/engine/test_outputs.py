"""Layers with several outputs: what they give, what their backward gets, and that the gradient
check looks at every output.
"""

import numpy as np
import pytest

import layers
from layers import Tape

from ..spy import Ready


class Both(layers.Layer):
    """a = g x and b = sum of x y over the features. Remembers which of its outputs backward had a
    gradient of.
    """

    def __init__(self):
        self.gain = layers.Parameter(np.array([2.0, 3.0]))
        self.given = []

    def forward(self, call, x, y):
        call.save(x, y)
        return x * self.gain.value, (x * y).sum(axis=1)

    def backward(self, call, da, db):
        x, y = call.saved
        self.given.append((da is not None, db is not None))
        dx, dy = (call.buffer(name, x.shape, x.dtype) for name in ("dx", "dy"))
        dx[...] = dy[...] = 0
        if da is not None:
            dx += da * call.feedback(self.gain)
            for gradient, rows in call.shards(self.gain, da):
                gradient += (da[rows] * x[rows]).sum(axis=0)
        if db is not None:
            dx += db[:, np.newaxis] * y
            dy += db[:, np.newaxis] * x
        return dx, dy


X = np.random.default_rng(0).standard_normal((5, 2))
Y = np.random.default_rng(1).standard_normal((5, 2))


def recorded(layer=None, **options):
    tape = Tape(**options)
    x, y = tape.input(X), tape.input(Y)
    return tape, x, y, *(layer or Both())(x, y)


def test_arrays_give_a_tuple_of_arrays_and_values_one_of_values():
    arrays = Both()(X, Y)
    *_, a, b = recorded()
    assert type(arrays) is tuple
    assert all(isinstance(value, layers.Value) for value in (a, b))
    assert [value.array.tobytes() for value in (a, b)] == [array.tobytes() for array in arrays]


def test_both_outputs_carry_gradients():
    layer = Both()
    _, x, y, a, b = recorded(layer)
    (a.sum() + (b * b).sum()).backward()
    db = 2 * (X * Y).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(x.grad, layer.gain.value + db * Y)
    np.testing.assert_allclose(y.grad, db * X)
    np.testing.assert_allclose(layer.gain.gradient, X.sum(axis=0))
    assert layer.given == [(True, True)]


def test_output_that_nobody_used_has_no_gradient():
    layer = Both()
    _, x, _, a, b = recorded(layer)
    b.sum().backward()
    np.testing.assert_array_equal(x.grad, Y)
    assert (layer.gain.gradient == 0).all()
    a.backward(np.ones_like(X))
    assert layer.given == [(False, True), (True, False)]


def test_backward_of_a_call_that_was_not_reached_does_not_run():
    layer = Both()
    _, x, _, _, _ = recorded(layer)
    (x * 2).sum().backward()
    assert layer.given == []


def test_output_used_twice_gets_the_sum_and_keeps_it_when_asked():
    *_, a, b = recorded()
    a.keep_grad()
    (a * 2 + a * 3 + b[:, np.newaxis]).sum().backward()
    np.testing.assert_array_equal(a.grad, np.full(X.shape, 5.0))
    with pytest.raises(ValueError, match="keep_grad"):
        _ = b.grad


def test_one_output_as_input_of_the_layer_again():
    layer = Both()
    _, x, y, a, _ = recorded(layer)
    again, product = layer(a, y)
    (again.sum() + product.sum()).backward()
    np.testing.assert_allclose(x.grad, layer.gain.value * (layer.gain.value + Y))


def test_backward_may_run_again_after_one_that_failed():
    class Fails(Both):
        broken = True

        def backward(self, call, da, db):
            if self.broken:
                raise RuntimeError("broken")
            return super().backward(call, da, db)

    layer = Fails()
    _, x, _, a, b = recorded(layer)
    with pytest.raises(RuntimeError, match="broken"):
        (a.sum() + b.sum()).backward()
    layer.broken = False
    b.sum().backward()
    np.testing.assert_array_equal(x.grad, Y)
    assert layer.given == [(False, True)]


def test_integer_output_has_no_gradient():
    class Largest(layers.Layer):
        def forward(self, call, x):
            return x.max(axis=1), x.argmax(axis=1)

    largest, where = Largest()(Tape().input(X))
    assert (largest.wants, where.wants) == (True, False)


def test_rule_is_asked_for_the_error_of_every_output_that_has_one():
    class Twice(layers.Rule):
        def error(self, call, dy):
            return 2 * dy if isinstance(call.layer, Both) else dy

    for used, expected in (((True, True), Both().gain.value + Y), ((False, True), Y)):
        _, x, _, a, b = recorded()
        total = b.sum() + a.sum() if used[0] else b.sum()
        total.backward(rule=Twice())
        np.testing.assert_allclose(x.grad, 2 * expected)


def test_hook_is_told_and_shards_are_kept_apart():
    told = []
    layer = Both()
    *_, a, _ = recorded(layer, shards=(0, 2, 5), hooks=[Ready(told.append)])
    a.sum().backward()
    assert told == [layer.gain]
    np.testing.assert_allclose(layer.gain.gradients, [X[:2].sum(axis=0), X[2:].sum(axis=0)])


def test_nothing_is_allocated_after_the_first_step():
    workspace, layer, counts = layers.Workspace(), Both(), []
    for _ in range(3):
        *_, a, b = recorded(layer, workspace=workspace)
        (a.sum() + b.sum()).backward()
        counts.append(workspace.allocations)
    assert counts[0] == counts[1] == counts[2]


# ---- the gradient check


def test_gradient_check_takes_several_outputs():
    report = layers.gradcheck(Both(), X, Y).raise_if_wrong()
    assert [block.name for block in report.blocks] == ["input 0", "input 1", "gain"]


def test_gradient_check_takes_nested_outputs_and_outputs_without_samples():
    layer = Both()
    layers.gradcheck(lambda x, y: (x * y, (layer(x, y), x.sum())), X, Y).raise_if_wrong()


def test_gradient_check_finds_an_error_of_the_second_output():
    class Wrong(Both):
        def backward(self, call, da, db):
            return super().backward(call, da, None if db is None else -db)

    assert not layers.gradcheck(Wrong(), X, Y)


def test_gradient_check_finds_a_backward_that_forgets_the_rest_where_one_output_is_not_used():
    class Wrong(Both):
        def backward(self, call, da, db):
            if da is None:
                return None, None
            return super().backward(call, da, db)

    report = layers.gradcheck(Wrong(), X, Y)
    assert not report
    assert "by way of each output alone" in str(report)


def test_gradient_check_refuses_what_holds_no_value():
    with pytest.raises(TypeError, match="must return a value"):
        layers.gradcheck(lambda x: (1, 2), X)
