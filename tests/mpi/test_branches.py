"""Parameters that no rank has used, or only some, need no flag: nothing hangs, and gradients are
those of the whole batch.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from .ranks import BUCKETS, PLAIN

PROGRAM = Path(__file__).parent / "programs" / "branches.py"


# Each rank a host, and gradients sent during backward in several buckets, as far as parameters are
# used.
@pytest.fixture(
    scope="module",
    params=[(2, {}), (3, {}), (3, PLAIN | BUCKETS)],
    ids=["2", "3", "3 hosts, buckets"],
)
def results(request, run_ranks):
    """Return the results of every rank."""
    ranks, environment = request.param
    return run_ranks(ranks, PROGRAM, **environment)


def test_branch_is_taken_on_some_ranks_only(results):
    used = [int(result["own samples of the expert"]) for result in results]
    assert used[0] > 0
    assert used[-1] == 0


@pytest.mark.parametrize("way", ["loop", "accumulation", "fit"])
def test_result_is_that_of_the_whole_batch(way, results, alone):
    compared = 0
    for result in results:
        for name, expected in alone.items():
            if name.startswith(f"{way}, 4 shards"):
                assert result[name].tobytes() == expected.tobytes(), name
            elif name.startswith(way):
                np.testing.assert_allclose(result[name], expected, rtol=0, atol=1e-12, err_msg=name)
                assert result[name].tobytes() == results[0][name].tobytes(), name
            else:
                continue
            compared += 1
    assert compared == len(results) * 2 * 8


def test_expert_has_learnt_and_what_nobody_uses_has_not(results):
    spec = importlib.util.spec_from_file_location("branches", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    start = dict(program.Expert().named_parameters())
    for way in ("loop", "accumulation", "fit"):
        for kind in ("one shard per rank", "4 shards"):
            found = {name: results[0][f"{way}, {kind}, {name}"] for name in start}
            assert found["unused.weight"].tobytes() == start["unused.weight"].value.tobytes()
            assert np.abs(found["expert.weight"] - start["expert.weight"].value).max() > 1e-3
