"""Who talks to whom between hosts."""

from bisect import bisect_right

from layers.types import Integers


class Topology:
    """Who talks to whom between hosts, as one rank sees it: of each host one rank serves a given
    stranger, and all share that work.

    Parameters
    ----------
    hosts, rank
        Bounds (H + 1,) of the ranks of each host, and this rank.

    Attributes
    ----------
    own, first, last
        The number of this rank's host, its first rank and the end of its ranks.
    receive_from
        (rank, host): of each other host the rank that this one receives from.
    send_to
        The ranks of other hosts that this one sends to.
    """

    def __init__(self, hosts: Integers, rank: int) -> None:
        self._bounds: list[int] = hosts.tolist()
        self.own = self._host_of(rank)
        self.first, self.last = self._bounds[self.own : self.own + 2]
        self.receive_from = [
            (self._serving(host, rank), host) for host in range(len(hosts) - 1) if host != self.own
        ]
        strangers = [
            other for other in range(self._bounds[-1]) if not self.first <= other < self.last
        ]
        self.send_to = [other for other in strangers if self._serving(self.own, other) == rank]

    def _host_of(self, rank: int) -> int:
        return bisect_right(self._bounds, rank) - 1

    def _serving(self, host: int, stranger: int) -> int:
        """Return the rank of a host that serves a stranger: the one with about the same place among
        those of its host.
        """
        home = self._host_of(stranger)
        first, last = self._bounds[host : host + 2]
        home_first, home_last = self._bounds[home : home + 2]
        return first + (stranger - home_first) * (last - first) // (home_last - home_first)
