"""The base of optimizers: fused updates of this rank's partition of the flat parameters. Their
state is sharded because slices are.
"""

from typing import Any

import numpy as np

from ddbp.reduction.partition import Chunk, Partition
from ddbp.snapshot import Schema, State, below, integer, like
from layers.checks import fraction, non_negative
from layers.errors import message
from layers.kernels import optimizer as kernels
from layers.types import Array

from .clipping import add_penalty
from .schedule import Schedule, as_schedule

USUAL = "0.9 is usual."
"""What helps who gives a decay rate that is none."""


def decay_rates(owner: str, betas: Any) -> tuple[float, float]:
    """Return a pair of decay rates, each in [0, 1)."""
    if not (isinstance(betas, tuple | list) and len(betas) == 2):
        fix = "betas=(0.9, 0.999) are usual."
        raise ValueError(message(owner, "betas must be a pair of numbers", repr(betas), fix))
    return fraction(owner, "betas", betas[0], USUAL), fraction(owner, "betas", betas[1], USUAL)


class Optimizer:
    """Base of optimizers.

    Parameters
    ----------
    learning_rate
        A number or a `Schedule`.
    weight_decay
        λ: λ w is added to the gradient of the regularized parameters (weights, not biases), or the
        weights themselves decay, where it is `decoupled`.
    """

    decoupled = False
    """Whether weight decay is w *= 1 - η λ before the update."""
    slots: tuple[str, ...] = ()
    """Names of the moments, arrays each as large as the partition."""
    whole = False
    """Whether the gradient of the whole partition must be there at once."""

    def __init__(self, learning_rate: float | Schedule, *, weight_decay: float = 0.0) -> None:
        self.schedule = as_schedule(learning_rate)
        self.weight_decay = non_negative(type(self).__name__, "weight_decay", weight_decay)
        self.moments: dict[str, Array] = {}
        self.steps = 0
        self._part: Partition | None = None

    def __repr__(self) -> str:
        shown = {
            name: value
            for name, value in vars(self).items()
            if name not in ("moments", "steps", "schedule", "slots") and name[0] != "_"
        }
        arguments = ", ".join(
            [repr(self.schedule), *(f"{name}={value!r}" for name, value in shown.items())]
        )
        return f"{type(self).__name__}({arguments})"

    def bind(self, part: Partition) -> None:
        """Allocate the moments of a partition, `part`, which this optimizer belongs to from now
        on.
        """
        self.moments = {name: np.zeros_like(part.values) for name in self.slots}
        self._moments_of_chunks = [
            {name: array[c.start : c.stop] for name, array in self.moments.items()}
            for c in part.chunks
        ]
        self.steps = 0
        self._part = part

    def require_bound(self, part: Partition) -> None:
        """Refuse a partition, `part`, that this optimizer does not belong to any more.

        Raises
        ------
        RuntimeError
            Another trainer was made with this optimizer since.
        """
        if self._part not in (None, part):
            must, fix = (
                "the optimizer must belong to this trainer",
                "Make an optimizer for each trainer.",
            )
            raise RuntimeError(
                message(
                    "Trainer", must, f"{self!r}, with which another trainer was made since", fix
                )
            )

    def step(self, part: Partition) -> None:
        """Update the partition by its gradient, at the schedule's rate of this step."""
        self.require_bound(part)
        rate = float(self.schedule.rate(self.steps))
        self.steps += 1
        self.update_slice(part, rate)

    def update_slice(self, part: Partition, rate: float) -> None:
        """Update chunk by chunk, each as soon as its gradient is there."""
        for chunk, moments in zip(part.chunks, self._moments_of_chunks, strict=True):
            part.fetch(chunk)
            if self.weight_decay:
                self.decay(chunk, rate)
            self.update(chunk, moments, rate)

    def decay(self, chunk: Chunk, rate: float) -> None:
        """Apply weight decay, to the gradient or, if it is decoupled, to the weights."""
        if not self.decoupled:
            add_penalty(chunk, 0.0, self.weight_decay)
            return
        for start, stop in chunk.regularized:
            kernels.scale(chunk.values[start:stop], 1 - rate * self.weight_decay)

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        """Update chunk.values by chunk.gradient and its part of the moments."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return the steps taken, the state of the schedule, and the moments of each parameter,
        whole; collective.
        """
        assert self._part is not None
        return {
            "steps": self.steps,
            **{f"schedule.{name}": value for name, value in self.schedule.state().items()},
            **{
                f"{slot}.{name}": whole
                for slot, array in self.moments.items()
                for name, whole in self._part.to_named(array).items()
            },
        }

    def state_schema(self, state: State) -> Schema:
        """Return what all entries of a state must be, if it is to be loaded; collective."""
        schedule = self.schedule.state_schema(below("schedule", state))
        return {
            **like(self.state()),
            **{f"schedule.{name}": entry for name, entry in schedule.items()},
            "steps": integer(0),
        }

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned, on any number of ranks."""
        assert self._part is not None
        self.steps = state["steps"]
        self.schedule.load_state(below("schedule", state))
        for slot, array in self.moments.items():
            self._part.from_named(array, below(slot, state))
