"""Numeric derivatives: how exact they are, and what they do on kinks."""

import numpy as np
import pytest

from layers import ReLU, gradcheck
from layers.gradient_check.differences import central, complex_step, observed_order, refined


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
        d = refined(
            lambda t, rate=rate: np.sin(np.array([rate * (0.7 + t)])),
            np.sin(np.array([rate * 0.7])),
            np.ones(1),
            1.0,
        )
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
            return (
                np.where(call.saved[0].reshape(dy.shape) == 0, -0.5 * np.abs(dy) * np.sign(dy), dx),
            )

    assert not gradcheck(Overshooting(), np.zeros((2, 2)))
    assert gradcheck(ReLU(), np.zeros((2, 2)))


def test_wrong_gradient_beside_a_kink_is_still_wrong():
    class Doubled(ReLU):
        def backward(self, call, dy):
            return (2 * super().backward(call, dy)[0],)

    for x in (1e-5, 1e-4, 1e-3):
        assert not gradcheck(Doubled(), np.array([[x, 0.0]]))
