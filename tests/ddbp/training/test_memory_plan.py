"""Plans of chains: the least memory, and the least time within a budget, of all plans there are."""

import numpy as np
import pytest

from ddbp.training.memory_plan import Layer, again, fastest, peak, seconds, smallest


def all_plans(first, end):
    """Yield every plan of layers first..end."""
    if first == end:
        yield [first]
        return
    for rest in all_plans(first + 1, end):
        yield [first, *rest]
    for cut in range(first + 1, end + 1):
        for segment in all_plans(first, cut - 1):
            for rest in all_plans(cut, end):
                yield [segment, *rest]


def chain(rng, count):
    outputs = rng.integers(1000, 9000, count)
    kept = outputs + rng.integers(0, 20000, count)
    times = rng.uniform(0.5, 3, count)
    return [Layer(*map(int, pair), time) for *pair, time in zip(outputs, kept, times, strict=True)]


@pytest.mark.parametrize("seed", range(12))
def test_plans_are_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    layers = chain(rng, 2 + seed % 4)
    plans = [*all_plans(0, len(layers) - 1)]
    peaks = np.array([peak(layers, plan) for plan in plans])
    times = np.array([seconds(layers, plan) for plan in plans])
    assert peak(layers, smallest(layers)) == peaks.min()
    for memory in np.linspace(peaks.min(), sum(layer.kept for layer in layers), 7).astype(int):
        plan = fastest(layers, int(memory))
        assert plan in plans
        assert peak(layers, plan) <= memory
        # Sizes are told apart to a part in 500.
        assert seconds(layers, plan) <= times[peaks <= 0.97 * memory].min(initial=np.inf)


def test_all_is_kept_where_there_is_room_and_one_forward_is_added_with_two_levels():
    layers = [Layer(100, 300, 1.0)] * 16
    assert fastest(layers, 16 * 300) == [*range(16)]
    plan = fastest(layers, 1500)
    assert peak(layers, plan) <= 1500
    assert seconds(layers, plan) <= 16
    assert 0 < again(plan) < 16


def test_plan_of_a_chain_of_different_layers_puts_segments_where_they_are_cheap():
    dear, cheap = Layer(100, 1000, 10.0), Layer(100, 1000, 0.1)
    plan = fastest([cheap, cheap, dear, cheap, cheap], 3400)
    assert [each for each in plan if isinstance(each, int)].count(2) == 1
