"""`Trainer(memory=…)`: a budget for what steps need beside parameters, and the plan that keeps it.

What a plan is made of, sizes and times of the layers of a chain, is measured in passes for practice
before the first step: in these every layer is a segment of its own, which takes the least. The plan
is the one that takes least time (`memory_plan`), the same on all ranks, and it is run for practice,
too, before it is trusted. It changes no bit.

Where ranks survive each other, those that are left have more of each batch, and a plan of their
own. A plan belongs to a number of ranks: it is used again when there are as many, and newcomers get
those that there are.
"""

import ctypes
import json
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp import settings, terminal, written
from ddbp.comm.agreement import gather_texts
from ddbp.data.samples import recorded
from ddbp.data.source import Dataset
from ddbp.snapshot import State
from layers import Module, Sequential, Tape, TapeHook, Workspace
from layers.engine.call import Call
from layers.engine.segment import SegmentCall, SegmentTape
from layers.errors import message
from layers.recompute import links, use_plan

from . import memory_plan
from .batch import LocalBatch, local_batch, sliced
from .compilation import compile_step
from .memory_plan import Layer, Plan
from .options import TrainerOptions

if TYPE_CHECKING:
    from .trainer import Trainer

_UNITS = {
    **{"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    **{"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40},
}
_SIZE = re.compile(rf"\s*({written.NUMBER})\s*((?:[KMGT]i?)?)(B)\s*", re.ASCII | re.IGNORECASE)
_MOST = 2**63 - 1
"""Bytes that a number of ranks can agree on."""
_PASSES = 3
"""Of these the first compiles, and the last is the one that counts."""
_TRIES = 5
"""So many plans are tried, of which the last is the one that takes least."""


def parsed(given: Any) -> int | None:
    """Return a number of bytes, of such a number or a size as "200 MB" or "1.5 GiB"; None of None.

    Raises
    ------
    ValueError
        It is neither.
    """
    if given is None:
        return None
    size: float = 0
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        size = int(given)
    elif isinstance(given, str) and (found := _SIZE.fullmatch(given)):
        number, unit, letter = found.groups()
        # A b is a bit.
        size = float(number) * _UNITS[unit.upper()] * (letter == "B")
    if not 1 <= size <= _MOST:
        must = "memory must be a size of at most 8 EiB, in bytes (B; b are bits)"
        fix = 'Write "200 MB", "1.5 GiB" or a number of bytes.'
        raise ValueError(message("Trainer", must, repr(given)[:80], fix))
    return int(size)


def in_words(size: int) -> str:
    """Return a number of bytes as a size of four digits, which is no smaller."""
    least = 10 ** max(0, len(str(size)) - 4)
    size = -(-size // least) * least
    for unit, of in (("GB", 1e9), ("MB", 1e6)):
        if size >= of:
            return f"{size / of:.4g} {unit}"
    return f"{size / 1e3:.4g} kB"


class Budget:
    """Keeps the steps of a trainer within memory.

    Parameters
    ----------
    trainer
        The trainer.
    given
        The bytes for each rank, or a size; None for all there is.
    quiet
        Whether nothing is said.

    Attributes
    ----------
    size
        The bytes, or None.
    facts
        The plan that was chosen, and what it takes, for the configuration of the run.
    """

    def __init__(self, trainer: "Trainer", given: Any, *, quiet: bool) -> None:
        self.size = parsed(given)
        self.facts: dict[str, Any] | None = None
        self._planned_for: tuple[int, ...] = (0,)
        self._quiet = quiet
        # What there is for each number of ranks: what batch it was planned for, and the facts.
        self._known: dict[int, tuple[tuple[int, ...], dict[str, Any]]] = {}
        # The most ranks that there have been.
        self._most = trainer.comm.size
        for _, layer in trainer.model.named_layers():
            # It may have the plan of another trainer.
            if isinstance(layer, Sequential):
                use_plan(layer, None)
        if self.size is not None:
            require_plannable(trainer.model, trainer.options)

    def prepare_for(self, trainer: "Trainer", data: Dataset) -> None:
        """Have a plan for the batches of a data set; collective. Newcomers get it from others."""
        if self.size is None or trainer.comm.newcomer:
            return
        size = min(trainer.options.batch_size, len(data))

        def prepare() -> None:
            self._prepare(trainer, local_batch(data, trainer._plan, range(size), sliced))

        trainer.recovered(prepare)

    def prepare(self, trainer: "Trainer", rows: LocalBatch) -> None:
        """Have a plan for a batch, unless there is one for one as large; collective. If ranks are
        killed meanwhile, the batch is lost, and the plan made when it comes once more.
        """
        if self.size is None:
            return
        shards = trainer._plan

        def prepare() -> None:
            if trainer._plan is shards:
                self._prepare(trainer, rows)

        trainer.recovered(prepare)

    def _prepare(self, trainer: "Trainer", rows: LocalBatch) -> None:
        _require_one_array(rows)
        samples, *rest = self._planned_for
        if rows.samples <= samples and tuple(rest) == rows.x.shape[1:]:
            return
        if trainer._update.group.batches:
            # What has accumulated would be lost; the next group has its plan.
            return
        try:
            facts = self._choose(_Practice(trainer, rows), trainer)
        finally:
            trainer._update.group.restart()
        self.facts = facts
        self._planned_for = (rows.samples, *rows.x.shape[1:])
        self._known[trainer.comm.size] = self._planned_for, facts
        if trainer.comm.rank == 0 and not self._quiet:
            terminal.say(self._sentence())

    def _choose(self, practice: "_Practice", trainer: "Trainer") -> dict[str, Any]:
        """Measure, plan, and try plans until one keeps to the memory; return the facts."""
        size = self.size
        assert size is not None
        layers, rest = practice.measured()
        without = rest + memory_plan.peak(layers, [*range(len(layers))])
        plan: Plan | None = None
        taken = predicted = 0
        for attempt in range(_TRIES):
            if attempt or without > size:
                last = attempt == _TRIES - 1
                plan = memory_plan.fastest(layers, 0 if last else size - rest)
            taken = practice.taken_by(plan)
            predicted = taken if plan is None else rest + memory_plan.peak(layers, plan)
            if taken <= size:
                break
            rest += taken - predicted
        # Where ranks were lost, the rest goes on by the plan that takes least.
        if taken > size and trainer.comm.size == self._most:
            must = "a step must fit into memory"
            fix = f"The least for this batch is {in_words(taken)} on each rank; or use more ranks."
            raise ValueError(message("Trainer", must, f"memory={in_words(size)}", fix))
        forward = sum(layer.seconds for layer in layers)
        again = 0.0 if plan is None else memory_plan.seconds(layers, plan) / forward
        return {
            "budget": size,
            "plan": plan,
            "layers": len(layers),
            "layers_again": 0 if plan is None else memory_plan.again(plan),
            "forward_again": round(again, 3),
            "predicted": predicted,
            "measured": taken,
            "without": without,
        }

    def _sentence(self) -> str:
        facts = self.facts
        assert facts is not None
        head = f"Memory: a step takes {in_words(facts['measured'])} of {in_words(facts['budget'])}"
        if facts["measured"] > facts["budget"]:
            head += ", more than that, as ranks were lost"
        if not facts["layers_again"]:
            return f"{head}; nothing is computed again"
        return (
            f"{head} ({in_words(facts['without'])} are enough to compute nothing again):"
            f" {facts['layers_again']} of {facts['layers']} layers are computed again,"
            f" {facts['forward_again']:.2f} forward passes in each step"
        )

    # Ranks that survive each other

    def follow(self, trainer: "Trainer") -> None:
        """Go on with the ranks that there are now: by the plan for so many, if there is one."""
        if self.size is None:
            return
        ranks = trainer.comm.size
        self._most = max(self._most, ranks)
        self._planned_for, self.facts = self._known.get(ranks, ((0,), None))
        if self.facts is not None:
            model: Any = trainer.model
            use_plan(model, self.facts["plan"])
        trainer._workspace = Workspace()

    def practise(self, trainer: "Trainer", data: Dataset) -> None:
        """Propagate, as a newcomer, about as many samples as one of all ranks has of a batch:
        kernels are there then, within about the budget.
        """
        shards, batch = trainer._plan, min(trainer.options.batch_size, len(data))
        # Of one sample a shard has no variance.
        size = min(batch, max(2 * shards.shards, batch // (settings.ranks() or 1)))
        rows = local_batch(data, shards, range(size), sliced)
        _require_one_array(rows)
        try:
            # What goes wrong with so few need not with a batch, where others can be told of it.
            with suppress(Exception):
                _Practice(trainer, rows).run_alone()
        finally:
            trainer._update.group.restart()

    def state(self) -> State:
        """Return what newcomers are told."""
        plans = [[ranks, *known] for ranks, known in self._known.items()]
        return {"plans": plans, "most": self._most}

    def load_state(self, state: State) -> None:
        """Know what others do."""
        self._known = {ranks: (tuple(batch), facts) for ranks, batch, facts in state["plans"]}
        self._most = state["most"]


def _give_back_free() -> None:
    """Give the system back what has been freed and malloc keeps, where the C library can: glibc
    keeps arrays of up to 32 MiB in its heap once one as large has been freed.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _require_one_array(rows: LocalBatch) -> None:
    if not isinstance(rows.x, np.ndarray):
        must, fix = "memory= needs data of one array", "Use Recompute for such models."
        raise TypeError(message("Trainer", must, type(rows.x).__name__, fix))


def require_plannable(model: Module, options: TrainerOptions) -> None:
    """Refuse a model or options whose steps cannot be planned.

    Raises
    ------
    ValueError
        They cannot.
    """
    if hindrance := _hindrance(model, options):
        raise ValueError(message("Trainer", *hindrance))


def _hindrance(model: Module, options: TrainerOptions) -> tuple[str, str, str] | None:
    """Return what keeps steps from being planned: what must be, what is, and what to do."""
    if type(model) is not Sequential:
        must, fix = "memory= needs a model that is a Sequential", "Write Sequential(…) around it."
        return must, type(model).__name__, fix
    if options.truncate is not None:
        must, fix = "memory= needs whole sequences", "Leave truncate out, or use Recompute."
        return must, f"truncate={options.truncate}", fix
    if options.rule is not None:
        must, fix = "memory= needs exact backpropagation", "Leave rule out, or use Recompute."
        return must, f"rule={options.rule!r}", fix
    if options.exchange is not None:
        must = "memory= needs workers that exchange gradients in each step"
        return must, f"exchange={options.exchange}", "Leave exchange out, or use Recompute."
    return None


class _Practice:
    """Passes on a batch of which nothing stays.

    Parameters
    ----------
    trainer
        The trainer.
    rows
        This rank's rows.
    """

    def __init__(self, trainer: "Trainer", rows: LocalBatch) -> None:
        self._trainer = trainer
        self._rows = rows
        self._model: Any = trainer.model
        self._alone: Plan = [[number] for number in range(len(links(self._model)))]

    def run_alone(self) -> None:
        """Run once with the plan in which every layer is a segment of its own."""
        use_plan(self._model, self._alone)
        self._run(Workspace())

    def measured(self) -> tuple[list[Layer], int]:
        """Return the layers of the chain, and the bytes that every plan takes beside; the same on
        all ranks, the sizes of those that need most and the times of the first.
        """
        watch, trainer = _Watch(), self._trainer
        workspace = Workspace()
        use_plan(self._model, self._alone)
        comm = trainer.comm
        with comm.leader_first(), trainer._gather.alone():
            if not comm.of_host.rank:
                compile_step(trainer, self._rows)
            self._begin_anew()
            for _ in range(_PASSES):
                watch.begin()
                self._run(workspace, watch)
        trainer._gather.asked_alone = False
        mine = [watch.layers(), workspace.nbytes - workspace.stack.memory.size]
        all_ranks = [json.loads(text) for text in gather_texts(comm, json.dumps(mine))]
        times = [seconds for *_, seconds in all_ranks[0][0]]
        sizes = np.max([[layer[:2] for layer in layers] for layers, _ in all_ranks], axis=0)
        pairs = zip(sizes.tolist(), times, strict=True)
        layers = [Layer(output, kept, seconds) for (output, kept), seconds in pairs]
        del workspace
        _give_back_free()
        return layers, max(rest for _, rest in all_ranks)

    def taken_by(self, plan: Plan | None) -> int:
        """Use a plan, or none, from now on; return the most bytes that a step takes with it on any
        rank.
        """
        trainer, workspace = self._trainer, Workspace()
        self._begin_anew()
        use_plan(self._model, plan)
        with trainer._gather.alone():
            for _ in range(2):
                self._run(workspace)
        trainer._gather.asked_alone = False
        trainer._workspace = workspace
        taken = np.array([workspace.nbytes], np.int64)
        return int(trainer.comm.all_gather(taken).max())

    def _begin_anew(self) -> None:
        """Let go of what steps before have held."""
        self._trainer._workspace = Workspace()
        self._trainer._update.group.newest = None
        _give_back_free()

    def _run(self, workspace: Workspace, *hooks: TapeHook) -> None:
        """Propagate forward and backward."""
        trainer, rows = self._trainer, self._rows
        tape = Tape(
            training=True,
            shards=rows.bounds,
            samples=rows.samples,
            first_sample=rows.first,
            seed=trainer.options.seed,
            workspace=workspace,
            gather=trainer._gather,
            deferred=True,
            hooks=hooks or None,
            owner=trainer._update.flat,
        )
        try:
            with np.errstate(all="ignore"):
                y: Any = trainer.model(recorded(tape, rows.x, True))
                if trainer.loss is None:
                    y.backward(np.ones(y.shape, y.dtype))
                else:
                    weights = () if rows.weights is None else (rows.weights,)
                    loss = trainer.loss(y, rows.y, *weights)
                    factor = trainer._scaling.value
                    if trainer.options.accumulate > 1:
                        # Batches of other weight than the first have one, which takes room.
                        factor /= 2
                    loss.backward(None if factor == 1 else np.full(loss.shape, factor))
        finally:
            tape.release()
            trainer._update.flat.zero_gradients()
            _give_back_free()


class _Watch(TapeHook):
    """Measures the segments of a chain in which every layer is one."""

    def __init__(self) -> None:
        self._passes: list[list[Layer]] = []
        self._since = 0.0

    def begin(self) -> None:
        """Begin a pass."""
        self._passes.append([])

    def on_forward_begin(self, call: Call) -> None:
        if self._is_link(call):
            self._since = time.perf_counter()

    def on_forward_end(self, call: Call) -> None:
        if self._is_link(call):
            assert isinstance(call, SegmentCall)
            seconds = time.perf_counter() - self._since
            output = call.tape.workspace.stack.top - call.bottom
            height = call.height + (output if call.tape.live is not None else 0)
            self._passes[-1].append(Layer(output, height, seconds))

    def _is_link(self, call: Call) -> bool:
        """Return whether a call is of a segment in the chain itself."""
        tape = call.tape
        return isinstance(call, SegmentCall) and isinstance(tape, SegmentTape) and tape.depth == 0

    def layers(self) -> list[Layer]:
        """Return the sizes in the last pass, and the least times."""
        return [
            each[-1]._replace(seconds=min(layer.seconds for layer in each))
            for each in zip(*self._passes, strict=True)
        ]
