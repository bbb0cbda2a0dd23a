"""When the gradients of parameters are complete."""

from collections.abc import Callable, Iterable, Sequence

from .call import Call
from .parameter import Parameter


class Readiness:
    """Tells, in a backward pass, of each parameter once no call is left that uses it.

    Parameters
    ----------
    calls
        The calls on the tape.
    tells
        Whom to tell.
    completes
        Whether gradients are made final then.

    Attributes
    ----------
    uses
        How many uses are left of each parameter, by its `id`.
    """

    def __init__(
        self,
        calls: Iterable[Call],
        tells: Sequence[Callable[[Parameter], None]],
        *,
        completes: bool,
    ) -> None:
        self._tells = tells
        self._completes = completes
        self.uses: dict[int, int] = {}
        for call in calls:
            for parameter in call.trained:
                self.uses[id(parameter)] = self.uses.get(id(parameter), 0) + 1

    def count(self, call: Call) -> None:
        """Count the uses of a call, which the pass has left behind, down."""
        for parameter in call.trained:
            left = self.uses[id(parameter)] = self.uses[id(parameter)] - 1
            if left:
                continue
            for tell in self._tells:
                tell(parameter)
            if self._completes and not parameter.store.stale:
                parameter.store.complete(call.run)
