"""Batch normalisation on ranks: statistics of shards, of the global batch and running ones are the
same bits on any number.
"""

import re

import numpy as np
import pytest

from .ranks import either, in_full

RANKS = (1, 2, 3)
PROGRAM = "batch_norm.py"
# A few roundings of sums over 23 x 16 values, through five layers and back.
ROUNDINGS = {"float32": 256, "float64": 256}


@pytest.fixture(scope="module", params=RANKS)
def results(request, run_ranks):
    """Return the results of every rank."""
    return run_ranks(request.param, PROGRAM)


def runs(results, with_shards=True):
    """Return the names of the runs, without the one whose number of shards is that of the ranks
    unless so said.
    """
    names = [name.removeprefix("end, ") for name in results if name.startswith("end, ")]
    assert len(names) == 6
    return [name for name in names if not (with_shards and name.endswith("per rank"))]


def rows(results, part, name):
    """Return what all ranks have of the batch, in order."""
    return np.concatenate([result[f"rows of {part}, {name}"] for result in results])


def error(found, exact):
    return np.abs(found - exact).max() / np.abs(exact).max()


def test_states_and_parameters_of_rank_0_overwrite_those_of_the_others(results, alone):
    for name in runs(alone, with_shards=False):
        for result in results:
            assert result[f"start, {name}"].tobytes() == alone[f"start, {name}"].tobytes(), name


@pytest.mark.parametrize("part", ["output", "gradient"])
def test_forward_and_backward_have_the_bits_of_one_process(part, results, alone):
    for name in runs(alone):
        assert rows(results, part, name).tobytes() == alone[f"rows of {part}, {name}"].tobytes(), (
            name
        )


def test_parameters_and_states_have_the_bits_of_one_process_after_four_steps(results, alone):
    for name in runs(alone):
        for result in results:
            assert result[f"end, {name}"].tobytes() == alone[f"end, {name}"].tobytes(), name
            assert result[f"digest, {name}"] == alone[f"digest, {name}"]
            assert result[f"evaluation, {name}"] == alone[f"evaluation, {name}"]


def test_states_have_moved_and_are_the_same_on_all_ranks_with_one_shard_per_rank(results):
    name = "synchronized, one shard per rank"
    assert not np.array_equal(results[0][f"start, {name}"], results[0][f"end, {name}"])
    assert len({result[f"end, {name}"].tobytes() for result in results}) == 1


@pytest.mark.parametrize("part", ["output", "gradient"])
def test_synchronized_statistics_are_those_of_the_whole_batch(part, results):
    synchronized = [name for name in runs(results[0], with_shards=False) if "synchronized" in name]
    assert len(synchronized) == 4
    for name in synchronized:
        exact = results[0][f"whole {part}, {name}"]
        dtype = "float32" if "float32" in name else "float64"
        assert error(rows(results, part, name), exact) < ROUNDINGS[dtype] * np.finfo(dtype).eps, (
            name
        )


def test_statistics_of_shards_are_others_than_those_of_the_whole_batch(results):
    name = "5 shards, float64"
    assert error(rows(results, "output", name), results[0][f"whole output, {name}"]) > 1e-3


# ---- one rank does not do as the others

MISDEEDS = {
    "raise in the layer": r"\[rank 1 of 3\] RuntimeError: the misdeed",
    "end in the layer": (
        r"all ranks must take part in gathering statistics of the batch, number 10; got rank 1"
        r" ended\. "
    ),
    "hang in the layer": (
        r"of the batch, number 10; got nothing from rank 1 for ([6-9]|\d\d+) s\. .*\n"
        r".* This was in call 2: BatchNorm"
    ),
    "leave out a synchronized layer": (
        r"of the batch, number 10; got (8 numbers on rank 1|9 numbers on rank [02]), "
    ),
    "leave out a layer": "all ranks must run the same layers in step 2; got "
    + either("18 statistics of layers here, 9 on rank 1", "9 .* here, 18 on rank 0")
    + r"\. ",
}


@pytest.fixture(scope="module")
def compiled(pooled):
    """Compile the kernels, so that no rank waits for one that compiles."""
    finished = pooled(3, "batch_norm_misdeeds.py", "nothing")
    assert finished.status == 0, finished.err


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "misdeed",
    [
        "hang in the layer",
        "leave out a synchronized layer",
        "leave out a layer",
        *in_full("raise in the layer", "end in the layer"),
    ],
)
def test_rank_that_does_something_else_ends_all_ranks_and_is_named(misdeed, mpirun):
    finished = mpirun(3, "batch_norm_misdeeds.py", misdeed, DDBP_TIMEOUT="6")
    assert finished.status != 0
    assert re.search(MISDEEDS[misdeed], finished.err), finished.err[-2000:]
    assert "has finished" not in finished.out
