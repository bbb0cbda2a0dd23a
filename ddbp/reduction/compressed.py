"""Compressed gradients: what each shard sends, what it keeps back, and their sum."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ddbp.comm.base import Collective, Communicator
from ddbp.compression import Compressor, Rounded
from ddbp.snapshot import Pieces, Schema, State, array
from layers import FlatParameters, Module, Parameter
from layers.engine.fixed_tree import tree_sum
from layers.engine.memory import zeros
from layers.engine.parameter import unique_parameters
from layers.kernels import compression as kernels
from layers.types import Array

from .host_memory import HostMemory
from .shards import ShardPlan, cut
from .shared_arrays import SharedArrays

_PIECE = 2**14
"""Elements of all shards that are decoded at a time: they stay in the second-level cache."""


class CompressedShards:
    """The messages of all shards, and the residuals of this rank's.

    Of a shard with gradient g and residual e the message is that of g + e; what it does not say is
    the residual of the next step (error feedback). The gradient of the batch is the sum of what the
    messages say, by the fixed tree over shards. So neither depends on who computes which shards.

    Parameters
    ----------
    compressor
        How gradients are compressed.
    memory
        The parameters, and the gradients of all shards of this host.
    plan, comm
        Who owns which shards, and the ranks.
    shared
        Where memory comes from that the ranks of a host share.

    Raises
    ------
    ValueError
        The compressor does not go with the model.
    """

    def __init__(
        self,
        compressor: Compressor,
        memory: HostMemory,
        plan: ShardPlan,
        comm: Communicator,
        shared: SharedArrays,
    ) -> None:
        self._flat = flat = memory.flat
        self._codec = compressor.codec(flat)
        self._comm = comm
        self._plan = plan
        self._gradients = memory.gradients
        self._first, last = plan.owned(comm.rank)
        self._shards = range(self._first, last)
        self._messages = shared.get("messages", (plan.shards, self._codec.nbytes), np.uint8)
        self._lay_out(memory, shared)
        self._ones = np.ones(plan.shards, np.int64)
        self._decoded = zeros((plan.shards, min(_PIECE, flat.values.size)), flat.dtype)
        self._sends, self._receives = self._between_hosts()

    def _lay_out(self, memory: HostMemory, shared: SharedArrays) -> None:
        """Make room for what stays from step to step: of this rank's shards, or of all where ranks
        have to go on with those of others.
        """
        remembers, survives = self._codec.remembers, self._comm.survives
        shards = self._plan.shards if survives else self._plan.local
        begins = not (survives and shared.has("residuals"))
        make = shared.get if survives else _private
        # The first shard of the gradients of this host, and of what is made here.
        self._of_host = memory.pieces[0][0]
        self._of_kept = 0 if survives else self._first
        self._residuals = make("residuals", (shards, self._flat.values.size), self._flat.dtype)
        # The messages that the last update was made by.
        self._before = make("messages before", (shards * remembers, self.nbytes), np.uint8)
        if begins:
            self._begin()

    def _begin(self) -> None:
        """Remember nothing."""
        for sent in self._before[self._mine]:
            sent[:] = 0
            self._codec.begin(sent)

    @property
    def nbytes(self) -> int:
        """The bytes of the message of a shard."""
        return self._codec.nbytes

    def _between_hosts(self) -> tuple[list[tuple[int, Array]], list[tuple[int, Array]]]:
        """Return what this rank sends to ranks of other hosts, and receives from them: the ranks of
        a host share the messages of each other host out among them.
        """
        hosts, topology = self._comm.hosts.tolist(), self._comm.topology

        def part(host: int, rank: int) -> Array:
            """Return the part of the messages of a host that a rank of another one receives."""
            first, last = self._plan.owned_by(hosts[host], hosts[host + 1])
            of_host = self._messages[first:last].reshape(-1)
            home = int(np.searchsorted(self._comm.hosts, rank, side="right")) - 1
            place, ranks = rank - hosts[home], hosts[home + 1] - hosts[home]
            start, stop = cut(of_host.size, ranks)[place : place + 2].tolist()
            return of_host[start:stop]

        sends = [(rank, part(topology.own, rank)) for rank in topology.send_to]
        mine = self._comm.rank
        return sends, [(rank, part(host, mine)) for rank, host in topology.receive_from]

    def practise(self) -> None:
        """Compile what a step runs, on zeros."""
        x = zeros(self._flat.values.shape, self._flat.dtype)
        before, sent = np.zeros((2, self.nbytes), np.uint8)
        self._codec.begin(before)
        kernels.compensate(x, np.float32(1), x)
        self._codec.encode(sent, x, before)
        self._codec.decode(x[:1], sent, 0)
        kernels.remainder(x[:1], x[:1], x[:1])
        tree_sum(self._decoded, self._ones, out=x[:1])

    def encode(self, scale: float) -> None:
        """Write the messages of this rank's shards, of their gradients times `scale`, which are
        complete, and their residuals. Gradients hold this sum until `keep`.
        """
        for shard in self._shards:
            x, kept = self._gradients[shard - self._of_host], shard - self._of_kept
            kernels.compensate(x, np.float32(scale), self._residuals[kept])
            sent = self._messages[shard]
            self._codec.encode(sent, x, self._before[kept] if self._codec.remembers else sent)

    def exchange(self, collective: Collective) -> None:
        """Complete the messages of all shards, after a meeting of all ranks; collective."""
        self._comm.sendrecv(collective, self._sends, self._receives)
        self._comm.host_barrier(collective)

    def sum(self, gradient: Array, start: int) -> None:
        """Write elements `start`.. of the gradient of the batch."""
        width = self._decoded.shape[1]
        for begin in range(0, gradient.size, width):
            into = gradient[begin : begin + width]
            parts = self._decoded[:, : into.size]
            for y, sent in zip(parts, self._messages, strict=True):
                self._codec.decode(y, sent, start + begin)
            tree_sum(self._decoded, self._ones, out=into)

    def keep(self, rank: int) -> None:
        """Learn that an update has been made: what the messages of a rank's shards did not say is
        left for the next. Done again, it changes nothing.
        """
        width = self._decoded.shape[1]
        for shard in range(*self._plan.owned(rank)):
            x, kept = self._gradients[shard - self._of_host], shard - self._of_kept
            residual, sent = self._residuals[kept], self._messages[shard]
            for begin in range(0, x.size, width):
                into = residual[begin : begin + width]
                said = self._decoded[0, : into.size]
                self._codec.decode(said, sent, begin)
                kernels.remainder(into, x[begin : begin + width], said)
            if self._codec.remembers:
                self._before[kept] = sent

    # State

    @property
    def _mine(self) -> slice:
        """Where this rank's shards are in what is kept."""
        first = self._first - self._of_kept
        return slice(first, first + self._plan.local)

    def snapshot(self) -> tuple[Array, Array]:
        """Return a copy of what steps change."""
        return self._residuals[self._mine].copy(), self._before[self._mine].copy()

    def restore(self, snapshot: tuple[Array, Array]) -> None:
        """Take what `snapshot` returned."""
        self._residuals[self._mine], self._before[self._mine] = snapshot

    def follow(self, other: "CompressedShards") -> None:
        """Take the residuals of parameters that another layout of the same shards had, too. What a
        method remembers begins anew.
        """
        there = {name: slice(start, stop) for name, _, start, stop in other._flat.segments()}
        for name, _, start, stop in self._flat.segments():
            if name in there:
                before = other._residuals[other._mine, there[name]]
                self._residuals[self._mine, start:stop] = before

    def state(self) -> dict[str, Any]:
        """Return the residuals of this rank's shards by the names of the parameters, (S, …), and
        what the method remembers.
        """
        shards, nbytes = self._plan.shards, self.nbytes
        mine = [*enumerate(self._residuals[self._mine], self._first)]
        state = {
            f"residuals.{name}": Pieces(
                (shards, *parameter.shape),
                parameter.dtype,
                [(shard * parameter.size, residual[start:stop]) for shard, residual in mine],
            )
            for name, parameter, start, stop in self._flat.segments()
        }
        if self._codec.remembers:
            parts = [(self._first * nbytes, self._before[self._mine].reshape(-1))]
            state["messages"] = Pieces((shards, nbytes), np.dtype(np.uint8), parts)
        return state

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes: nothing of a run that was not compressed."""
        schema = {name: array(each.dtype, *each.shape) for name, each in self.state().items()}
        schema.pop("messages", None)
        if "messages" in state:
            # Those of another method are of another size.
            schema["messages"] = array(np.uint8, self._plan.shards, None)
        return schema if state else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, on any number of ranks, or with no residuals from a run
        that was not compressed.
        """
        self._residuals[self._mine] = 0
        self._begin()
        for name, parameter, start, stop in self._flat.segments() if state else ():
            whole, size = state[f"residuals.{name}"].reshape(-1), parameter.size
            for shard, residual in enumerate(self._residuals[self._mine], self._first):
                residual[start:stop] = whole[shard * size : (shard + 1) * size]
        messages = state.get("messages")
        if self._codec.remembers and messages is not None and messages.shape[1] == self.nbytes:
            place = slice(self._first * self.nbytes, (self._first + self._plan.local) * self.nbytes)
            before = self._before[self._mine]
            before[...] = messages.reshape(-1)[place].reshape(before.shape)


class _Copies(Module):
    """Copies of the parameters of a model, under their names."""

    def __init__(self, model: Module) -> None:
        self._copies = [
            (name, Parameter(each.value, trainable=each.trainable))
            for name, each in unique_parameters(model)
        ]

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        for name, parameter in self._copies:
            yield f"{prefix}{name}", parameter


def require_codec(compressor: Compressor | Rounded | None, model: Module) -> None:
    """Refuse a compressor that does not go with what is trained of a model, which stays where it
    is.

    Raises
    ------
    ValueError
        It does not.
    """
    if compressor is not None and not isinstance(compressor, Rounded):
        compressor.codec(FlatParameters(_Copies(model)))


def _private(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return zeros of this process alone."""
    return zeros(shape, dtype)
