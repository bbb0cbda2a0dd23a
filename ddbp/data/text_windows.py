"""Windows of a long text: samples of which each next token is to be told."""

from pathlib import Path
from typing import Any

import numpy as np

from layers.checks import array, positive_int
from layers.errors import message
from layers.types import Array, Integers

from .mapped import FileRows, open_arrays
from .paths import existing_file
from .source import Rows, Source
from .text import TextEncoder


class TextWindows(Source):
    """Windows of a long text, each to be told one token further: a source of samples.

    Sample n is x = tokens[n s : n s + T] and y = tokens[n s + 1 : n s + T + 1], with s the stride.

    Parameters
    ----------
    tokens
        (N,) integers, which may be mapped into memory: only what is asked for is read. Or the path
        of a .npy file of them, such as `TextEncoder.encode_file` writes.
    length
        T, tokens of a window.
    stride
        Tokens from one window to the next; T unless given.
    encoder
        How the tokens have been made.

    Attributes
    ----------
    preprocessing
        The encoder.

    Raises
    ------
    ValueError
        There are too few tokens for a window.
    """

    def __init__(
        self,
        tokens: Any,
        length: int,
        stride: int | None = None,
        *,
        encoder: TextEncoder | None = None,
    ) -> None:
        owner = "TextWindows"
        if isinstance(tokens, str | Path):
            tokens = open_arrays(existing_file(owner, "tokens", tokens))
        if not isinstance(tokens, np.ndarray):
            tokens = array(owner, "tokens", tokens)
        self.tokens: Array = tokens
        if self.tokens.ndim != 1 or self.tokens.dtype.kind not in "iu":
            got = f"{self.tokens.shape} {self.tokens.dtype}"
            fix = "Make them by TextEncoder.encode(text)."
            raise ValueError(message(owner, "tokens must be integers (N,)", got, fix))
        self.length = positive_int(owner, "length", length, "Write length=256.", 2**31)
        stride = self.length if stride is None else stride
        self.stride = positive_int(owner, "stride", stride, "Leave it out for length.", 2**31)
        if len(self.tokens) <= self.length:
            must = f"a window of {self.length} must have {self.length + 1} tokens"
            fix = "Choose a smaller length, or a longer text."
            raise ValueError(message(owner, must, len(self.tokens), fix))
        self.preprocessing = encoder
        self._read = FileRows.of(self.tokens)

    def __len__(self) -> int:
        return (len(self.tokens) - self.length - 1) // self.stride + 1

    def __repr__(self) -> str:
        return f"TextWindows({len(self)} of {self.length} tokens)"

    def take(self, numbers: Integers) -> Rows:
        """Return the samples of these numbers."""
        starts, width = np.asarray(numbers) * self.stride, self.length + 1
        if self._read is None:
            rows = self.tokens[starts[:, np.newaxis] + np.arange(width)]
        else:
            counts = np.full(len(starts), width)
            rows = self._read.ranges(starts, counts).reshape(len(starts), width)
        rows = rows.astype(np.int64, copy=False)
        return Rows(rows[:, :-1], rows[:, 1:])
