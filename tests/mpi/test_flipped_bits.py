"""A bit that flips on one rank is found, by the one who updates it or by comparison with others."""

import pytest

from .ranks import ODD_AND_EVEN, ONE_HOST, PLAIN, differences, in_full

PROGRAM = "flipped_bits.py"
OFTEN = {"DDBP_CHECK_MEMORY": "1", "DDBP_COMPARE_EVERY": "5"}
OWN = "Trainer: parameters and moments must be what the last update has left; got other bits in "
SAME = "Trainer: parameters and states must be the same everywhere in step "


@pytest.fixture(scope="module")
def undisturbed(run_alone):
    return run_alone(PROGRAM, "nothing")


@pytest.mark.parametrize(
    ("ranks", "environment"),
    [(2, ONE_HOST), (3, ODD_AND_EVEN), (2, PLAIN)],
    ids=["one host", "two", "plain"],
)
def test_nothing_that_may_change_is_a_false_alarm(ranks, environment, undisturbed, run_ranks):
    results = run_ranks(ranks, PROGRAM, "nothing", **OFTEN, **environment)
    assert [differences(result, undisturbed) for result in results] == [[]] * ranks


@pytest.mark.parametrize(
    ("what", "environment", "must", "got"),
    [
        ("value", ONE_HOST, OWN, "the value of layers."),
        ("moment", ONE_HOST, OWN, "the moment 'square' of layers."),
        ("copy", ODD_AND_EVEN, SAME, "other bits in layers."),
        (
            "state",
            ONE_HOST,
            SAME,
            "other bits in layers.3.running_mean on rank 1 than on ranks 0, 2",
        ),
        ("frozen", PLAIN, "frozen parameters must be what they were", "bits in layers.0.weight"),
        *in_full(
            ("value", PLAIN, OWN, "the value of layers."),
            ("copy", PLAIN, SAME, "other bits in layers."),
            ("frozen", ONE_HOST, "frozen parameters must be what they were", "in layers.0.weight"),
        ),
    ],
)
def test_flipped_bit_is_named(what, environment, must, got, undisturbed, mpirun, tmp_path):
    finished = mpirun(3, PROGRAM, tmp_path, what, **OFTEN, **environment)
    assert finished.status != 0
    assert must in finished.err
    assert got in finished.err
    assert "MemoryCorruptionError" in finished.err
