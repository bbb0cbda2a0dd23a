"""Hooks of a tape: what it tells of calls, backward passes and parameters while they happen."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from layers.checks import require_hooks

from .parameter import Parameter

if TYPE_CHECKING:
    from .call import Call
    from .tape import Tape


class TapeHook:
    """Base of what watches a tape; override what you need.

    A method that is not overridden costs nothing. What a hook raises goes on to the caller. Arrays
    of a call belong to the tape: copy what you keep.

    >>> class Norms(TapeHook):
    ...     def on_forward_end(self, call):
    ...         print(call, [np.linalg.norm(y) for y in call.output.arrays])
    >>> tape = Tape(hooks=[Norms()])
    """

    replayable: bool = False
    """Whether all that it does is done by `call.run` and `tape.run`, with the same arguments in
    each step but `call.step`: steps that it watches may be replayed, see `layers.engine.replay`.
    """

    def on_forward_begin(self, call: "Call") -> None:
        """Run before the forward of a call, which has no output yet."""

    def on_forward_end(self, call: "Call") -> None:
        """Run after the forward of a call."""

    def on_backward_pass_begin(self, tape: "Tape") -> None:
        """Run before the first call of a backward pass."""

    def on_backward_begin(self, call: "Call") -> None:
        """Run before the backward of a call that the pass has reached: `call.output.received` is
        the gradient that it gets.
        """

    def on_backward_end(self, call: "Call") -> None:
        """Run when a call's inputs have received their gradients."""

    def on_parameter_ready(self, parameter: Parameter) -> None:
        """Run once per backward pass for each parameter on the tape: its last use has contributed
        to its gradient, or was not reached.
        """

    def on_backward_pass_end(self, tape: "Tape") -> None:
        """Run after a backward pass, unless that has failed."""


class TapeHooks(NamedTuple):
    """The methods that hooks have overridden, by event, in the order of the hooks."""

    forward_begin: tuple[Callable[["Call"], None], ...] = ()
    forward_end: tuple[Callable[["Call"], None], ...] = ()
    backward_pass_begin: tuple[Callable[["Tape"], None], ...] = ()
    backward_begin: tuple[Callable[["Call"], None], ...] = ()
    backward_end: tuple[Callable[["Call"], None], ...] = ()
    parameter_ready: tuple[Callable[[Parameter], None], ...] = ()
    backward_pass_end: tuple[Callable[["Tape"], None], ...] = ()

    @property
    def replayable(self) -> bool:
        """Whether all hooks say so of themselves."""
        methods: Iterable[Any] = (method for event in self for method in event)
        return all(getattr(method.__self__, "replayable", False) for method in methods)

    @classmethod
    def of(cls, hooks: Iterable[object]) -> "TapeHooks | None":
        """Return the methods of those that are `TapeHook`s, or None if they override none."""
        hooks = list(hooks)
        bound = cls(*(overridden(hooks, TapeHook, f"on_{event}") for event in cls._fields))
        return bound if any(bound) else None


def overridden(hooks: Iterable[object], base: type, name: str) -> tuple[Callable[..., None], ...]:
    """Return the bound method `name` of each hook that derives from `base` and defines its own."""
    methods: Iterable[Any] = (getattr(hook, name) for hook in hooks if isinstance(hook, base))
    return tuple(
        method for method in methods if getattr(method, "__func__", None) is not getattr(base, name)
    )


def bound(owner: str, hooks: Any) -> TapeHooks | None:
    """Return the methods of what users pass as hooks, none of which may be anything else."""
    fix = "Derive from layers.TapeHook."
    return TapeHooks.of(require_hooks(owner, "hooks", hooks, (TapeHook,), fix))
