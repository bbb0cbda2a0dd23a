"""Which rank is slow, by the seconds that ranks are busy."""

from types import SimpleNamespace

import numpy as np
import pytest

from ddbp.observers import slow_rank
from ddbp.observers.slow_rank import SlowRank


@pytest.mark.parametrize(
    ("busy", "shards", "said"),
    [
        ([40, 40, 84, 40], [1, 1, 1, 1], "rank 2 needs 2.1 times the time of the others: 44% of"),
        ([80, 40], [1, 1], "rank 0 needs 2.0 times the time of the others: 40% of"),
        # Alike; little; what its shards explain; hardly any time at all.
        ([80, 81, 79], [1, 1, 1], ""),
        ([80, 100, 80], [1, 1, 1], ""),
        ([80, 40, 40], [2, 1, 1], ""),
        ([2, 5, 2], [1, 1, 1], ""),
        # A rank without shards counts for nothing.
        ([40, 80, 40, 1], [1, 1, 1, 0], "rank 1 needs 2.0 times"),
    ],
)
def test_rank_is_slow_that_takes_longer_than_its_work_explains(busy, shards, said):
    found = slow_rank.slow_rank(np.array(busy, float), np.array(shards), 100.0)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def watched(busy):
    """Return a trainer of two ranks that were busy so long, its reducer, and what looks at it."""
    plan = SimpleNamespace(ranks=2, owned=lambda rank: (rank, rank + 1))
    reducer = SimpleNamespace(busy=busy, plan=plan)
    trainer = SimpleNamespace(step_count=0, _update=SimpleNamespace(reducer=reducer))
    return trainer, reducer, SlowRank()


def test_slow_rank_is_told_of_once_per_interval(capsys):
    trainer, reducer, look = watched(np.array([3e4, 3e4]))
    for second in range(301):
        look.look(trainer, float(second))
        reducer.busy += (0.9, 0.3)
        trainer.step_count += 10
    lines = capsys.readouterr().err.splitlines()
    start = "rank 0 needs 3.0 times the time of the others: 60% of theirs is waiting for it"
    assert lines == [f"{start}, in steps {first} to {first + 600}" for first in range(0, 3000, 600)]


def test_clocks_are_compared_from_the_first_exchange_on(capsys):
    trainer, reducer, look = watched(np.zeros(2))
    look.look(trainer, 0.0)
    reducer.busy += (3e4, 1e4)
    trainer.step_count += 1000
    look.look(trainer, 100.0)
    assert capsys.readouterr().err == ""


def test_few_steps_say_nothing(capsys):
    trainer, reducer, look = watched(np.array([3e4, 3e4]))
    for second in range(150):
        look.look(trainer, float(second))
        reducer.busy += (0.9, 0.3)
        trainer.step_count += 1
    assert capsys.readouterr().err == ""
