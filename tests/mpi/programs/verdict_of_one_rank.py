"""Assert what is false on rank 1 only, then wait for all ranks, which would hang if the others had
passed.
"""

import numpy as np
from verdict import assert_on_all_ranks

import ddbp

comm = ddbp.communicator()
assert_on_all_ranks(True, "nothing")
assert_on_all_ranks(comm.rank != 1, "the rank is not 1")
comm.all_gather(np.zeros(1))
print("not reached")
