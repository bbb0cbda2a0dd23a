"""Compressed gradients on ranks: the bits of one rank wherever they are, and the bytes that they
send.
"""

import numpy as np
import pytest

from .programs.compressed import COMPRESSIONS
from .ranks import (
    BUCKETS,
    HALVES,
    ODD_AND_EVEN,
    ONE_HOST,
    PLAIN,
    SURVIVE,
    differences,
    in_full,
)

PROGRAM = "compressed.py"
LAYOUTS = {
    "2": (ONE_HOST, [2]),
    "3": (ONE_HOST, [3]),
    "1+1": (ODD_AND_EVEN, [1, 1]),
    "2+1": (ODD_AND_EVEN, [2, 1]),
    "2+2, buckets": (HALVES | BUCKETS, [2, 2]),
    "3 plain, buckets": (PLAIN | BUCKETS, [1, 1, 1]),
    "3 survive": (SURVIVE, [3]),
}
MANY = {
    "3+2": (ODD_AND_EVEN, [3, 2]),
    "6": (ONE_HOST, [6]),
    "4+3": (ODD_AND_EVEN, [4, 3]),
    "7 plain": (PLAIN, [1] * 7),
    "4+4": (ODD_AND_EVEN, [4, 4]),
    "8": (ONE_HOST, [8]),
}


@pytest.mark.parametrize(
    ("environment", "hosts"), [*LAYOUTS.values(), *in_full(*MANY.values())], ids=[*LAYOUTS, *MANY]
)
def test_every_rank_has_the_bits_of_the_process_without_mpi(environment, hosts, alone, run_ranks):
    results = run_ranks(sum(hosts), PROGRAM, **environment)
    seven = {f"{name}{end}" for name in ("sign", "int8") for end in ("", " losses")}
    expected = {key: value for key, value in alone.items() if sum(hosts) <= 7 or key not in seven}
    for result in results:
        assert result["hosts"].tolist() == hosts
        assert differences(result, expected) == []


def test_ways_differ_and_losses_fall(alone):
    found = {alone[name].tobytes() for name in COMPRESSIONS}
    assert len(found) == len(COMPRESSIONS)
    for name in COMPRESSIONS:
        losses = alone[f"{name} losses"]
        losses = losses[np.isfinite(losses)]
        assert losses[-3:].mean() < losses[:3].mean(), name


@pytest.mark.parametrize(("environment", "hosts"), [LAYOUTS["1+1"], LAYOUTS["2+2, buckets"]])
def test_no_more_is_sent_than_messages_have(environment, hosts, run_ranks):
    results = run_ranks(sum(hosts), PROGRAM, **environment)
    bytes_of = dict(zip(COMPRESSIONS, sum(each["sizes"][:, 0] for each in results), strict=True))
    sizes = dict(zip(COMPRESSIONS, results[0]["sizes"][:, 1:].tolist(), strict=True))
    flat, _ = sizes["none"]
    # Two hosts, each half of both sums and parameters; or the messages of four shards each.
    assert bytes_of["none"] == 2 * 4 * flat
    assert bytes_of["float16"] == bytes_of["bfloat16"] == 2 * 2 * flat
    assert 2 * flat < bytes_of["int8"] < 2.05 * flat
    for name in ("top-k", "power-sgd", "sign"):
        assert bytes_of[name] == 8 * sizes[name][1]
        assert bytes_of[name] < bytes_of["none"] / 2


def test_nothing_is_sent_inside_a_host(run_ranks):
    for result in run_ranks(2, PROGRAM):
        assert not result["sizes"][:, 0].any()
