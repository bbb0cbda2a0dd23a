"""Exchange numbers between two hosts of two ranks, of which one is killed when the other host has
got all of them already, and has gone on.

Usage: joints.py FOLDER; every rank that is left writes what it got, in which joint it learnt of the
loss, who is lost, and the hosts then.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
from launcher import await_files

import ddbp
from ddbp.comm.base import CollectiveKind, RankLost

KILLED = 2


def main() -> None:
    """Exchange twice."""
    comm, folder = ddbp.communicator(), Path(sys.argv[1])
    slot, topology = comm.slot, comm.topology
    mine, theirs, total = (np.full(3, value) for value in (1.0 + topology.own, 0.0, 0.0))
    sends = [(rank, mine) for rank in topology.send_to]
    receives = [(rank, theirs) for rank, _ in topology.receive_from]
    number = 0
    try:
        for number in (1, 2):
            with comm.joint((CollectiveKind.EXCHANGE, number), [total]):
                comm.sendrecv((CollectiveKind.EXCHANGE, number), sends, receives)
                if slot == KILLED:
                    await_files(folder, "done*", 2)
                    os.kill(os.getpid(), signal.SIGKILL)
                # The neighbour of who is killed gets it from the other host.
                if slot != KILLED + 1:
                    total[:] = mine + theirs
            (folder / f"done{slot}").touch()
    except RankLost as lost:
        slots, regrouped = lost.slots, comm.regroup()
    everywhere = comm.all_gather(np.array([number]))
    np.savez(
        folder / f"rank{slot}.npz",
        total=total,
        numbers=everywhere[:, 0],
        lost=[slots, regrouped],
        hosts=comm.hosts,
    )


if __name__ == "__main__":
    main()
