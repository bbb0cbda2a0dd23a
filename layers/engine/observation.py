"""What layers observe of a step, and learn once all ranks have told theirs."""

from collections.abc import Callable
from typing import NamedTuple

from layers.types import Array


class Observation(NamedTuple):
    """What a layer has observed of the shards, and what it wants to be told then.

    Attributes
    ----------
    numbers
        Those of the local shards (S, k) or, if `gathered`, of all.
    apply
        Called with the numbers of all.
    gathered
        Whether there is nothing left to gather.
    """

    numbers: Array
    apply: Callable[[Array], None]
    gathered: bool
