"""Arrays of more elements than a C int counts come through whole."""

import re
import shutil
from pathlib import Path

import pytest

from .ranks import ONE_HOST, PLAIN

ELEMENTS = 2**31 + 1001
# Two ranks hold them, and the library copies parts.
GIBIBYTES = 6


def free():
    """Return the gibibytes that nobody has taken, of memory and of memory to share."""
    try:
        memory = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
        return int(memory[1]) / 2**20, shutil.disk_usage("/dev/shm").free / 2**30
    except OSError:
        return 0, 0


@pytest.mark.full
@pytest.mark.parametrize(
    ("environment", "hosts"), [(ONE_HOST, 1), (PLAIN, 2)], ids=["shared", "sent"]
)
def test_more_than_two_thousand_million_elements(environment, hosts, mpirun):
    if min(free()) < GIBIBYTES:
        pytest.skip(f"needs {GIBIBYTES} GiB of memory, and as much of /dev/shm; got {free()}")
    finished = mpirun(2, "large.py", ELEMENTS, 2**30, timeout=300, **environment)
    assert finished.status == 0, finished.err
    assert finished.out == f"{hosts}\n"


def test_messages_are_cut_into_parts_that_the_library_can_count(pooled):
    largest = [1, 7, 99, 100, 101, 1000]
    finished = pooled(2, "large.py", 100, *largest, **PLAIN)
    assert finished.status == 0, finished.err
    assert finished.out.split() == ["2"] * len(largest)
