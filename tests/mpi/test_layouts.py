"""The same bits wherever the ranks are: on one host or several, with shared memory or without."""

import numpy as np
import pytest

from .ranks import (
    BUCKETS,
    HALVES,
    ODD_AND_EVEN,
    ONE_HOST,
    PLAIN,
    SURVIVE,
    WHOLE,
    differences,
    in_full,
)

PROGRAM = "layouts.py"
LAYOUTS = {
    "1": (ONE_HOST, [1]),
    "2": (ONE_HOST, [2]),
    "2 plain": (PLAIN, [1, 1]),
    "1+1": (HALVES, [1, 1]),
    "3": (ONE_HOST, [3]),
    "2+1": (ODD_AND_EVEN, [2, 1]),
    "3 plain": (PLAIN, [1, 1, 1]),
    "4": (ONE_HOST, [4]),
    "2+2": (HALVES, [2, 2]),
    "5": (ONE_HOST, [5]),
    "3+2": (ODD_AND_EVEN, [3, 2]),
    "6": (ONE_HOST, [6]),
    "3+3": (HALVES, [3, 3]),
    "7": (ONE_HOST, [7]),
    "4+3": (ODD_AND_EVEN, [4, 3]),
    "7 plain": (PLAIN, [1] * 7),
    "8": (ONE_HOST, [8]),
    "4+4": (ODD_AND_EVEN, [4, 4]),
    "2 plain, buckets": (PLAIN | BUCKETS, [1, 1]),
    "2+1, buckets": (ODD_AND_EVEN | BUCKETS, [2, 1]),
    "3 plain, buckets": (PLAIN | BUCKETS, [1, 1, 1]),
    "2+2, buckets": (HALVES | BUCKETS, [2, 2]),
    "3+2, buckets": (ODD_AND_EVEN | BUCKETS, [3, 2]),
    "4+4, buckets": (ODD_AND_EVEN | BUCKETS, [4, 4]),
    "1 survives": (SURVIVE, [1]),
    "2 survive": (SURVIVE, [2]),
    "3 survive": (SURVIVE, [3]),
    "7 survive": (SURVIVE, [7]),
    "2, whole": (WHOLE, [2]),
    "1+1, whole": (HALVES | WHOLE, [1, 1]),
    "2+1, whole": (ODD_AND_EVEN | WHOLE, [2, 1]),
    "3 plain, whole, buckets": (PLAIN | WHOLE | BUCKETS, [1, 1, 1]),
    "2+2, whole, buckets": (HALVES | WHOLE | BUCKETS, [2, 2]),
    "4+3, whole, buckets": (ODD_AND_EVEN | WHOLE | BUCKETS, [4, 3]),
    "7 plain, whole": (PLAIN | WHOLE, [1] * 7),
}


# All kinds on four ranks or fewer.
FEW = [name for name, (_, hosts) in LAYOUTS.items() if sum(hosts) <= 3 or name.startswith("2+2")]
MANY = [name for name in LAYOUTS if name not in FEW]


def by_job(name):
    """Return what brings together the layouts that live ranks may have one after the other."""
    environment, hosts = LAYOUTS[name]
    return sum(hosts), sorted(environment.keys() - (BUCKETS | WHOLE).keys())


@pytest.mark.parametrize("name", [*sorted(FEW, key=by_job), *in_full(*sorted(MANY, key=by_job))])
def test_every_rank_has_the_bits_of_the_process_without_mpi(name, alone, run_ranks):
    environment, hosts = LAYOUTS[name]
    results = run_ranks(sum(hosts), PROGRAM, **environment)
    # Seven shards allow seven ranks.
    expected = {
        key: value for key, value in alone.items() if sum(hosts) <= 7 or "7 shards" not in key
    }
    assert len(expected) >= 7
    of_networks = {"mlp": 3, "mlp, 7 shards": 3, "cnn": 1, "volumes": 1, "lstm": 2}
    for result in results:
        assert result["hosts"].tolist() == hosts
        several = [count for network, count in of_networks.items() if network in result]
        assert result["buckets"].tolist() == (several if "buckets" in name else [1] * len(several))
        assert differences(result, expected) == []
    # Once each by all ranks, or by those of each host.
    owners = hosts if "whole" in name else [sum(hosts)]
    updated = np.split(np.array([result["updated"] for result in results]), np.cumsum(owners)[:-1])
    assert [of_owners.sum(0).tolist() for of_owners in updated] == [
        results[0]["sizes"].tolist()
    ] * len(owners)


def test_losses_fall(alone):
    for name in ("mlp", "mlp, 7 shards", "cnn", "volumes", "lstm"):
        losses = alone[f"{name} losses"]
        assert losses[15:18].mean() < losses[:3].mean(), name
