"""A trainer under `ddbp launch` writes to its rank's status what it does, and which layer's turn it
is.
"""

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from layers import Call, Module, Tape, TapeHook

from . import rank_status
from .observer import StepHook, StepPhase
from .rank_status import LAYER, PHASE, STEP, TRAINER, RankStatus

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer


class StatusReporter(StepHook, TapeHook):
    """Writes to a rank's status, by one store per call of a layer, in replayed steps, too.

    Parameters
    ----------
    status
        What is written to.
    model, loss
        Whose layers are named.
    """

    replayable = True

    def __init__(self, status: RankStatus, model: Module, loss: Any) -> None:
        names = {
            id(layer): f"{name}: {layer!r}" if name else repr(layer)
            for name, layer in model.named_layers()
        }
        if isinstance(loss, Module):
            names.setdefault(id(loss), f"the loss, {loss!r}")
        self._words = status.words
        # Ids are those of a trainer's layers as long as it lives.
        self._trainer = status.begin(names)
        self._before_evaluation: int = StepPhase.START

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        self._forward(step)

    def on_forward_begin(self, call: Call) -> None:
        if call.begins_pass and call.tape.training:
            # A step may have several forward passes, of batches that accumulate.
            self._forward(call.step, call.run)
        call.run(operator.setitem, self._words, LAYER, id(call.layer))

    def on_backward_pass_begin(self, tape: Tape) -> None:
        tape.run(operator.setitem, self._words, LAYER, 0)
        tape.run(operator.setitem, self._words, PHASE, StepPhase.BACKWARD)

    def on_backward_begin(self, call: Call) -> None:
        call.run(operator.setitem, self._words, LAYER, id(call.layer))

    def on_backward_pass_end(self, tape: Tape) -> None:
        tape.run(operator.setitem, self._words, PHASE, StepPhase.GRADIENTS)

    def on_phase(self, trainer: "Trainer", phase: StepPhase) -> None:
        self._words[PHASE] = phase

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        self._words[PHASE] = StepPhase.AFTER

    def on_evaluation_begin(self, trainer: "Trainer") -> None:
        self._before_evaluation = self._words[PHASE]
        self._begin(StepPhase.EVALUATION)

    def on_evaluation_end(self, trainer: "Trainer", values: Mapping[str, float]) -> None:
        self._words[PHASE] = self._before_evaluation

    def _forward(self, step: int, run: Callable[..., Any] = operator.call) -> None:
        run(operator.setitem, self._words, STEP, step)
        self._begin(StepPhase.FORWARD, run)

    def _begin(self, phase: StepPhase, run: Callable[..., Any] = operator.call) -> None:
        """Come to a phase of this trainer's, and to no layer yet."""
        for word, value in ((LAYER, 0), (TRAINER, self._trainer), (PHASE, phase)):
            run(operator.setitem, self._words, word, value)


def start(rank: int, model: Module, loss: Any) -> StatusReporter | None:
    """Return the reporter of a trainer if `ddbp launch` asks for the status of ranks."""
    status = rank_status.own_status(rank)
    return None if status is None else StatusReporter(status, model, loss)
