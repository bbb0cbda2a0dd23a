"""The gradient check catches what is wrong, and names the mistake."""

import numpy as np
import pytest

import layers
from layers import Linear, MeanSquaredError, Tanh, WrongGradientError, gradcheck
from layers.gradient_check.mutants import MUTANTS, mutation_score

from .scaled import Scaled


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("mutant", MUTANTS, ids=repr)
def test_every_mutant_is_caught(mutant):
    r = np.random.default_rng(1)
    report = gradcheck(mutant.make(r), *mutant.inputs(r), seed=1)
    assert not report
    with pytest.raises(WrongGradientError, match="FAILED"):
        report.raise_if_wrong()


def test_mutants_are_many_and_have_names_of_their_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15


def test_mutation_score_counts_what_was_caught_and_names_the_block(monkeypatch):
    few = [mutant for mutant in MUTANTS if mutant.name in ("dropped bias gradient", "wrong sign")]
    monkeypatch.setattr(layers.gradient_check.mutants, "MUTANTS", few)
    score = mutation_score()
    assert score.passed
    assert str(score) == "mutation score: 2/2 = 100 %"
    assert score.revealed_by["dropped bias gradient"] == "bias: WRONG"


def test_mutation_score_shows_a_mutant_that_passes(monkeypatch):
    right = layers.gradient_check.mutants.Mutant(
        "not wrong at all", lambda rng: Tanh(), lambda rng: (rng.standard_normal((3, 2)),)
    )
    monkeypatch.setattr(layers.gradient_check.mutants, "MUTANTS", (*MUTANTS[:1], right))
    score = layers.gradient_check.mutants.mutation_score()
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
        (
            lambda dx, x: np.where(np.arange(5)[:, np.newaxis] == 4, 0, dx),
            "5 of 25 entries are wrong, where backward gives 0",
        ),
        (lambda dx, x: dx.T.copy(), "transposed"),
        (lambda dx, x: dx + np.where(dx == dx.max(), np.nan, 0), "NaN"),
        (lambda dx, x: dx + x, "no constant factor fits"),
    ],
)
def test_hint_names_the_mistake(rng, wrong, words):
    block = gradcheck(
        Scaled(wrong), rng.uniform(0.5, 2, (5, 5)) * rng.choice((-1, 1), (5, 5))
    ).blocks[0]
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

    block = gradcheck(
        Scaled(wrong), rng.uniform(0.5, 1, (50, 40)), entries=20, shards=False
    ).blocks[0]
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
    report = gradcheck(
        Scaled(lambda dx, x: dx * (1 + 1e-15 * rng.integers(-3, 3, dx.shape))),
        rng.standard_normal((9, 7)),
    )
    assert not report
    assert report.blocks[0].verdict == "nondeterministic"


def test_forward_that_writes_into_its_input_fails(rng):
    class Impolite(Scaled):
        def forward(self, call, x):
            y = super().forward(call, x.copy())
            x += 1
            x -= 1 - 1e-3
            return y

    assert any(
        "input 0 is written to" in fault
        for fault in gradcheck(Impolite(), rng.standard_normal((3, 2))).faults
    )


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
    with pytest.raises(
        TypeError, match=r"gradcheck: the function must return a value; got ndarray\. Compute with"
    ):
        gradcheck(lambda x: np.tanh(x.array), rng.standard_normal(3))


def test_parameters_that_cannot_be_listed_are_refused(rng):
    class Hidden(layers.Composite):
        def __init__(self):
            self._inner = Linear(3, 2, rng=rng, dtype=np.float64)

        def __call__(self, x):
            return self._inner(x)

    with pytest.raises(
        ValueError, match=r"all parameters must be found; got unlisted ones of \['Linear\(3, 2\)'\]"
    ):
        gradcheck(Hidden(), rng.standard_normal((4, 3)))


def test_losses_are_caught_without_their_mean(rng):
    class SummedSquaredError(MeanSquaredError):
        def backward(self, call, dy):
            return tuple(None if g is None else g * 6 for g in super().backward(call, dy))

    report = gradcheck(
        SummedSquaredError(), rng.standard_normal((6, 4)), rng.standard_normal((6, 4))
    )
    assert "analytic / numeric is 6 everywhere, the batch size: 1/N is forgotten" in str(report)
