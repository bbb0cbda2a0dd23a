"""Rows of any length come through whole, inside a host and between hosts."""

import pytest

from .ranks import ODD_AND_EVEN, ONE_HOST, PLAIN

LAYOUTS = {"[3]": ONE_HOST, "[2, 1]": ODD_AND_EVEN, "[1, 1, 1]": PLAIN}


@pytest.mark.parametrize("hosts", LAYOUTS)
def test_rows_of_any_length_are_gathered(hosts, pooled):
    finished = pooled(3, "wide_rows.py", **LAYOUTS[hosts])
    assert finished.status == 0, finished.err
    assert finished.out.strip() == hosts
