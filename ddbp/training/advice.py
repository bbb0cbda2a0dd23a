"""What `Trainer(network=…)` is for: how fast the network between hosts is, and which exchange is
enough for it, to be told of or to be chosen.
"""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp import terminal
from ddbp.comm.base import Communicator
from ddbp.data.array_dataset import ArrayDataset
from ddbp.data.source import Dataset, Source
from ddbp.observers.observer import StepHook, StepPhase
from ddbp.optim.optimizer import Optimizer
from ddbp.seldom import workers
from ddbp.seldom.network import Network, Way, measured, recommended, ways
from ddbp.snapshot import State
from layers import Module
from layers.errors import message

from . import checks, rounds
from .memory import require_plannable
from .options import TrainerOptions

if TYPE_CHECKING:
    from .trainer import Trainer

_FIRST, _STEPS = 3, 10
"""So many steps are not counted, as kernels are compiled in them, and so many are."""
_EXCHANGES = 10
"""Workers that train apart are chosen only where there are so many exchanges in an epoch."""
_WAYS = "wire", "compression", "exchange"


class Advice(StepHook):
    """Measures the network before training, and the time from the beginning of steps to their
    exchange in some of the first; then knows which arguments of `Trainer` are recommended.

    Parameters
    ----------
    quiet
        Whether nothing is said of that.
    chooses
        Whether the trainer that it is given to first is there to choose for another one.

    Attributes
    ----------
    network
        What was measured, None on one host.
    compute
        Seconds of a batch without exchange, the lower quartile of some steps on the slowest rank,
        once known.
    way
        What is recommended then.
    """

    def __init__(self, *, quiet: bool = False, chooses: bool = False) -> None:
        self.network: Network | None = None
        self.compute: float | None = None
        self.way: Way | None = None
        self._quiet = quiet
        self._chooses = chooses
        self._begun = 0.0
        self._whole = 0.0
        self._seconds: list[float] = []

    @property
    def for_practice(self) -> bool:
        """Whether the trainer that has it is there to choose for another one."""
        return self._chooses and self.way is None

    def measure(self, trainer: "Trainer") -> None:
        """Measure the network, unless that was done; collective. Newcomers are told by others."""
        if self.way is None and not trainer.comm.newcomer:
            self.network = measured(trainer.comm)

    def follow(self, trainer: "Trainer") -> None:
        """Go on with the ranks that there are now, whose steps take another time."""
        self._seconds.clear()
        hosts = len(trainer.comm.hosts) - 1
        if self.way is None and self.network is not None:
            self.network = None if hosts == 1 else self.network._replace(hosts=hosts)

    def state(self) -> State:
        """Return what newcomers are told."""
        return {
            "network": self.network,
            "compute": self.compute,
            "way": None if self.way is None else asdict(self.way),
        }

    def load_state(self, state: State) -> None:
        """Know what others do."""
        network, way = state["network"], state["way"]
        self.network = None if network is None else Network(*network)
        self.compute = state["compute"]
        self.way = None if way is None else Way(**way)

    @property
    def facts(self) -> dict[str, Any]:
        """What was found, for the configuration of a run."""
        network = None if self.network is None else self.network._asdict()
        way = None if self.way is None else self.way.arguments
        return {"measured": network, "compute": self.compute, "recommended": way}

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        self._begun = time.perf_counter()

    def on_phase(self, trainer: "Trainer", phase: StepPhase) -> None:
        if phase == StepPhase.EXCHANGE and len(self._seconds) < _FIRST + _STEPS:
            self._seconds.append(time.perf_counter() - self._begun)

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if self.way is None:
            trainer.recovered(self._advise, trainer)

    def _advise(self, trainer: "Trainer") -> None:
        """Recommend a way once there have been enough steps; collective then. If ranks are killed
        in that, steps are counted anew.
        """
        if len(self._seconds) < _FIRST + _STEPS:
            return
        options, comm = trainer.options, trainer.comm
        batches = options.accumulate
        if options.exchange is not None:
            batches = max(1, options.exchange.every // options.exchange.fragments)
        # What disturbs a step only makes it longer; few are shorter, as the last of an epoch is.
        mine = sorted(self._seconds[_FIRST:])[_STEPS // 4] / batches
        self.compute = float(comm.all_gather(np.array([mine])).max())
        self.recommend(_ways(trainer.model, self.network, comm.size))
        if comm.leads and not self._quiet:
            self.say("Recommended")

    def recommend(self, of: Sequence[Way]) -> None:
        """Know which of some ways is recommended, of which the first sends gradients as they
        are.
        """
        assert self.compute is not None
        self.way = of[0]
        if self.network is not None:
            self.way = recommended(self.network, of, self.compute)
            self._whole = self.network.seconds(of[0].messages, of[0].sent)

    def say(self, verb: str) -> None:
        """Say what was found, and what is recommended or chosen."""
        said = "one host: nothing is sent"
        if self.network is not None:
            assert self.way is not None
            assert self.compute is not None
            said = (
                f"{self.network}; a batch computes for {1e3 * self.compute:.3g} ms, and gradients"
                f" as they are take {1e3 * self._whole:.3g} ms. {verb}:"
                f" {self.way.arguments or 'gradients as they are'}"
            )
        terminal.say(f"Network: {said}")


def _ways(model: Module, network: Network | None, workers: int) -> list[Way]:
    """Return the ways there are to exchange a model."""
    shapes = [each.shape for each in model.parameters() if each.trainable]
    return ways(shapes, 1 if network is None else network.hosts, workers)


def begin(given: Any) -> Advice | None:
    """Return what gives advice if it is asked for, or what has given it before."""
    if given is None or isinstance(given, Advice):
        return given
    if not (isinstance(given, str) and given == "auto"):
        must, fix = 'network must be "auto" or a data set', "Leave it out to measure nothing."
        raise ValueError(message("Trainer", must, repr(given), fix))
    return Advice()


def measure(trainer: "Trainer") -> None:
    """Measure the network if advice is asked for; collective."""
    if trainer.advice is not None:
        trainer.recovered(trainer.advice.measure, trainer)


def chosen(
    make: "type[Trainer]",
    given: Any,
    memory: Any,
    options: TrainerOptions,
    model: Module,
    loss: Any,
    optimizer: Optimizer,
    callbacks: Sequence[Any],
    comm: Communicator,
) -> tuple[Any, TrainerOptions]:
    """Return what `begin` is to be given, and the options of a trainer that is being made: if it is
    given a data set, those that are recommended after some steps on it with copies of the model and
    the optimizer; collective.

    Raises
    ------
    ValueError
        The way to exchange is given, too.
    """
    if not isinstance(given, ArrayDataset | Source):
        return given, options
    for name in _WAYS:
        if getattr(options, name) is not None:
            must, fix = (
                f"network= and {name} cannot go together where it is chosen",
                "Leave one out.",
            )
            raise ValueError(message("Trainer", must, f"{name}={getattr(options, name)!r}", fix))
    checks.has_loss("Trainer", loss)
    if comm.newcomer:
        # On one host: nothing is chosen there, and what was found comes with the state.
        return Advice(quiet=True), options
    advice = Advice(quiet=True, chooses=True)
    practice = deepcopy(options.as_dict()) | {"on_nonfinite": "stop"}
    trainer = make(
        deepcopy(model),
        loss=loss,
        optimizer=deepcopy(optimizer),
        quiet=True,
        network=advice,
        memory=memory,
        **practice,
    )
    first = given.in_memory(np.arange(min(options.batch_size, len(given))))
    while advice.way is None:
        trainer.train_step(first.x, first.y, first.weights)
    shards = options.shards if isinstance(options.shards, int) else comm.size
    of = _ways(model, advice.network, shards)
    possible = [
        each
        for each in of
        if _goes(each, options, model, optimizer, callbacks, comm, given, memory)
    ]
    advice.recommend(possible)
    if comm.leads:
        advice.say("Chosen")
    return advice, replace(options, **advice.way.options)


def _goes(
    way: Way,
    options: TrainerOptions,
    model: Module,
    optimizer: Optimizer,
    callbacks: Sequence[Any],
    comm: Communicator,
    data: Dataset,
    memory: Any,
) -> bool:
    """Return whether a way to exchange goes with the other options of a trainer."""
    if comm.survives and "wire" in way.options:
        # Bits would depend on who is left, as they do on which ranks share a host.
        return False
    try:
        with_it = replace(options, **way.options).on(comm.size)
        checks.goes_with_compression(with_it.compression, model, optimizer, comm)
        rounds.kind(with_it, comm, callbacks)
        if memory is not None:
            require_plannable(model, with_it)
        if with_it.exchange is not None and with_it.steps(len(data)) < _EXCHANGES:
            return False
        if with_it.exchange is not None and not with_it.drop_last:
            workers.require_rows(with_it.exchange, with_it.batch_size, len(data))
    except ValueError:
        return False
    return True
