"""What a range test of learning rates has found: losses at rates that rise from step to step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from ddbp import figures, files
from layers.errors import message

SMOOTHING = 0.9
"""Of the losses: the weight of those before, as of momentum."""
MARGIN = 10.0
"""The rate of the least loss is so many times too high: there the loss no longer falls."""
_FELL = 0.02
"""A loss has fallen if it is less by this part of the first."""
_ENDINGS = (".svg", ".png", ".pdf")
_FIX = "Pass what lr_find returns."


@dataclass(frozen=True)
class RateRange:
    """The losses of a range test (Smith 2017, section 3.3): one step for each learning rate, each
    higher than the one before.

    The suggestion is a tenth of the rate at which the smoothed loss is least. There is none where
    that loss has not fallen by 2 % of the first, or still falls at the last rate.

    >>> found = ddbp.lr_find(trainer, training)
    >>> found.suggestion
    >>> found.save("rates.svg")

    Parameters
    ----------
    rates
        Learning rates in their order, positive (K,).
    losses
        The loss of each step (K,), infinite where numbers were not finite.

    Attributes
    ----------
    smoothed
        Means of the losses (K,) in which those before count 0.9 times as much from step to step.
    suggestion
        A learning rate to begin with; None where the losses tell nothing.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: list[float] = field(init=False)
    suggestion: float | None = field(init=False)

    def __post_init__(self) -> None:
        rates, losses = (_numbers(name, getattr(self, name)) for name in ("rates", "losses"))
        if not rates or len(rates) != len(losses):
            must, got = "there must be a loss for each rate", f"{len(rates)} and {len(losses)}"
            raise ValueError(message("RateRange", must, got, _FIX))
        if not all(0 < one < math.inf for one in rates) or sorted(rates) != rates:
            must, got = "rates must be positive, and rise", str(rates)[:80]
            raise ValueError(message("RateRange", must, got, _FIX))
        smoothed = smooth(losses)
        least = min(range(len(rates)), key=lambda i: _order(smoothed[i]))
        tells = self._tells(smoothed, least)
        for name, value in (
            ("rates", rates),
            ("losses", losses),
            ("smoothed", smoothed),
            ("suggestion", rates[least] / MARGIN if tells else None),
        ):
            object.__setattr__(self, name, value)

    @staticmethod
    def _tells(smoothed: list[float], least: int) -> bool:
        first = smoothed[0]
        fell = first - smoothed[least] > _FELL * abs(first)
        return bool(math.isfinite(first) and fell and least < len(smoothed) - 1)

    @property
    def verdict(self) -> str:
        """What the losses say, in a sentence."""
        if self.suggestion is not None:
            least = self.suggestion * MARGIN
            return (
                f"The loss is least at {least:.2g}, so begin with a tenth of that:"
                f" {self.suggestion:.2g}."
            )
        if min(self.smoothed, key=_order) == self.smoothed[-1] < self.smoothed[0]:
            return f"The loss still falls at {self.rates[-1]:.2g}: try higher rates."
        return (
            f"The loss has not fallen between {self.rates[0]:.2g} and {self.rates[-1]:.2g}: try"
            " lower rates, more steps, or look at the data and the loss."
        )

    def figure(self) -> Any:
        """Return the losses over the rates as a `matplotlib.figure.Figure`."""
        lines = {"loss": self.losses, "smoothed": self.smoothed}
        return figures.over_rates(self.rates, lines, self.suggestion)

    def save(self, path: str | Path) -> None:
        """Write the figure to a file, whose name ends in .svg, .png or .pdf.

        Parameters
        ----------
        path
            The file; one that is there is replaced.

        Raises
        ------
        ImportError
            matplotlib is not installed: `pip install "ddbp[report]"`.
        ValueError
            The name ends otherwise.
        OSError
            The file cannot be written.
        """
        target = self.require_picture(path)
        drawn = self.figure()
        try:
            with files.whole(target) as place:
                drawn.savefig(place, format=target.suffix.lower()[1:])
        except OSError as error:
            raise files.unwritable("RateRange.save", target, error) from error

    @staticmethod
    def require_picture(path: Any) -> Path:
        """Return the path of a picture, or refuse what is none."""
        target = Path(path) if isinstance(path, str | Path) else None
        if target is None or target.suffix.lower() not in _ENDINGS:
            must = f"the name of the picture must end in {', '.join(_ENDINGS)}"
            raise ValueError(message("RateRange.save", must, repr(path), "rates.svg is usual."))
        return target


def smooth(losses: Sequence[float]) -> list[float]:
    """Return means of losses in which each counts `SMOOTHING` times as much as the one after it;
    infinite from the first on that is not finite.
    """
    mean, mass, result = 0.0, 0.0, list[float]()
    for loss in losses:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        mass = SMOOTHING * mass + (1 - SMOOTHING)
        result.append(mean / mass if math.isfinite(mean) else math.inf)
    return result


def _order(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _numbers(name: str, values: Any) -> list[float]:
    """Return numbers as a list, or refuse what is none."""
    try:
        found = [*values]
    except TypeError:
        found = [None]
    if not all(isinstance(each, Real) for each in found):
        must = f"{name} must be a list of numbers"
        raise TypeError(message("RateRange", must, repr(values)[:80], _FIX))
    return [float(each) for each in found]
