"""Train a character language model on a text, and write some text of its own.

The default text is that of Python's help topics, about 0.46 MB of English that every Python brings.
Recurrent models learn by truncated backpropagation through time: sequences of `--length`
characters, a step for each `--window` of them. A GPT reads and learns windows alone.
"""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from ddbp import Adam, ArrayDataset, Cosine, TextSamples, load_parameters, script
from layers import Embedding, Linear, Module, Sequential, SoftmaxCrossEntropy, exp, models
from layers.types import Array

DESCRIPTION = "language.json"


@dataclasses.dataclass(frozen=True)
class Language:
    """The characters of a language, which model of it to build, and how its text begins."""

    alphabet: str
    model: str = "lstm"
    hidden: int = 256
    embedding: int = 64
    window: int = 64
    beginning: str = ""

    def network(self, rng: np.random.Generator) -> Module:
        """Return the model: logits (N, T, V) of the next character for characters (N, T)."""
        characters = len(self.alphabet)
        if self.model == "gpt":
            return models.gpt(rng, characters, self.window, self.hidden)
        table = Embedding(characters, self.embedding, rng=rng)
        return Sequential(
            table,
            script.RECURRENT[self.model](self.embedding, self.hidden, rng=rng),
            Linear(self.hidden, characters, rng=rng),
        )

    def numbers(self, text: str) -> Array:
        """Return the characters of a text as numbers; ends the script with an error if the alphabet
        lacks one.
        """
        number = {character: index for index, character in enumerate(self.alphabet)}
        if unknown := sorted(set(text) - number.keys()):
            sys.exit(
                "train_char_lm: --start must have characters of the training text only; got"
                f" {unknown}"
            )
        return np.array([number[character] for character in text])

    def written(self, model: Any, options: argparse.Namespace) -> str:
        """Return a text that begins with `--start`, drawn character by character."""
        rng = np.random.default_rng(options.seed)
        numbers = self.numbers(options.start or self.beginning).tolist()
        unread, state = np.array([numbers]), None
        for _ in range(options.characters):
            if self.model == "gpt":
                logits = model(np.array([numbers[-self.window :]]))
            else:
                logits, state = model.run(unread, state)
            scores = logits[0, -1].astype(np.float64) / options.temperature
            weights = exp(scores - scores.max())
            numbers.append(int(rng.choice(len(weights), p=weights / weights.sum())))
            unread = np.array([numbers[-1:]])
        return "".join(self.alphabet[number] for number in numbers)


def default_text() -> str:
    """Return Python's help topics."""
    return "\n".join(topics.values())


def alphabet_of(text: str) -> str:
    """Return the characters of a text in order."""
    return "".join(sorted(set(text)))


def split(numbers: Array, length: int) -> tuple[ArrayDataset, ArrayDataset]:
    """Return sequences of the first nine tenths of a text, and of the rest: pieces (N, T), and what
    follows each character.
    """

    def sequences(part: Array) -> ArrayDataset:
        pieces = (len(part) - 1) // length
        return ArrayDataset(
            *(part[shift : shift + pieces * length].reshape(pieces, length) for shift in (0, 1))
        )

    cut = len(numbers) * 9 // 10
    return sequences(numbers[:cut]), sequences(numbers[cut:])


def write_sample(options: argparse.Namespace) -> None:
    """Print a text drawn from the model in a run folder."""
    try:
        language = Language(**json.loads((options.sample / DESCRIPTION).read_text()))
        model = language.network(np.random.default_rng(0))
        load_parameters(model, options.sample / "model.safetensors")
    except (OSError, ValueError, TypeError) as error:
        sys.exit(
            f"train_char_lm: --sample must be the run folder of a language model; {error}. Train"
            " one with --run-dir FOLDER."
        )
    print(language.written(model, options))


def main() -> None:
    """Train, print a sample and the result; or only a sample of a model trained before."""
    flags = script.Flags(
        "Train a character language model.", epochs=4, batch_size=32, learning_rate=0.004
    )
    flags.add_argument(
        "--text", type=Path, metavar="FILE", help="text to learn, in UTF-8 (Python's help topics)"
    )
    flags.add_choice("--model", [*script.RECURRENT, "gpt"], "which model")
    flags.add_size("--hidden", None, "its width (256; gpt: 128)")
    flags.add_size("--embedding", 64, "width of a character's vector, but for gpt")
    flags.add_size("--length", 512, "characters of a sequence, but for gpt")
    flags.add_size("--window", 64, "characters that an error reaches back")
    flags.add_argument(
        "--sample",
        type=Path,
        metavar="FOLDER",
        help="train nothing; write text with the model of a run folder",
    )
    flags.add_size("--characters", 400, "to write")
    flags.add_argument(
        "--temperature",
        type=script.positive_float,
        default=0.7,
        help="of the sample: low is timid (%(default)s)",
    )
    flags.add_argument(
        "--start", metavar="TEXT", help="beginning of the sample (that of the training text)"
    )
    options = flags.parse_args()
    if options.sample:
        write_sample(options)
        return
    try:
        text = options.text.read_text(encoding="utf-8") if options.text else default_text()
    except (OSError, UnicodeDecodeError) as error:
        flags.error(f"--text must be a file in UTF-8; {error}")
    gpt = options.model == "gpt"
    length = options.window if gpt else options.length
    if len(text) // 10 <= length or len(text) * 9 // 10 <= length * options.batch_size:
        flags.error(
            "a tenth of the text must hold a sequence, and the rest a batch of them; got"
            f" {len(text)} characters"
        )
    hidden = options.hidden or (128 if gpt else 256)
    language = Language(
        alphabet_of(text), options.model, hidden, options.embedding, options.window, text[:8]
    )
    language.numbers(options.start or "")  # Refused now rather than after training.
    training, test = split(language.numbers(text), length)
    model = language.network(np.random.default_rng(options.seed))
    steps = options.epochs * -(-length // options.window) * -(-len(training) // options.batch_size)
    optimizer = Adam(Cosine(options.learning_rate, steps=steps))
    options.run_dir = options.run_dir or script.run_folder()
    truncate = None if gpt else options.window
    samples = TextSamples(language.alphabet, lambda model: language.written(model, options))
    trainer, result = script.fit(
        options,
        model,
        SoftmaxCrossEntropy(),
        optimizer,
        training,
        test,
        truncate=truncate,
        clip_norm=1.0,
        callbacks=[samples],
    )
    result["metrics"]["bits_per_character"] = result["metrics"]["validation_loss"] / math.log(2)
    if trainer.comm.rank == 0:
        (options.run_dir / DESCRIPTION).write_text(json.dumps(dataclasses.asdict(language)) + "\n")
        if not options.quiet:
            print(language.written(model, options))
    script.finish(options, trainer, result)


if __name__ == "__main__":
    main()
