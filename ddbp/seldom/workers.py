"""What options must be where workers train apart."""

import warnings
from typing import Any

from ddbp.reduction.shards import RANKS
from layers.errors import message

from .exchange import Exchange, numbers_of_workers


def require(options: Any) -> int:
    """Return the number of shards that goes with an exchange, one for each worker, or refuse other
    options of a trainer that do not.

    Raises
    ------
    ValueError
        An option has no meaning for workers, or their number does not divide the batch.
    """
    exchange: Exchange = options.exchange
    first: int = exchange.workers_from(0)
    for workers in numbers_of_workers(exchange):
        if options.batch_size % workers:
            near = max(1, round(options.batch_size / workers)) * workers
            _refuse(
                f"batch_size must be a multiple of the {workers} workers",
                options.batch_size,
                f"Write batch_size={near}, or another number of workers.",
            )
    if options.shards not in (None, RANKS, first):
        must = f"shards must be left out, as each of the {first} workers is one"
        _refuse(must, options.shards, f"Leave it out, or write shards={first}.")
    for name in ("wire", "compression"):
        given = getattr(options, name)
        if given is not None and exchange.bits is not None:
            must = f"{name} and bits cannot go together, as both say what is sent"
            _refuse(must, f"{name}={given!r}, bits={exchange.bits}", "Leave one of them out.")
    if options.loss_scale is not None and options.precision == "float16":
        must = "with exchange= a worker has no loss scale, which float16 needs"
        _refuse(must, "precision='float16'", 'Write precision="bf16", or leave it out.')
    alone = {
        "accumulate": (1, "a worker updates by each batch", "raise batch_size or `every`"),
        "truncate": (None, "a worker takes whole sequences", "leave truncate out"),
        "loss_scale": (None, "a worker has no loss scale", "leave loss_scale out"),
        "on_nonfinite": ("stop", "workers stop at numbers that are not finite", "leave it out"),
        "rule": (None, "workers learn by backpropagation", "leave rule out"),
    }
    for name, (usual, must, fix) in alone.items():
        given = getattr(options, name, usual)
        if given != usual:
            _refuse(f"with exchange= {must}", f"{name}={given!r}", f"{fix[0].upper()}{fix[1:]}.")
    return first


def require_ranks(exchange: Exchange, ranks: int) -> None:
    """Refuse more ranks than workers."""
    least = min(numbers_of_workers(exchange))
    if ranks > least:
        must = f"{least} workers allow at most {least} ranks"
        _refuse(must, ranks, f"Start at most {least} ranks, or write more workers.")


def require_rows(exchange: Exchange, batch_size: int, samples: int) -> None:
    """Refuse an epoch of so many samples whose last batch has none for some of the workers."""
    last, most = samples % batch_size, max(numbers_of_workers(exchange))
    if last:
        fix = "Pass drop_last=True, or another batch_size."
        require_samples(most, last, "the last batch", fix)


def require_samples(workers: int, samples: int, what: str, fix: str) -> None:
    """Refuse a batch that has no sample for some of the workers."""
    if samples < workers:
        must = f"{what} must have a sample for each of the {workers} workers"
        _refuse(must, f"{samples} samples", fix)


def warn_if_seldom(options: Any, samples: int, epochs: int) -> None:
    """Say so if a run of so many epochs ends before workers have exchanged all that they have."""
    exchange: Exchange | None = options.exchange
    batches = epochs * -(-options.samples(samples) // options.batch_size)
    if exchange is not None and exchange.exchanges(batches) < exchange.fragments:
        must = "every should be at most the batches of the whole run"
        got = f"every={exchange.every}, {batches} batches"
        fix = "Workers exchange once, at the end: train longer, or write a smaller every."
        text = message(type(exchange).__name__, must, got, fix)
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def _refuse(must: str, got: Any, fix: str) -> None:
    raise ValueError(message("Trainer", must, got, fix))
