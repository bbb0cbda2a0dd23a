"""How the tests are spread over processes by pytest-xdist, when all of them run."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A process loads every library and compiles kernels of its own in the first minutes; more of them
# gain little.
MOST = 8
MPI, FAMILIES = "tests/mpi/", "tests/layers/families/"

# Files that start ranks of their own for each test, and in which no limit is a few seconds: they
# may be run beside the others.
APART = tuple(
    f"{MPI}test_{name}.py"
    for name in ("recovery", "verify", "checkpoints", "flipped_bits", "post_mortem")
)

# Families of layers whose kernels take longest to compile.
ORDER = ("conv", "recurrent", "attention")


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


def scope(nodeid: str) -> str:
    """Return what a test is run together with: those that start ranks, a family of layers, a file.

    Whatever runs the kernels of a family is done by one process, which compiles them once.
    """
    file = nodeid.split("::", 1)[0]
    if file.startswith(MPI):
        return file if file in APART else MPI
    family = re.search(r"[\[-]([a-z_]+): ", nodeid)
    if family:
        return family[1]
    if file.startswith(FAMILIES):
        name = Path(file).stem.removeprefix("test_")
        return next((known for known in ORDER if name.startswith(known)), name)
    return file


class Scheduler(LoadScopeScheduling):
    """Gives all tests of a scope to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


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
    """Move the tests that take long to the beginning: families of layers, which compile kernels,
    then those that start ranks and use the kernels.
    """

    def place(item: pytest.Item) -> int:
        of = scope(item.nodeid)
        if of in ORDER:
            return ORDER.index(of)
        return len(ORDER) + (1 if of == MPI else 2 if of in APART else 3 if "/" in of else 0)

    items.sort(key=place)
