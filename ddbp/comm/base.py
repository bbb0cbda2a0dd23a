"""What training needs of the ranks, whatever carries their messages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from layers.types import Array, Integers

from .host_barrier import SharedRow

if TYPE_CHECKING:
    from .kept import Kept
    from .topology import Topology


class CommunicationError(RuntimeError):
    """Ranks do not agree, or one did not come."""


class RankLost(CommunicationError):  # noqa: N818 - an event, which need not be an error
    """The processes of ranks have been killed, and those that are left may go on without them: all
    of them raise this at the same meeting, and call `Communicator.regroup` next.

    Parameters
    ----------
    text
        What the error says.
    slots
        The slots of the ranks that are known to be dead.

    Attributes
    ----------
    slots
        As given.
    """

    def __init__(self, text: str, slots: Sequence[int]) -> None:
        super().__init__(text)
        self.slots = [*slots]


class NotRecoveredError(CommunicationError):
    """The processes of ranks have been killed where those that are left cannot go on without."""


class CollectiveKind(IntEnum):
    """What ranks meet for."""

    GATHER = 0
    EXCHANGE = 1
    PUBLISH = 2
    STATISTICS = 3
    BROADCAST = 4
    LEADER_FIRST = 5
    END = 6
    REGROUP = 7
    CONNECT = 8


_WORDS = {
    CollectiveKind.GATHER: "gathering from all ranks",
    CollectiveKind.EXCHANGE: "the gradient exchange of step {}",
    CollectiveKind.PUBLISH: "publishing the parameters of step {}",
    CollectiveKind.STATISTICS: "gathering statistics of the batch, number {}",
    CollectiveKind.BROADCAST: "broadcasting from rank 0",
    CollectiveKind.LEADER_FIRST: "letting one rank of each host go first",
    CollectiveKind.END: "ending",
    CollectiveKind.REGROUP: "forming a new group of ranks",
    CollectiveKind.CONNECT: "connecting with all ranks",
}

Collective = tuple[int, int]
"""A meeting of ranks: its kind, a `CollectiveKind`, and which of that kind."""


def described(collective: Collective) -> str:
    """Return what ranks meet for, in words."""
    kind, number = collective
    return _WORDS[CollectiveKind(kind)].format(number)


class Ranks(Protocol):
    """Ranks that gather from each other.

    Attributes
    ----------
    rank, size
        The number of this rank among them, and how many there are.
    """

    rank: int
    size: int

    def all_gather(self, array: Array) -> Array:
        """Return the arrays of all ranks, of one shape, stacked (size, …)."""


class Communicator(Ranks, Protocol):
    """What training needs of the ranks. All methods are collective: every rank calls them in the
    same order.

    Attributes
    ----------
    rank, size
        The number of this rank, and how many there are. The ranks of a host follow each other.
    hosts
        Bounds (H + 1,) of the groups of ranks that share memory.
    topology
        Who of them talks to whom between hosts.
    of_host
        The ranks of this host, which gather without the others.
    progress_hook
        What this rank does again and again while it waits for ranks of its host, if anything.
    waiting
        What this rank waits for at present, None if it does not.
    waited
        Seconds that it has waited for others so far, but for waits that were over at once.
    sent
        Bytes that it has sent to ranks of other hosts so far, broadcasts apart.
    survives
        Whether the ranks that are left can go on when one is killed: meetings then raise
        `RankLost`.
    slot
        The number of this process, which it keeps when ranks are numbered anew.
    slots
        The slot of each rank.
    group
        A number that grows whenever ranks are lost or let in.
    newcomer
        Whether this process replaces one that was killed, and has not been let in: until then it
        is alone, rank 0 of 1.
    takes_over
        Whether it has been started with the others of its first group as none was left of those
        before.
    kept
        The state that outlives all ranks, if there can be one.
    """

    hosts: Integers
    topology: "Topology"
    of_host: Ranks
    progress_hook: Callable[[], None] | None
    survives: bool
    group: int
    newcomer: bool
    takes_over: bool
    sent: int

    @property
    def kept(self) -> "Kept | None":
        """See the attributes."""

    @property
    def slot(self) -> int:
        """See the attributes."""

    @property
    def slots(self) -> list[int]:
        """See the attributes."""

    @property
    def leads(self) -> bool:
        """Return whether this rank writes files and prints for all of them: rank 0, but no
        newcomer. Not collective.
        """

    @property
    def waiting(self) -> Collective | None:
        """See the attributes."""

    @property
    def waited(self) -> float:
        """See the attributes."""

    def signs(self) -> dict[int, Integers]:
        """Return words (8,) of each rank of this host by its slot, in memory that they share, which
        may be read and written at any time, in any thread. Not collective.
        """

    def plan_memory(self, needs: Mapping[str, int]) -> None:
        """Learn what `host_array` will be asked for next, bytes by purpose, so that a refusal can
        state all of it.
        """

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return zeroed memory that the ranks of this host share.

        Raises
        ------
        CommunicationError
            There is too little of it.
        """

    def gather(self, collective: Collective, row: SharedRow, same: int = 0) -> bool:
        """Complete row.all, the numbers of all ranks; return whether the collective and the first
        `same` numbers are the same.

        The ranks of a host have then met: each sees what the others wrote before to memory that
        they share.

        Raises
        ------
        CommunicationError
            A rank is at another kind of collective, has left, or does not come.
        """

    def host_barrier(self, collective: Collective) -> None:
        """Wait for the ranks of this host."""

    def joint(
        self, collective: Collective, results: Sequence[Array]
    ) -> AbstractContextManager[None]:
        """Return a context for messages between hosts that all ranks send and get, or none of them;
        `results` are the arrays that are the same on all ranks then. It ends with a meeting of each
        host.
        """

    def sendrecv(
        self,
        collective: Collective,
        sends: Sequence[tuple[int, Array]],
        receives: Sequence[tuple[int, Array]],
    ) -> None:
        """Send arrays to ranks of other hosts, and fill arrays from them."""

    def pending_messages(self, parts: int) -> "PendingMessages":
        """Return what carries messages of so many parts to other hosts while this rank does
        something else.
        """

    def broadcast(self, array: Array) -> None:
        """Overwrite the array with that of rank 0."""

    def leader_first(self) -> Any:
        """Return a context whose body the first rank of each host runs before the others do, who
        go on where it fails there, too.
        """

    def regroup(self) -> list[int]:
        """Form a group of the ranks that are left, after all of them have raised `RankLost`;
        return the slots of those that the group before had more.

        Rank, size, hosts and topology are then those of the new group, in which ranks have the
        order of their slots.
        """

    def knock(self, what: str, missed: Callable[[], bool] = bool) -> list[int]:
        """Wait, as a newcomer, until the ranks let this process in; return the slots of all that
        they have let in, or none once they have `missed` it. `what` says in words what it is ready
        to join.

        Raises
        ------
        SystemExit
            They have come to their end, or are all dead.
        """

    def knocking(self, what: str) -> bool:
        """Return whether newcomers are waiting to join `what`. Not collective."""

    def admit(self, what: str) -> list[int]:
        """Form a group with the newcomers that wait to join `what`, who return from `knock`; return
        their slots.
        """

    def describe(self) -> dict[str, Any]:
        """Return facts for a bug report."""

    def abort(self, status: int) -> None:
        """End all ranks at once. Not collective."""

    def finalize(self) -> None:
        """Come to the end, after which nothing else is called."""


@contextmanager
def in_turn(meet: Callable[[], None], *, first: bool) -> Iterator[None]:
    """Run the body on the `first` rank before all `meet`, on the others after that.

    Where it fails on the first one the others run it nevertheless, and come to the same error:
    none of them waits for a rank that has caught it and gone on.
    """
    if not first:
        meet()
        yield
        return
    try:
        yield
    except CommunicationError:
        raise
    except Exception:
        meet()
        raise
    meet()


class FixedRanks:
    """What a communicator is whose ranks stay the same: none can be lost or let in."""

    rank: int
    size: int
    survives = False
    group = 0
    newcomer = False
    takes_over = False
    kept: "Kept | None" = None

    @property
    def slot(self) -> int:
        return self.rank

    @property
    def slots(self) -> list[int]:
        return [*range(self.size)]

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def regroup(self) -> list[int]:
        raise NotImplementedError("these ranks stay the same")

    def knock(self, what: str, missed: Callable[[], bool] = bool) -> list[int]:
        raise NotImplementedError("these ranks stay the same")

    def knocking(self, what: str) -> bool:
        return False

    def admit(self, what: str) -> list[int]:
        return []


class OneHost:
    """What a communicator is whose ranks are all on one host: they send no messages."""

    sent = 0

    def sendrecv(
        self,
        collective: Collective,
        sends: Sequence[tuple[int, Array]],
        receives: Sequence[tuple[int, Array]],
    ) -> None:
        pass

    def pending_messages(self, parts: int) -> "PendingMessages":
        raise NotImplementedError("the ranks of one host have no messages")

    def finalize(self) -> None:
        pass


class PendingMessages(Protocol):
    """Messages between hosts that are on their way while a rank does something else; those of a
    part may be sent at any time.

    Nothing here is collective, but each message must be expected by the rank that it is for, under
    the same number and part.
    """

    def begin(self, number: int) -> None:
        """Begin anew; the number tells messages from those of earlier ones. The one before must be
        over, or dropped.
        """

    def expect(self, part: int, receives: Sequence[tuple[int, Array]]) -> None:
        """Have arrays filled from other ranks."""

    def send(self, part: int, sends: Sequence[tuple[int, Array]]) -> None:
        """Send arrays, which must stay as they are."""

    def progress(self) -> None:
        """Let messages get on: MPI libraries may do nothing about them unless they are called."""

    def wait(self, collective: Collective) -> None:
        """Return when all has been sent and received."""

    def missing(self) -> list[tuple[int, int]]:
        """Return (rank, part) of the messages that have not come."""

    def drop(self) -> None:
        """Forget what has been begun; arrays that were to be filled may still be."""
