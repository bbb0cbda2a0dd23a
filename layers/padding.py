"""What padded sequences must not go through on their way to a layer that takes their lengths."""

from typing import Any

from .engine.layer import Recorded
from .engine.module import Module
from .errors import message


def refuse_counting(owner: Any, layer: Any, x: Any) -> None:
    """Refuse a layer whose statistics would count the padding of x (N, T, …)."""
    if not isinstance(layer, Module) or len(getattr(x, "shape", ())) < 2:
        return
    training = isinstance(x, Recorded) and x.tape.training
    for _, part in layer.named_layers():
        counts = getattr(part, "counts_padding", None)
        if counts == "always" or (counts == "in training" and training):
            must = "statistics of sequences with lengths must not count their padding"
            fix = "Put LayerNorm in its place, or pass sequences of one length without lengths."
            raise ValueError(message(owner, must, repr(part), fix))


def refuse_other_steps(owner: Any, layer: Any, before: Any, after: Any) -> None:
    """Refuse a layer that changes the number of steps, which lengths do not follow."""
    was, now = (getattr(x, "shape", ())[1:2] for x in (before, after))
    if was != now:
        must = "the number of steps must stay before a layer that takes lengths"
        steps = " and ".join(str(*each) if each else "none" for each in (was, now))
        fix = 'Keep it (padding="same", stride 1), or put the layer after the one with lengths.'
        raise ValueError(message(owner, must, f"{steps} before and after {layer!r}", fix))
