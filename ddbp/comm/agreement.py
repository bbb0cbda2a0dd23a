"""What all ranks must state alike, and the error that names what differs where."""

import json
import re
import socket
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from layers.errors import message
from layers.types import Array

from .base import CommunicationError, Communicator, Ranks

# The most characters of a fact that an error quotes; of longer ones it shows where they begin to
# differ.
_EXCERPT = 80


def gather_uneven(comm: Ranks, array: Array) -> list[Array]:
    """Return the arrays of all ranks, which may differ in the length of their first axis;
    collective.
    """
    lengths = comm.all_gather(np.array([len(array)], np.int64))[:, 0]
    padded = np.zeros((int(lengths.max()), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return [part[:n] for part, n in zip(comm.all_gather(padded), lengths, strict=True)]


def gather_texts(comm: Communicator, text: str) -> list[str]:
    """Return the texts of all ranks; collective."""
    raw = np.frombuffer(text.encode(), np.uint8)
    return [part.tobytes().decode() for part in gather_uneven(comm, raw)]


def require_agreement(comm: Communicator, facts: dict[str, Any], fix: str) -> None:
    """Raise on every rank, naming what differs where, unless all ranks state the same facts, of
    which lists have many parts.
    """
    texts = gather_texts(comm, json.dumps([socket.gethostname(), in_words(facts)]))
    hosts, told = zip(*map(json.loads, texts), strict=True)
    expected = told[0]
    for rank, other in enumerate(told):
        for name in {**expected, **other}:
            if expected.get(name) != other.get(name):
                named = [named_ranks([each], hosts) for each in (rank, 0)]
                got = _difference(other.get(name), expected.get(name), *named)
                raise CommunicationError(
                    message("ddbp", f"all ranks must have the same {name}", got, fix)
                )


def named_ranks(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    """Return ranks in words, with the names of their hosts if there are several, of all ranks."""
    where = ""
    if len({*hosts}) > 1:
        where = f" (on {', '.join(dict.fromkeys(hosts[rank] for rank in ranks))})"
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}{where}"


def in_words(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts in words, of which lists have many parts; where an object lies in memory is
    none, though the default repr of functions and classes says so.
    """

    def words(fact: Any) -> str:
        return re.sub(r" at 0x\w+", "", str(fact))

    return {
        name: [*map(words, fact)] if isinstance(fact, list) else words(fact)
        for name, fact in facts.items()
    }


def _difference(there: Any, here: Any, rank: str, leader: str) -> str:
    """Return how the fact of a rank differs from that of rank 0: of parts their numbers, and the
    first that differs.
    """
    if not (isinstance(there, list) and isinstance(here, list)):
        first, second = _excerpts(there, here)
        return f"{first} on {rank}, {second} on {leader}"
    counts = f"{len(there)} on {rank}, {len(here)} on {leader}; " if len(there) != len(here) else ""
    one, other = next(
        pair for pair in zip_longest(there, here, fillvalue="none") if pair[0] != pair[1]
    )
    return f"{counts}the first that differs: {one} on {rank}, {other} on {leader}"


def _excerpts(there: Any, here: Any) -> list[str]:
    """Return two facts as they are if they are short, else what stands around their first
    difference.
    """
    if (
        not (isinstance(there, str) and isinstance(here, str))
        or max(len(there), len(here)) <= _EXCERPT
    ):
        return [repr(there), repr(here)]
    differs = next(
        (i for i, (one, other) in enumerate(zip(there, here, strict=False)) if one != other),
        min(len(there), len(here)),
    )
    start = max(0, differs - _EXCERPT // 2)
    parts = [(text, text[start : start + _EXCERPT]) for text in (there, here)]
    return [
        f"{'…' * (start > 0)}{part!r}{'…' * (start + len(part) < len(text))}"
        for text, part in parts
    ]
