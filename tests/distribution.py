"""How the tests are spread over processes by pytest-xdist, when all of them run."""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A process loads every library and compiles kernels of its own in the first minutes; more of them
# gain little.
MOST = 8
MPI, CONTRACT = "tests/mpi/", "tests/layers/families/test_contract.py"


def workers(config: pytest.Config) -> int:
    """Return the number of processes for `-n auto`: one for each core for whole folders, none where
    tests were chosen.

    A process has to start, and to collect all tests, which takes longer than a few tests.
    """
    files = any("::" in argument or argument.endswith(".py") for argument in config.args)
    # The plug-in of the last ones may be switched off.
    options = ("keyword", "collectonly", "lf", "failedfirst")
    chosen = files or any(config.getoption(name, False) for name in options)
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return 0 if chosen or cores == 1 else min(cores, MOST)


class Scheduler(LoadScopeScheduling):
    """Gives all tests of a file to one process, so that what they share is made once.

    Those that start ranks all go to one, or there would be many more ranks than cores; the contract
    of the layers goes function by function, as it is most of all tests.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if file.startswith(MPI):
            return MPI
        return nodeid.split("[", 1)[0] if file == CONTRACT else file


def make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    """Return the scheduler, which keeps the order of the tests."""
    config.option.loadscopereorder = False
    return Scheduler(config, log)


def leave_out_full(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the tests marked `full`, unless tests are chosen by -m or by their names."""
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    full = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=full)
    items[:] = [item for item in items if item not in full]


def longest_first(items: list[pytest.Item]) -> None:
    """Move the tests that start ranks to the beginning: all of them are for one process."""
    items.sort(key=lambda item: not item.nodeid.startswith(MPI))
