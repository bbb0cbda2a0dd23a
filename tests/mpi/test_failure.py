"""When one rank does not do as the others, all ranks end within seconds, and standard error says
who and why.
"""

import re

import pytest

from .ranks import ONE_HOST, SURVIVE, either, in_full, still_alive

PROGRAM = "one_rank_misbehaves.py"


@pytest.fixture(scope="module", autouse=True)
def _compiled(without_misdeed):
    """Compile the kernels, so that no rank waits for one that compiles."""
    assert all(f"rank {rank} has finished" in without_misdeed.out for rank in range(3))


BOTH, NAMES = (ONE_HOST, SURVIVE), ("mpi", "survive")


def of(*few):
    """Return the mark of a test that is run with these ways to start ranks, and in full with both:
    what ranks say of each other does not depend on that.
    """
    ways = [way if way in few else in_full(way)[0] for way in BOTH]
    return pytest.mark.parametrize("misbehave", ways, ids=NAMES, indirect=True)


@pytest.fixture(params=BOTH, ids=NAMES)
def misbehave(request, mpirun, tmp_path):
    """Return a function that runs a misdeed on three ranks, checks that all have ended badly and
    soon, and returns the output.
    """

    def run(misdeed, **environment):
        finished = mpirun(3, PROGRAM, misdeed, tmp_path, **request.param, **environment)
        pids = [int((tmp_path / f"pid{rank}").read_text()) for rank in range(3)]
        assert finished.status != 0
        assert still_alive(pids) == []
        return finished

    return run


def test_exception_prints_one_traceback_that_names_the_rank(misbehave):
    err = misbehave("raise").err
    assert "[rank 1 of 3] RuntimeError: the misdeed" in err
    assert "in raise_error" in err
    assert err.count("Traceback") == 1


@of(SURVIVE)
def test_exception_in_a_thread_ends_all_ranks(misbehave):
    assert "[rank 1 of 3] RuntimeError: the misdeed" in misbehave("raise in a thread").err


@pytest.mark.parametrize("misdeed", ["return early", *in_full("exit", "exit with success")])
def test_rank_that_leaves_is_named_by_those_who_wait(misdeed, misbehave):
    err = misbehave(misdeed).err
    assert "all ranks must take part in the gradient exchange of step 3; got rank 1 ended. " in err


@pytest.mark.full
@pytest.mark.parametrize("misbehave", [ONE_HOST], ids=["mpi"], indirect=True)
def test_killed_rank_takes_the_others_along(misbehave):
    finished = misbehave("be killed")
    assert "has finished" not in finished.out


@of(ONE_HOST)
def test_rank_that_skips_a_step_is_named_with_the_step(misbehave):
    finished = misbehave("skip a step")
    said = either(
        "rank [02]: .* got step 3 after 4 batches here, after 5 on rank 1",
        "rank 1: .* got step 3 after 5 batches here, after 4 on rank 0",
    )
    assert re.search(rf"{said}\. ", finished.err), finished.err
    assert "has finished" not in finished.out


@of(SURVIVE)
def test_rank_with_a_batch_of_another_size_is_named_with_both_sizes(misbehave):
    err = misbehave("take another batch").err
    must = "all ranks must be in the same step with the same global batch"
    # The batch of its own may count as another step.
    said = either(
        f"rank [02]: {must}; got step 3 with 12 samples here, step [34] with 7 on rank 1",
        f"rank 1: {must}; got step [34] with 7 samples here, step 3 with 12 on rank 0",
    )
    assert re.search(rf"{said}\. ", err), err


@of(ONE_HOST)
def test_wrong_label_in_the_part_of_one_rank_ends_all(misbehave):
    err = misbehave("have a wrong label").err
    said = (
        "ValueError: SoftmaxCrossEntropy(): labels must be in 0..2 for 3 logits; got 5 in row 2. "
    )
    assert f"[rank 1 of 3] {said}" in err
    assert err.count("Traceback") == 1


@pytest.mark.parametrize("misbehave", [ONE_HOST], ids=["mpi"], indirect=True)
@pytest.mark.parametrize(
    ("misdeed", "said"),
    [
        ("have NaN apart", "[rank 1 of 3] ddbp.optim.clipping.NotFiniteError: Trainer: the loss"),
        ("pass over NaN apart", "the gradient exchange of step 0; got rank 1 ended. "),
    ],
)
def test_numbers_of_one_worker_that_are_not_finite_end_all(misdeed, said, misbehave):
    finished = misbehave(misdeed)
    assert said in finished.err
    assert "has finished" not in finished.out


@of(SURVIVE)
def test_run_folder_that_rank_0_cannot_write_ends_all(misbehave):
    err = misbehave("have no run folder").err
    assert "[rank 0 of 3] OSError: Trainer: the run folder must be writable; got " in err


@of(ONE_HOST)
def test_rank_that_evaluates_alone_is_told_that_another_has_ended(misbehave):
    err = misbehave("evaluate once more").err
    assert "[rank 1 of 3]" in err
    assert (
        "ended. Look above for its error; every rank must take the same number of steps and"
        " evaluations." in err
    )


@pytest.mark.parametrize("misbehave", [ONE_HOST], ids=["mpi"], indirect=True)
@pytest.mark.parametrize(
    ("misdeed", "doing"),
    [
        ("sleep", "the gradient exchange of step 3"),
        pytest.param("sleep before the start", "gathering from all ranks", marks=pytest.mark.full),
    ],
)
def test_rank_that_hangs_is_named_after_the_time_limit(misdeed, doing, misbehave):
    err = misbehave(misdeed, DDBP_TIMEOUT="6").err
    must = rf"all ranks must take part in {doing}; got nothing from rank 1 for ([6-9]|\d\d+) s\. "
    assert re.search(must, err), err
    assert "DDBP_TIMEOUT sets the limit in seconds" in err
    # By what the watchdogs of all ranks have told before.
    assert f"[rank 0 of 3] waits in {doing}" in err
    assert re.search(r"\[rank 1 of 3\]   File .*one_rank_misbehaves\.py\", line \d+ in ", err)
