"""The callback that writes a timeline of all ranks."""

import os
import threading
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING

from ddbp.comm.base import Collective, described
from ddbp.comm.deadlines import WAITED
from ddbp.observers.observer import StepPhase
from ddbp.observers.timeline import Category, Timeline, write
from layers import Call, Module, Tape, TapeHook
from layers.checks import non_negative_int, positive_int
from layers.errors import message

from .callbacks import OptionsCallback, Record, require_own
from .paths import path_of

if TYPE_CHECKING:
    from .trainer import Trainer

_PHASES = {
    StepPhase.EXCHANGE: "reduction",
    StepPhase.UPDATE: "optimizer",
    StepPhase.PUBLISH: "publication",
}
_LEAST = 1000
"""Intervals that each rank keeps, however many ranks there are."""


class Trace(OptionsCallback, TapeHook):
    """Write what all ranks do when to one file, for https://ui.perfetto.dev or chrome://tracing:
    forward and backward of each layer, reduction, optimizer and publication, waits for other ranks,
    data, evaluations and checkpoints.

    Parameters
    ----------
    path
        The file; `trace.json` in the run folder unless given.
    first_step
        The step that it begins with; 0 has the compilation of kernels.
    steps
        How many steps it is of. The file is written after the last one, or at the end of `fit`.
    most_events
        Intervals in the file, over all ranks; what comes later is left out, and the file says how
        many. A thousand take 0.1 MB.

    Notes
    -----
    A rank is a process in the viewer. Ranks of one host have one clock; those of hosts are aligned
    by meetings of all ranks; the file says to within which error (`otherData`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        first_step: int = 0,
        steps: int = 100,
        most_events: int = 200_000,
    ) -> None:
        self.path = None if path is None else path_of("Trace", "path", path)
        fix = "first_step=0 is the first."
        self.first_step = non_negative_int("Trace", "first_step", first_step, fix)
        self.steps = positive_int("Trace", "steps", steps, "100 is usual.")
        fix = "200,000 is usual."
        self.most_events = positive_int("Trace", "most_events", most_events, fix, 10**8)
        self._timeline: Timeline | None = None

    def on_attach(self, trainer: "Trainer") -> None:
        path = self.path or (trainer.run_dir and trainer.run_dir / "trace.json")
        if path is None:
            fix = "Pass run_dir= to Trainer, or path= here."
            raise ValueError(message("Trace", "the trace must have a file", None, fix))
        self._trainer = weakref.ref(trainer)
        self._file: Path = path
        self._timeline = Timeline(max(_LEAST, self.most_events // trainer.comm.size))
        self._numbers: dict[str, int] = {}
        self._of_type: dict[type, int] = {}
        self._of_layer = {
            id(layer): self._timeline.name(f"{name}: {layer!r}" if name else repr(layer))
            for name, layer in trainer.model.named_layers()
        }
        if isinstance(trainer.loss, Module):
            self._of_layer.setdefault(id(trainer.loss), self._timeline.name(repr(trainer.loss)))
        self._thread = threading.get_ident()
        self._on = False
        self._open: list[int] = []
        self._phase = ""
        self._since = self._begun = monotonic_ns()

    # What is told

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        self._since = monotonic_ns()

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        on = self._timeline is not None and 0 <= step - self.first_step < self.steps
        if on is not self._on:
            require_own(self, trainer, self._trainer())
            self._switch(on)
        if on:
            loader = trainer._stream.loader
            began, ended = loader.waited
            if loader.tells and began >= self._since and self._timeline is not None:
                number = self._number("wait: next batch")
                self._timeline.add(Category.WAIT, number, began, ended)
            self._end("data")
            self._begun = self._since
            self._open.clear()
            self._phase = "forward"

    def on_forward_begin(self, call: Call) -> None:
        if self._on:
            if call.begins_pass and self._phase != "forward" and call.training:
                # Another batch of a step, of those that accumulate.
                self._since = monotonic_ns()
                self._phase = "forward"
            self._open.append(monotonic_ns())

    def on_forward_end(self, call: Call) -> None:
        if self._on:
            self._add_call(Category.FORWARD, call)

    def on_backward_pass_begin(self, tape: Tape) -> None:
        if self._on:
            self._end("forward")
            self._open.clear()

    def on_backward_begin(self, call: Call) -> None:
        if self._on:
            self._open.append(monotonic_ns())

    def on_backward_end(self, call: Call) -> None:
        if self._on:
            self._add_call(Category.BACKWARD, call)

    def on_backward_pass_end(self, tape: Tape) -> None:
        if self._on:
            self._end("backward")
            self._phase = ""

    def on_phase(self, trainer: "Trainer", phase: StepPhase) -> None:
        if self._on:
            if phase is StepPhase.EXCHANGE:
                self._since = monotonic_ns()
            else:
                self._end(self._phase)
            self._phase = _PHASES[phase]

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if self._on and self._timeline is not None:
            self._end(self._phase)
            self._timeline.add(Category.STEP, step - 1, self._begun, self._since)
            if step >= self.first_step + self.steps:
                self.write(trainer)

    def on_evaluation_begin(self, trainer: "Trainer") -> None:
        self._since = monotonic_ns()

    def on_evaluation_end(self, trainer: "Trainer", values: Mapping[str, float]) -> None:
        if self._on:
            self._end("evaluation")

    def on_checkpoint_begin(self, trainer: "Trainer", step: int) -> None:
        self._since = monotonic_ns()

    def on_checkpoint_end(self, trainer: "Trainer", step: int) -> None:
        if self._on:
            self._end("checkpoint")

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        self._since = monotonic_ns()

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        if self._timeline is not None and trainer.step_count > self.first_step:
            self.write(trainer)

    def write(self, trainer: "Trainer") -> None:
        """Write the file now, and record no more; collective. `fit` does so by itself; call it at
        the end of a loop of your own that has fewer steps.
        """
        timeline, self._timeline = self._timeline, None
        self._switch(False)
        if timeline is None:
            return
        ranks = trainer.recovered(timeline.gathered, trainer.comm)
        if trainer.comm.leads:
            try:
                write(self._file, ranks)
            except OSError as error:
                must, fix = f"{self._file} should hold the trace", "Training goes on without."
                text = message("Trace", must, error.strerror, fix)
                warnings.warn(text, RuntimeWarning, stacklevel=2)

    # How it is kept

    def _switch(self, on: bool) -> None:
        self._on = on
        if on:
            WAITED.append(self._waited)
        elif self._waited in WAITED:
            WAITED.remove(self._waited)

    def _waited(self, collective: Collective, began: float) -> None:
        if self._timeline is not None and threading.get_ident() == self._thread:
            # What for, without the number of the step.
            words = described((collective[0], 0)).removesuffix(" of step 0")
            name = self._number(f"wait: {words.removesuffix(', number 0')}")
            self._timeline.add(Category.WAIT, name, int(began * 1e9), monotonic_ns())

    def _number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            assert self._timeline is not None
            number = self._numbers[name] = self._timeline.name(name)
        return number

    def _end(self, phase: str) -> None:
        """Keep what has gone on since the last phase; the next one begins."""
        now = monotonic_ns()
        if self._timeline is not None and phase:
            self._timeline.add(Category.PHASE, self._number(phase), self._since, now)
        self._since = now

    def _add_call(self, category: Category, call: Call) -> None:
        if self._timeline is None or not self._open:
            return
        number = self._of_layer.get(id(call.layer))
        if number is None:
            kind = type(call.layer)
            number = self._of_type.get(kind)
            if number is None:
                number = self._of_type[kind] = self._timeline.name(kind.__name__)
        self._timeline.add(category, number, self._open.pop(), monotonic_ns())
