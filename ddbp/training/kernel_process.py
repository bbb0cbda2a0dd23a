"""A process that compiles kernels for a trainer, which finds their code in the cache.

    python -m ddbp.training.kernel_process [all-cores]

reads a kernel from each line of standard input, and answers with an empty line once it has code.
"""

import os
import sys
from contextlib import suppress

from layers.kernels import ahead


def main() -> None:
    """Compile what is read, until there is nothing more."""
    # Not to stay on the cores of the process that has started this one.
    if "all-cores" in sys.argv and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
    for line in sys.stdin.buffer:
        ahead.of_line(line).compile()
        print(flush=True)


if __name__ == "__main__":
    main()
