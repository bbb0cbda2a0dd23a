"""What a language model writes: token by token, each drawn by its probability."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layers import Module, exp


def write(
    model: Module,
    tokens: Sequence[int],
    count: int,
    *,
    window: int | None,
    temperature: float = 0.7,
    seed: int = 0,
) -> list[int]:
    """Return so many tokens that follow others, one or more.

    Parameters
    ----------
    model
        Returns logits (N, T, V) for tokens (N, T).
    tokens, count
        What it reads, and how many it writes.
    window
        How many tokens it reads at a time; None of a recurrent one, which remembers.
    temperature, seed
        Low is timid; of what is drawn.
    """
    rng = np.random.default_rng(seed)
    numbers = [*tokens]
    reads: Any = model
    unread, state = np.array([numbers]), None
    for _ in range(count):
        if window is not None:
            logits = reads(np.array([numbers[-window:]]))
        else:
            logits, state = reads.run(unread, state)
        scores = logits[0, -1].astype(np.float64) / temperature
        weights = exp(scores - scores.max())
        numbers.append(int(rng.choice(len(weights), p=weights / weights.sum())))
        unread = np.array([numbers[-1:]])
    return numbers[len(tokens) :]
