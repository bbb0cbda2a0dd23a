"""Twenty steps of many small runs: with a given number of shards, the same bits on 1, 2, 3 and 4
ranks as without MPI.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

RANKS = (1, 2, 3, 4)
PROGRAM = "train_twenty_steps.py"


class Results(NamedTuple):
    """What one rank wrote: parameters and history of each run."""

    parameters: dict[str, np.ndarray]
    histories: dict[str, list[dict[str, Any]]]


def read(folder: Path, rank: int) -> Results:
    """Return the results of a rank."""
    with np.load(folder / f"rank{rank}.npz") as arrays:
        return Results(dict(arrays), json.loads((folder / f"rank{rank}.json").read_text()))


def differences(ours: list[Results], reference: Results, runs: list[str]) -> list[str]:
    """Return a line for every rank and run whose parameters or history are not the reference's to
    the last bit.
    """
    found = []
    for rank, results in enumerate(ours):
        for run in runs:
            mine, theirs = results.parameters[run], reference.parameters[run]
            unequal = (
                mine.view(np.uint8) != theirs.view(np.uint8)
                if mine.dtype == theirs.dtype
                else np.ones(1, bool)
            )
            if mine.shape != theirs.shape or unequal.any():
                found.append(f"rank {rank}: parameters of {run} differ")
            if results.histories[run] != reference.histories[run]:
                *_, here = results.histories[run]
                *_, there = reference.histories[run]
                names = [name for name in there if here.get(name) != there[name]]
                found.append(f"rank {rank}: history of {run} differs, in its last entry {names}")
    return found


def losses(history: list[dict[str, Any]]) -> list[float]:
    """Return the losses in a history, whose last entry is of what instruments have measured."""
    return [record["loss"] for record in history if "loss" in record]


def runs_with(results: Results, shards: str) -> list[str]:
    """Return the runs with the given shards."""
    return [run for run in results.parameters if run.endswith(shards)]


@pytest.fixture(scope="module")
def alone(pooled, tmp_path_factory):
    """Return the results without MPI."""
    folder = tmp_path_factory.mktemp("alone")
    # The first to run them compiles the kernels of many layers.
    finished = pooled(0, PROGRAM, folder)
    assert finished.status == 0, finished.err
    return read(folder, 0)


@pytest.fixture(scope="module")
def on_ranks(pooled, tmp_path_factory):
    """Return the results of every rank, by number of ranks."""
    results = {}
    for ranks in RANKS:
        folder = tmp_path_factory.mktemp(f"on{ranks}")
        # A process without MPI replays steps; some of the ranks do not.
        options = {"LAYERS_REPLAY": "0"} if ranks == 4 else {}
        finished = pooled(ranks, PROGRAM, folder, **options)
        assert finished.status == 0, finished.err
        results[ranks] = [read(folder, rank) for rank in range(ranks)]
    return results


@pytest.mark.parametrize("ranks", RANKS)
def test_eight_shards_give_the_bits_of_the_process_without_mpi(ranks, alone, on_ranks):
    runs = runs_with(alone, "8 shards")
    assert len(runs) >= 10
    assert differences(on_ranks[ranks], alone, runs) == []


@pytest.mark.parametrize("ranks", RANKS)
def test_one_shard_per_rank_gives_the_same_bits_on_all_ranks(ranks, on_ranks):
    results = on_ranks[ranks]
    runs = runs_with(results[0], "one shard per rank")
    assert len(runs) >= 10
    assert differences(results, results[0], runs) == []


@pytest.mark.parametrize("ranks", RANKS)
def test_one_shard_per_rank_gives_the_losses_of_one_process_to_rounding(ranks, alone, on_ranks):
    for run in runs_with(alone, "one shard per rank"):
        ours = losses(on_ranks[ranks][0].histories[run])
        expected = losses(alone.histories[run])
        # Twenty steps in float32; a wrong weighting of uneven parts shows in the third digit.
        np.testing.assert_allclose(ours, expected, rtol=1e-4, err_msg=run)


@pytest.mark.parametrize("run", ["momentum", "weighted sentences"])
def test_source_gives_the_bits_of_the_same_samples_in_memory(run, alone):
    ours, theirs = (alone.parameters[f"{name}, 8 shards"] for name in (f"{run}, a source", run))
    assert ours.tobytes() == theirs.tobytes()
    ours, theirs = (alone.histories[f"{name}, 8 shards"] for name in (f"{run}, a source", run))
    assert ours == theirs


def test_runs_are_long_enough_to_learn(alone):
    found = {run: losses(history) for run, history in alone.histories.items()}
    falls = {run: each[0] - each[-1] for run, each in found.items()}
    assert {run: fall for run, fall in falls.items() if not fall > 0} == {}


def test_evaluation_is_part_of_the_comparison(alone):
    records = [
        record
        for run in runs_with(alone, "8 shards")
        for record in alone.histories[run]
        if "epoch" in record
    ]
    assert records
    assert all("validation_loss" in record for record in records)


@pytest.mark.parametrize(("step", "everywhere"), [(10, True), (20, False)])
def test_one_changed_bit_on_one_rank_is_reported(step, everywhere, alone, pooled, tmp_path):
    finished = pooled(2, PROGRAM, tmp_path, "--corrupt", 1, step)
    assert finished.status == 0, finished.err
    found = differences([read(tmp_path, rank) for rank in range(2)], alone, ["momentum, 8 shards"])
    assert "rank 1: parameters of momentum, 8 shards differ" in found
    assert ("rank 0: parameters of momentum, 8 shards differ" in found) or not everywhere
