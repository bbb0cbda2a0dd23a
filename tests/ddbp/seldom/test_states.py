"""The mean of workers' states."""

import numpy as np
import pytest

from ddbp.comm.serial import SerialCommunicator
from ddbp.reduction.shards import ShardPlan
from ddbp.seldom.states import mean_over_workers


class Counting(SerialCommunicator):
    """One process that counts what it sends."""

    messages = 0

    def all_gather(self, array):
        self.messages += 1
        return super().all_gather(array)


@pytest.mark.parametrize("count", [1, 40])
def test_the_mean_of_states_takes_as_many_messages_however_many_there_are(count):
    rng = np.random.default_rng(0)
    states = [
        [rng.standard_normal((3, number % 5)).astype(np.float32) for number in range(count)]
        for _ in range(4)
    ]
    comm = Counting()
    means = mean_over_workers(ShardPlan(4, 1, 0), comm, states)
    assert comm.messages == 2
    for mean, *own in zip(means, *states, strict=True):
        assert mean.dtype == np.float32
        np.testing.assert_allclose(mean, np.mean(own, axis=0, dtype=np.float64), rtol=1e-6)


def test_without_states_nothing_is_sent():
    comm = Counting()
    assert mean_over_workers(ShardPlan(4, 1, 0), comm, [[]] * 4) == []
    assert comm.messages == 0
