"""Send, broadcast and share arrays of more elements than a C int counts, or pretend that fewer are
too many for a message.

Usage: large.py ELEMENTS LARGEST …; ELEMENTS of one byte each, messages of at most LARGEST of them.
"""

import sys
from unittest import mock

import numpy as np
from verdict import assert_on_all_ranks

import ddbp
from ddbp.comm import mpi_messages
from ddbp.comm.base import CollectiveKind


def main() -> None:
    """Try all."""
    elements, *largest = map(int, sys.argv[1:])
    for number in largest:
        with mock.patch.object(mpi_messages, "LARGEST", number):
            transfer(ddbp.communicator(), elements)


def transfer(comm, elements):
    """Send from rank 0 to rank 1."""
    # Zeros take no memory where nothing is written, and what arrives in the wrong place is seen by
    # its neighbours.
    places = np.unique(
        np.array(
            [
                0,
                1,
                elements // 2,
                elements - 2,
                elements - 1,
                min(2**31, elements - 1),
                2**30 % elements,
            ]
        )
    )
    values = (places % 251 + 1).astype(np.uint8)
    shared = len(comm.hosts) == 2
    array = comm.host_array((elements,), np.uint8) if shared else np.zeros(elements, np.uint8)
    if comm.rank == 0:
        array[places] = values
    if not shared:
        # Of two axes, as the sums of several pieces of the tree are.
        message = array.reshape(1, -1)
        sends, receives = ([(1, message)], []) if comm.rank == 0 else ([], [(0, message)])
        comm.sendrecv((CollectiveKind.EXCHANGE, 1), sends, receives)
    comm.host_barrier((CollectiveKind.PUBLISH, 1))
    assert_on_all_ranks((array[places] == values).all(), "all marks have arrived")
    assert_on_all_ranks(np.count_nonzero(array) == len(places), "nothing else has")
    if not shared:
        if comm.rank == 1:
            array[places] = 0
        comm.broadcast(array)
        assert_on_all_ranks(
            (array[places] == values).all() and np.count_nonzero(array) == len(places),
            "it is broadcast",
        )
    if comm.rank == 0:
        print(len(comm.hosts) - 1)


if __name__ == "__main__":
    main()
