"""Says that kernels are being compiled, once, when that happens."""

import sys
from typing import Any

from numba.core import event

from layers.kernels.jit import CACHE_FOLDER

_ANNOUNCED: list[Any] = []


class _Announce(event.Listener):
    """Prints one line at the first compilation of a kernel of layers."""

    def on_start(self, event: Any) -> None:
        dispatcher = event.data.get("dispatcher")
        if len(_ANNOUNCED) == 1 and getattr(dispatcher, "__module__", "").startswith("layers."):
            _ANNOUNCED.append(True)
            print(f"Compiling kernels for this processor; they are kept in {CACHE_FOLDER}", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        """Say nothing."""


def announce_compilation() -> None:
    """Print a line when the first kernel is compiled rather than loaded from the cache."""
    if not _ANNOUNCED:
        _ANNOUNCED.append(_Announce())
        register: Any = event.register
        register("numba:compile", _ANNOUNCED[0])
