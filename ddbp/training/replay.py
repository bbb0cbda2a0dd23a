"""A step once more, as `ddbp replay` asks for it: what a trainer does differently then, and what it
tells.

A script is run as it was, up to the end of the step; its trainers write to a folder for temporary
files in place of their own.
"""

import io
import json
import math
import os
import sys
import weakref
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np

from ddbp import settings
from ddbp.doctor.doctor import Doctor, DoctorError
from ddbp.instruments.calls import values_with_gradients, written
from ddbp.instruments.instruments import Instruments
from ddbp.instruments.recording import Recording
from ddbp.observers import replay_command
from ddbp.optim.clipping import NotFiniteError
from ddbp.terminal import json_line
from layers import Call, Module, Tape, TapeHook
from layers.errors import message
from layers.kernels.cache_folder import opened
from layers.types import Array

from .callbacks import Callback, require_own
from .checkpoints import Checkpoints
from .nonfinite import Rollback
from .run_log import keep_steps

if TYPE_CHECKING:
    from .trainer import Trainer

REQUEST, RESULT = "request.json", "step.json"
"""What is asked for, and what rank 0 tells."""
DIGESTS = "digests.jsonl"
"""The file of `StepDigests` in a run folder."""
try:
    _FOLDER = os.getcwd()
except OSError:
    # Somebody has removed it.
    _FOLDER = os.sep
_COUNT = count()
_NUMBERS: "WeakKeyDictionary[Trainer, int]" = WeakKeyDictionary()
_MOST_ELEMENTS = 2**24
"""Of a layer's arrays no more are kept on a rank."""


def origin(trainer: "Trainer") -> dict[str, Any]:
    """Return how the process of a trainer was started, and which of its trainers that is."""
    return {
        "python": sys.orig_argv[1:],
        "folder": _FOLDER,
        "trainer": _NUMBERS[trainer],
        "shards": trainer.options.shards,
        "changes": trainer._changes,
    }


def counted(trainer: "Trainer") -> int:
    """Return the number in the script of a trainer that is being made; each is counted once."""
    number = _NUMBERS[trainer] = next(_COUNT)
    return number


def of_rank(rank: int) -> str:
    """Return the name of the files of a rank, but for the suffix."""
    return f"rank{rank}"


def note(trainer: "Trainer", error: BaseException) -> None:
    """Add the command that shows a step once more to the error that it has ended with."""
    ends_step = trainer._last_begun == trainer.step_count and isinstance(error, Exception)
    found = isinstance(error, DoctorError | NotFiniteError)
    if (ends_step or found) and settings.replay_folder() is None:
        said = replay_command.in_words(trainer.run_dir, trainer._last_begun)
        if said:
            error.add_note(said)


def begin(
    trainer: "Trainer", callbacks: Sequence[Callback | TapeHook]
) -> Sequence[Callback | TapeHook]:
    """Return the callbacks of a trainer; where a step is replayed they write nothing that was
    there, and the trainer begins at the checkpoint before that.
    """
    number = _NUMBERS[trainer]
    folder = settings.replay_folder()
    if folder is None:
        return callbacks
    request = json.loads((folder / REQUEST).read_text())
    if trainer.run_dir is not None:
        trainer.run_dir = folder / f"run{number}"
    rolls_back = isinstance(trainer.options.on_nonfinite, Rollback)
    kept = [
        each
        for each in callbacks
        if not (getattr(each, "sends", False) or isinstance(each, Doctor))
        and (rolls_back or not isinstance(each, Checkpoints))
    ]
    for each in kept:
        if isinstance(each, Callback) and getattr(each, "path", None) is not None:
            cast(Any, each).path = None
    trainer.resume = None
    if number != request["trainer"]:
        return kept
    trainer.resume = Path(request["checkpoint"]) if request["checkpoint"] else None
    trainer._differing = [*trainer._differing, "callbacks"]
    instruments = _Every(request["step"])
    return [*kept, instruments, Replayed(trainer, instruments, request, folder)]


class _Every(Instruments):
    """Instruments of one step."""

    def __init__(self, step: int) -> None:
        super().__init__(1)
        self._step = step

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        if step == self._step:
            self._stride = 1
            super().on_step_begin(trainer, step)


class Replayed(Callback, TapeHook):
    """Tells of a step, and ends the process after it.

    Parameters
    ----------
    trainer
        Whose step it is.
    instruments
        What measures it.
    request
        What is asked for: `step`, and the name of a `layer` whose arrays are wanted, and those of
        all that it is made of, or None.
    folder
        Where the answer goes.
    """

    def __init__(
        self, trainer: "Trainer", instruments: Instruments, request: dict[str, Any], folder: Path
    ) -> None:
        self._instruments = instruments
        self._step: int = request["step"]
        self._layer: str | None = request["layer"]
        self._folder = folder
        model = trainer.model
        names = {id(layer): name or type(layer).__name__ for name, layer in model.named_layers()}
        if isinstance(trainer.loss, Module):
            names.setdefault(id(trainer.loss), "loss")
        self._names = names
        if self._layer is not None and self._layer not in names.values():
            shown = ", ".join(dict.fromkeys(name for name in names.values() if "._" not in name))
            must, fix = "--layer must name a layer", f"They are {shown}."
            raise ValueError(message("ddbp replay", must, self._layer, fix))
        self._scaling = trainer._scaling
        self._on = False
        self._samples: list[int] = []
        self._arrays: dict[str, Array] = {}
        self._left_out = 0
        self._calls: list[Call] = []

    def __repr__(self) -> str:
        return "Replayed()"

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        self._on = step == self._step
        self._samples.clear()
        self._arrays.clear()
        self._left_out = 0
        if step > self._step:
            # The step was left out, as its numbers were not finite.
            self._tell(trainer, math.nan)

    def on_forward_begin(self, call: Call) -> None:
        if self._on and call.training and call.begins_pass:
            self._calls.clear()
            numbers, rows = call.tape.numbers, call.tape.rows
            known = isinstance(numbers, np.ndarray)
            self._samples += [*map(int, numbers if known else np.arange(rows) + (numbers or 0))]

    def on_forward_end(self, call: Call) -> None:
        if self._on and call.training and self._wants(call):
            for number, x in enumerate(call.inputs):
                self._keep(call, f"input {number}", getattr(x, "array", x))
            for number, y in enumerate(call.output.arrays):
                self._keep(call, f"output {number}", y)
            if call.tape.is_segment:
                # What has a gradient is computed once more.
                return
            self._calls.append(call)
            for value in values_with_gradients(call):
                value.keep_grad()

    def on_backward_begin(self, call: Call) -> None:
        if self._on and call.tape.is_segment and self._wants(call):
            for number, value in enumerate(values_with_gradients(call)):
                self._keep_gradient(call, number, value.received)

    def _wants(self, call: Call) -> bool:
        """Return whether a call is of the layer that is asked for, or of one that it is made of."""
        wanted = self._layer
        if wanted is None:
            return False
        names = [self._names.get(id(layer), "") for layer in (call.layer, *written(call.layer))]
        return any(name == wanted or name.startswith(f"{wanted}.") for name in names)

    def on_backward_pass_end(self, tape: Tape) -> None:
        if not self._on:
            return
        for call in self._calls:
            for number, value in enumerate(values_with_gradients(call)):
                self._keep_gradient(call, number, value.grad)
        self._calls.clear()

    def _keep_gradient(self, call: Call, number: int, dy: Array | None) -> None:
        if dy is not None:
            gradient = dy / dy.dtype.type(self._scaling.value)
            self._keep(call, f"gradient of output {number}", gradient)

    def _keep(self, call: Call, name: str, array: Any) -> None:
        held = sum(each.size for each in self._arrays.values())
        if not isinstance(array, np.ndarray):
            return
        if held + array.size <= _MOST_ELEMENTS:
            first = self._names.get(id(written(call.layer)[0]), "")
            self._arrays[f"call {call.index} of {first}, {name}"] = array.copy()
        else:
            self._left_out += 1

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if self._on:
            self._tell(trainer, loss)

    def on_exception(self, trainer: "Trainer", error: BaseException) -> None:
        if self._on and isinstance(error, Exception):
            self._write(trainer, str(error))

    def _tell(self, trainer: "Trainer", loss: float) -> None:
        """Write what is known, and end on all ranks; collective."""
        self._write(trainer, "")
        if trainer.comm.leads:
            facts = {
                "step": self._step,
                "epoch": trainer.epoch,
                "loss": loss,
                "rate": trainer.optimizer.rate,
                "sha256": trainer.parameters_sha256(),
                "ranks": trainer.comm.size,
                "shards": trainer.options.shards,
                **_measured(self._instruments.recording, self._step),
            }
            (self._folder / RESULT).write_text(json_line(facts))
        trainer.comm.all_gather(np.zeros(1))
        raise SystemExit(0)

    def _write(self, trainer: "Trainer", error: str) -> None:
        """Write what this rank knows."""
        path = self._folder / of_rank(trainer.comm.rank)
        if self._arrays:
            np.savez(path.with_suffix(".npz"), **cast(Any, self._arrays))
        said = {"samples": self._samples, "error": error, "left_out": self._left_out}
        path.with_suffix(".json").write_text(json.dumps(said))


def _measured(recording: Recording, step: int) -> dict[str, Any]:
    """Return what instruments have measured of a step, by quantity, as lists."""
    found = np.flatnonzero(recording.steps == step)
    values = recording.values if found.size else {}
    return {
        "layers": [*recording.layers],
        "parameters": [*recording.parameters],
        "quantities": {
            name: np.asarray(array[found[0]], np.float64).tolist()
            for name, array in values.items()
            if not recording.quantities[name].binned
        },
    }


class StepDigests(Callback):
    """Write a line with loss and digest of the parameters after each step to `digests.jsonl` in the
    run folder: `ddbp replay` compares a step with them.

    A digest reads all parameters once.
    """

    def __repr__(self) -> str:
        return "StepDigests()"

    def on_attach(self, trainer: "Trainer") -> None:
        if trainer.run_dir is None:
            must, fix = "digests must have a folder", "Pass run_dir= to Trainer."
            raise ValueError(message("StepDigests", must, None, fix))
        self._path = trainer.run_dir / DIGESTS
        self._trainer = weakref.ref(trainer)
        self._resumed = False

    def on_resume(self, trainer: "Trainer") -> None:
        self._resumed = True

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        require_own(self, trainer, self._trainer())

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if trainer.comm.leads:
            if self._resumed:
                keep_steps(self._path, range(step - 1))
                self._resumed = False
            line = {"step": step - 1, "loss": loss, "sha256": trainer.parameters_sha256()}
            with self._path.open("a") as file:
                file.write(json_line(line) + "\n")


def recorded_digest(run: Path, step: int) -> str | None:
    """Return the digest after a step that is in a run folder, None if there is none."""
    result = None
    try:
        with opened(run / DIGESTS, links=True) as file, io.BufferedReader(file) as lines:
            for line in lines:
                found = json.loads(line)
                # A run that went back has come to a step twice.
                result = found["sha256"] if found["step"] == step else result
    except (OSError, KeyError, RecursionError, TypeError, ValueError):
        pass
    return result
