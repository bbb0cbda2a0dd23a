"""Ranks that meet again and again without training, while something happens; those that are left
let in who replaces others.

Usage: survives.py WHAT FOLDER; each rank that comes to its end writes who the ranks are then.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from patience import give_up_only_who_is_stopped

import ddbp
from ddbp.comm.base import RankLost
from ddbp.comm.host import HostCommunicator
from ddbp.comm.host_barrier import process_of
from ddbp.observers.rank_status import own_status

STEPS, AT = 20, 5
LOOP = "the steps"


def kill() -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def begin(what: str, slot: int, newcomer: bool) -> None:
    """Do what happens before ranks meet, in their program."""
    if newcomer and what == "newcomers fail":
        raise RuntimeError("the misdeed")
    if newcomer and what == "newcomers exit":
        os._exit(3)


def happen(what: str, comm: HostCommunicator, folder: Path) -> None:
    """Do what happens at a step."""
    slot = comm.slot
    if (what, slot) in (("one is killed", 1), ("newcomers fail", 1), ("newcomers exit", 1)):
        kill()
    if what == "the launcher sees too late that two are killed" and slot:
        os.kill(os.getppid(), signal.SIGSTOP)
        if slot == 1:
            # Once rank 0 has ended, which the launcher has not waited for.
            pid, _ = process_of(comm._members.cells[0])
            wake = f"while grep -s 'State:.[^Z]' /proc/{pid}/status; do sleep 0.05; done;"
            wake += f" kill -CONT {os.getppid()}"
            subprocess.Popen(wake, shell=True, start_new_session=True, stdout=subprocess.DEVNULL)
        kill()
    if (what, slot) == ("one is stopped", 1):
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "all speak":
        for _ in range(1000):
            print(*[f"{slot}"] * 20, "end")
    if what == "all are killed":
        kill()
    if what == "all are killed once" and not (folder / f"killed{slot}").exists():
        (folder / f"killed{slot}").touch()
        kill()
    if what.startswith("leave with "):
        if slot == 1:
            os._exit(int(what.removeprefix("leave with ")))
        # They might come to their end before they are ended.
        signal.pause()
    if what == "one is killed early":
        signal.pause()
    if what.startswith("exit with "):
        sys.exit(int(what.removeprefix("exit with ")))


def main() -> None:
    """Meet; at a step something happens."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "one is stopped":
        give_up_only_who_is_stopped()
    comm = ddbp.communicator()
    if what == "one is killed early" and comm.slot == 1:
        kill()
    if status := own_status(comm.slot):
        status.begin({})
    begin(what, comm.slot, comm.newcomer)
    state = np.zeros(1)
    if comm.newcomer:
        comm.knock(LOOP)
        comm.broadcast(state)
    while state[0] < STEPS:
        if state[0] == AT:
            happen(what, comm, folder)
        try:
            knocking = comm.all_gather(np.array([comm.knocking(LOOP)])).any()
        except RankLost:
            comm.regroup()
            continue
        if knocking and comm.admit(LOOP):
            comm.broadcast(state)
            continue
        # With one that is to come the last step waits.
        if what != "one is killed" or state[0] < STEPS - 1 or comm.size == 3:
            state += 1
        time.sleep(1e-3)
    (folder / f"slots{comm.slot}").write_text(str(comm.slots))
    if what.startswith("be killed") and comm.slot == 1:
        kill()
    while what == "be killed before others end" and len(comm._members._used) == 3:
        # Until the launcher has seen it, and another one is to replace it.
        time.sleep(1e-3)


if __name__ == "__main__":
    main()
