"""Vocabularies: the pieces of a text, and their numbers."""

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from layers.errors import message
from layers.types import Integers

from .skipped import shown

OWNER = "TextEncoder"
UNKNOWN = "<unknown>"
"""How the token is written that stands for all that is not in a vocabulary; its number is 0."""
_WORDS = re.compile(r"\w+|[^\w\s]")
_UNKNOWN_FIX = "TextEncoder.{unit}(…, unknown=True) has a token for what it does not know."


class Vocabulary(ABC):
    """The pieces of a text: tokens from 0 on."""

    unit: str
    """What a piece is."""

    @property
    @abstractmethod
    def tokens(self) -> list[str]:
        """How each token is written, in the order of their numbers."""

    @abstractmethod
    def encode(self, text: str) -> Integers:
        """Return the tokens (T,) of a text."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, all of which there are."""

    def strange(self, text: str) -> list[int]:
        """Return where the characters of a text stand that `encode` refuses."""
        return []

    def state(self) -> dict[str, Any]:
        """Return what makes it again."""
        return {"tokens": self.tokens}


class Bytes(Vocabulary):
    """The 256 bytes of a text in UTF-8."""

    unit = "bytes"

    @property
    def tokens(self) -> list[str]:
        return [chr(byte) if 32 <= byte < 127 else f"<{byte:02x}>" for byte in range(256)]

    def encode(self, text: str) -> Integers:
        return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    def state(self) -> dict[str, Any]:
        return {"tokens": []}


class Characters(Vocabulary):
    """Characters, by their code points."""

    unit = "characters"

    def __init__(self, tokens: Sequence[str], unknown: bool) -> None:
        self._tokens = [*tokens]
        self._unknown = unknown
        points = [ord(each) for each in self._tokens[unknown:]]
        self._points: Integers = np.array(points, np.int64)
        self._table = np.full(1 + max(points, default=0), -1, np.int64)
        self._table[self._points] = np.arange(unknown, len(self._tokens))

    @property
    def tokens(self) -> list[str]:
        return self._tokens

    def _numbers_of(self, text: str) -> Integers:
        """Return the tokens of a text, -1 for a character that is none."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
        result: Integers = self._table[np.minimum(points, len(self._table) - 1)]
        result[points >= len(self._table)] = -1
        return result

    def encode(self, text: str) -> Integers:
        result = self._numbers_of(text)
        strange = result < 0
        if strange.any():
            if not self._unknown:
                place = int(strange.argmax())
                raise _refused(self, text, place, f"character {place}")
            result[strange] = 0
        return result

    def strange(self, text: str) -> list[int]:
        if self._unknown:
            return []
        return np.flatnonzero(self._numbers_of(text) < 0).tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self._tokens[token] for token in tokens)


class Words(Vocabulary):
    """Words and punctuation, without the space between them."""

    unit = "words"

    def __init__(self, tokens: Sequence[str], unknown: bool) -> None:
        self._tokens = [*tokens]
        self._unknown = unknown
        self._numbers = {token: number for number, token in enumerate(self._tokens)}
        if unknown:
            del self._numbers[UNKNOWN]

    @property
    def tokens(self) -> list[str]:
        return self._tokens

    def encode(self, text: str) -> Integers:
        words = words_of(text)
        result = [self._numbers.get(word, -1) for word in words]
        if not self._unknown and -1 in result:
            raise _refused(self, text, self.strange(text)[0], f"word {result.index(-1)}")
        return np.maximum(np.array(result, np.int64), 0)

    def strange(self, text: str) -> list[int]:
        if self._unknown:
            return []
        words = (found for found in _WORDS.finditer(text) if found[0] not in self._numbers)
        return [place for word in words for place in range(*word.span())]

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self._tokens[token] for token in tokens)


class BPE(Vocabulary):
    """Pieces by byte-pair encoding, of bytes: any text can be written in them."""

    unit = "bpe"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def tokens(self) -> list[str]:
        count = self._tokenizer.get_vocab_size()
        return [str(self._tokenizer.id_to_token(number)) for number in range(count)]

    def encode(self, text: str) -> Integers:
        # Half a character of UTF-16 is none of Rust's.
        whole = text.encode("utf-8", "replace").decode()
        return np.array(self._tokenizer.encode(whole).ids, np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode([*tokens], skip_special_tokens=False))

    def state(self) -> dict[str, Any]:
        return {"tokens": [], "tokenizer": json.loads(self._tokenizer.to_str())}


def words_of(text: str) -> list[str]:
    """Return the words and punctuation of a text."""
    return _WORDS.findall(text)


def characters_of(texts: Iterable[str], unknown: bool) -> Characters:
    """Return the characters of texts in the order of their code points."""
    found = sorted({character for text in texts for character in {*text}})
    _require_some(found, "character")
    return Characters([UNKNOWN] * unknown + found, unknown)


def most_frequent_words(texts: Iterable[str], most: int, unknown: bool) -> Words:
    """Return the most frequent words of texts, those as frequent in the order of code points."""
    counts = Counter(word for text in texts for word in words_of(text))
    _require_some([*counts], "word")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return Words([UNKNOWN] * unknown + ordered[: most - unknown], unknown)


def trained_bpe(texts: Iterable[str], size: int) -> BPE:
    """Return a byte-pair encoding of so many tokens at most, learned from texts."""
    tokenizers = _library()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return BPE(tokenizer)


def bpe_of(state: Any) -> BPE:
    """Return the byte-pair encoding of its state."""
    tokenizers = _library()
    try:
        return BPE(tokenizers.Tokenizer.from_str(json.dumps(state)))
    except Exception as error:
        must, fix = "the tokenizer of a state must be one of tokenizers", "Use a whole state."
        raise ValueError(message(OWNER, must, shown(error), fix)) from error


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        must, fix = "tokenizers must be installed for BPE", "Run: pip install 'ddbp[text]'."
        raise ModuleNotFoundError(message(OWNER, must, "none", fix)) from error
    return tokenizers


def _require_some(found: Sequence[str], what: str) -> None:
    if not found:
        must, fix = f"there must be a {what} in the text", "Check the path."
        raise ValueError(message(OWNER, must, "none", fix))


def _refused(vocabulary: Any, text: str, place: int, where: str) -> ValueError:
    must = f"{vocabulary.unit} must be among the {len(vocabulary.tokens)} of the vocabulary"
    word = _WORDS.match(text, place) if vocabulary.unit == "words" else None
    got = f"{quoted(word[0] if word else text[place])} at {where}, line {line_of(text, place)}"
    return ValueError(message(OWNER, must, got, _UNKNOWN_FIX.format(unit=vocabulary.unit)))


def quoted(piece: str) -> str:
    """Return a piece of a text as a message may have it."""
    return shown(repr(piece) if piece.isprintable() else ascii(piece))


def line_of(text: str, place: int) -> int:
    """Return the line of a text, from 1, in which a character stands."""
    return text.count("\n", 0, place) + 1


def narrow(size: int) -> Any:
    """Return the smallest type that numbers below a size fit into."""
    return next(kind for kind in (np.uint8, np.uint16, np.int32) if size - 1 <= np.iinfo(kind).max)
