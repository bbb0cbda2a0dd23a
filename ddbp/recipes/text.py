"""Texts: a language model of one, or a classifier of lines with labels."""

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ddbp.data.array_dataset import ArrayDataset
from ddbp.data.lines import decoded_lines, read_lines, read_text
from ddbp.data.paths import existing_file
from ddbp.data.skipped import BadSamples, Skipped
from ddbp.data.text import TextEncoder
from ddbp.data.text_windows import TextWindows
from ddbp.data.vocabulary import line_of, quoted, words_of
from ddbp.export import Bundle
from ddbp.optim.adam import Adam, AdamW
from ddbp.optim.schedule import Cosine, WarmUp
from ddbp.training import script
from ddbp.training.metrics import accuracy, bits_per_character
from ddbp.training.text_samples import TextSamples
from layers import Module, SoftmaxCrossEntropy
from layers.errors import message
from layers.types import Integers

from . import classification, networks, writing
from .recipe import (
    BUNDLES,
    IMAGES,
    Goal,
    Predictions,
    Prepared,
    Recipe,
    Split,
    Usual,
    callbacks,
    generator,
    is_name,
    limit_batch,
    named,
    split,
    tell_skipped,
)

_OWNER = "ddbp train text"
_UNITS = {"characters": "character", "bytes": "byte", "words": "word", "bpe": "token"}
_GPT = "gpt"
_SAMPLE = 400
"""Characters that a report has of what the model writes."""
_BEGINNING = 8


class Texts(Recipe):
    """Learns what follows in a text, or what its lines are."""

    name = "text"
    about = "Train a language model of a text, or with --labels a classifier of its lines."
    kind = "text"
    data = "a text file in UTF-8, or the name of a set, as tiny_shakespeare"
    validation = 0.1
    others: Mapping[str, Sequence[str]] = {**IMAGES, "a table": (".parquet",), **BUNDLES}
    models: Mapping[str, Usual] = {
        "lstm": Usual(epochs=10, batch_size=32, learning_rate=0.004),
        "gru": Usual(epochs=10, batch_size=32, learning_rate=0.004),
        "rnn": Usual(epochs=10, batch_size=32, learning_rate=0.002),
        _GPT: Usual(epochs=10, batch_size=32, learning_rate=0.002),
    }

    def add_flags(self, flags: script.Flags) -> None:
        flags.add_choice("--tokens", _UNITS, "what the model reads one by one")
        flags.add_size("--vocabulary", 4096, "words, or tokens of bpe, at most")
        flags.add_size("--hidden", None, "width (256; gpt: 128)")
        flags.add_size("--embedding", 64, "width of a token's vector, but for gpt")
        flags.add_size("--length", 512, "tokens of a sequence, but for gpt")
        flags.add_size("--window", 64, "tokens that an error reaches back")
        flags.add_argument(
            "--labels",
            action="store_true",
            help="each line is a label, a tabulator and a text: learn the label",
        )

    def use_windows(self, options: argparse.Namespace) -> None:
        options.length = options.window

    def prepare(self, options: argparse.Namespace) -> Prepared:
        return self._classifier(options) if options.labels else self._language(options)

    def goal(self, task: str, preprocessing: Any) -> Goal:
        if task == "classification":
            return Goal(SoftmaxCrossEntropy(), classification.metrics(preprocessing.classes))
        bits = f"bits_per_{_UNITS[preprocessing.unit]}"
        return Goal(SoftmaxCrossEntropy(), {"accuracy": accuracy, bits: bits_per_character})

    def _language(self, options: argparse.Namespace) -> Prepared:
        gpt = options.model == _GPT
        encoder, *texts = _tokens(options)
        length = options.window if gpt else options.length
        parts = []
        for tokens, name in zip(texts, ("training", "validation"), strict=True):
            if len(tokens) <= length:
                must = f"the part of the text for {name} must have more than {length} tokens"
                fix = "Take a longer text, or a smaller --length, or --window of gpt."
                raise ValueError(message(_OWNER, must, len(tokens), fix))
            parts.append(TextWindows(tokens, length, encoder=encoder))
        training, validation = parts
        limit_batch(options, training)
        model = networks.of_tokens(
            options.model,
            len(encoder),
            options.hidden or (128 if gpt else 256),
            options.embedding,
            options.window,
            generator(options),
        )
        batches = -(-len(training) // options.batch_size)
        steps = options.epochs * batches * (1 if gpt else -(-length // options.window))
        schedule: Any = Cosine(options.learning_rate, steps=steps)
        optimizer = Adam(schedule)
        if gpt:
            # As Radford et al. 2019 and its followers: some steps of warm-up, then a cosine.
            rise = WarmUp(schedule, steps=max(1, min(100, steps // 10)))
            optimizer = AdamW(rise, weight_decay=0.1)
        beginning = texts[0][:_BEGINNING].tolist()
        write = partial(_written, encoder, beginning, options.window if gpt else None)
        common = callbacks(options)
        common["callbacks"].append(TextSamples(encoder.tokens, write))
        windows = options.window if not gpt and length > options.window else None
        return Prepared(
            Split(training, validation, encoder),
            model,
            optimizer,
            "language",
            self.goal("language", encoder),
            {**common, "clip_norm": 1.0, "truncate": windows},
        )

    def _classifier(self, options: argparse.Namespace) -> Prepared:
        if options.model == _GPT:
            must, fix = "a classifier of lines must be recurrent", "Take --model gru."
            raise ValueError(message(_OWNER, must, f"--model {_GPT}", fix))
        lines = read_lines(options.data, skip_bad=options.skip_bad)
        tell_skipped(lines.skipped)
        encoder = _encoder(options, "\n".join(lines.texts), lines.classes)
        samples = ArrayDataset(encoder.transform(lines.texts), encoder.labels(lines.labels))
        read = split(samples, encoder, options, stratified=True)
        limit_batch(options, read.training)
        model = networks.of_lines(
            options.model,
            len(encoder),
            options.hidden or 64,
            options.embedding,
            len(lines.classes),
            generator(options),
        )
        optimizer = Adam(script.cosine(options, read.training))
        goal = Goal(SoftmaxCrossEntropy(), {"accuracy": accuracy})
        more = {**callbacks(options), "clip_norm": 1.0}
        return Prepared(read, model, optimizer, "classification", goal, more)

    def samples(self, preprocessing: Any, options: argparse.Namespace) -> Any:
        if preprocessing.classes:
            lines = read_lines(options.data, skip_bad=options.skip_bad)
            tell_skipped(lines.skipped)
            labels = preprocessing.labels(lines.labels)
            return ArrayDataset(preprocessing.transform(lines.texts), labels)
        (length,), _ = options.example
        if is_name(options.data):
            tokens = _named(options.data)[1].tokens
        else:
            text, skipped = _known(preprocessing, options.data, options.skip_bad)
            tell_skipped(skipped)
            tokens = preprocessing.encode(text)
        return TextWindows(tokens, length, encoder=preprocessing)

    def predict(
        self, bundle: Bundle, preprocessing: Any, options: argparse.Namespace
    ) -> Predictions:
        if preprocessing.classes:
            return _of_lines(bundle, preprocessing, options)
        columns: dict[str, list[Any]] = {
            name: [] for name in ("file", "tokens", "loss", "bits_per_character", "continuation")
        }
        sentences = list[str]()
        for path in options.files:
            text, skipped = _known(preprocessing, path, options.skip_bad)
            if skipped:
                place = f"{skipped[0].place}: {skipped[0].reason}"
                count = f"{len(skipped)} character{'s' * (len(skipped) > 1)}"
                sentences.append(f"{count} of {path}, first {place}")
            tokens = preprocessing.encode(text)
            if not len(tokens):
                must = "a text must have a token"
                raise ValueError(message("ddbp predict", must, f"none in {path}", "Leave it out."))
            nats = _nats(bundle, tokens, options.batch_size)
            bits = nats * (len(tokens) - 1) / math.log(2) / _predicted(preprocessing, text, tokens)
            wide = _context(bundle.model)
            more = writing.write(
                bundle.model, tokens[-512:].tolist(), options.characters, window=wide
            )
            values = (str(path), len(tokens), nats, bits, preprocessing.decode(more))
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        return Predictions(columns, sentences)


def _tokens(options: argparse.Namespace) -> tuple[TextEncoder, Integers, Integers]:
    """Return how a text is encoded, its tokens for training and those for validation, which are of
    its end.
    """
    if is_name(options.data):
        training, test = _named(options.data)
        return training.preprocessing, training.tokens, test.tokens
    text = read_text(options.data)
    if not text.strip():
        must, fix = "a text must have letters", "Name another file."
        raise ValueError(message(_OWNER, must, f"none in {options.data}", fix))
    cut = len(text) - round(len(text) * options.validation)
    encoder = _encoder(options, text)
    return encoder, encoder.encode(text[:cut]), encoder.encode(text[cut:])


def _known(encoder: TextEncoder, path: Any, skip_bad: bool) -> tuple[str, list[Skipped]]:
    """Return the text of a file, and its characters that the model has no token for: left out, or
    the first of them refused.
    """
    text = read_text(path)
    places = encoder.strange(text)
    if places and not skip_bad:
        first = places[0]
        must = f"a text must have no characters but the {len(encoder)} that the model knows"
        if encoder.unit == "words":
            must = f"a text must have no words but the {len(encoder)} that the model knows"
        got = f"{path}, line {line_of(text, first)}: {quoted(text[first])}"
        fix = "Leave them out by --skip-bad, or train with --tokens bytes, which knows all."
        raise ValueError(message("ddbp", must, got, fix))
    skipped = [
        Skipped(f"{path}, line {line_of(text, place)}", quoted(text[place])) for place in places[:1]
    ]
    skipped += [Skipped(str(path), quoted(text[place])) for place in places[1:]]
    left = {*places}
    if left:
        text = "".join(each for place, each in enumerate(text) if place not in left)
    return text, skipped


def _predicted(encoder: TextEncoder, text: str, tokens: Integers) -> float:
    """Return how many characters of a text its tokens predict: those after the first token; NaN of
    none.
    """
    first = len(encoder.decode(tokens[:1]))
    if encoder.unit == "words":
        word = words_of(text)[0]
        first = text.index(word) + len(word)
    return len(text) - first or math.nan


def _named(name: str) -> Any:
    """Return a set that is known by name, or refuse one of another kind."""
    return named(_OWNER, name, TextEncoder)


def _encoder(options: argparse.Namespace, text: str, classes: tuple[str, ...] = ()) -> TextEncoder:
    if options.tokens == "bytes":
        return TextEncoder.bytes(classes=classes)
    if options.tokens == "characters":
        # Lines to be told apart later may have others than those that were learned.
        return TextEncoder.characters(text, unknown=bool(classes), classes=classes)
    learn = TextEncoder.words if options.tokens == "words" else TextEncoder.bpe
    return learn(text, options.vocabulary, classes=classes)


def _written(encoder: TextEncoder, beginning: list[int], window: int | None, model: Module) -> str:
    """Return a text whose tokens begin so."""
    more = writing.write(model, beginning, _SAMPLE, window=window)
    return encoder.decode([*beginning, *more])


def _context(model: Any) -> int | None:
    """Return how many tokens a model reads at a time; None of one that goes on for ever."""
    lengths = [getattr(layer, "length", None) for _, layer in model.named_layers()]
    return next((length for length in lengths if length), None)


def _nats(bundle: Bundle, tokens: Integers, batch_size: int) -> float:
    """Return the mean loss of a model over the tokens of a text; NaN of one token."""
    length = bundle.example[0][0] if bundle.example else len(tokens)
    total, count = 0.0, 0
    whole = (len(tokens) - 1) // length * length
    for part in (tokens[: whole + 1], tokens[whole:]):
        if len(part) < 2:
            continue
        windows = TextWindows(part, min(length, len(part) - 1))
        for start in range(0, len(windows), batch_size):
            numbers = np.arange(start, min(start + batch_size, len(windows)))
            rows = windows.take(numbers)
            bits = np.asarray(bits_per_character(bundle.predict(rows.x), rows.y))
            total += float(bits.sum()) * math.log(2) * rows.y.shape[1]
            count += rows.y.size
    return total / count if count else math.nan


def _of_lines(bundle: Bundle, encoder: TextEncoder, options: argparse.Namespace) -> Predictions:
    """Return what a classifier makes of the lines of files."""
    names, numbers, texts = list[str](), list[int](), list[str]()
    bad = BadSamples("ddbp predict", options.skip_bad)
    for path in options.files:
        for number, line in decoded_lines(existing_file("ddbp predict", "FILE", path), bad):
            if line.strip():
                names.append(str(path))
                numbers.append(number)
                texts.append(line.strip())
    if not texts:
        must, fix = "the files must have lines", "Write one text in each."
        raise ValueError(message("ddbp predict", must, "none", fix))
    logits = bundle.predict(encoder.transform(texts), options.batch_size)
    scores = classification.columns(logits, encoder.classes)
    skipped = [f"{each.place}: {each.reason}" for each in bad.skipped]
    return Predictions({"file": names, "line": np.array(numbers), **scores}, skipped)
