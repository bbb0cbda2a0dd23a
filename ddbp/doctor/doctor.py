"""The callback that watches over a run, and says what is wrong with it."""

import json
from collections import deque
from contextlib import suppress
from dataclasses import asdict, fields
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings

import numpy as np

from ddbp import terminal
from ddbp.comm.agreement import gather_texts
from ddbp.instruments.instruments import Instruments
from ddbp.observers.observer import Request
from ddbp.optim.clipping import NotFiniteError
from ddbp.reduction.corruption import MemoryCorruptionError
from ddbp.snapshot import BOOLEAN, Schema, State, array, integer, listing
from ddbp.training.callbacks import OptionsCallback, Record
from layers import Coefficients
from layers.checks import boolean, non_negative
from layers.errors import message
from layers.types import Array

from . import finding
from .chart import Chart
from .facts import DataFacts, FirstPass
from .finding import Finding
from .probes import Probes, sound
from .ranks import OfRanks, RankWatch
from .rules import EXACT, RULES, ranks

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

_OWNER = "Doctor"
_CHECKS = (3, 20, 40, 80, 120, 160, 200)
"""Steps after which it looks; later on they lie further and further apart."""
_LATER = 1.2
_EPOCHS = 1.1
"""At the end of an epoch it looks if there have been so many times the steps of the last look."""
_FIRST, _LAST = 64, 2048
"""Losses that are kept of the beginning, and of the last steps."""
_ALIKE = 1e-3


class DoctorError(RuntimeError):
    """A strict doctor has found something: `finding`."""

    def __init__(self, found: Finding) -> None:
        self.finding = found
        super().__init__(str(found))


class Doctor(OptionsCallback):
    """Says once what is wrong with a run, why, and the one change to try.

    It looks at data, model and options when training begins, at what `Instruments` have measured
    after some of the first steps, more and more seldom from then on, and after epochs. Of the
    rules that hold the first in causal order is the finding; what comes after it in that order may
    be its consequence, and is not told.
    Findings are printed, kept in `findings` and written to findings.jsonl in the run folder; where
    training ends as numbers are not finite they are noted on the error.

    >>> Trainer(model, …, doctor=True, run_dir="runs/first").fit(data, epochs=5)

    That adds `Instruments(every=None)` and a doctor to the callbacks. One of them that is there is
    taken as it is:

    >>> doctor = Doctor()
    >>> trainer = Trainer(model, …, callbacks=[Instruments(every=10), doctor])

    Parameters
    ----------
    strict
        End training with a `DoctorError` when something is found.
    probes
        Whether options are tried in forks of the run, see `Trainer.fork`, before they are proposed,
        and where looking on does not tell enough: "unsure", where the budget allows it; True,
        whatever that costs; or False.
    probe_budget
        How many steps of forks there may be for each step of a fit.

    Attributes
    ----------
    findings
        What was found so far.

    Raises
    ------
    ValueError
        The trainer has no `Instruments` before it among its callbacks.
    """

    optional = True

    def __init__(
        self,
        *,
        strict: bool = False,
        probes: str | bool = "unsure",
        probe_budget: float = 0.015,
    ) -> None:
        self.strict = boolean(_OWNER, "strict", strict)
        if not isinstance(probes, bool | str) or (isinstance(probes, str) and probes != "unsure"):
            must, fix = 'probes must be "unsure", True or False', "Leave it out."
            raise ValueError(message(_OWNER, must, repr(probes), fix))
        self.probes = probes
        self.probe_budget = non_negative(_OWNER, "probe_budget", probe_budget, "0.015 is usual.")
        self.findings: list[Finding] = []

    watches_memory = True

    def on_attach(self, trainer: "Trainer") -> None:
        """Begin anew, with the model of a trainer."""
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        found = [each for each in before if isinstance(each, Instruments)]
        if not found:
            must, fix = (
                "it must come after Instruments",
                "callbacks=[Instruments(every=10), Doctor()]",
            )
            raise ValueError(message(_OWNER, must, "none of them before it", f"Pass {fix}."))
        self._instruments = found[-1]
        self.findings = []
        self._begun: list[float] = []
        self._losses = deque[float](maxlen=_LAST)
        self._planned = 0
        self._first: FirstPass | None = None
        self._watching = False
        self._alike: list[str] = []
        self._next = _CHECKS[0]
        self._judged = 0
        self._ended = 0
        self._probes = Probes(self.probes, self.probe_budget)
        self._watch = RankWatch()
        self._watch.begin()
        self._ranks = OfRanks()
        self._facts: dict[int, tuple[Any, DataFacts | None]] = {}
        # What the losses are of, if that is known, and the updates and epochs before.
        self._of: tuple[DataFacts | None] | None = None
        self._since = 0, 0
        named = trainer.model.named_parameters()
        self._weights = {
            name: (parameter.size, 0.8 * parameter.size**0.25)
            for name, parameter in named
            if parameter.value.ndim > 1
        }

    # When it goes on

    def on_resume(self, trainer: "Trainer") -> None:
        """Know what was said after the state, too."""
        told: list[Finding] = []
        if trainer.comm.leads and trainer.run_dir is not None:
            with suppress(OSError):
                told, _ = finding.found_in(trainer.run_dir)
        known = {each.rule for each in self.findings}
        self.findings += [each for each in _shared(trainer, told) if each.rule not in known]

    def state(self) -> dict[str, Any]:
        """Return what was found, the first losses, and when it looks next."""
        begun = np.zeros(_FIRST)
        begun[: len(self._begun)] = self._begun
        return {
            "findings": [asdict(each) for each in self.findings],
            "begun": begun,
            "losses": len(self._begun),
            "next": self._next,
            "judged": self._judged,
            "spent": self._probes.spent,
            "doubted": self._probes.doubted,
        }

    def state_schema(self, state: State) -> Schema:
        if not state:
            # It was taken without a doctor.
            return {}
        return {
            "findings": listing(finding.ENTRY),
            "begun": array(np.float64, _FIRST),
            "losses": integer(0, _FIRST),
            "next": integer(0),
            "judged": integer(0),
            "spent": integer(0),
            "doubted": BOOLEAN,
        }

    def load_state(self, state: State) -> None:
        if not state:
            self.findings, self._begun = [], []
            return
        self.findings = [Finding(**each) for each in state["findings"]]
        self._begun = np.asarray(state["begun"])[: state["losses"]].tolist()
        self._next = state["next"]
        self._judged = state["judged"]
        self._probes.spent = state["spent"]
        self._probes.doubted = state["doubted"]

    # The events

    def on_run_begin(self, trainer: "Trainer") -> None:
        """Forget the losses of another fit, if that was on other data: they are in other units."""
        facts = self._facts_of(trainer._stream.data)
        if self._of is not None and not _are_same(facts, *self._of):
            self._losses.clear()
            self._begun = []
            self._since = trainer.step_count, trainer.epoch
        self._of = (facts,)

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        self._of = (self._facts_of(trainer._stream.data),)
        self._planned = epochs * steps_per_epoch
        self._probes.begin(self._planned)

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        if step != self._ended:
            # The run goes on elsewhere, and what comes after comes once more.
            self._losses.clear()
            del self._begun[step:]
        if step + 1 >= self._next:
            self._watch.note_given(trainer)
        if self._first is None and trainer.comm.leads:
            self._first = FirstPass(trainer.model, trainer.loss, trainer._scaling.value)
            self._alike = _of_one_unit(trainer) if step == 0 else []
            self._watching = True
            trainer.tape_watchers.add(self._first)

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if self._watching and self._first is not None:
            self._watching = False
            trainer.tape_watchers.remove(self._first)
            self._first.forget_pass()
        self._ended = step
        if step <= _FIRST and len(self._begun) == step - 1:
            self._begun.append(loss)
        self._losses.append(loss)
        checksums = trainer.optimizer.checksums
        if checksums is not None and checksums.flipped:
            trainer.request(Request.LOOK)
        if step >= self._next or trainer.requested & Request.LOOK:
            self._judge(trainer)

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        if trainer.step_count >= _EPOCHS * self._judged:
            self._judge(trainer)

    def on_exception(self, trainer: "Trainer", error: BaseException) -> None:
        broken = isinstance(error, NotFiniteError)
        # Who has had enough of a run may learn why it was none.
        if trainer.comm.leads and (broken or not isinstance(error, Exception)):
            if broken:
                self._losses.append(np.nan)
            self._tell(trainer, self._look(trainer))
            for each in self.findings if broken else ():
                error.add_note(f"doctor: {each}")
        elif isinstance(error, MemoryCorruptionError):
            rule = ranks.ranks_differ if error.of_all else ranks.memory_corrupted
            evidence, step = error.got, trainer.step_count
            found = Finding(rule.name, step, evidence, rule.cause, rule.remedy)
            error.add_note(f"doctor: {found}")
            if trainer.comm.leads or not error.of_all:
                self._say(trainer, found)

    # Findings

    def _judge(self, trainer: "Trainer") -> None:
        """Look, and end the run if something is found and that is asked for; collective."""
        step = self._judged = trainer.step_count
        later = max(int(step * _LATER), step + 1)
        self._next = next((each for each in _CHECKS if each > step), later)
        found = trainer.recovered(self._agreed, trainer)
        known = bool(self.findings)
        found = self._probes.consider(trainer, found, lambda: self.chart(trainer), known=known)
        self._tell(trainer, found)
        if self.strict and found:
            raise DoctorError(found[0])

    def _agreed(self, trainer: "Trainer") -> list[Finding]:
        """Return what the leading rank finds; collective."""
        self._ranks = self._watch.compared(trainer)
        return _shared(trainer, self._look(trainer) if trainer.comm.leads else [])

    def _look(self, trainer: "Trainer") -> list[Finding]:
        """Return what is found for the first time: one, or nothing."""
        chart = self.chart(trainer)
        told = {each.rule for each in self.findings}
        causes = takewhile(lambda each: each.name not in told, RULES)
        with np.errstate(all="ignore"), catch_warnings(category=RuntimeWarning, action="ignore"):
            found = islice(filter(None, (each.finding(chart) for each in causes)), 1)
            return [sound(chart, each, EXACT) for each in found]

    def _tell(self, trainer: "Trainer", found: list[Finding]) -> None:
        self.findings += found
        for each in found if trainer.comm.leads else ():
            self._say(trainer, each)

    def _say(self, trainer: "Trainer", found: Finding) -> None:
        again = found.replay(trainer.run_dir) if trainer._fit.running else ""
        terminal.say("\n".join(filter(None, (f"doctor: {found}", again))))
        if trainer.run_dir is not None:
            with suppress(OSError):
                finding.append(trainer.run_dir, found)

    def chart(self, trainer: "Trainer") -> Chart:
        """Return what is known of the run, on rank 0."""
        first = self._first
        data, validation = trainer._stream.data, trainer._fit.validation
        return Chart(
            step=trainer.step_count,
            epochs=trainer.epoch,
            training=self._facts_of(data),
            validation=self._facts_of(validation),
            stages=[] if first is None else first.stages,
            probabilities=first is not None and first.probabilities(),
            loss=trainer.loss if first is None or first.criterion is None else first.criterion,
            factor=1.0 if first is None else first.factor,
            optimizer=trainer.optimizer,
            options=trainer.options,
            recording=self._instruments.recording,
            since=self._since,
            begun=self._begun,
            losses=np.array(self._losses),
            records=trainer.history,
            weights=self._weights,
            alike=self._alike,
            weighted=(data is not None and data.has_weights)
            or (first is not None and first.weighted),
            planned=self._planned,
            outputs=0 if first is None or first.prediction is None else first.prediction.shape[-1],
            reached=np.nan if first is None else first.reached,
            asked=None if first is None else first.asked,
            ranks=self._ranks,
        )

    def _facts_of(self, data: Any) -> DataFacts | None:
        if data is None:
            return None
        known, facts = self._facts.get(id(data), (None, None))
        if known is not data:
            facts = DataFacts.of(data)
            self._facts[id(data)] = data, facts
        return facts


def _are_same(facts: DataFacts | None, other: DataFacts | None) -> bool:
    """Return whether the facts of two data sets are the same."""
    if facts is None or other is None:
        return facts is other
    pairs = [(getattr(facts, each.name), getattr(other, each.name)) for each in fields(facts)]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _shared(trainer: "Trainer", found: list[Finding]) -> list[Finding]:
    """Return what the leading rank has found; collective."""
    text = gather_texts(trainer.comm, json.dumps([asdict(each) for each in found]))[0]
    return [Finding(**each) for each in json.loads(text)]


def _of_one_unit(trainer: "Trainer") -> list[str]:
    """Return the names of weights that are the same for all units, and of those that are 0 if half
    of all are: a few are so for good reasons.
    """
    found, zero, matrices = [], [], 0
    layers = [layer for _, layer in trainer.model.named_layers()]
    # The numbers of a field may begin alike: each is of a place of its own.
    of_fields = {id(layer.values) for layer in layers if isinstance(layer, Coefficients)}
    for name, parameter in trainer.model.named_parameters():
        values: Array = parameter.value
        if (
            id(parameter) in of_fields
            or values.ndim < 2
            or min(values.shape[0], values.shape[-1]) < 3
        ):
            continue
        matrices += 1
        norm = float(np.linalg.norm(values))
        if not norm:
            zero.append(name)
            continue
        apart = min(
            float(np.linalg.norm(values - values.mean(axis=axis, keepdims=True)))
            for axis in (0, -1)
        )
        if apart < _ALIKE * norm:
            found.append(name)
    return found + zero if len(zero) > 1 and 2 * len(zero) >= matrices else found
