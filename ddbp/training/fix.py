"""What `ddbp doctor --fix` has the trainer of a script do otherwise: options with other values, in
a folder of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ddbp import settings, terminal
from ddbp.optim.groups import changed, option_names
from ddbp.optim.optimizer import Optimizer
from layers import TapeHook
from layers.errors import message

from . import fork, replay
from .callbacks import Callback
from .options import TrainerOptions

if TYPE_CHECKING:
    from .trainer import Trainer

_OTHERS = ("schedule", "class_weight", "dropout")
_OWNER = "ddbp doctor --fix"


def applied(
    trainer: "Trainer", options: TrainerOptions, optimizer: Optimizer
) -> tuple[TrainerOptions, Optimizer]:
    """Return the options and the optimizer of a trainer that is being made, as asked for; and drop
    no more in its layers than that.

    Raises
    ------
    ValueError
        An option is unknown, or out of range.
    """
    asked, number = settings.fix(), replay.counted(trainer)
    changes = trainer._changes = _of_trainer(asked, number)
    size = trainer.comm.size
    if not changes:
        return options.on(size), optimizer
    of_trainer = [each.name for each in fields(options)]
    known = [*option_names(optimizer), *of_trainer, *_OTHERS]
    if unknown := [name for name in changes if name not in known]:
        must, fix = "changes must be options of the trainer", f"They are {', '.join(known)}."
        raise ValueError(message(_OWNER, must, ", ".join(unknown), fix))
    if "dropout" in changes:
        fork.limit_dropout(trainer.model, changes["dropout"])
    if trainer.comm.leads:
        shown = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        terminal.say(f"{_OWNER}: in this run {shown}, whatever the script says.")
    own = {name: value for name, value in changes.items() if name in of_trainer}
    return replace(options, **own).on(size), changed(optimizer, changes)


def _of_trainer(asked: Mapping[str, Any] | None, number: int) -> dict[str, Any]:
    """Return the changes that are asked for of the trainer with this number."""
    own = asked is not None and asked["trainer"] in (None, number)
    return dict(asked["changes"]) if asked is not None and own else {}


def class_weight(trainer: "Trainer", given: Any) -> Any:
    """Return the weights of the labels of a fit, as asked for or as given."""
    return trainer._changes.get("class_weight", given)


def begin(
    trainer: "Trainer", callbacks: Sequence[Callback | TapeHook]
) -> Sequence[Callback | TapeHook]:
    """Return the callbacks of a trainer; it, and they, write over nothing, and begin anew, where
    another trainer of the script or this one is to be fixed.
    """
    asked = settings.fix()
    if asked is None or asked["run_dir"] is None:
        return callbacks
    if trainer.run_dir is not None:
        number = replay.origin(trainer)["trainer"]
        own = number == asked["trainer"]
        trainer.run_dir = Path(asked["run_dir"] if own else f"{asked['run_dir']}-trainer{number}")
    for each in callbacks:
        if isinstance(each, Callback) and getattr(each, "path", None) is not None:
            cast(Any, each).path = place(trainer, Path(cast(Any, each).path))
    trainer.resume = None
    return callbacks


def place(trainer: "Trainer", path: Path) -> Path | None:
    """Return where what a script would write to a path goes: into the folder of its own, if the run
    is to be fixed, or nowhere if it has none.
    """
    asked = settings.fix()
    if asked is None or asked["run_dir"] is None:
        return path
    return None if trainer.run_dir is None else trainer.run_dir / path.name
