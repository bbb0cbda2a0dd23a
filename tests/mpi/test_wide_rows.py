"""Rows of any length come through whole, inside a host and between hosts."""

import pytest

LAYOUTS = {"[3]": {}, "[2, 1]": {"MPIR_CVAR_ODD_EVEN_CLIQUES": "1"}, "[1, 1, 1]": {"DDBP_SHARED_MEMORY": "0"}}


@pytest.mark.parametrize("hosts", LAYOUTS)
def test_rows_of_any_length_are_gathered(hosts, mpirun, is_mpich):
    if hosts == "[2, 1]" and not is_mpich:
        pytest.skip("only MPICH takes one machine for two hosts")
    finished = mpirun(3, "wide_rows.py", **LAYOUTS[hosts])
    assert finished.status == 0, finished.err
    assert finished.out.strip() == hosts
