"""Accumulated gradients give the same bits on any number of ranks, and cost no message."""

import numpy as np
import pytest

from .ranks import BUCKETS, PLAIN, differences

PROGRAM = "accumulate.py"


@pytest.mark.parametrize(
    ("ranks", "environment"), [(2, {}), (3, {}), (4, {}), (3, PLAIN | BUCKETS)]
)
def test_losses_parameters_and_states_are_the_same_bits(ranks, environment, alone, run_ranks):
    assert len(alone) == 6
    assert all(
        np.isfinite(result).all() for name, result in alone.items() if name.endswith("losses")
    )
    assert [differences(result, alone) for result in run_ranks(ranks, PROGRAM, **environment)] == [
        []
    ] * ranks


def test_context_sends_nothing(pooled):
    finished = pooled(3, "accumulate_apart.py", "send nothing")
    assert finished.status == 0, finished.err
    assert finished.out.split() == ["nothing", "was", "sent"]


def test_context_must_be_the_same_on_all_ranks(mpirun):
    finished = mpirun(3, "accumulate_apart.py", "forget a context", DDBP_TIMEOUT="20")
    assert finished.status != 0
    assert (
        "all ranks must be in the same step with the same global batch; got step " in finished.err
    )
