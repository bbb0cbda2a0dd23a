"""AdaGrad."""

from ddbp.reduction.partition import Chunk, Partition
from layers.checks import non_negative
from layers.kernels import updates
from layers.types import Array

from .eight_bits import no_state_bits
from .groups import Groups
from .optimizer import Optimizer
from .schedule import Schedule


class AdaGrad(Optimizer):
    """s += g², w -= η g / (√s + ε) (Duchi, Hazan and Singer 2011, figure 1, diagonal).

    Parameters
    ----------
    learning_rate
        η: a number, or a `Schedule` of the step.
    initial
        What s begins with, at least 0.
    epsilon
        ε, at least 0.
    weight_decay
        λ: λ w is added to the gradient of weights, not of biases.
    groups
        Options of their own for some parameters: see `Optimizer`.
    """

    blockwise = True
    slots = ("total",)

    @no_state_bits("what it adds up must not be rounded")
    def __init__(
        self,
        learning_rate: float | Schedule = 1e-2,
        *,
        initial: float = 0.0,
        epsilon: float = 1e-10,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, groups=groups)
        self.initial = non_negative("AdaGrad", "initial", initial)
        self.epsilon = non_negative("AdaGrad", "epsilon", epsilon)

    def begin(self, part: Partition) -> None:
        for span in self.spans(part):
            self.moments["total"][span.start : span.stop] = self.initial

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        self.apply(updates.adagrad, chunk, moments, (rate, self.epsilon))
