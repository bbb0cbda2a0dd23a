"""The gradient check passes what is right, and its report is true."""

import numpy as np
import pytest

import layers
from layers import Dropout, Layer, Linear, ReLU, Sequential, Softmax, Tanh, gradcheck

from .scaled import Scaled


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_right_layer_passes_and_the_report_is_true(rng):
    report = gradcheck(Scaled(), rng.standard_normal((5, 3)))
    assert report
    assert report.passed
    assert report.raise_if_wrong() is report
    assert [block.name for block in report.blocks] == ["input 0", "gain"]
    assert [block.verdict for block in report.blocks] == ["ok", "ok"]
    assert report.error < 1e-10


def test_differences_of_a_smooth_function_converge_with_order_two(rng):
    (block,) = gradcheck(Tanh(), rng.standard_normal((5, 3))).blocks
    assert block.order == pytest.approx(2, abs=0.05)


def test_differences_of_a_linear_function_are_exact(rng):
    report = gradcheck(Linear(4, 3, rng=rng), rng.standard_normal((5, 4)))
    assert [block.order for block in report.blocks] == [None, None, None]
    assert "order exact" in str(report)


def test_analytic_layers_are_checked_by_the_complex_step_to_rounding(rng):
    (block,) = gradcheck(Softmax(), rng.standard_normal((5, 3))).blocks
    assert block.method == "complex step"
    assert block.error < 1e-14


def test_network_of_analytic_layers_is_checked_by_the_complex_step(rng):
    model = Sequential(Linear(4, 5, rng=rng), Tanh(), Linear(5, 2, rng=rng, bias=False))
    report = gradcheck(model, rng.standard_normal((3, 4)))
    assert report
    assert {block.method for block in report.blocks} == {"complex step"}
    assert report.error < 1e-13


def test_layer_that_wrongly_says_analytic_is_checked_by_differences(rng):
    class Absolute(Layer):
        analytic = True

        def forward(self, call, x):
            call.save(x)
            return np.abs(x) + 0 * x

        def backward(self, call, dy):
            return (dy * np.sign(call.saved[0]),)

    report = gradcheck(Absolute(), rng.uniform(0.5, 1, (3, 2)) * [1, -1])
    assert report
    assert report.blocks[0].method == "central differences"
    assert "no complex step" in report.notes[0]


def test_layer_that_drops_imaginary_parts_is_checked_by_differences(rng):
    class Real(Scaled):
        analytic = True

        def forward(self, call, x):
            y = super().forward(call, x)
            return y.real.astype(y.dtype)

    report = gradcheck(Real(), rng.standard_normal((5, 3)))
    assert report
    assert {block.method for block in report.blocks} == {"central differences"}


def test_function_of_values_is_checked_with_the_layers_that_it_uses(rng):
    first, second = Linear(4, 3, rng=rng), Linear(3, 1, rng=rng)
    first.weight.store.buffer(1)[0][...] = 7

    def model(x, y):
        return ((second(layers.tanh(first(x))) - y) ** 2).mean()

    report = gradcheck(model, rng.standard_normal((6, 4)), rng.standard_normal((6, 1)))
    assert report
    assert {block.name for block in report.blocks} == {
        "input 0",
        "input 1",
        "first.weight",
        "first.bias",
        "second.weight",
        "second.bias",
    }
    assert first.weight.dtype == np.float32
    assert (first.weight.gradients == 7).all()


def test_the_layer_of_the_user_is_not_changed(rng):
    layer, x = Linear(4, 3, rng=rng), rng.standard_normal((5, 4)).astype(np.float32)
    before = layer.weight.value.copy(), x.copy()
    gradcheck(layer, x).raise_if_wrong()
    assert layer.weight.dtype == np.float32
    assert layer.weight.gradients is None
    assert (layer.weight.value == before[0]).all()
    assert (x == before[1]).all()


def test_integers_and_constants_are_not_differentiated(rng):
    logits = rng.standard_normal((5, 3))
    assert [
        b.name
        for b in gradcheck(layers.SoftmaxCrossEntropy(), logits, np.array([0, 1, 2, 1, 0])).blocks
    ] == ["input 0"]
    soft = np.full((5, 3), 1 / 3)
    assert gradcheck(layers.SoftmaxCrossEntropy(), logits, soft, constant=(1,))
    with pytest.raises(ValueError, match="the targets must be constants"):
        gradcheck(layers.SoftmaxCrossEntropy(), logits, soft)


def test_dropout_is_checked_in_training_with_fixed_masks(rng):
    model = Sequential(Linear(6, 20, rng=rng), Tanh(), Dropout(0.5), Linear(20, 2, rng=rng))
    assert gradcheck(model, rng.standard_normal((4, 6)))


def test_large_blocks_are_sampled_and_the_report_says_so(rng):
    report = gradcheck(Linear(60, 30, rng=rng), rng.standard_normal((3, 60)), entries=50)
    assert report
    assert [block.coverage for block in report.blocks] == ["50 of 180", "50 of 1800", "30 of 30"]
    assert "50 of 1800 entries" in str(report)


def test_gradient_that_is_zero_up_to_rounding_passes(rng):
    # Softmax does not feel a shift of all logits, hence neither the bias of one unit per row.
    def shifted(x, shift):
        return layers.SoftmaxCrossEntropy()(x + shift, np.array([0, 2, 1]))

    report = gradcheck(shifted, rng.standard_normal((3, 4)), rng.standard_normal((3, 1)))
    assert report, str(report)


def test_network_of_rectifiers_passes_at_any_point(rng):
    for seed in range(5):
        r = np.random.default_rng(seed)
        model = Sequential(
            Linear(8, 40, rng=r), ReLU(), Linear(40, 40, rng=r), ReLU(), Linear(40, 3, rng=r)
        )
        assert gradcheck(model, r.standard_normal((16, 8)), entries=40), seed


def test_large_and_small_numbers_pass(rng):
    x = rng.standard_normal((4, 3))
    assert gradcheck(lambda x: (x * 1e6) ** 2, x)
    assert gradcheck(lambda x: x * x * 1e-9, x)
    assert gradcheck(lambda x: layers.log(x), np.array([1e-3, 0.1, 1.0, 1e4]))


def test_samples_that_depend_on_each_other_are_checked_for_the_sum_of_their_shards(rng):
    inner = Linear(3, 3, rng=rng)

    def centred(x):
        y = inner(x)
        return y - y.mean(axis=0)

    report = gradcheck(centred, rng.standard_normal((6, 3)))
    assert report
    assert "samples depend on each other" in report.notes[0]
