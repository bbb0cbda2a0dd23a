"""Snapshots of a trainer: how its parts' states become one, and what must fit before it is
loaded.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

import numpy as np

from ddbp.comm.agreement import gather_texts, gather_uneven, in_words, require_agreement
from ddbp.comm.base import CollectiveKind, Communicator, NotRecoveredError
from ddbp.reduction.replicate import Replica
from ddbp.snapshot import BOOLEAN, VERSION, Pieces, Schema, Snapshot, State, StoredArray, integer
from layers.errors import message
from layers.types import Array

from . import checks, frozen, learning
from .callbacks import Callback
from .refusals import ANEW

if TYPE_CHECKING:
    from .trainer import Trainer

_OWNER = "Trainer.load_state"
_WHOLE = "Load the whole of a state."
_PLACE = ("accumulation", "stream", "fit")
"""The parts that say where a run is."""
_OWN = {"step_count": integer(0), "stop": BOOLEAN}


class Stateful(Protocol):
    """A part of training that changes; both methods are called on all ranks."""

    def state(self) -> dict[str, Any]:
        """Return its state, the same on all ranks and for any number of them."""

    def state_schema(self, state: State) -> Schema:
        """Return what all entries of a state must be, if it is to be loaded, in the order in which
        they are checked: those on which others depend come first, and may be anything yet.
        """

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""


class Continuing:
    """What a trainer offers to go on from a state of it."""

    def state(self, *, collected: bool = True) -> Snapshot:
        """Return all that training has changed so far, the same on all ranks and for any number of
        them; collective.

        Call it between two steps, in a callback or a loop; of callbacks the last one, so that the
        others have been told what it has. The order in the data, random masks and whatever else
        there is are functions of it. If it is not `collected`, arrays that are spread over ranks
        are the pieces of this one, and change with training.

        Raises
        ------
        RuntimeError
            A batch was given out, and no step has been taken since, or a validation goes on.
        """
        trainer: Any = self
        trainer._follow()
        at_once = take if collected else local
        return cast(Snapshot, trainer.recovered(lambda: at_once(trainer, parts(trainer))))

    def load_state(self, state: Snapshot) -> None:
        """Go on from the state of a trainer that was made alike, but for its `resume_options`, on
        any number of ranks; collective.

        The `fit`, or the loop over `batches`, that the state is from the midst of goes on with the
        next one, which must be asked for as many epochs. A loop that was begun before is refused
        its next batch.

        Raises
        ------
        TypeError
            It is no snapshot of arrays and of what JSON can hold.
        ValueError
            The state is of another version, model or options, or not whole: nothing is changed.
        RuntimeError
            The trainer is in the midst of a fit.
        CommunicationError
            Ranks have different states.
        """
        trainer: Any = self
        checks.between_runs(trainer._fit.running)
        self._load(state, trainer._differing)
        trainer._stream.begin_anew()

    def _go_on(self, state: Snapshot) -> None:
        """Go on from the state of a checkpoint."""
        trainer: Any = self
        self._load(state, trainer._differing)
        for callback in trainer.callbacks:
            callback.on_resume(trainer)

    def _load(self, state: Snapshot, differing: Sequence[str] = ()) -> None:
        trainer: Any = self
        trainer._follow()
        _require_same(trainer, state)
        with frozen.as_in(trainer, state):
            load(trainer, parts(trainer), state, differing)
        trainer._update.batches = 0
        trainer._last_begun = -1


def local(trainer: "Trainer", parts: Mapping[str, Stateful]) -> Snapshot:
    """Return the snapshot of the parts of a trainer with this rank's pieces of arrays that are
    spread over ranks; collective. Its arrays change with training.
    """
    own = {
        "snapshot": {"version": VERSION},
        "facts": _facts(trainer),
        "trainer": {"step_count": trainer.step_count, "stop": trainer.stop},
    }
    return Snapshot.of(own | {name: part.state() for name, part in parts.items()})


def take(trainer: "Trainer", parts: Mapping[str, Stateful]) -> Snapshot:
    """Return the snapshot of the parts of a trainer; collective."""
    snapshot = local(trainer, parts)
    spread = {name: each for name, each in snapshot.arrays.items() if isinstance(each, Pieces)}
    missing = {name: pieces for name, pieces in spread.items() if pieces.whole is None}
    whole = {name: p.whole.copy() for name, p in spread.items() if p.whole is not None}
    arrays = snapshot.arrays | whole | gathered(trainer.comm, missing)
    # Times are not the same on all ranks.
    values = gather_texts(trainer.comm, json.dumps(snapshot.values))[0]
    return Snapshot(arrays, json.loads(values))


def gathered(comm: Communicator, spread: Mapping[str, Pieces]) -> dict[str, Array]:
    """Return the whole arrays of which ranks hold pieces; collective."""
    result = {name: np.zeros(pieces.shape, pieces.dtype) for name, pieces in spread.items()}
    for dtype in sorted({array.dtype.str for array in result.values()}):
        names = [name for name, array in result.items() if array.dtype.str == dtype]
        held = [
            (number, start, piece)
            for number, name in enumerate(names)
            for start, piece in spread[name].parts
        ]
        places = [(number, start, len(piece)) for number, start, piece in held]
        table = np.array(places, np.int64).reshape(-1, 3)
        flat = np.concatenate([np.empty(0, dtype), *(piece for _, _, piece in held)])
        for rows, elements in zip(
            gather_uneven(comm, table), gather_uneven(comm, flat), strict=True
        ):
            ends = np.cumsum(rows[:, 2])
            for (number, start, count), end in zip(rows.tolist(), ends.tolist(), strict=True):
                whole = result[names[number]].reshape(-1)
                whole[start : start + count] = elements[end - count : end]
    return result


def load(
    trainer: "Trainer",
    parts: Mapping[str, Stateful],
    snapshot: Snapshot,
    differing: Sequence[str] = (),
) -> None:
    """Have a trainer and its parts go on from a snapshot, the same on all ranks, if it fits;
    collective. The facts that are named by `differing` may be others.

    Raises
    ------
    ValueError
        It is of another version, of another model or of other options, or not whole.
    """
    _require_fitting(trainer, parts, snapshot, differing)
    load_shared(parts, snapshot)
    load_own(trainer, parts, snapshot)


def load_shared(parts: Mapping[str, Stateful], snapshot: Snapshot) -> None:
    """Load what depends on who the ranks are, or may do so; collective."""
    for name, part in parts.items():
        if name not in _PLACE:
            part.load_state(snapshot.part(name))


def load_own(trainer: "Trainer", parts: Mapping[str, Stateful], snapshot: Snapshot) -> None:
    """Load the rest, which is where the run is."""
    for name in _PLACE:
        parts[name].load_state(snapshot.part(name))
    own = snapshot.part("trainer")
    trainer.step_count = own["step_count"]
    trainer.stop = own["stop"]


def hand_over(comm: Communicator, snapshot: Snapshot | None) -> Snapshot:
    """Return the snapshot that ranks have, on those, too, that have none; collective."""
    held = None
    if snapshot is not None:
        arrays = [(name, a.shape, a.dtype.str, a.nbytes) for name, a in snapshot.arrays.items()]
        held = {"arrays": arrays, "values": snapshot.values}
    texts = gather_texts(comm, json.dumps(held))
    having = ((rank, held) for rank, text in enumerate(texts) if (held := json.loads(text)))
    giver, stated = next(having, (-1, None))
    if stated is None:
        must = "a rank that newcomers get the state from must live until they have it"
        fix = "With --max-restarts the job begins again from its newest checkpoint."
        raise NotRecoveredError(message("Trainer", must, "none", fix))
    starts = [0, *accumulate(-(-nbytes // 8) * 8 for *_, nbytes in stated["arrays"])]
    memory = comm.host_array((starts.pop(),), np.uint8)
    places = {
        name: memory[start : start + nbytes].view(dtype).reshape(shape)
        for (name, shape, dtype, nbytes), start in zip(stated["arrays"], starts, strict=True)
    }
    if comm.rank == giver and snapshot is not None:
        for name, array in snapshot.arrays.items():
            places[name][...] = array
    comm.host_barrier((CollectiveKind.GATHER, 0))
    return snapshot or Snapshot(places, stated["values"])


def _require_snapshot(given: Any) -> None:
    if not isinstance(given, Snapshot):
        must, fix = "the state must be a Snapshot", "Pass what Trainer.state has returned."
        raise TypeError(message(_OWNER, must, type(given).__name__, fix))
    for part in (given.arrays, given.values):
        named: Any = part
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named):
            must, fix = "arrays and values must be dictionaries by name", _WHOLE
            raise TypeError(message(_OWNER, must, f"a {type(named).__name__}", fix))
    arrays: dict[str, Any] = given.arrays
    for name, entry in arrays.items():
        if not isinstance(entry, np.ndarray | StoredArray):
            must = f"{name} must be an array"
            raise TypeError(message(_OWNER, must, type(entry).__name__, _WHOLE))
    for name, entry in given.values.items():
        try:
            json.dumps(entry)
        except (TypeError, ValueError) as error:
            must = f"{name} must be what JSON can hold"
            raise TypeError(message(_OWNER, must, repr(entry), _WHOLE)) from error


def _require_same(trainer: "Trainer", given: Any) -> None:
    """Refuse what is no snapshot, or not the same on all ranks; collective."""
    _require_snapshot(given)
    same = {"state to load": given.digest()}
    require_agreement(trainer.comm, same, "Every rank loads the whole of the same state.")


def _require_fitting(
    trainer: "Trainer",
    parts: Mapping[str, Stateful],
    snapshot: Snapshot,
    differing: Sequence[str],
) -> None:
    version = snapshot.values.get("snapshot.version")
    if version != VERSION:
        must, fix = (
            f"the state must be of version {VERSION}",
            "Load it with the ddbp that has written it.",
        )
        raise ValueError(message(_OWNER, must, version, fix))
    here = _facts(trainer)
    if unknown := [name for name in differing if name not in here]:
        fix = f"They are {', '.join(here)}."
        raise ValueError(message("Trainer", "resume_options must be facts of a run", unknown, fix))
    there = snapshot.part("facts")
    found = _BEFORE | there
    others = [name for name, fact in here.items() if found.get(name, "absent") != fact]
    if refused := [name for name in others if name not in differing]:
        _refuse_facts(refused[0], found, here, others, _never_fits(trainer, parts, snapshot))
    if there.get("seed") != here["seed"] and snapshot.values.get("stream.position"):
        must = "the seed of a state from the midst of an epoch must be the same"
        got = f"{there.get('seed')} in the state, {here['seed']} here"
        fix = "It decides which samples are left: take the state of the end of an epoch."
        raise ValueError(message(_OWNER, must, got, fix))
    if (unfit := _unfit("trainer", snapshot.part("trainer"), _OWN)) is not None:
        raise ValueError(message(_OWNER, *unfit, _WHOLE))
    for name, part in parts.items():
        state = snapshot.part(name)
        if (unfit := _unfit(name, state, part.state_schema(state))) is not None:
            raise ValueError(message(_OWNER, *unfit, _fix_of_unfit(name, others)))


def parts(trainer: "Trainer") -> dict[str, Stateful]:
    """Return all parts of a trainer that change, by name."""
    compressed = trainer._update.reducer.compressed
    # Callbacks first: those of the user may refuse what they are to load.
    return {
        **stateful(trainer.callbacks),
        "model": Replica(trainer.model, trainer.comm, trainer._update.comm),
        **learning.parts(trainer),
        **trainer._update.parts(),
        "guard": trainer._guard,
        **({"loss_scale": trainer._scaling} if trainer._scaling.on else {}),
        **({} if compressed is None else {"compression": compressed}),
        "accumulation": trainer._update.group,
        "stream": trainer._stream,
        "fit": trainer._fit,
    }


class Told(Protocol):
    """What ranks have found out together, of which newcomers are told. No bit depends on it, so it
    is in no other state.
    """

    def state(self) -> State:
        """Return what there is to tell, as JSON can hold it."""

    def load_state(self, state: State) -> None:
        """Know what `state` returned."""

    def follow(self, trainer: "Trainer") -> None:
        """Go on with the ranks that there are now."""


def told(trainer: "Trainer") -> dict[str, Told]:
    """Return what newcomers are told beside the state, by name."""
    advice = {} if trainer.advice is None else {"network": trainer.advice}
    return {"memory": trainer._memory, **advice}


def for_newcomers(trainer: "Trainer") -> Snapshot:
    """Return the state that newcomers get, with what they are told; collective."""
    snapshot: Snapshot = trainer.state()
    beside = Snapshot.of({name: part.state() for name, part in told(trainer).items()})
    return Snapshot(snapshot.arrays, snapshot.values | beside.values)


def stateful(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Return the callbacks that have a state, by names for it, those that are optional last."""
    kinds = [each for each in callbacks if type(each).state is not Callback.state]
    groups = ([each for each in kinds if each.optional is optional] for optional in (False, True))
    return {
        f"{type(each).__name__}.{number}": each
        for group in groups
        for number, each in enumerate(group)
    }


def _facts(trainer: "Trainer") -> dict[str, Any]:
    """Return what must be the same of the trainer that a state is from and the one that it is for,
    in words.
    """
    required = [each for each in trainer.callbacks if not each.optional]
    return in_words(checks.run_facts(trainer) | {"callbacks": [*stateful(required)]})


_BEFORE = {
    "precision": "float32",
    "loss_scale": "None",
    "compression": "None",
    "exchange": "None",
    "rule": "None",
    "augment": "()",
}
"""Facts that older states do not name, as they were the same for all."""


def _refuse_facts(
    name: str, there: State, here: State, others: Sequence[str], unfit: str | None
) -> NoReturn:
    """Refuse another fact than that of a state. All `others` that differ may do so, unless a part
    of the state is `unfit` then.
    """
    found, fact = there.get(name, "absent"), here[name]
    if isinstance(fact, list) and isinstance(found, list):
        only_there = [str(part) for part in found if part not in fact]
        only_here = [part for part in fact if part not in found]
        found, fact = ", ".join(only_there) or "none", ", ".join(only_here) or "none"
    got = f"{found} in the state, {fact} here"
    if found == fact:
        got = "them in another order"
    must = f"the state must be of a trainer with the same {name}"
    fix = (
        f"Make the trainer alike, or resume with resume_options={others!r}"
        f" (--resume-options {' '.join(others)})."
    )
    if unfit is not None:
        fix = _fix_of_unfit(unfit, others)
    raise ValueError(message(_OWNER, must, got, fix))


def _never_fits(
    trainer: "Trainer", parts: Mapping[str, Stateful], snapshot: Snapshot
) -> str | None:
    """Return the first part of a state that fits a trainer at no step; callbacks, which users
    write, are not asked.
    """
    unasked = {*_PLACE, *stateful(trainer.callbacks)}
    states = ((name, snapshot.part(name)) for name in parts if name not in unasked)
    return next((n for n, state in states if _unfit(n, state, parts[n].state_schema(state))), None)


def _fix_of_unfit(part: str, others: Sequence[str]) -> str:
    """Return what helps where a part of a state does not fit a trainer with these other facts."""
    changed = " and ".join(others)
    if not others:
        return _WHOLE
    if part in _PLACE:
        return f"A change of {changed} needs the state of the end of an epoch."
    fix = "Make the trainer alike, or begin a new run." if part == "model" else ANEW
    return f"A run cannot go on after this change of {changed}. {fix}"


def _unfit(part: str, there: State, schema: Schema) -> tuple[str, str] | None:
    """Return the first that is not as it must be of a part's state: what must hold, and what there
    is.
    """
    for name in [*schema, *sorted(there.keys() - schema.keys())]:
        must = schema[name].kind if name in schema else "absent"
        if name not in there or name not in schema or not schema[name].holds(there[name]):
            got = _in_words(there[name]) if name in there else "absent"
            return f"{part}.{name} must be {must}", got
    return None


def _in_words(entry: Any) -> str:
    """Return what an entry is, of an array its shape and type."""
    if isinstance(entry, np.ndarray | StoredArray):
        return f"an array {entry.shape} {entry.dtype}"
    return textwrap.shorten(repr(entry), 80)
