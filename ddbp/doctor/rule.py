"""Rules: what one disease looks like, why it is one, and what to try."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .finding import Changes, Finding, sentence

if TYPE_CHECKING:
    from .chart import Chart


@dataclass(frozen=True)
class Evidence:
    """What a rule has seen.

    Attributes
    ----------
    text
        A sentence without its full stop.
    layer
        Where, "" for the run.
    numbers
        The numbers in the text.
    changes
        The change to try as options of `Trainer`, `fit` or the optimizer, where there are some that
        cure it: the remedy is to set these.
    """

    text: str
    layer: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """A disease.

    Attributes
    ----------
    name
        Its name.
    look
        Returns the evidence in a chart, None if there is none.
    cause, remedy
        Why training suffers, and what to try first.
    """

    name: str
    look: "Callable[[Chart], Evidence | None]"
    cause: str
    remedy: str

    def finding(self, chart: "Chart") -> Finding | None:
        """Return what the rule finds in a chart, None if it is silent."""
        evidence = self.look(chart)
        if evidence is None:
            return None
        return Finding(
            rule=self.name,
            step=chart.step,
            evidence=evidence.text,
            cause=self.cause,
            remedy=sentence(evidence.changes) if evidence.changes else self.remedy,
            layer=evidence.layer,
            numbers=evidence.numbers,
            changes=evidence.changes,
        )


def rule(cause: str, remedy: str) -> "Callable[[Callable[[Chart], Evidence | None]], Rule]":
    """Make a rule of a function, which has its name."""

    def made(look: "Callable[[Chart], Evidence | None]") -> Rule:
        return Rule(look.__name__, look, cause, remedy)

    return made
