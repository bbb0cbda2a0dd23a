"""An assert that all ranks pass or fail together, so that a failure cannot leave the others
waiting.
"""

import numpy as np

from ddbp import communicator


def assert_on_all_ranks(condition: object, text: str) -> None:
    """Raise on every rank, naming those on which the condition is false, unless it is true on all;
    collective.
    """
    verdicts = communicator().all_gather(np.array([bool(condition)], np.int64))[:, 0]
    failing = np.flatnonzero(verdicts == 0).tolist()
    if failing:
        raise AssertionError(f"{text}: not so on ranks {failing}")
