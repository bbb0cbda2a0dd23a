"""An update that dies is finished by another process, to the bit; the log is what makes it so."""

import ctypes
import mmap
import os
import random
import signal

import numpy as np
import pytest

import ddbp
from ddbp.comm.serial import SerialCommunicator
from ddbp.optim.clipping import adjustment
from ddbp.optim.journal import Journal
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan
from layers import Layer, Parameter
from layers.kernels.packed import elements
from layers.kernels.underflow import flush, restore
from layers.kernels.updates import BEGUN, COUNT, DONE, PLACE, UNDO_BLOCK

from .table import BY_BLOCKS, WHOLE

MINE, THEIRS = 0, 1
"""Slots: of who survives and of who dies."""


class Shared(SerialCommunicator):
    """One process whose arrays its children share."""

    def host_array(self, shape, dtype):
        count = int(np.prod(shape))
        size = max(count * np.dtype(dtype).itemsize, 1)
        return np.frombuffer(mmap.mmap(-1, size), dtype, count).reshape(shape)


class Weights(Layer):
    """Parameters alone, of which some decay."""

    def __init__(self, size, dtype=np.float32):
        rng = np.random.default_rng(0)
        self.first = Parameter(rng.standard_normal((size, 50)).astype(dtype))
        self.bias = Parameter(rng.standard_normal(70).astype(dtype), regularized=False)
        self.second = Parameter(rng.standard_normal((7, 11)).astype(dtype))


class Job:
    """An optimizer after two steps, with what its third begins with, `before`, and leaves,
    `after`: parameters and moments.
    """

    def __init__(self, make, size=6, dtype=np.float32, log=True, **options):
        comm, self.optimizer = Shared(), make()
        model = Weights(size, dtype)
        # Two sums of shards, which are added up where a chunk is fetched.
        self.reducer = Reducer(model, ShardPlan(3, 1, 0), comm)
        groups = self.optimizer.group_numbers(dict(model.named_parameters()))
        whole = self.optimizer.whole or options.pop("whole", False)
        adjust = adjustment(0.0, options.pop("l2", 0.0), None)
        self.part = part = Partition(self.reducer, whole=whole, groups=groups, adjust=adjust)
        own = part.zeros
        part.zeros = lambda *codes: comm.host_array(own(*codes).shape, own(*codes).dtype)
        arrays = 1 + len(self.optimizer.slots) + (make is BY_BLOCKS["groups"])
        size = 0 if self.optimizer.blockwise else part.values.size
        self.journal = Journal(comm, 2, MINE, arrays, part.values.dtype, size)
        self.optimizer.bind(part, self.journal if log else None)
        rng = np.random.default_rng(1)
        self.gradients = rng.standard_normal(self.reducer.flat.gradients.shape)
        for _ in range(2):
            self.step()
        self.before = [array.copy() for array in self.arrays]
        self.step()
        self.after = [array.copy() for array in self.arrays]
        assert not any((a == b).all() for a, b in zip(self.before, self.after, strict=True))

    @property
    def arrays(self):
        return [self.part.values, *self.optimizer.moments.values()]

    def begin(self):
        """What all do before they meet ahead of an update."""
        self.reducer.flat.gradients[:] = self.gradients
        self.part.forget()
        self.journal.begin()

    def step(self):
        self.begin()
        mode = flush()
        self.optimizer.step(self.part)
        restore(mode)

    def put(self, arrays):
        for array, value in zip(self.arrays, arrays, strict=True):
            array[:] = value

    def as_the_other(self):
        """Become who dies, before its third step."""
        self.become(THEIRS, 2)

    def as_who_survives(self):
        """Become who has taken its third step."""
        self.become(MINE, 3)

    def become(self, slot, steps):
        self.journal.slot = slot
        self.journal.cells, self.journal.log = self.journal._rows[slot]
        for member in self.optimizer.members:
            member.steps = steps

    def finish(self):
        mode = flush()
        self.part.forget()
        self.optimizer.finish(self.part, self.optimizer.moments, THEIRS)
        restore(mode)

    def assert_is(self, expected):
        for array, value in zip(self.arrays, expected, strict=True):
            np.testing.assert_array_equal(array, value)

    def in_a_process_that_dies(self, work, generator):
        """Do work in another process, which a timer kills soon after one of the chunks has got its
        gradient.
        """
        chosen, delay = generator.choice(self.part.chunks), generator.randrange(1, 200_000)
        pid = os.fork()
        if pid == 0:
            fetch = self.part.fetch

            def fetch_and_die(chunk):
                fetch(chunk)
                if chunk.start == chosen.start:
                    kill_after(delay)

            self.part.fetch = fetch_and_die
            work()
            os._exit(0)
        # No other child, such as ranks that live from test to test.
        os.waitpid(pid, 0)


def kill_after(nanoseconds):
    """Have the kernel kill this process after so long, wherever it is then."""
    libc = ctypes.CDLL(None)
    event, timer = (ctypes.c_int * 16)(0, 0, signal.SIGKILL, 0), ctypes.c_void_p()
    assert libc.timer_create(1, event, ctypes.byref(timer)) == 0
    assert libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, nanoseconds), None) == 0


def broken_off_everywhere(job):
    """Yield where an update may have been broken off: before, in and after each block."""
    blocks = [
        (start, min(start + UNDO_BLOCK, chunk.stop), 1 + len(moments))
        for chunk, moments, _ in job.optimizer._chunks
        for start in range(chunk.start, chunk.stop, UNDO_BLOCK)
    ]
    cells, log = job.journal._rows[THEIRS]
    for number, (start, stop, arrays) in enumerate(blocks):
        # Whole lines, as packed moments have them.
        middle = (start + stop) // 32 * 16
        for where, begun, done, logged, ends in (
            ("not begun", 0, 0, start, [start]),
            ("begun", 1, 0, start, [start]),
            ("half of it in the log", 1, 0, middle, [start]),
            ("half changed", 1, 0, middle, [middle]),
            ("values changed and moments not", 1, 0, stop, [stop, middle]),
            ("changed", 1, 0, stop, [stop]),
            ("done", 1, 1, stop, [stop]),
        ):
            cells[:] = -1
            cells[BEGUN], cells[DONE] = number + begun, number + done
            cells[PLACE], cells[COUNT] = start, logged - start
            log[:] = np.nan
            for saved, old in zip(log[:arrays], job.before, strict=False):
                part = elements(old, start, logged).reshape(-1)
                saved.view(old.dtype)[: part.size] = part
            for k, (array, old, new) in enumerate(
                zip(job.arrays, job.before, job.after, strict=True)
            ):
                end = ends[min(k, len(ends) - 1)]
                array[...] = old
                elements(array, 0, end)[...] = elements(new, 0, end)
            yield f"block {number}, {where}"


@pytest.mark.parametrize("name", BY_BLOCKS)
def test_update_with_a_log_has_the_bits_of_one_without(name):
    with_log, without = Job(BY_BLOCKS[name]), Job(BY_BLOCKS[name], log=False)
    without.assert_is(with_log.after)


@pytest.mark.parametrize("options", [{}, {"whole": True}, {"l2": 0.1}, {"dtype": np.float64}])
@pytest.mark.parametrize("name", BY_BLOCKS)
def test_update_that_was_broken_off_anywhere_is_finished_to_the_bit(name, options):
    job = Job(BY_BLOCKS[name], **options)
    for where in broken_off_everywhere(job):
        job.finish()
        assert all(map(np.array_equal, job.arrays, job.after)), where


def test_without_the_log_an_update_that_was_broken_off_is_wrong():
    job = Job(BY_BLOCKS["Adam"])
    wrong = 0
    for _ in broken_off_everywhere(job):
        # As if no block had been begun that is not done.
        job.journal._rows[THEIRS][0][BEGUN] = job.journal._rows[THEIRS][0][DONE]
        job.finish()
        wrong += not all(map(np.array_equal, job.arrays, job.after))
    assert wrong >= len(job.after[0]) // UNDO_BLOCK


@pytest.mark.parametrize("name", ["Adam", "groups", "AdamW in 8 bits"])
def test_process_that_is_killed_in_its_update_is_replaced_to_the_bit(name):
    job, generator, torn = Job(BY_BLOCKS[name], size=2500), random.Random(name), 0
    for _ in range(200):
        job.put(job.before)
        job.as_the_other()
        job.begin()
        job.in_a_process_that_dies(lambda: job.optimizer.step(job.part), generator)
        torn += job.journal.cells[BEGUN] != job.journal.cells[DONE]
        job.as_who_survives()
        # Who finishes may die as well.
        for _ in range(generator.randrange(3)):
            job.in_a_process_that_dies(job.finish, generator)
        job.finish()
        job.assert_is(job.after)
        if torn == 10:
            return
    assert torn


@pytest.mark.parametrize("name", WHOLE)
def test_update_that_is_not_by_blocks_is_undone_and_done_again(name):
    job = Job(WHOLE[name])
    generator = random.Random(name)
    for _ in range(20):
        job.put(job.before)
        job.as_the_other()
        job.begin()
        job.in_a_process_that_dies(lambda: job.optimizer.step(job.part), generator)
        job.as_who_survives()
        job.journal.begin()
        job.optimizer.undo([(job.part, job.optimizer.moments, THEIRS)])
        job.assert_is(job.before)


@pytest.mark.parametrize("name", WHOLE)
def test_update_of_this_rank_that_is_not_by_blocks_is_undone_with_its_step(name):
    job = Job(WHOLE[name])
    for times in (1, 2):
        job.optimizer.undo([])
        job.assert_is(job.before)
        assert [member.steps for member in job.optimizer.members] == [2]
        job.optimizer.undo([])
        assert [member.steps for member in job.optimizer.members] == [2], times
        job.step()
        job.assert_is(job.after)


def test_optimizer_with_an_update_of_its_own_is_by_blocks_only_if_it_says_so():
    class Own(ddbp.Adam):
        def update(self, chunk, moments, rate):
            chunk.values[:] -= rate * chunk.gradient

    class Says(Own):
        blockwise = True

        def update(self, chunk, moments, rate):
            super().update(chunk, moments, rate)

    class Inherits(ddbp.Adam):
        pass

    assert [each.blockwise for each in (Own, Says, Inherits, ddbp.Muon, ddbp.AdamW)] == [
        *(False, True, True, False, True),
    ]
