"""All kinds of preprocessing by the words that their states begin with."""

from collections.abc import Mapping
from typing import Any

from layers.errors import message

from .images import ImageReader
from .preprocess import Preprocessing, State
from .series import SeriesReader
from .skipped import shown
from .table_encoder import TableEncoder
from .text import TextEncoder

_KINDS: dict[str, type[Preprocessing]] = {
    each.kind: each for each in (ImageReader, SeriesReader, TableEncoder, TextEncoder)
}


def preprocessing(state: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of a state, of whatever kind it is.

    Parameters
    ----------
    state
        What its `state()` has returned, as it is or read from JSON.

    Raises
    ------
    ValueError
        The kind is not known, or the state is damaged or of another version.
    TypeError
        It is no dictionary.
    """
    kind = State("preprocessing", state).text("kind")
    if kind not in _KINDS:
        must, fix = f"kind must be one of {', '.join(_KINDS)}", "Use a newer version of ddbp."
        raise ValueError(message("preprocessing", must, shown(repr(kind)), fix))
    return _KINDS[kind].from_state(state)
