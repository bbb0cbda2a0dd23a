"""Accumulated gradients give the same bits on any number of ranks, and cost no message."""

from pathlib import Path

import numpy as np
import pytest

PROGRAM = "accumulate.py"


def read(folder, ranks):
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(ranks)]


@pytest.fixture(scope="module")
def alone(run_python, tmp_path_factory):
    """Return the results without MPI."""
    folder = tmp_path_factory.mktemp("alone")
    finished = run_python(Path(__file__).parent / "programs" / PROGRAM, folder, timeout=300)
    assert finished.status == 0, finished.err
    return read(folder, 1)[0]


BUCKETS = {"DDBP_SHARED_MEMORY": "0", "DDBP_BUCKET": "4"}


@pytest.mark.parametrize(("ranks", "environment"), [(2, {}), (3, {}), (4, {}), (3, BUCKETS)])
def test_losses_parameters_and_states_are_the_same_bits(ranks, environment, alone, mpirun, tmp_path):
    finished = mpirun(ranks, PROGRAM, tmp_path, timeout=300, **environment)
    assert finished.status == 0, finished.err
    assert len(alone) == 6
    assert all(np.isfinite(result).all() for name, result in alone.items() if name.endswith("losses"))
    for result in read(tmp_path, ranks):
        assert {name: value.tobytes() for name, value in result.items()} == {name: value.tobytes() for name, value in alone.items()}


@pytest.mark.parametrize("deed", ["send nothing", "forget a context"])
def test_context_sends_nothing_and_must_be_the_same_on_all_ranks(deed, mpirun):
    finished = mpirun(3, "accumulate_apart.py", deed, DDBP_TIMEOUT="20")
    if deed == "send nothing":
        assert finished.status == 0, finished.err
        assert finished.out.split() == ["nothing", "was", "sent"]
    else:
        assert finished.status != 0
        assert "all ranks must be in the same step with the same global batch; got step " in finished.err
