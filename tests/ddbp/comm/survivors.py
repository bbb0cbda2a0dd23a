"""A job of forked processes that meet, are killed at chosen places, and go on: what
`HostCommunicator` promises, without a launcher and without training.

A step adds numbers of shards, whoever computes them, in meetings of every kind; a step that a death
has spoilt is done again. So the total tells whether anything was lost or counted twice.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddbp.comm import members as members_module
from ddbp.comm.base import CollectiveKind, RankLost
from ddbp.comm.host import HostCommunicator
from ddbp.comm.host_barrier import WORDS, HostBarrier, SharedRow, compile_kernels
from ddbp.comm.members import Members

STEPS, SHARDS = 6, 5
SECONDS = 120.0
TOTAL = sum(step * SHARDS + shard for step in range(STEPS) for shard in range(SHARDS))
MEETINGS = 14
"""Meetings of a step."""
LET_IN = 2
"""The steps after which newcomers are let in, if any wait."""

LOOP = "the steps"
ALL_LOST = 7
"""The exit status of a newcomer which finds that nobody is left who could tell it the state."""


class Kill(NamedTuple):
    """Where a process kills itself, or stops: at an event, after so many of this kind."""

    event: str
    after: int = 0
    signal: int = signal.SIGKILL


class Ended(NamedTuple):
    """How a process has ended: its exit status, and what it has told."""

    status: int
    told: dict[str, Any]


def one_step(comm: HostCommunicator, step: int) -> float:
    """Return the sum of what the shards of a step give, having met for it in every way."""
    own = np.zeros(SHARDS)
    for shard in range(comm.rank, SHARDS, comm.size):
        own[shard] = step * SHARDS + shard
    total = comm.all_gather(own).sum()
    comm.host_barrier((CollectiveKind.PUBLISH, step))
    shared = comm.host_array((comm.size,), np.float64)
    shared[comm.rank] = own.sum()
    wide = SharedRow(2 * WORDS - 10, comm.size, comm.rank)
    wide.numbers[:] = own.sum()
    comm.gather((CollectiveKind.GATHER, step), wide)
    assert wide.all[:, -1].sum() == shared.sum() == total
    told = np.array([float(comm.slot)])
    comm.broadcast(told)
    assert told[0] == comm.slots[0]
    with comm.leader_first():
        pass
    return float(total)


def train(comm: HostCommunicator, folder: Path) -> None:
    """Take steps with whoever is left, and let newcomers in after each; tell how it went."""
    told: dict[str, Any] = {"lost": [], "let in": [], "seconds": []}
    state = np.zeros(2)
    if comm.newcomer:
        told["let in"].append(comm.knock(LOOP))
        hand_over(comm, state, told)
    while state[0] < STEPS:
        begun = time.perf_counter()
        try:
            total = one_step(comm, int(state[0]))
        except RankLost:
            told["lost"].append(comm.regroup())
            told["seconds"].append(time.perf_counter() - begun)
            continue
        state += 1, total
        if state[0] >= LET_IN:
            wait_for_newcomers(comm, folder, int(state[0]))
            let_in(comm, state, told)
    told |= {"total": state[1], "slots": comm.slots, "rank": comm.rank, "group": comm.group}
    (folder / f"told{comm.slot}").write_text(json.dumps(told))


def let_in(comm: HostCommunicator, state: np.ndarray, told: dict[str, Any]) -> None:
    """Let newcomers in, if any knock, and tell them the state."""
    while True:
        try:
            # All must find the same.
            waiting = comm.all_gather(np.array([comm.knocking(LOOP)])).any()
            if waiting and (slots := comm.admit(LOOP)):
                told["let in"].append(slots)
                break
            return
        except RankLost:
            told["lost"].append(comm.regroup())
    hand_over(comm, state, told)


def hand_over(comm: HostCommunicator, state: np.ndarray, told: dict[str, Any]) -> None:
    """Give all the state of rank 0, which is one of those that have it as long as one is left."""
    while True:
        if comm.slots[0] in told["let in"][-1]:
            sys.exit(ALL_LOST)
        try:
            comm.broadcast(state)
            return
        except RankLost:
            told["lost"].append(comm.regroup())


def wait_for_newcomers(comm: HostCommunicator, folder: Path, step: int) -> None:
    """Before the first are let in, wait until those knock whom the parent has promised."""
    promised, members = folder / "newcomers", comm._members
    end = time.monotonic() + SECONDS
    if step == LET_IN and promised.exists():
        for slot in json.loads(promised.read_text()):
            while not members.cells[slot, members_module._READY] and not members.dead([slot]):
                assert time.monotonic() < end
                time.sleep(1e-3)


def kill_at(kill: Kill) -> None:
    """Have this process kill itself at an event."""
    event, left = kill.event, [kill.after]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), kill.signal)

    def wrap(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            if not options.get("again") and event.startswith("before"):
                count()
            result = function(*arguments, **options)
            if not options.get("again") and event.startswith("after"):
                count()
            return result

        setattr(owner, name, wrapper)

    if event.endswith("a meeting"):
        for name in ("meet", "gather", "come"):
            wrap(HostBarrier, name)
    elif event.endswith("declaring"):
        wrap(Members, "declare")
    elif event.endswith("locking"):
        wrap(members_module.fcntl, "flock")
    elif event.endswith("coming to a new group"):
        wrap(Members, "come")
    elif event.endswith("inviting"):
        wrap(Members, "invite")
    elif event.endswith("an invitation"):
        wrap(Members, "invitation")
    else:
        raise ValueError(event)


def job(
    folder: Path,
    ranks: int,
    kills: Mapping[int, Kill],
    newcomers: int = 0,
    work: Callable[[HostCommunicator, Path], None] = train,
) -> dict[int, Ended]:
    """Return how the processes of a job have ended, by slot; some kill themselves."""
    slots = ranks + newcomers
    # Once for all that are forked.
    compile_kernels()
    members = Members.create(ranks, slots)
    pids: dict[int, int] = {}

    def fork(slot: int) -> None:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                comm = HostCommunicator(members.descriptor, slots, slot)
                if slot in kills:
                    kill_at(kills[slot])
                work(comm, folder)
                comm.leave()
                status = 0
            except SystemExit as left:
                status = int(left.code or 0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        pids[slot] = pid
        members.register(slot, pid)

    if newcomers:
        (folder / "newcomers").write_text(json.dumps([*range(ranks, slots)]))
    for slot in range(ranks):
        fork(slot)
    for slot in range(ranks, slots):
        members.take(slot)
        fork(slot)
    try:
        return {slot: Ended(status, told(folder, slot)) for slot, status in waited(pids).items()}
    finally:
        os.close(members.descriptor)


def waited(pids: Mapping[int, int]) -> dict[int, int]:
    """Return the exit statuses of processes, by slot; kill those that run for too long."""
    end = time.monotonic() + SECONDS
    found: dict[int, int] = {}
    while len(found) < len(pids):
        for slot in pids.keys() - found.keys():
            pid, status = os.waitpid(pids[slot], os.WNOHANG)
            if pid:
                found[slot] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            running = pids.keys() - found.keys()
            for slot in running:
                os.kill(pids[slot], signal.SIGKILL)
                os.waitpid(pids[slot], 0)
            raise TimeoutError(f"slots {sorted(running)} have not come to their end")
        time.sleep(1e-3)
    return found


def told(folder: Path, slot: int) -> dict[str, Any]:
    """Return what a process has told, nothing if it has not come to its end."""
    path = folder / f"told{slot}"
    return json.loads(path.read_text()) if path.exists() else {}


def faults(ended: Mapping[int, Ended], ranks: int, kills: Iterable[int]) -> list[str]:
    """Return what is wrong with a job of so many ranks at the beginning, of which these slots may
    have been killed.
    """
    killed = {slot for slot in kills if ended[slot].status == -signal.SIGKILL}
    left, found = sorted(ended.keys() - killed), []
    for slot, (status, said) in ended.items():
        if slot in killed:
            continue
        if killed >= {*range(ranks)}:
            # Newcomers have nobody to tell them anything, unless that has been done.
            if status not in (0, ALL_LOST):
                found.append(f"slot {slot} has ended with {status}")
        elif status:
            found.append(f"slot {slot} has ended with {status}")
        elif (said["total"], said["slots"]) != (TOTAL, left):
            found.append(f"slot {slot}: {said}")
        elif not killed >= {slot for lost in said["lost"] for slot in lost}:
            found.append(f"slot {slot} has lost {said['lost']}")
    return found
