"""PyTorch, with which tests compare: a test that asks for something of it is skipped where it is
not installed.
"""

from functools import reduce
from typing import Any

import pytest


class Oracle:
    """A module of PyTorch by its path within `torch`, imported at its first use."""

    def __init__(self, *path: str) -> None:
        self.path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # While it collects, pytest looks for marks of its own in whatever a module holds.
            raise AttributeError(name)
        module = pytest.importorskip(
            "torch", reason="PyTorch, the oracle, is not installed: pip install 'ddbp[oracle]'"
        )
        return getattr(reduce(getattr, self.path, module), name)


torch = Oracle()
F = Oracle("nn", "functional")
