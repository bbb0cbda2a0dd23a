"""What all loggers have in common: when they send what, and which run it belongs to."""

import atexit
import json
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ddbp.training.callbacks import OptionsCallback, Record
from layers.checks import positive_int
from layers.errors import message

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

_FILE = "tracking.json"


def require_package(owner: str, package: str, extra: str) -> None:
    """Refuse to go on without a package, with the command that installs it."""
    try:
        found = find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None:
        fix = f'Install it: pip install "ddbp[{extra}]".'
        raise ImportError(message(owner, f"the package {package} must be there", "none", fix))


def text(owner: str, name: str, given: Any, fix: str) -> str:
    """Return a text that is not empty."""
    if not isinstance(given, str) or not given.strip():
        raise TypeError(message(owner, f"{name} must be a text", repr(given), fix))
    return given


class Logger(OptionsCallback):
    """Base of callbacks that send losses, rates and metrics to another tool.

    What is sent: `step/loss` and `step/learning_rate` every `every_steps` updates, and the numbers
    of each record as `epoch/loss`, `epoch/validation_loss`, … at its step. The rank that leads
    sends; the others do nothing. A run that is resumed in its run folder goes on in the tool, too.

    A tool of your own: define `begin`, `send` and `end`.

    Parameters
    ----------
    every_steps
        Updates from one loss to the next.
    """

    sends: ClassVar[bool] = True
    """That a replay of a step has to leave it out."""
    package: ClassVar[str] = ""
    """What must be installed."""
    extra: ClassVar[str] = ""
    """The extra of ddbp that installs it."""

    def __init__(self, *, every_steps: int = 10) -> None:
        owner = type(self).__name__
        self.every_steps = positive_int(owner, "every_steps", every_steps, "10 is usual.")
        self._open = False
        self._resumed = False

    def begin(self, trainer: "Trainer", run: str, resumed: bool) -> None:
        """Open the run in the tool.

        Parameters
        ----------
        trainer
            The trainer; its options are `trainer.options.as_dict()`.
        run
            The name under which the tool shall know the run.
        resumed
            Whether it knows it already, and what comes after `trainer.step_count` is sent again.
        """
        raise NotImplementedError(f"{type(self).__name__} must define begin")

    def send(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers by name, of so many updates."""
        raise NotImplementedError(f"{type(self).__name__} must define send")

    def end(self, failed: bool) -> None:
        """Close the run in the tool; it may be opened again."""

    def configuration(self, trainer: "Trainer") -> dict[str, Any]:
        """Return what the run is made of, as texts and numbers."""
        parts = {name: getattr(trainer, name) for name in ("model", "loss", "optimizer")}
        facts = parts | trainer.options.as_dict() | {"ranks": trainer.comm.size}
        plain = (str, int, float, bool, type(None))
        return {
            name: fact if isinstance(fact, plain) else repr(fact) for name, fact in facts.items()
        }

    def on_attach(self, trainer: "Trainer") -> None:
        if not hasattr(self, "every_steps"):
            must, fix = "its __init__ must call that of Logger", "Begin it with super().__init__()."
            raise TypeError(message(type(self).__name__, must, "one that does not", fix))
        if self.package:
            require_package(type(self).__name__, self.package, self.extra)
        self._resumed = False

    def on_resume(self, trainer: "Trainer") -> None:
        self._resumed = True

    def on_regroup(self, trainer: "Trainer", newcomers: bool) -> None:
        # Another rank may lead now.
        self._resumed = True

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        if trainer.comm.leads:
            self._begin(trainer)

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if step % self.every_steps == 0 and trainer.comm.leads:
            values = {"step/loss": loss, "step/learning_rate": trainer.optimizer.rate}
            self._send(trainer, values, step)

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        if trainer.comm.leads:
            numbers = {
                f"epoch/{name}": float(value)
                for name, value in record.items()
                if isinstance(value, Real) and name not in ("epoch", "step")
            }
            self._send(trainer, numbers, trainer.step_count)

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        self._close(failed=False)

    def on_exception(self, trainer: "Trainer", error: BaseException) -> None:
        self._close(failed=isinstance(error, Exception))

    def _send(self, trainer: "Trainer", values: Mapping[str, float], step: int) -> None:
        self._begin(trainer)
        self.send(values, step)

    def _begin(self, trainer: "Trainer") -> None:
        if not self._open:
            run, known = self._name(trainer.run_dir)
            self.begin(trainer, run, known)
            self._open = True
            # What follows in this process is the same run.
            self._resumed = True
            atexit.register(self._close, failed=False)

    def _close(self, *, failed: bool) -> None:
        if self._open:
            self._open = False
            atexit.unregister(self._close)
            self.end(failed)

    def _name(self, run_dir: Path | None) -> tuple[str, bool]:
        """Return the name of the run, and whether the tool knows it."""
        kind = type(self).__name__
        path = None if run_dir is None else run_dir / _FILE
        names: dict[str, str] = {}
        if path is not None and path.is_file():
            try:
                found = json.loads(path.read_text())
                names = {str(key): str(name) for key, name in found.items()}
            except (AttributeError, OSError, ValueError):
                # It is as good as none.
                names = {}
        if self._resumed and kind in names:
            return names[kind], True
        name = f"{run_dir.name if run_dir else 'run'}-{secrets.token_hex(4)}"
        if path is not None:
            path.write_text(json.dumps(names | {kind: name}) + "\n")
        return name, False
