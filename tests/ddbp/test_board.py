"""Meetings in shared memory: nobody reads too early, nobody waits for ever, and the memory goes with its arrays."""

import errno
import mmap
import os
import signal
import time

import numpy as np
import pytest

from ddbp import shared_memory
from ddbp.board import WORDS, Board, Row
from ddbp.communicator import CommunicationError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SECONDS = 60.0


def in_processes(count, work):
    """Run `work(board, mine, wait)` in so many processes; each must return None."""
    memory = [mmap.mmap(-1, 8 * (1024 + 2 * count * WORDS)) for _ in range(2)]
    pids = []
    for mine in range(count):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                given = iter(memory)

                def allocate(shape, dtype, given=given):
                    return np.frombuffer(next(given), dtype, int(np.prod(shape))).reshape(shape)

                work(Board(allocate, mine, count), mine, patient)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def patient(met):
    """Wait, but not for ever."""
    end = time.monotonic() + SECONDS
    while not met():
        assert time.monotonic() < end, "nobody came"
        time.sleep(1e-5)


@pytest.mark.parametrize("count", [2, 5])
def test_every_process_reads_what_the_others_wrote_before_they_met(count):
    def work(board, mine, wait):
        rng = np.random.default_rng(mine)
        row = Row(7, count)
        for step in range(100):
            if rng.random() < 0.05:
                time.sleep(rng.random() * 2e-3)
            row.numbers[:] = 1000.0 * step + mine
            assert board.gather(row.received, row.sent, 0, wait) == -1
            assert (row.all == 1000.0 * step + np.arange(count)[:, np.newaxis]).all()

    assert in_processes(count, work) == [0] * count


def test_process_that_has_not_come_is_known_to_those_who_wait():
    reading, writing = os.pipe()

    def work(board, mine, wait):
        if mine:
            os.read(reading, 1)

        def look(met):
            assert not met()
            assert board.late() == [1]
            os.write(writing, b"!")
            wait(met)

        board.meet(wait if mine else look)
        assert board.late() == []

    assert in_processes(2, work) == [0, 0]


def test_process_whose_first_words_differ_is_named():
    def work(board, mine, wait):
        row = Row(3, 3)
        row.numbers[:] = 5.0, 6.0, mine
        assert board.gather(row.received, row.sent, Row.TITLE + 2, wait) == -1
        row.numbers[1] = 7.0 if mine == 1 else 6.0
        assert board.gather(row.received, row.sent, Row.TITLE + 2, wait) == (0 if mine == 1 else 1)

    assert in_processes(3, work) == [0, 0, 0]


def test_dead_process_is_noticed_by_those_who_saw_it_run(tmp_path):
    reported = tmp_path / "dead"

    def work(board, mine, wait):
        board.meet(wait)
        seen = []
        if mine == 1:
            time.sleep(0.5)
            os._exit(0)

        def until_dead(met):
            end = time.monotonic() + SECONDS
            while time.monotonic() < end and not met():
                seen[:] = board.dead()
                if seen:
                    return
                time.sleep(0.01)

        board.meet(until_dead)
        reported.write_text(str(seen))

    # With this nobody needs to wait for a child that has ended, as a launcher does.
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(ChildProcessError):
            in_processes(2, work)
    finally:
        signal.signal(signal.SIGCHLD, previous)
    assert reported.read_text() == "[1]"


# Memory


def test_array_is_zero_and_shared_by_all_who_attach():
    path = shared_memory.create(shared_memory.size_of((3, 4), np.float32))
    first, second = (shared_memory.attach(os.open(path, os.O_RDWR), (3, 4), np.float32, part, 2) for part in range(2))
    path.unlink()
    assert not first.any()
    first[2, 3] = 5
    assert second[2, 3] == 5


def test_array_of_no_elements_can_be_shared():
    path = shared_memory.create(shared_memory.size_of((0, 4), np.float32))
    array = shared_memory.attach(os.open(path, os.O_RDWR), (0, 4), np.float32, 0, 1)
    path.unlink()
    assert array.shape == (0, 4)


def test_too_little_memory_is_refused_with_the_size_and_the_flag():
    error = shared_memory.refusal(3_000_000_000, errno.ENOSPC)
    assert isinstance(error, CommunicationError)
    assert not isinstance(error, shared_memory.NotSharedError)
    assert "must have room for 3,000.0 MB that the ranks of this host share; got " in str(error)
    assert "--shm-size" in str(error)
    assert "DDBP_SHARED_MEMORY=0" in str(error)


def test_file_that_a_rank_does_not_see_means_that_memory_is_not_shared():
    assert isinstance(shared_memory.refusal(8, errno.ENOENT), shared_memory.NotSharedError)
