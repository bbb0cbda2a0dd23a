"""The same bits wherever the ranks are: on one host or several, with shared memory or without."""

from pathlib import Path

import numpy as np
import pytest

PROGRAM = "layouts.py"
ONE_HOST, PLAIN = {}, {"DDBP_SHARED_MEMORY": "0"}
# MPICH then takes one machine for two hosts: the first and the second half of the ranks, or even and odd ones.
HALVES, ODD_AND_EVEN = {"MPIR_CVAR_NUM_CLIQUES": "2"}, {"MPIR_CVAR_ODD_EVEN_CLIQUES": "1"}
# Of one block each, where these small networks allow it.
BUCKETS = {"DDBP_BUCKET": "4"}
LAYOUTS = {
    "1": (ONE_HOST, [1]),
    "2": (ONE_HOST, [2]),
    "2 plain": (PLAIN, [1, 1]),
    "1+1": (HALVES, [1, 1]),
    "3": (ONE_HOST, [3]),
    "2+1": (ODD_AND_EVEN, [2, 1]),
    "3 plain": (PLAIN, [1, 1, 1]),
    "2+2": (HALVES, [2, 2]),
    "5": (ONE_HOST, [5]),
    "3+2": (ODD_AND_EVEN, [3, 2]),
    "8": (ONE_HOST, [8]),
    "4+4": (ODD_AND_EVEN, [4, 4]),
    "2 plain, buckets": (PLAIN | BUCKETS, [1, 1]),
    "2+1, buckets": (ODD_AND_EVEN | BUCKETS, [2, 1]),
    "3 plain, buckets": (PLAIN | BUCKETS, [1, 1, 1]),
    "2+2, buckets": (HALVES | BUCKETS, [2, 2]),
    "3+2, buckets": (ODD_AND_EVEN | BUCKETS, [3, 2]),
    "4+4, buckets": (ODD_AND_EVEN | BUCKETS, [4, 4]),
}


def read(folder, ranks):
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(ranks)]


@pytest.fixture(scope="module")
def alone(run_python, tmp_path_factory):
    """Return the results without MPI."""
    folder = tmp_path_factory.mktemp("alone")
    finished = run_python(Path(__file__).parent / "programs" / PROGRAM, folder, timeout=600)
    assert finished.status == 0, finished.err
    return read(folder, 1)[0]


@pytest.fixture(scope="module")
def on_ranks(mpirun, tmp_path_factory, is_mpich):
    """Return the function that runs the program in a layout."""

    def run(name, timeout=180):
        environment, hosts = LAYOUTS[name]
        if environment.keys() & (HALVES | ODD_AND_EVEN).keys() and not is_mpich:
            pytest.skip("only MPICH takes one machine for two hosts")
        folder = tmp_path_factory.mktemp("ranks")
        finished = mpirun(sum(hosts), PROGRAM, folder, timeout=timeout, **environment)
        assert finished.status == 0, finished.err
        return read(folder, sum(hosts))

    return run


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_rank_has_the_bits_of_the_process_without_mpi(name, alone, on_ranks):
    results = on_ranks(name)
    for rank, result in enumerate(results):
        assert result["hosts"].tolist() == LAYOUTS[name][1]
        # Buckets of the three networks.
        assert result["buckets"].tolist() == ([3, 1, 2] if "buckets" in name else [1, 1, 1])
        for key, expected in alone.items():
            if key not in ("hosts", "buckets"):
                assert result[key].tobytes() == expected.tobytes(), f"{key} on rank {rank}"


def test_losses_fall(alone):
    for name in ("mlp", "cnn", "lstm"):
        losses = alone[f"{name} losses"]
        assert losses[15:18].mean() < losses[:3].mean(), name
