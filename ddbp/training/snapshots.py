"""Snapshots of a trainer: how its parts' states become one, and what must fit before it is
loaded.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ddbp.comm.agreement import gather_texts, in_words, require_agreement
from ddbp.snapshot import VERSION, Snapshot, State
from layers.errors import message

from . import checks
from .callbacks import Callback

if TYPE_CHECKING:
    from .trainer import Trainer

_OWNER = "Trainer.load_state"
# Of their entries some are only there in the middle of a group of batches.
_CHANGING = ("accumulation", "stream")


class Stateful(Protocol):
    """A part of training that changes; both methods are called on all ranks."""

    def state(self) -> dict[str, Any]:
        """Return its state, the same on all ranks and for any number of them."""

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""


def take(trainer: "Trainer", parts: Mapping[str, Stateful]) -> Snapshot:
    """Return the snapshot of the parts of a trainer; collective."""
    states = {name: part.state() for name, part in parts.items()}
    own = {
        "snapshot": {"version": VERSION},
        "facts": _facts(trainer),
        "trainer": {"step_count": trainer.step_count, "stop": trainer.stop},
    }
    snapshot = Snapshot.of(own | states)
    # Times are not the same on all ranks.
    values = gather_texts(trainer.comm, json.dumps(snapshot.values))[0]
    return Snapshot(snapshot.arrays, json.loads(values))


def load(trainer: "Trainer", parts: Mapping[str, Stateful], snapshot: Snapshot) -> None:
    """Have a trainer and its parts go on from a snapshot, if it fits; collective.

    Raises
    ------
    TypeError
        It is no snapshot.
    ValueError
        It is of another version, of another model or of other options, or not whole.
    CommunicationError
        Ranks have different ones.
    """
    _require_snapshot(snapshot)
    _require_fitting(trainer, parts, snapshot)
    for name, part in parts.items():
        part.load_state(snapshot.part(name))
    own = snapshot.part("trainer")
    trainer.step_count = own["step_count"]
    trainer.stop = own["stop"]


def _require_snapshot(given: Any) -> None:
    if not isinstance(given, Snapshot):
        must, fix = "the state must be a Snapshot", "Pass what Trainer.state has returned."
        raise TypeError(message(_OWNER, must, type(given).__name__, fix))


def _require_fitting(trainer: "Trainer", parts: Mapping[str, Stateful], snapshot: Snapshot) -> None:
    same = {"state to load": snapshot.digest()}
    require_agreement(trainer.comm, same, "Every rank loads the whole of the same state.")
    version = snapshot.values.get("snapshot.version")
    if version != VERSION:
        must, fix = (
            f"the state must be of version {VERSION}",
            "Load it with the ddbp that has written it.",
        )
        raise ValueError(message(_OWNER, must, version, fix))
    _require_same_facts(snapshot.part("facts"), _facts(trainer))
    _require_same_entries("trainer", snapshot.part("trainer"), {"step_count": 0, "stop": False})
    for name, part in parts.items():
        if name not in _CHANGING:
            _require_same_entries(name, snapshot.part(name), part.state())


def stateful(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Return the callbacks that have a state, by names for it."""
    kinds = [each for each in callbacks if type(each).state is not Callback.state]
    return {f"{type(each).__name__}.{number}": each for number, each in enumerate(kinds)}


def _facts(trainer: "Trainer") -> dict[str, Any]:
    """Return what must be the same of the trainer that a state is from and the one that it is for,
    in words.
    """
    return in_words(checks.run_facts(trainer) | {"callbacks": [*stateful(trainer.callbacks)]})


def _require_same_facts(there: State, here: State) -> None:
    for name, fact in here.items():
        found = there.get(name)
        if found == fact:
            continue
        if isinstance(fact, list) and isinstance(found, list):
            only_there = [part for part in found if part not in fact]
            only_here = [part for part in fact if part not in found]
            found, fact = ", ".join(only_there) or "none", ", ".join(only_here) or "none"
        must = f"the state must be of a trainer with the same {name}"
        fix = "Make the trainer alike, with what it was made with."
        raise ValueError(message(_OWNER, must, f"{found} in the state, {fact} here", fix))


def _require_same_entries(part: str, there: State, here: State) -> None:
    for name in sorted(there.keys() | here.keys()):
        found, expected = (_kind(state, name) for state in (there, here))
        if found != expected:
            must, fix = f"{part}.{name} must be {expected}", "Load the whole of a state."
            raise ValueError(message(_OWNER, must, found, fix))


def _kind(state: State, name: str) -> str:
    """Return what an entry is, of an array its shape and type."""
    if name not in state:
        return "absent"
    entry = state[name]
    shape, dtype = getattr(entry, "shape", None), getattr(entry, "dtype", None)
    return "a value" if shape is None else f"an array {shape} {dtype}"
