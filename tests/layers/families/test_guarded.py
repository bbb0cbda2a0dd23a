"""What lies beside an array is not touched by any kernel."""

import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("guarded.py")


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_no_case_reads_or_writes_beside_its_arrays(run_python):
    finished = run_python(PROGRAM, timeout=600)
    assert finished.out.splitlines()[-1:] == ["done"], (finished.out[-500:], finished.err[-2000:])
