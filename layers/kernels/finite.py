"""Whether numbers are finite."""

import numpy as np

from .jit import kernel
from .llvm.vmath import number


@kernel
def any_not_finite(x, starts, sizes, part, turn):
    """Returns whether a number of x (R, n) is NaN or infinite in the columns that it looks at: of
    each stretch of sizes[i] of them, from starts[i] on, `part` neighbours at most, which are others
    in every `turn` until all have had theirs.
    """
    limit, found = number(x, np.inf), False
    for i in range(starts.size):
        turns = max(1, (sizes[i] + part - 1) // part)
        begin = turn % turns * part
        start, stop = starts[i] + begin, starts[i] + min(begin + part, sizes[i])
        for r in range(len(x)):
            row = x[r, start:stop]
            for j in range(row.size):
                found |= not abs(row[j]) < limit
    return found
