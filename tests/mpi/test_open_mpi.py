"""The bits do not depend on the MPI library: Open MPI, where there is one beside the library of the
other tests.
"""

import pytest

from .ranks import ONE_HOST, PLAIN, arrays, differences


@pytest.fixture
def run(on_open_mpi):
    """Return the function that runs a program to its end on so many ranks of Open MPI."""

    def run_ranks(ranks, program, *arguments, **environment):
        finished = on_open_mpi(ranks, program, *arguments, **environment)
        assert finished.status == 0, finished.err
        return finished

    return run_ranks


@pytest.mark.parametrize("environment", [ONE_HOST, PLAIN], ids=["shared", "plain"])
def test_bits_are_those_of_one_process(environment, run, run_alone, tmp_path):
    expected = run_alone("layouts.py")
    run(3, "layouts.py", tmp_path, **environment)
    for result in arrays(tmp_path, 3):
        assert result["hosts"].tolist() == ([1, 1, 1] if environment else [3])
        assert differences(result, expected) == []


def test_rows_of_any_length_are_gathered(run):
    assert run(3, "wide_rows.py").out.strip() == "[3]"
