"""Meetings in shared memory: nobody reads too early, nobody waits for ever, and the memory goes
with its arrays.
"""

import errno
import mmap
import os
import re
import time
from types import SimpleNamespace

import llvmlite.binding
import numpy as np
import pytest

from ddbp.comm import host_barrier, shared_memory
from ddbp.comm.base import CommunicationError
from ddbp.comm.host_barrier import WORDS, HostBarrier, SharedRow
from layers.kernels import sync

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SECONDS = 60.0


def in_processes(count, work):
    """Run `work(barrier, mine)` in so many processes; each must return None."""
    memory = mmap.mmap(-1, 8 * count * (1024 + 2 * WORDS))
    pids = []
    for mine in range(count):
        pid = os.fork()
        if not pid:
            status = 1
            try:

                def allocate(shape, dtype):
                    return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)

                work(HostBarrier(allocate, mine, count), mine)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def wait(barrier):
    """Wait until all have come, but not for ever."""
    end = time.monotonic() + SECONDS
    while not barrier.met():
        assert time.monotonic() < end, "nobody came"
        time.sleep(1e-5)


def gather(barrier, row, same):
    """Gather, however long it takes."""
    mismatched = barrier.gather(row.rows, same)
    if mismatched == sync.LATE:
        wait(barrier)
        mismatched = barrier.gather(row.rows, same, again=True)
    return mismatched


@pytest.mark.parametrize("count", [2, 5])
def test_every_process_reads_what_the_others_wrote_before_they_met(count):
    def work(barrier, mine):
        rng = np.random.default_rng(mine)
        row = SharedRow(7, count, mine)
        for step in range(100):
            if rng.random() < 0.05:
                time.sleep(rng.random() * 2e-3)
            row.numbers[:] = 1000.0 * step + mine
            assert gather(barrier, row, 0) == sync.ALIKE
            assert (row.all == 1000.0 * step + np.arange(count)[:, np.newaxis]).all()

    assert in_processes(count, work) == [0] * count


def test_process_that_has_not_come_is_known_to_those_who_wait():
    reading, writing = os.pipe()

    def work(barrier, mine):
        if mine:
            os.read(reading, 1)

        come = barrier.meet()
        if not mine:
            assert not come
            assert barrier.late() == [1]
            os.write(writing, b"!")
        wait(barrier)
        assert barrier.late() == []

    assert in_processes(2, work) == [0, 0]


def test_process_whose_first_words_differ_is_named():
    def work(barrier, mine):
        row = SharedRow(3, 3, mine)
        row.numbers[:] = 5.0, 6.0, mine
        assert gather(barrier, row, SharedRow.TITLE + 2) == sync.ALIKE
        row.numbers[1] = 7.0 if mine == 1 else 6.0
        assert gather(barrier, row, SharedRow.TITLE + 2) == (0 if mine == 1 else 1)

    assert in_processes(3, work) == [0, 0, 0]


def test_dead_process_that_nobody_has_waited_for_is_noticed_by_those_who_saw_it_run(tmp_path):
    reported = tmp_path / "dead"

    def work(barrier, mine):
        barrier.meet()
        wait(barrier)
        seen = []
        if mine == 1:
            time.sleep(0.5)
            os._exit(0)

        barrier.meet()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not barrier.met() and not seen:
            seen = barrier.dead()
            time.sleep(0.01)
        reported.write_text(str(seen))

    # Its parent waits for the other one first: until then it has ended, but is still there.
    assert in_processes(2, work) == [0, 0]
    assert reported.read_text() == "[1]"


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "aarch64-linux-gnu"])
def test_fence_is_an_instruction_where_processors_reorder(triple):
    binding = llvmlite.binding
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine()
    text = machine.emit_assembly(sync.fence_code(triple))
    assert ("dmb\tish" in text) == triple.startswith("aarch64"), text
    sync.fence()


def test_what_python_stores_for_others_comes_after_a_fence_and_what_it_loads_before(monkeypatch):
    """What `fence` sees of the cells: nothing of the store that follows it."""
    cells = np.zeros((2, HostBarrier.CELLS), np.int64)
    barrier = HostBarrier(lambda shape, dtype: cells, 0, 2)
    seen = []
    monkeypatch.setattr(sync, "fence", lambda: seen.append(cells[0, :3].tolist()))
    barrier.come()
    assert seen == [[0, *cells[0, 1:3]]]
    assert cells[0, 0] == 1
    assert barrier.late() == [1]
    assert len(seen) == 2
    host_barrier.note_process(cells[1], os.getpid())
    assert host_barrier.process_of(cells[1])[0] == os.getpid()
    assert len(seen) == 4


# Memory


def test_array_is_zero_and_shared_by_all_who_attach():
    path = shared_memory.create(shared_memory.size_of((3, 4), np.float32))
    first, second = (
        shared_memory.attach(os.open(path, os.O_RDWR), (3, 4), np.float32, part, 2)
        for part in range(2)
    )
    path.unlink()
    assert not first.any()
    first[2, 3] = 5
    assert second[2, 3] == 5


def test_array_of_no_elements_can_be_shared():
    path = shared_memory.create(shared_memory.size_of((0, 4), np.float32))
    array = shared_memory.attach(os.open(path, os.O_RDWR), (0, 4), np.float32, 0, 1)
    path.unlink()
    assert array.shape == (0, 4)


@pytest.fixture
def no_files(tmp_path, monkeypatch):
    """Have no other files lie where memory is shared."""
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)


@pytest.mark.usefixtures("no_files")
def test_too_little_memory_is_refused_with_all_that_is_needed_and_the_flag(monkeypatch):
    # 64 MiB in pages, of which 16 are taken, 4 of them by the host barrier.
    state = SimpleNamespace(f_frsize=2**12, f_blocks=2**14, f_bavail=2**14 - 2**12)
    monkeypatch.setattr(os, "statvfs", lambda path: state)
    needs = {"parameters": 30 * 2**20 + 1, "gradients": 90 * 2**20, "counts of buckets": 0}
    demand = shared_memory.MemoryPlan(needs, {"host barrier": 2**22})
    error = demand.refusal(errno.ENOSPC)
    assert isinstance(error, CommunicationError)
    assert not isinstance(error, shared_memory.NotSharedError)
    parts = r"\(parameters 30\.1, gradients 90\.0, host barrier 4\.0\)"
    must = f"must have room for 124\\.1 MiB that the ranks of this host share {parts}"
    assert re.search(rf"{must}; got 52\.0 MiB free\. ", str(error))
    # Others have taken 12 MiB, and MPI may take some more.
    assert "Give it 153 MiB in all (docker run --shm-size=153m)" in str(error)
    assert "DDBP_SHARED_MEMORY=0" in str(error)


@pytest.mark.usefixtures("no_files")
def test_memory_that_others_take_meanwhile_is_asked_for_on_top(monkeypatch):
    monkeypatch.setattr(
        os, "statvfs", lambda path: SimpleNamespace(f_frsize=2**12, f_blocks=2**14, f_bavail=2**14)
    )
    said = str(shared_memory.MemoryPlan({"parameters": 2**20}, {}).refusal(errno.ENOSPC))
    assert "got 64.0 MiB free, of which others have taken some since. " in said
    assert "--shm-size=81m" in said


def test_file_that_a_rank_does_not_see_means_that_memory_is_not_shared():
    assert isinstance(
        shared_memory.MemoryPlan({"host barrier": 8}, {}).refusal(errno.ENOENT),
        shared_memory.NotSharedError,
    )
