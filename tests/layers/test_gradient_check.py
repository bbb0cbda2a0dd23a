"""The gradient check itself: it passes what is right, catches what is wrong, and says which is which and why."""

import numpy as np
import pytest

import layers
from layers import (
    Dropout,
    Layer,
    Linear,
    MeanSquaredError,
    Parameter,
    ReLU,
    Sequential,
    Softmax,
    Tanh,
    WrongGradientError,
    gradcheck,
)
from layers.differences import central, complex_step, observed_order, refined
from layers.mutants import MUTANTS, mutation_score


@pytest.fixture
def rng():
    return np.random.default_rng(11)


class Scaled(Layer):
    """y = x³ times a gain; its backward is what a test says."""

    def __init__(self, backward=None):
        self.gain = Parameter(np.array([1.5], np.float32))
        self.wrong = backward

    def forward(self, call, x):
        call.save(x)
        return x**3 * self.gain.value

    def backward(self, call, dy):
        (x,) = call.saved
        gradient = call.gradient(self.gain)
        for s, (start, stop) in enumerate(zip(call.bounds(len(x))[:-1], call.bounds(len(x))[1:], strict=True)):
            gradient[s] += (dy * x**3)[start:stop].sum()
        dx = dy * 3 * x**2 * self.gain.value
        return (dx if self.wrong is None else self.wrong(dx, x),)


# ---- what is right passes


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
    first.weight.gradients = np.full((1, 3, 4), 7, np.float32)

    def model(x, y):
        return ((second(layers.tanh(first(x))) - y) ** 2).mean()

    report = gradcheck(model, rng.standard_normal((6, 4)), rng.standard_normal((6, 1)))
    assert report
    assert {block.name for block in report.blocks} == {
        "input 0", "input 1", "first.weight", "first.bias", "second.weight", "second.bias",
    }  # fmt: skip
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
    assert [b.name for b in gradcheck(layers.SoftmaxCrossEntropy(), logits, np.array([0, 1, 2, 1, 0])).blocks] == ["input 0"]
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
        model = Sequential(Linear(8, 40, rng=r), ReLU(), Linear(40, 40, rng=r), ReLU(), Linear(40, 3, rng=r))
        assert gradcheck(model, r.standard_normal((16, 8)), entries=40), seed


def test_large_and_small_numbers_pass(rng):
    x = rng.standard_normal((4, 3))
    assert gradcheck(lambda x: (x * 1e6) ** 2, x)
    assert gradcheck(lambda x: x * x * 1e-9, x)
    assert gradcheck(lambda x: layers.log(x), np.array([1e-3, 0.1, 1.0, 1e4]))


# ---- what is wrong is caught


@pytest.mark.parametrize("mutant", MUTANTS, ids=repr)
def test_every_mutant_is_caught(mutant):
    r = np.random.default_rng(1)
    report = gradcheck(mutant.make(r), *mutant.inputs(r), seed=1)
    assert not report
    with pytest.raises(WrongGradientError, match="FAILED"):
        report.raise_if_wrong()


def test_mutation_score_counts_what_was_caught_and_names_the_block():
    score = mutation_score()
    assert score.passed
    assert score.total == len(MUTANTS) >= 15
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert str(score) == f"mutation score: {len(MUTANTS)}/{len(MUTANTS)} = 100 %"
    assert score.revealed_by["dropped bias gradient"] == "bias: WRONG"


def test_mutation_score_shows_a_mutant_that_passes(monkeypatch):
    right = layers.mutants.Mutant("not wrong at all", lambda rng: Tanh(), lambda rng: (rng.standard_normal((3, 2)),))
    monkeypatch.setattr(layers.mutants, "MUTANTS", (*MUTANTS[:1], right))
    score = layers.mutants.mutation_score()
    assert not score.passed
    assert score.revealed_by["not wrong at all"] == ""
    assert str(score) == "mutation score: 1/2 = 50 %"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda dx, x: 2 * dx, "a factor 2 too many"),
        (lambda dx, x: dx / 2, "a factor 2 is missing"),
        (lambda dx, x: -dx, "wrong sign"),
        (lambda dx, x: 5 * dx, "the batch size: 1/N is forgotten"),
        (lambda dx, x: dx / 5, "divided by N once too often"),
        (lambda dx, x: 1.25 * dx, "analytic / numeric is 1.25 everywhere: a constant factor"),
        (lambda dx, x: 0 * dx, "not propagated"),
        (lambda dx, x: np.roll(dx, 1, axis=0), "shifted by one along axis 0"),
        (lambda dx, x: np.roll(dx, -1, axis=1), "shifted by one along axis 1"),
        (lambda dx, x: np.where(np.arange(5)[:, np.newaxis] == 4, 0, dx), "5 of 25 entries are wrong, where backward gives 0"),
        (lambda dx, x: dx.T.copy(), "transposed"),
        (lambda dx, x: dx + np.where(dx == dx.max(), np.nan, 0), "NaN"),
        (lambda dx, x: dx + x, "no constant factor fits"),
    ],
)
def test_hint_names_the_mistake(rng, wrong, words):
    block = gradcheck(Scaled(wrong), rng.uniform(0.5, 2, (5, 5)) * rng.choice((-1, 1), (5, 5))).blocks[0]
    assert block.verdict == "WRONG"
    assert words in block.hint


def test_wrong_gradient_shows_order_zero_and_its_worst_entry(rng):
    x = rng.uniform(0.5, 1, (4, 3))
    x[2, 1] = 2
    report = gradcheck(Scaled(lambda dx, x: dx * np.where(x > 1, 1.5, 1)), x)
    block = report.blocks[0]
    assert block.order == pytest.approx(0, abs=0.05)
    assert block.worst == (2, 1)
    assert block.analytic == pytest.approx(1.5 * block.numeric)
    assert "worst at [2, 1]" in str(report)
    assert report.blocks[1].verdict == "ok"


@pytest.mark.parametrize("factor", [1 + 1e-3, 1 + 1e-6, 1 + 1e-9])
def test_errors_far_below_usual_tolerances_are_caught(rng, factor):
    assert not gradcheck(Scaled(lambda dx, x: dx * factor), rng.standard_normal((4, 3)))


def test_one_wrong_entry_among_many_is_found_though_it_is_not_sampled(rng):
    def wrong(dx, x):
        dx.flat[1234] *= 1.01
        return dx

    block = gradcheck(Scaled(wrong), rng.uniform(0.5, 1, (50, 40)), entries=20, shards=False).blocks[0]
    assert block.verdict == "WRONG"
    assert block.worst == (30, 34)
    assert block.analytic == pytest.approx(1.01 * block.numeric)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_in_the_output_or_the_gradient_fail(rng, value):
    x = rng.uniform(1, 2, (3, 2))
    assert not gradcheck(lambda x: x * value, x)
    report = gradcheck(Scaled(lambda dx, x: dx + value), x)
    assert not report
    assert "NaN" in report.blocks[0].hint


def test_function_that_no_step_can_move_is_unclear_and_fails():
    # The square root at 0 has no neighbours on the left; its derivative is infinite.
    report = gradcheck(lambda x: layers.sqrt(x) * 0, np.zeros(3))
    assert not report


def test_noisy_forward_is_nondeterministic_and_fails(rng):
    class Noisy(Tanh):
        def forward(self, call, x):
            return super().forward(call, x) + 1e-9 * rng.standard_normal(x.shape)

    report = gradcheck(Noisy(), rng.standard_normal((3, 2)))
    assert not report
    assert "differs between two runs" in report.faults[0]


def test_noisy_backward_is_nondeterministic(rng):
    report = gradcheck(Scaled(lambda dx, x: dx * (1 + 1e-15 * rng.integers(-3, 3, dx.shape))), rng.standard_normal((9, 7)))
    assert not report
    assert report.blocks[0].verdict == "nondeterministic"


def test_forward_that_writes_into_its_input_fails(rng):
    class Impolite(Scaled):
        def forward(self, call, x):
            y = super().forward(call, x.copy())
            x += 1
            x -= 1 - 1e-3
            return y

    assert any("input 0 is written to" in fault for fault in gradcheck(Impolite(), rng.standard_normal((3, 2))).faults)


def test_function_in_single_precision_inside_cannot_be_decided_and_fails(rng):
    class Rough(Scaled):
        def forward(self, call, x):
            return super().forward(call, x).astype(np.float32).astype(np.float64)

    report = gradcheck(Rough(), rng.standard_normal((4, 3)))
    assert not report
    assert {block.verdict for block in report.blocks} <= {"unclear", "WRONG"}


def test_nothing_to_check_is_no_success():
    report = gradcheck(lambda i: i * 1.0, np.arange(3))
    assert not report
    assert "nothing to check" in report.faults[0]


def test_empty_block_is_no_success():
    assert not gradcheck(Tanh(), np.empty((0, 3)))


def test_function_that_returns_an_array_is_refused(rng):
    with pytest.raises(TypeError, match=r"gradcheck: the function must return a value; got ndarray\. Compute with"):
        gradcheck(lambda x: np.tanh(x.array), rng.standard_normal(3))


def test_parameters_that_cannot_be_listed_are_refused(rng):
    class Hidden(layers.Composite):
        def __init__(self):
            self._inner = Linear(3, 2, rng=rng, dtype=np.float64)

        def __call__(self, x):
            return self._inner(x)

    with pytest.raises(ValueError, match=r"all parameters must be found; got unlisted ones of \['Linear\(3, 2\)'\]"):
        gradcheck(Hidden(), rng.standard_normal((4, 3)))


# ---- kinks


def test_kinks_are_reported_as_kinks_and_not_as_failures():
    report = gradcheck(ReLU(), np.array([[0.0, 1.0, -1.0, 0.0]]))
    assert report
    assert report.blocks[0].verdict == "kink"
    assert report.blocks[0].kinks == 2
    assert "2 of 4 entries lie on a kink" in str(report)


@pytest.mark.parametrize("distance", [3e-4, 1e-5, 1e-6, -3e-4, -1e-5])
def test_kink_near_the_point_is_avoided_by_smaller_steps(distance):
    report = gradcheck(ReLU(), np.array([[distance, 1.0, -1.0]]))
    assert report.blocks[0].verdict == "ok"


def test_maximum_whose_winner_changes_is_a_kink():
    report = gradcheck(lambda x: x.max(axis=1), np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]))
    assert report
    assert report.blocks[0].kinks == 2


def test_gradient_outside_the_one_sided_derivatives_is_wrong_on_a_kink_too():
    class Overshooting(ReLU):
        def backward(self, call, dy):
            (dx,) = super().backward(call, dy)
            return (np.where(call.saved[0].reshape(dy.shape) == 0, -0.5 * np.abs(dy) * np.sign(dy), dx),)

    assert not gradcheck(Overshooting(), np.zeros((2, 2)))
    assert gradcheck(ReLU(), np.zeros((2, 2)))


def test_wrong_gradient_beside_a_kink_is_still_wrong():
    class Doubled(ReLU):
        def backward(self, call, dy):
            return (2 * super().backward(call, dy)[0],)

    for x in (1e-5, 1e-4, 1e-3):
        assert not gradcheck(Doubled(), np.array([[x, 0.0]]))


# ---- shards and samples


def test_samples_that_depend_on_each_other_are_checked_for_the_sum_of_their_shards(rng):
    inner = Linear(3, 3, rng=rng)

    def centred(x):
        y = inner(x)
        return y - y.mean(axis=0)

    report = gradcheck(centred, rng.standard_normal((6, 3)))
    assert report
    assert "samples depend on each other" in report.notes[0]


# ---- the numeric derivatives by themselves


def test_extrapolation_is_more_exact_than_any_single_step():
    c = np.ones(1)
    d = central(lambda t: np.exp(np.array([0.3 + t])), np.exp(np.array([0.3])), c, 1e-2, 1.0)
    exact = np.exp(0.3)
    errors = [abs(value - exact) for value in d.differences]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.01)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.01)
    assert abs(d.value - exact) < 1e-5 * min(errors)
    assert abs(d.value - exact) <= 10 * d.uncertainty < 1e-9


def test_uncertainty_covers_the_error_of_functions_of_many_scales():
    for rate in (1e-3, 1.0, 30.0, 300.0):
        d = refined(lambda t, rate=rate: np.sin(np.array([rate * (0.7 + t)])), np.sin(np.array([rate * 0.7])), np.ones(1), 1.0)
        assert abs(d.value - rate * np.cos(rate * 0.7)) <= 10 * d.uncertainty


def test_complex_step_is_exact_to_rounding():
    value = complex_step(lambda t: np.exp(np.array([0.3 + t])) * np.sin(0.3 + t), np.ones(1))
    assert value == pytest.approx(np.exp(0.3) * (np.sin(0.3) + np.cos(0.3)), rel=1e-15)


def test_order_is_that_of_the_error_against_the_analytic_value():
    d = central(lambda t: np.exp(np.array([t])), np.ones(1), np.ones(1), 1e-2, 1.0)
    assert observed_order([d], np.ones(1)) == pytest.approx(2, abs=1e-3)
    assert observed_order([d], np.array([1.1])) == pytest.approx(0, abs=1e-3)
    line = central(lambda t: np.array([3 * t + 1]), np.ones(1), np.ones(1), 1e-2, 1.0)
    assert observed_order([line], np.array([3.0])) is None


def test_losses_are_caught_without_their_mean(rng):
    class SummedSquaredError(MeanSquaredError):
        def backward(self, call, dy):
            return tuple(None if g is None else g * 6 for g in super().backward(call, dy))

    report = gradcheck(SummedSquaredError(), rng.standard_normal((6, 4)), rng.standard_normal((6, 4)))
    assert "analytic / numeric is 6 everywhere, the batch size: 1/N is forgotten" in str(report)
