"""Gradient accumulation: batches of a group add to one update, which is that of one batch with the
samples of all of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from ddbp.reduction.reducer import Reducer
from layers import Tape, Value
from layers.errors import message
from layers.types import Array


class Accumulation:
    """Decides which batches make a group that one update is for, and keeps what they have
    contributed since the last one.

    A batch's loss L_i is a mean over M_i samples (or Σ w of a loss with weights), and so is its
    gradient. The mean over the group is Σ M_i L_i / Σ M_i. How large the group becomes is not known
    beforehand: gradients add up as Σ (M_i / M_1) ∇L_i, and the update multiplies by M_1 / Σ M_i.
    Where all batches are of one size, the first factor is 1; for a single batch, both are.

    Parameters
    ----------
    every
        Batches of a group.
    reduction
        Where gradients go when a group ends.

    Attributes
    ----------
    batches, samples
        How many batches, and samples of global batches, the group has so far.
    updated
        How many samples the last update was for.
    last
        The tape of a batch that ends its group, however many came before it.
    sums
        The loss sums of this rank's shards, (local S,), in units of the first batch.
    observed
        What layers have observed, and shall be told once of all shards: in the update, as it takes
        the other ranks.
    """

    def __init__(self, every: int, reduction: Reducer) -> None:
        self.every, self._reduction = every, reduction
        self.last: Tape | None = None
        self.held = False
        """Whether gradients accumulate whatever the number of batches."""
        self.samples = 0
        self.clear()

    def clear(self) -> None:
        """Begin a new group, after an update."""
        self.updated = self.samples
        self._begin()

    def _begin(self) -> None:
        self.samples = self.batches = 0
        self.sums: Array = np.zeros(0)
        self.observed: list[tuple[Array, Callable[[Array], None]]] = []
        self._first = self._total = 0.0
        self._divisor = 1

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Return a context in which no group ends."""
        before, self.held = self.held, True
        try:
            yield
        finally:
            self.held = before

    def factor(self, loss: Value) -> float:
        """Return M_i / M_1 of the next batch."""
        return _weight(loss) / self._first if self._first else 1.0

    def backward(self, loss: Value, gradient: Any = None, **options: Any) -> None:
        """Propagate backwards from the loss of the next batch, with its factor.

        If that fails, the group begins anew: what the pass has added cannot be told from what had
        accumulated.
        """
        factor = self.factor(loss)
        if factor != 1:
            gradient = (
                np.full(loss.shape, factor) if gradient is None else np.asarray(gradient) * factor
            )
        ends = self._ends(self.batches + 1, loss.tape)
        # Until kernels have been compiled, by the first update, passes may only be for practice.
        try:
            with (
                self._reduction.overlapping(loss.tape, send=bool(self.updated))
                if ends
                else nullcontext()
            ):
                loss.backward(gradient, **options)
        except BaseException:
            self._reduction.flat.zero_gradients()
            self._begin()
            raise

    def require_no_factor(self, loss: Value) -> None:
        """Refuse a batch whose gradient had to be multiplied, and was not."""
        if self.factor(loss) != 1:
            must = (
                "a batch of another size than the first that accumulates must be propagated"
                " backwards by step"
            )
            fix = "Call trainer.step(loss) instead of loss.backward() and trainer.update(loss)."
            raise ValueError(
                message(
                    "Trainer.update", must, f"{_weight(loss):g} samples after {self._first:g}", fix
                )
            )

    def add(self, loss: Value, sums: Array) -> None:
        """Count a batch whose gradient has been added, with the sums over each of this rank's
        shards that its loss is made of.
        """
        assert loss.tape.samples is not None
        weight = _weight(loss)
        if not self._first:
            # What came before, if anything, was of no weight.
            self._first, self._divisor = weight, loss.tape.samples
            self.sums = np.array(sums)
        else:
            self.sums = self.sums + sums * (
                weight * self._divisor / (loss.tape.samples * self._first)
            )
        self._total += weight
        self.batches += 1
        self.samples += loss.tape.samples

    def goes_on(self, tape: Tape) -> bool:
        """Return whether the group goes on after the batch on this tape; if so, keep what layers
        have observed in it.
        """
        if self._ends(self.batches, tape):
            return False
        # The memory is used again by the next batch.
        self.observed += [(numbers.copy(), apply) for numbers, apply in tape.pending]
        return True

    def _ends(self, batches: int, tape: Tape) -> bool:
        """Return whether the group ends with the batch on this tape, with so many batches."""
        return not self.held and (batches >= self.every or tape is self.last)

    @property
    def scale(self) -> float:
        """M_1 / Σ M_i, which the summed gradient is multiplied by."""
        return self._first / self._total if self._total else 1.0

    def loss(self, total: float) -> float:
        """Return the mean loss over the group, given the sum of `sums` over all shards of all
        ranks.
        """
        return total / self._divisor * self.scale


def _weight(loss: Value) -> float:
    """Return what a loss is a mean over: the samples of the global batch, or the sum of its
    weights.
    """
    divisor = loss.divisor
    return float(loss.tape.samples or 0) if divisor is None else divisor
