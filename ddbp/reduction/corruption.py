"""Copies that ranks and hosts hold must be the same, bit for bit: bits that have flipped are found
where they differ."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from ddbp.comm.base import Communicator
from layers import FlatParameters, Module, Parameter
from layers.engine.state import unique_states
from layers.errors import message
from layers.types import Array

FIX = (
    "The memory may be faulty: go on from a checkpoint, on another machine. If it was your script,"
    " it must change parameters within ddbp.modify_parameters(trainer)."
)
"""What helps who finds other bits."""


class MemoryCorruptionError(RuntimeError):
    """Parameters, moments or states are not what was written there: bits have flipped, or somebody
    else has written.

    Attributes
    ----------
    got
        What was found, in words.
    of_all
        Whether all ranks raise it.
    """

    def __init__(self, must: str, got: str, *, of_all: bool = False) -> None:
        self.got = got
        self.of_all = of_all
        super().__init__(message("Trainer", must, got, FIX))


class Copies:
    """Compares copies every so many steps: the parameters between hosts, the states between ranks,
    and frozen parameters with what they were.

    Parameters
    ----------
    model
        Its states are compared.
    flat
        Its parameters.
    comm
        The ranks.
    every
        Steps from one comparison to the next, 0 for none.
    """

    NUMBERS = 2
    """How many numbers a rank tells the others."""

    def __init__(self, model: Module, flat: FlatParameters, comm: Communicator, every: int) -> None:
        self._comm = comm
        self._every = every
        self._states = {name: state.value for name, state in unique_states(model)}
        self._frozen = {name: each.value for name, each in flat.frozen.items()}
        self._parameters = {
            name: each.value for name, each in zip(flat.names, flat.parameters, strict=True)
        }
        self._between_hosts = [flat.values, *self._frozen.values()] if len(comm.hosts) > 2 else []
        self._noted: tuple[int, list[int]] = -1, []

    def is_due(self, step: int) -> bool:
        """Return whether copies are compared in a step."""
        return self._every > 0 and step % self._every == self._every - 1

    def numbers(self) -> tuple[int, int]:
        """Return what ranks compare: a digest of the states, and a checksum of this rank's share of
        the parameters of its host, of which the sum is that of all.
        """
        rank, topology = self._comm.rank, self._comm.topology
        mine, ranks = rank - topology.first, topology.last - topology.first
        total = 0
        for array in self._between_hosts:
            words = array.reshape(-1).view(np.uint32)
            first, last = (each * words.size // ranks for each in (mine, mine + 1))
            total += int(words[first:last].sum(dtype=np.uint32))
        digest = 0
        for state in self._states.values():
            digest = crc32(state.data, digest)
        return digest, total % 2**32

    def compare(self, step: int, numbers: Array) -> None:
        """Refuse copies that differ, by the numbers (R, 2) of all ranks; collective.

        Raises
        ------
        MemoryCorruptionError
            They do; all ranks raise it.
        """
        totals = np.add.reduceat(numbers[:, 1].astype(np.int64), self._comm.hosts[:-1]) % 2**32
        if (numbers[:, 0] != numbers[0, 0]).any() or (totals != totals[0]).any():
            must = f"parameters and states must be the same everywhere in step {step}"
            raise MemoryCorruptionError(must, self._difference(), of_all=True)

    def _difference(self) -> str:
        """Return what to say of the first array that is not the same everywhere; collective."""
        arrays = self._parameters | self._frozen | self._states
        found = self._comm.all_gather(np.array([crc32(array.data) for array in arrays.values()])).T
        name, digests = next(
            (
                (name, of_ranks)
                for name, of_ranks in zip(arrays, found, strict=True)
                if (of_ranks != of_ranks[0]).any()
            ),
            ("the gaps between parameters", found[0]),
        )
        values, counts = np.unique(digests, return_counts=True)
        usual = values[counts.argmax()]
        others = [rank for rank, digest in enumerate(digests) if digest != usual]
        got = f"other bits in {name} on {_ranks(others)} than on {_ranks(digests == usual)}"
        if 2 * counts.max() == counts.sum():
            got += " (which of them is right is not known)"
        return got

    def verify_frozen(self, step: int) -> None:
        """Refuse frozen parameters that are not what they were when this was asked last, unless a
        script has changed any since.

        Raises
        ------
        MemoryCorruptionError
            They are not.
        """
        writes, before = self._noted
        found = [crc32(array.data) for array in self._frozen.values()]
        if writes == Parameter.writes and found != before:
            name = next(
                name
                for name, old, new in zip(self._frozen, before, found, strict=True)
                if old != new
            )
            got = f"other bits in {name} in step {step} on rank {self._comm.rank}"
            raise MemoryCorruptionError("frozen parameters must be what they were", got)
        self._noted = Parameter.writes, found


def _ranks(chosen: Sequence[int] | Array) -> str:
    """Return ranks in words, given by numbers or by whether they are meant."""
    numbers = np.flatnonzero(chosen).tolist() if isinstance(chosen, np.ndarray) else chosen
    return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
