"""How often workers exchange what they have learned, and what is done with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ddbp import written
from ddbp.compression.bits import BITS
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.sgd import SGD
from layers.checks import fraction, non_negative_int, positive, positive_int
from layers.errors import message

_FIX = 'Write exchange=LocalSGD(workers=4, every=16), or "DiLoCo(workers=4, every=64)".'


@dataclass(frozen=True)
class LocalSGD:
    """Workers take steps of their own, each with its part of every batch, and go on with the mean
    of their parameters after `every` batches (Stich 2019, algorithm 1).

    Parameters
    ----------
    workers
        W: each has parameters, states and moments of its own. They are on any number of ranks from
        1 to W, with the same bits. Where workers come and go, how many there are from which
        exchange on, as {0: 4, 100: 6}: who comes begins with the common parameters and the moments
        of another one.
    every
        H: batches from one exchange to the next, across epochs; the last batch of a `fit` is
        followed by one, too.
    after
        Exchange after each of the first so many batches, and only then seldom (post-local SGD, Lin
        et al. 2020).

    Raises
    ------
    ValueError
        A number is out of range.
    """

    workers: int | Mapping[int, int]
    every: int
    after: int = 0

    fragments: ClassVar[int] = 1
    bits: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        _checked(self)
        after = non_negative_int(type(self).__name__, "after", self.after, "after=0 is usual.")
        object.__setattr__(self, "after", after)

    def workers_from(self, exchanges: int) -> int:
        """Return how many workers there are after so many exchanges."""
        return _workers_from(self.workers, exchanges)

    def due(self, batches: int) -> int | None:
        """Return the number of the fragment that is exchanged after so many batches, if one is."""
        return 0 if batches <= self.after or not (batches - self.after) % self.every else None

    def exchanges(self, batches: int) -> int:
        """Return how many exchanges there are in so many batches from the first one on."""
        first = min(batches, self.after)
        return first + (batches - first) // self.every

    def outer(self) -> Optimizer:
        """Return what changes the common parameters w by w minus the mean of the workers': their
        mean takes the place of w.
        """
        return SGD(1.0)


@dataclass(frozen=True)
class DiLoCo:
    """Workers take steps of their own, and an outer optimizer takes one with the mean of what they
    have moved by, after `every` batches (Douillard et al. 2023, algorithm 1).

    With common parameters w and those of worker i, θᵢ, the outer gradient is Δ = w - Σ θᵢ / W, and
    m = μ m + Δ, w -= η (Δ + μ m). Workers go on from w, with the moments that they have.

    Parameters
    ----------
    workers, every
        As those of `LocalSGD`.
    outer_rate, outer_momentum
        η and μ of Nesterov's momentum; 0.7 and 0.9 in the paper.
    fragments
        Parts of the model, of neighbouring parameters, each of which is exchanged after `every`
        batches: one after the other, `every` / `fragments` batches apart (Douillard et al. 2025,
        section 2.2).
    bits
        Send what each worker has moved by in 8 or 4 bits, with a scale for each 256 numbers, and
        add what that leaves out to what is sent next; as it is unless given.

    Raises
    ------
    ValueError
        A number is out of range, or `every` is no multiple of `fragments`.
    """

    workers: int | Mapping[int, int]
    every: int
    outer_rate: float = 0.7
    outer_momentum: float = 0.9
    fragments: int = 1
    bits: int | None = None

    def __post_init__(self) -> None:
        _checked(self)
        fragments = positive_int("DiLoCo", "fragments", self.fragments, "fragments=1 is the least.")
        if self.every % fragments:
            fix = f"Write every={(self.every // fragments + 1) * fragments}, or fewer fragments."
            must = "every must be a multiple of fragments"
            got = f"every={self.every}, fragments={fragments}"
            raise ValueError(message("DiLoCo", must, got, fix))
        checked = {
            "outer_rate": positive("DiLoCo", "outer_rate", self.outer_rate, "0.7 is usual."),
            "outer_momentum": fraction(
                "DiLoCo", "outer_momentum", self.outer_momentum, "0.9 is usual."
            ),
            "fragments": fragments,
        }
        if self.bits is not None and (self.bits.__class__ is not int or self.bits not in BITS):
            must, fix = "bits must be 4 or 8", "Leave it out to send numbers as they are."
            raise ValueError(message("DiLoCo", must, repr(self.bits), fix))
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def workers_from(self, exchanges: int) -> int:
        """Return how many workers there are after so many exchanges."""
        return _workers_from(self.workers, exchanges)

    def due(self, batches: int) -> int | None:
        """Return the number of the fragment that is exchanged after so many batches, if one is."""
        rounds, rest = divmod(batches, self.every // self.fragments)
        return None if rest else (rounds - 1) % self.fragments

    def exchanges(self, batches: int) -> int:
        """Return how many exchanges there are in so many batches from the first one on."""
        return batches * self.fragments // self.every

    def outer(self) -> Optimizer:
        """Return what changes the common parameters by the outer gradient."""
        momentum = self.outer_momentum
        return SGD(self.outer_rate, momentum=momentum, nesterov=momentum > 0)


Exchange = LocalSGD | DiLoCo
_KINDS: dict[str, type[Exchange]] = {"LocalSGD": LocalSGD, "DiLoCo": DiLoCo}


def chosen(given: Any) -> Exchange | None:
    """Return how seldom workers exchange, which may be given as the text that its repr is; None if
    there are none.

    Raises
    ------
    ValueError
        It is no `LocalSGD` and no `DiLoCo`.
    """
    if given is None or isinstance(given, Exchange):
        return given
    must = "exchange must be a LocalSGD or a DiLoCo"
    refusal = ValueError(message("Trainer", must, repr(given), _FIX))
    result: Exchange = written.made(given, _KINDS, refusal)
    return result


def _workers_from(workers: int | Mapping[int, int], exchanges: int) -> int:
    if not isinstance(workers, Mapping):
        return workers
    return workers[max(first for first in workers if first <= exchanges)]


def _checked(exchange: Any) -> None:
    """Check what all kinds have in common."""
    owner, workers = type(exchange).__name__, exchange.workers
    fix = "workers=4 is usual, or {0: 4, 100: 6} where two come after 100 exchanges."
    if isinstance(workers, Mapping):
        if 0 not in workers:
            must = "workers must say how many there are from exchange 0 on"
            raise ValueError(message(owner, must, dict(workers), fix))
        checked = {
            non_negative_int(owner, "exchanges of workers", first, fix): positive_int(
                owner, "workers", count, fix
            )
            for first, count in workers.items()
        }
        object.__setattr__(exchange, "workers", dict(sorted(checked.items())))
    else:
        object.__setattr__(exchange, "workers", positive_int(owner, "workers", workers, fix))
    every = positive_int(owner, "every", exchange.every, "every=16 is usual.")
    object.__setattr__(exchange, "every", every)


def numbers_of_workers(exchange: Exchange) -> list[int]:
    """Return how many workers there are at one time or another."""
    workers = exchange.workers
    return [*workers.values()] if isinstance(workers, Mapping) else [workers]
