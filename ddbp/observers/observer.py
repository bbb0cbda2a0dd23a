"""What watches training: the events of a step, in `fit` and in loops of a script's own alike."""

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum, IntFlag, auto
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, NamedTuple, ParamSpec, TypeVar

from layers.engine.hooks import TapeHook, TapeHooks, overridden

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class StepPhase(IntEnum):
    """What a rank does: the phases of a step in their order, and what there is beside steps."""

    START = 0
    """There has been no step yet."""
    FORWARD = auto()
    BACKWARD = auto()
    GRADIENTS = auto()
    """Backward is over, and the step goes on with another batch or with the exchange."""
    EXCHANGE = auto()
    """Gradients go to other ranks and come from them."""
    UPDATE = auto()
    """Gradients are summed and clipped, and parameters updated."""
    PUBLISH = auto()
    """Updated parameters go to all ranks."""
    AFTER = auto()
    """The step is over."""
    EVALUATION = auto()
    EXCEPTION = auto()
    END = auto()
    """The process has come to its end."""


class Request(IntFlag):
    """What a rank asks of all ranks, for which they act together at the end of the next step."""

    CHECKPOINT = auto()
    """Write a checkpoint."""
    STOP = auto()
    """End training."""
    JOIN = auto()
    """Let newcomers in, which replace ranks that were killed."""
    NOT_FINITE = auto()
    """Do what shall be done about numbers that are not finite."""
    KEEP = auto()
    """Put the state by in memory that outlives the ranks."""
    LOOK = auto()
    """Look for what is wrong: this rank has seen something."""


class StepHook:
    """Base of what watches a trainer's steps and evaluations; override what you need.

    Methods run on all ranks at the same points, `on_exception` excepted. A method that is not
    overridden costs nothing; what a hook raises goes on to the caller.
    """

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        """Run once before each step, when its first batch is made; steps count from 0.

        A hook may raise `TrainingOver` here.
        """

    def on_phase(self, trainer: "Trainer", phase: StepPhase) -> None:
        """Run when a step comes to its `EXCHANGE`, `UPDATE` and `PUBLISH`.

        What happens in forward and backward is told to a `layers.TapeHook`.
        """

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        """Run after each update; `step` is the number of updates so far, `loss` that of the global
        batch.
        """

    def on_evaluation_begin(self, trainer: "Trainer") -> None:
        """Run before an evaluation."""

    def on_evaluation_end(self, trainer: "Trainer", values: Mapping[str, float]) -> None:
        """Run after an evaluation; `values` are what it returns."""

    def on_checkpoint_begin(self, trainer: "Trainer", step: int) -> None:
        """Run before a checkpoint of so many updates is taken."""

    def on_checkpoint_end(self, trainer: "Trainer", step: int) -> None:
        """Run when training goes on after a checkpoint, which may be written meanwhile."""

    def on_exception(self, trainer: "Trainer", error: BaseException) -> None:
        """Run on the rank where `fit` or a step raises an error, before that goes on to the caller;
        `KeyboardInterrupt` and `SystemExit` are told of, too.

        A step is `batch`, `batches`, `step`, `update` or `train_step`: when the batch is made (by
        `on_step_begin`, too), in its passes and in the update. What a script does between these is
        not told of, nor is `TrainingOver`.
        """


class StepHooks(NamedTuple):
    """The methods that hooks have overridden, by event, in the order of the hooks."""

    step_begin: tuple[Callable[["Trainer", int], None], ...]
    phase: tuple[Callable[["Trainer", StepPhase], None], ...]
    step_end: tuple[Callable[["Trainer", int, float], None], ...]
    evaluation_begin: tuple[Callable[["Trainer"], None], ...]
    evaluation_end: tuple[Callable[["Trainer", Mapping[str, float]], None], ...]
    checkpoint_begin: tuple[Callable[["Trainer", int], None], ...]
    checkpoint_end: tuple[Callable[["Trainer", int], None], ...]
    exception: tuple[Callable[["Trainer", BaseException], None], ...]

    @classmethod
    def of(cls, hooks: Iterable[object]) -> "StepHooks":
        """Return the methods of those that are `StepHook`s."""
        hooks = list(hooks)
        return cls(*(overridden(hooks, StepHook, f"on_{event}") for event in cls._fields))


class TapeWatchers:
    """Who watches a trainer's tapes: some hooks all of them, others those of some steps, in which
    they are added and removed.

    Parameters
    ----------
    always
        What watches all tapes, as far as it is a `TapeHook`.

    Attributes
    ----------
    hooks
        What the next tape tells.
    """

    def __init__(self, always: Iterable[object]) -> None:
        self._always = [*always]
        self._added: list[TapeHook] = []
        # By those that are added: they come and go, and are few.
        self._known: dict[tuple[TapeHook, ...], TapeHooks | None] = {}
        self._bind()

    def _bind(self) -> None:
        added = (*self._added,)
        if added not in self._known:
            self._known[added] = TapeHooks.of([*self._always, *added])
        self.hooks = self._known[added]

    def add(self, hook: TapeHook) -> None:
        """Have a hook watch the tapes that are made from now on, in `on_step_begin` that of the
        step.
        """
        self._added.append(hook)
        self._bind()

    def remove(self, hook: TapeHook) -> None:
        """Have it watch no more tapes, if it does."""
        self._added = [each for each in self._added if each is not hook]
        self._bind()


class TrainingOver(SystemExit):
    """Raised by `on_step_begin` to end training before that step.

    `fit` and `batches` come to their end, and the script goes on. A loop of the script's own that
    makes its batches itself ends with the script, whose exit status is 0. Where an epoch may end
    with the last step, `trainer.stop = True` in `on_step_end` spares `fit` another one.
    """

    def __init__(self) -> None:
        super().__init__(0)


def telling_of_errors(
    method: Callable[Concatenate["Trainer", Arguments], Result],
) -> Callable[Concatenate["Trainer", Arguments], Result]:
    """Have a part of a step tell hooks of the error that it raises, unless `fit` does so. No part
    is within another.
    """

    @wraps(method)
    def telling(
        trainer: "Trainer", /, *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        try:
            return method(trainer, *arguments, **options)
        except BaseException as error:
            if not trainer._fit.running:
                tell_of_error(trainer, error)
            raise

    return telling


def tell_of_error(trainer: "Trainer", error: BaseException) -> None:
    """Tell the hooks of a trainer of what ends a step or a fit."""
    if not isinstance(error, TrainingOver):
        for report in trainer._hooks.exception:
            report(trainer, error)
