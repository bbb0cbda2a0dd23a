"""Gradients in half precision between hosts: rounded, but as little as the format says, and the
same on all ranks.
"""

import numpy as np
import pytest

from .ranks import BUCKETS, PLAIN

PROGRAM = "wire.py"


@pytest.fixture(scope="module")
def exact(run_ranks):
    """Return the gradient in full precision."""
    return run_ranks(2, PROGRAM, "none", **PLAIN)[0]["gradient"]


@pytest.mark.parametrize(("wire", "unit"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
@pytest.mark.parametrize(("ranks", "environment"), [(2, PLAIN), (3, PLAIN), (3, PLAIN | BUCKETS)])
def test_gradient_is_rounded_as_the_format_says(wire, unit, ranks, environment, run_ranks, exact):
    ours = run_ranks(ranks, PROGRAM, wire, **environment)
    gradient = ours[0]["gradient"]
    assert ours[0]["hosts"] == ranks
    # At least one of the summands is not rounded; those that are may be larger than the sum.
    assert np.abs(gradient - exact).max() <= 4 * unit * np.abs(exact).max()
    assert np.abs(gradient - exact).max() > unit / 64 * np.abs(exact).max()
    for other in ours[1:]:
        assert other["values"].tobytes() == ours[0]["values"].tobytes()


@pytest.mark.parametrize(("ranks", "environment"), [(2, PLAIN), (3, PLAIN | BUCKETS)])
def test_format_of_ones_own_takes_part(ranks, environment, run_ranks, exact):
    """Half of what hosts send is left out: what remains is a part of the gradient, the same on all
    ranks.
    """
    ours = run_ranks(ranks, PROGRAM, "largest", **environment)
    error = np.linalg.norm(ours[0]["gradient"] - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.5
    for other in ours[1:]:
        assert other["values"].tobytes() == ours[0]["values"].tobytes()


def test_nothing_is_rounded_inside_a_host(run_ranks, exact):
    for result in run_ranks(2, PROGRAM, "float16"):
        assert result["gradient"].tobytes() == exact.tobytes()
