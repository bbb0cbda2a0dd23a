"""What learning rules are compared on, and that each of the comparison is one."""

import os
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from ddbp.training import learning
from layers import Rule

BENCH = Path(__file__).parents[1] / "scripts" / "bench"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCH))
    try:
        # Benchmarks decide the threads of libraries that are not loaded yet.
        with patch.dict(os.environ):
            import rules
    finally:
        sys.path.remove(str(BENCH))
    return rules


def test_every_rule_is_compared(bench):
    made = [learning.checked(words and words.format(seed=1), 0) for words in bench.RULES.values()]
    assert made[0] is None
    assert all(isinstance(rule, Rule) for rule in made[1:])
    assert {type(rule) for rule in made[1:]} == set(learning.names().values())
    assert bench.PUBLISHED.keys() <= bench.RULES.keys()


def test_samples_of_mnist_1d_are_of_ten_classes_and_can_be_drawn_again(bench):
    data = bench.rule_data
    x, y = data.mnist_1d(200, np.random.default_rng(3))
    assert x.shape == (200, 40)
    assert np.bincount(y).tolist() == [20] * 10
    again, _ = data.mnist_1d(200, np.random.default_rng(3))
    np.testing.assert_array_equal(x, again)
    assert not np.array_equal(x[0], x[10])


def test_a_template_of_mnist_1d_is_found_where_it_was_put(bench, monkeypatch):
    data = bench.rule_data
    for name in ("_SCALE", "_SHEAR", "_CORRELATED_NOISE", "_WHITE_NOISE"):
        monkeypatch.setattr(data, name, 0.0)
    x, _ = data.mnist_1d(100, np.random.default_rng(0))
    places = abs(x).argmax(axis=1)
    assert len(np.unique(places)) > 10
    # A ramp that ends in a peak, and one that begins with a trough, of a quarter of the points.
    assert ((x != 0).sum(axis=1) < 18).all()
    heights = np.sort(abs(x).max(axis=1).reshape(-1, 10), axis=0)
    assert (heights[-1] < 1.3 * heights[0]).all()


def test_data_are_standardised_by_the_training_part_and_keep_room_for_labels(bench):
    training, test = bench.rule_data.split("digits")
    room = bench.rule_data.LABELLED
    assert len(training.x) + len(test.x) == 1797
    assert (training.x[:, :room] == 0).all()
    assert abs(training.x[:, room:].mean()) < 1e-6
    assert training.x[:, room:].std() == pytest.approx(1, abs=1e-6)
    smaller, validation = bench.rule_data.split("digits", validation=True)
    assert len(smaller.x) + len(validation.x) == len(training.x)


def test_intervals_are_those_of_student(bench):
    assert bench.interval([1.0]) == 0
    assert bench.interval([1.0, 2.0, 3.0]) == pytest.approx(4.30265 / np.sqrt(3), rel=1e-5)


@pytest.mark.parametrize("rule", ["backpropagation", "meProp, 5 %", "forward-forward"])
def test_a_network_of_the_comparison_learns_by_a_rule(bench, rule):
    assert bench.error(bench.Run("digits", rule, 3e-3, 0, 3)) < 30
