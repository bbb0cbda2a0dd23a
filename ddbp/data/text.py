"""Text, and how it becomes tokens."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ddbp.files import whole
from layers.checks import array as checked_array
from layers.checks import boolean, positive_int
from layers.errors import message
from layers.types import Integers

from .lines import LabelledLines, not_utf8
from .mapped import open_arrays
from .paths import existing_file, given_path
from .prepared import PreparedDataset
from .preprocess import Preprocessing, State, checked_classes, several
from .samples import Ragged
from .skipped import shown
from .vocabulary import (
    OWNER,
    UNKNOWN,
    Bytes,
    Characters,
    Vocabulary,
    Words,
    bpe_of,
    characters_of,
    line_of,
    most_frequent_words,
    narrow,
    trained_bpe,
)

_UNITS = ("characters", "bytes", "words", "bpe")
_LARGEST = 1 << 20
"""Tokens of a vocabulary at most."""
_PART = 1 << 20
"""Characters of a file that are encoded at a time."""


class TextEncoder(Preprocessing):
    """How a text becomes tokens: by characters, bytes, words or byte-pair encoding.

    Made by `TextEncoder.characters`, `.bytes`, `.words` or `.bpe`.

    Parameters
    ----------
    vocabulary
        What these make.
    unknown
        Whether token 0 stands for what the vocabulary does not have.
    classes
        Names of labels.

    Attributes
    ----------
    unit
        What a token is.
    tokens
        How each token is written, in the order of their numbers; `TextSamples` takes them.
    """

    kind = "text"

    def __init__(
        self, vocabulary: Any, *, unknown: bool = False, classes: Sequence[str] = ()
    ) -> None:
        if not isinstance(vocabulary, Vocabulary):
            must, fix = "vocabulary must be a Vocabulary", "Write TextEncoder.characters(text)."
            raise TypeError(message(OWNER, must, shown(repr(vocabulary)), fix))
        self._vocabulary = vocabulary
        self._unknown = boolean(OWNER, "unknown", unknown)
        self.classes = checked_classes(OWNER, classes)

    def __repr__(self) -> str:
        return f"TextEncoder({len(self)} {self.unit})"

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.tokens)

    @property
    def unit(self) -> str:
        """See the attributes."""
        return self._vocabulary.unit

    @property
    def tokens(self) -> list[str]:
        """See the attributes."""
        return self._vocabulary.tokens

    @classmethod
    def characters(
        cls, texts: str | Iterable[str], *, unknown: bool = False, classes: Sequence[str] = ()
    ) -> Self:
        """Return an encoder by the characters of a text, or of several.

        Parameters
        ----------
        texts
            A text, or several.
        unknown
            Whether there is a token, 0, for characters that these texts do not have; if not, such
            a character is an error.
        classes
            Names of labels.
        """
        unknown = boolean(OWNER, "unknown", unknown)
        return cls(characters_of(_texts(texts), unknown), unknown=unknown, classes=classes)

    @classmethod
    def bytes(cls, *, classes: Sequence[str] = ()) -> Self:
        """Return an encoder by the 256 bytes of UTF-8, which knows every text.

        Parameters
        ----------
        classes
            Names of labels.
        """
        return cls(Bytes(), classes=classes)

    @classmethod
    def words(
        cls,
        texts: str | Iterable[str],
        size: int = 10_000,
        *,
        unknown: bool = True,
        classes: Sequence[str] = (),
    ) -> Self:
        """Return an encoder by the most frequent words and signs of texts.

        Parameters
        ----------
        texts
            A text, or several.
        size
            Tokens at most.
        unknown
            Whether there is a token, 0, for other words; if not, such a word is an error.
        classes
            Names of labels.
        """
        size = positive_int(OWNER, "size", size, "Write size=10_000.", _LARGEST)
        unknown = boolean(OWNER, "unknown", unknown)
        if size < 2:
            must, fix = "size must be at least 2", "Write size=10_000."
            raise ValueError(message(OWNER, must, size, fix))
        found = most_frequent_words(_texts(texts), size, unknown)
        return cls(found, unknown=unknown, classes=classes)

    @classmethod
    def bpe(
        cls, texts: str | Iterable[str], size: int = 4096, *, classes: Sequence[str] = ()
    ) -> Self:
        """Return an encoder by byte-pair encoding of bytes, which knows every text.

        It is learned by tokenizers: `pip install "ddbp[text]"`.

        Parameters
        ----------
        texts
            A text, or several.
        size
            Tokens at most, 256 or more.
        classes
            Names of labels.
        """
        size = positive_int(OWNER, "size", size, "Write size=4096.", _LARGEST)
        if size < 256:
            must, fix = "size must be at least 256, the number of bytes", "Write size=4096."
            raise ValueError(message(OWNER, must, size, fix))
        return cls(trained_bpe(_texts(texts), size), classes=classes)

    def _state(self) -> dict[str, Any]:
        return {"unit": self.unit, "unknown": self._unknown, **self._vocabulary.state()}

    @classmethod
    def _from_state(cls, state: State) -> Self:
        unit, unknown = state.text("unit"), state.flag("unknown")
        if unit not in _UNITS:
            raise state.refused("unit", f"one of {', '.join(_UNITS)}", unit)
        if unit == "bytes":
            return cls(Bytes())
        if unit == "bpe":
            return cls(bpe_of(state.json("tokenizer")))
        tokens = state.texts("tokens")
        if len({*tokens}) != len(tokens) or not tokens[unknown:]:
            raise state.refused("tokens", "texts, all different", tokens)
        if unknown and tokens[0] != UNKNOWN:
            raise state.refused("tokens", f"texts, the first {UNKNOWN}", tokens)
        if unit == "characters" and any(len(each) != 1 for each in tokens[unknown:]):
            raise state.refused("tokens", "characters", tokens)
        kind = Characters if unit == "characters" else Words
        return cls(kind(tokens, unknown), unknown=unknown)

    def encode(self, text: Any) -> Integers:
        """Return the tokens (T,) of a text.

        Raises
        ------
        ValueError
            It has what the vocabulary does not, which has no token for that.
        """
        return self._vocabulary.encode(_text(text))

    def strange(self, text: Any) -> list[int]:
        """Return where the characters of a text stand that the vocabulary does not have, and for
        which it has no token: those that `encode` refuses.
        """
        return self._vocabulary.strange(_text(text))

    def decode(self, tokens: Any) -> str:
        """Return the text of tokens (T,).

        Raises
        ------
        ValueError
            One of them is none of the vocabulary's.
        """
        array = checked_array(OWNER, "tokens", tokens)
        must, fix = f"tokens must be integers in 0..{len(self) - 1} (T,)", "Encode them by this."
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ValueError(message(OWNER, must, f"{array.shape} {array.dtype}", fix))
        if array.size and not (array.min() >= 0 and array.max() < len(self)):
            raise ValueError(message(OWNER, must, f"{array.min()} to {array.max()}", fix))
        return self._vocabulary.decode(array.tolist())

    def transform(self, raw: Any) -> Any:
        """Return the tokens (T,) of a text; of several a `Ragged`.

        Raises
        ------
        ValueError
            A text has what the vocabulary does not know, or nothing at all.
        """
        if isinstance(raw, str):
            return self.encode(raw)
        tokens = [self.encode(text) for text in _texts(raw)]
        empty = next((number for number, each in enumerate(tokens) if not len(each)), None)
        if empty is not None:
            must, fix = "every text must have a token", "Leave out texts that are empty."
            raise ValueError(message(OWNER, must, f"none in text {empty}", fix))
        return Ragged(tokens)

    def dataset(self, lines: Any) -> PreparedDataset:
        """Return lines with their labels as samples: tokens of different lengths, and the numbers
        of their classes.

        Parameters
        ----------
        lines
            What `read_lines` returns.
        """
        if not isinstance(lines, LabelledLines):
            must, fix = "lines must be LabelledLines", "Write read_lines(path)."
            raise TypeError(message(OWNER, must, shown(repr(lines)), fix))
        return PreparedDataset(self.transform(lines.texts), self.labels(lines.labels), self)

    def encode_file(self, path: str | os.PathLike[str], tokens_path: str | Path) -> Integers:
        """Write the tokens of a text file to a .npy file, and return them mapped into memory.

        Parameters
        ----------
        path
            A file of UTF-8; it is read part by part, which may cut a word or a pair of BPE in two.
        tokens_path
            The file to write.
        """
        file = existing_file(OWNER, "path", path)
        target = given_path(OWNER, "tokens_path", tokens_path)
        if target.suffix != ".npy":
            must, fix = "tokens_path must end with .npy", 'Write "tokens.npy".'
            raise ValueError(message(OWNER, must, shown(target), fix))
        kind = narrow(len(self))
        parts, lines = list[Integers](), 0
        for part in _parts_of(file):
            try:
                parts.append(self.encode(part).astype(kind))
            except ValueError as error:
                line = lines + line_of(part, self.strange(part)[0])
                must, fix = "a file must have what the vocabulary has", "Take TextEncoder.bytes()."
                raise ValueError(message(OWNER, must, f"{file}, line {line}", fix)) from error
            lines += part.count("\n")
        with whole(target) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.concatenate([*parts, np.zeros(0, kind)]))
        mapped: Integers = open_arrays(target)
        return mapped


def _parts_of(file: Path) -> Iterable[str]:
    """Yield the text of a file, part by part, each up to the end of a line where there is one."""
    with file.open(encoding="utf-8", newline="") as stream:
        try:
            while part := stream.read(_PART):
                yield part + stream.readline(_PART)
        except UnicodeDecodeError as error:
            raise not_utf8(OWNER, file, error) from error


def _text(given: Any) -> str:
    if not isinstance(given, str):
        must, fix = "a text must be a str", 'Of bytes write text.decode("utf-8").'
        raise TypeError(message(OWNER, must, shown(repr(given)), fix))
    return given


def _texts(given: Any) -> list[str]:
    """Return one text or several as a list."""
    result = [given] if isinstance(given, str) else several(given) or [None]
    if not all(isinstance(text, str) for text in result):
        must, fix = "texts must be a text, or a list of one or more", "Read the files first."
        raise TypeError(message(OWNER, must, shown(repr(given)[:80]), fix))
    return result
