"""Gather rows of many lengths, some longer than ranks of a host can show each other at once; every
rank checks all of them.
"""

import numpy as np
from verdict import assert_on_all_ranks

import ddbp
from ddbp.comm.base import CollectiveKind
from ddbp.comm.host_barrier import WORDS, SharedRow

LENGTHS = (
    1,
    60,
    61,
    62,
    1000,
    WORDS - SharedRow.TITLE,
    WORDS - SharedRow.TITLE + 1,
    WORDS,
    2 * WORDS,
    3 * WORDS + 1,
)


def main() -> None:
    """Gather."""
    comm = ddbp.communicator()
    for length in LENGTHS:
        row = SharedRow(length, comm.size, comm.rank, np.int64)
        # Whatever was in the memory before must not matter.
        row.all[...] = -1 - comm.rank
        row.numbers[:] = 10**6 * comm.rank + np.arange(length)
        equal = comm.gather((CollectiveKind.GATHER, length), row)
        expected = 10**6 * np.arange(comm.size)[:, np.newaxis] + np.arange(length)
        assert_on_all_ranks(
            equal and (row.all == expected).all(), f"rows of {length} numbers are right"
        )
        text = f"{comm.rank}" * length
        assert_on_all_ranks(
            comm.all_gather(np.frombuffer(text.encode(), np.uint8)).shape == (comm.size, length),
            f"texts of {length} letters are gathered",
        )
    # Numbers that must be the same are compared wherever they stand.
    for length in (5, 2 * WORDS):
        row = SharedRow(length, comm.size, comm.rank, np.int64)
        row.numbers[:] = 0
        assert_on_all_ranks(
            comm.gather((CollectiveKind.GATHER, 0), row, same=2), "equal rows are equal"
        )
        row.numbers[2:] = comm.rank
        assert_on_all_ranks(
            comm.gather((CollectiveKind.GATHER, 0), row, same=2), "what may differ may differ"
        )
        row.numbers[1] = comm.rank == comm.size - 1
        assert_on_all_ranks(
            not comm.gather((CollectiveKind.GATHER, 0), row, same=2), "a rank that differs is seen"
        )
    if comm.rank == 0:
        print(np.diff(comm.hosts).tolist())


if __name__ == "__main__":
    main()
