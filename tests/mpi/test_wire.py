"""Gradients in half precision between hosts: rounded, but as little as the format says, and the same on all ranks."""

import numpy as np
import pytest

PROGRAM = "wire.py"
# Without shared memory every rank counts as a host.
HOSTS = {"DDBP_SHARED_MEMORY": "0"}
BUCKETS = {**HOSTS, "DDBP_BUCKET": "4"}


@pytest.fixture(scope="module")
def results(mpirun, tmp_path_factory):
    """Return what the ranks wrote, by format and number of ranks."""

    def run(wire, ranks, **environment):
        folder = tmp_path_factory.mktemp("wire")
        finished = mpirun(ranks, PROGRAM, folder, wire, **environment)
        assert finished.status == 0, finished.err
        return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(ranks)]

    return run


@pytest.fixture(scope="module")
def exact(results):
    """Return the gradient in full precision."""
    return results("none", 2, **HOSTS)[0]["gradient"]


@pytest.mark.parametrize(("wire", "unit"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
@pytest.mark.parametrize(("ranks", "environment"), [(2, HOSTS), (3, HOSTS), (3, BUCKETS)])
def test_gradient_is_rounded_as_the_format_says(wire, unit, ranks, environment, results, exact):
    ours = results(wire, ranks, **environment)
    gradient = ours[0]["gradient"]
    assert ours[0]["hosts"] == ranks
    # At least one of the summands is not rounded; those that are may be larger than the sum.
    assert np.abs(gradient - exact).max() <= 4 * unit * np.abs(exact).max()
    assert np.abs(gradient - exact).max() > unit / 64 * np.abs(exact).max()
    for other in ours[1:]:
        assert other["values"].tobytes() == ours[0]["values"].tobytes()


def test_nothing_is_rounded_inside_a_host(results, exact):
    for result in results("float16", 2):
        assert result["gradient"].tobytes() == exact.tobytes()
