"""The newest state that ranks have put by is whole, whatever becomes of the one after it."""

import errno
import os
import sys

import pytest

from ddbp.comm.kept import Kept
from ddbp.comm.members import Members

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs memfd_create")


@pytest.fixture
def members():
    """Return the members of a job of two ranks."""
    made = Members.create(2, 6)
    made.kept.allowed = True
    yield made
    os.close(made.descriptor)


def begin(kept, content, text):
    """Write a state that nobody is told of yet."""
    kept.reserve(len(content) + len(text))
    kept.next(len(content) + len(text))[:] = bytearray(content + text)


def put_by(kept, content, text, step, where=2):
    """Write a state."""
    begin(kept, content, text)
    kept.publish(step, where, len(content), len(text))


def read(members):
    """Return what another process finds: number, content, text."""
    number, memory, text = Members(members.descriptor, 6).kept.newest()
    return number, memory[: len(memory) - len(text)].tobytes(), text


def test_newest_state_is_found_by_others_with_its_step_and_place(members):
    kept = Members(members.descriptor, 6).kept
    assert (kept.count, kept.step, kept.where) == (0, -1, -1)
    for step in (3, 5, 9):
        put_by(members.kept, bytes([step]) * 100 * step, b"text", step, where=step + 1)
        assert read(members) == (members.kept.count, bytes([step]) * 100 * step, b"text")
        assert (kept.step, kept.where) == (step, step + 1)


def test_state_stays_whole_while_the_next_one_is_written(members):
    put_by(members.kept, b"one" * 5000, b"first", 1)
    put_by(members.kept, b"two" * 5000, b"second", 2)
    begin(members.kept, b"torn" * 9000, b"third")
    assert read(members) == (2, b"two" * 5000, b"second")
    assert members.kept.step == 2


def test_nothing_more_is_kept_once_there_is_no_memory_for_it(members, monkeypatch):
    put_by(members.kept, b"one", b"first", 1)

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    members.kept.reserve(100)
    assert not Members(members.descriptor, 6).kept.allowed
    assert read(members)[0] == 1


def test_memory_is_taken_only_where_states_are(members):
    before = os.fstat(members.descriptor).st_blocks
    put_by(members.kept, bytes(2**20), b"text", 1)
    taken = (os.fstat(members.descriptor).st_blocks - before) * 512
    assert 2**20 <= taken <= 2**21
    assert Kept.ROOM > 2**40


def test_ranks_that_take_over_are_a_group_of_their_own(members):
    assert members.newest == [0, 1]
    members.succeed(range(2, 4))
    assert members.newest == members.of(2) == [2, 3]
    assert members.of(1) == [0, 1]
    assert [members.joined(slot) for slot in range(4)] == [1, 1, 2, 2]
