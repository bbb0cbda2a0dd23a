"""The cores that there are for a rank, as the system tells."""

import math
import os

import pytest

from ddbp.comm import cores
from ddbp.comm.cores import Core, available_cores, core_quota, places, usable_cores


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"": "max 100000", "a": "150000 100000", "a/b": "max 100000"}, ("a", 1.5)),
        ({"a": "400000 100000", "a/b": "50000 50000"}, ("a/b", 1.0)),
        ({"": "max 100000", "a/b": "no numbers"}, ("", math.inf)),
        ({}, ("", math.inf)),
    ],
)
def test_quota_of_cores_is_the_least_of_all_groups_that_a_process_is_in(limits, expected, tmp_path):
    files, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("1:name=old:/elsewhere\n0::/a/b\n")
    (files / "a" / "b").mkdir(parents=True)
    for folder, text in limits.items():
        (files / folder / "cpu.max").write_text(text + "\n")
    group, cores = core_quota(files, own)
    assert (group.removeprefix(f"{files}/"), cores) == expected


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert core_quota(tmp_path / "none", tmp_path / "none either") == ("", math.inf)


@pytest.fixture
def machine(tmp_path):
    """Return a folder as Linux has it on a machine of two nodes, of two cores each, of two
    processors each: 0 and 4 are a core, and so on; the cores of the second node are odd.
    """
    for processor in range(8):
        folder = tmp_path / "cpu" / f"cpu{processor}"
        (folder / "topology").mkdir(parents=True)
        core = processor % 4
        (folder / "topology" / "core_cpus_list").write_text(f"{core},{core + 4}\n")
        (folder / f"node{core % 2}").mkdir()
    return tmp_path


ALL = [Core(0, (0, 4)), Core(0, (2, 6)), Core(1, (1, 5)), Core(1, (3, 7))]


@pytest.mark.parametrize(
    ("processors", "expected"),
    [
        (range(8), ALL),
        (range(4), [Core(0, (0,)), Core(0, (2,)), Core(1, (1,)), Core(1, (3,))]),
        ([4, 5, 1], [Core(0, (4,)), Core(1, (1, 5))]),
        ([], []),
    ],
)
def test_processors_of_one_core_are_told_apart_by_the_system(processors, expected, machine):
    assert usable_cores(processors, machine) == expected


def test_ranges_of_processors_are_read(machine):
    (machine / "cpu" / "cpu0" / "topology" / "core_cpus_list").write_text("0-1,4\n")
    assert usable_cores([0, 2], machine) == [Core(0, (0,)), Core(0, (2,))]
    assert Core(0, (0, 1, 4)) in usable_cores([0, 1, 2, 4], machine)


def test_each_processor_is_a_core_where_the_system_does_not_tell(tmp_path):
    assert usable_cores([3, 1], tmp_path) == [Core(0, (1,)), Core(0, (3,))]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (1, [(0, 4, 2, 6)]),
        (2, [(0, 4, 2, 6), (1, 5, 3, 7)]),
        (3, [(0, 4), (2, 6), (1, 5)]),
        (4, [(0, 4), (2, 6), (1, 5), (3, 7)]),
        (5, [(0,), (4,), (6,), (1,), (3,)]),
        (8, [(0,), (4,), (2,), (6,), (1,), (5,), (3,), (7,)]),
        (9, [()] * 9),
    ],
)
def test_ranks_are_spread_over_memories_and_have_a_core_each(ranks, expected):
    assert places(ranks, ALL) == expected


def test_ranks_without_known_cores_run_anywhere():
    assert places(3, []) == [()] * 3
    cores.bind(0, ())


def test_no_more_cores_are_available_than_there_is_time_for(monkeypatch):
    monkeypatch.setattr(cores, "usable_cores", lambda: ALL)
    for quota, expected in ((math.inf, 4), (2.5, 2), (0.5, 1)):
        monkeypatch.setattr(cores, "core_quota", lambda quota=quota: ("a", quota))
        assert available_cores() == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs sched_setaffinity")
@pytest.mark.parametrize("option", [(), ("--survive",)])
def test_launched_ranks_run_on_the_cores_that_are_theirs(option, run_python, tmp_path):
    found = usable_cores()[:2]
    if len(found) < 2:
        pytest.skip("needs two cores")
    program = tmp_path / "where.py"
    program.write_text(
        "import os, ddbp\n"
        "rank = ddbp.communicator().rank\n"
        "print('rank', rank, sorted(os.sched_getaffinity(0)))\n"
    )
    processors = [processor for core in found for processor in core.processors]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        ended = run_python("-m", "ddbp", "launch", "-n", 2, *option, program)
    finally:
        os.sched_setaffinity(0, before)
    assert ended.status == 0, ended.err
    for rank, core in enumerate(found):
        assert f"rank {rank} {[*core.processors]}" in ended.out
