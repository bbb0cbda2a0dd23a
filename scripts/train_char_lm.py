"""Train a character language model on a text, and write some text of its own.

The default text is that of Python's help topics, about 0.46 MB of English that every Python brings. Recurrent models learn by
truncated backpropagation through time: sequences of `--length` characters, a step for each `--window` of them.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from common import finish, fit, parser, positive, positive_number, run_folder

import layers
from ddbp import Adam, ArrayDataset, Cosine, load_parameters
from layers import Embedding, Layer, Linear, Sequential, SoftmaxCrossEntropy
from layers.types import Array

CELLS = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.RNN}
OPTIONS = ("model", "hidden", "embedding")


def network(model: str, characters: int, hidden: int, embedding: int, rng: np.random.Generator) -> Layer:
    """Return the language model: logits (N, T, V) of the next character for characters (N, T)."""
    table = Embedding(characters, embedding, rng=rng)
    return Sequential(table, CELLS[model](embedding, hidden, rng=rng), Linear(hidden, characters, rng=rng))


def default_text() -> str:
    """Return Python's help topics."""
    return "\n".join(topics.values())


def numbered(text: str) -> tuple[str, Array]:
    """Return the characters of a text in order, and the text as their numbers."""
    alphabet = "".join(sorted(set(text)))
    number = {character: index for index, character in enumerate(alphabet)}
    return alphabet, np.array([number[character] for character in text])


def split(numbers: Array, length: int) -> tuple[ArrayDataset, ArrayDataset]:
    """Return the sequences of the first nine tenths of a text, and those of the rest."""
    cut = len(numbers) * 9 // 10
    return sequences(numbers[:cut], length), sequences(numbers[cut:], length)


def sequences(numbers: Array, length: int) -> ArrayDataset:
    """Return neighbouring pieces of a text (N, T), and for every character the one that follows (N, T)."""
    pieces = (len(numbers) - 1) // length
    return ArrayDataset(*(numbers[shift : shift + pieces * length].reshape(pieces, length) for shift in (0, 1)))


def sample(model: Any, alphabet: str, start: str, characters: int, temperature: float, rng: np.random.Generator) -> str:
    """Return a text that begins with `start`, drawn character by character."""
    text, state = start, None
    unread = np.array([[alphabet.index(c) for c in start]])
    for _ in range(characters):
        logits, state = model.run(unread, state)
        scores = logits[0, -1].astype(np.float64) / temperature
        weights = np.exp(scores - scores.max())
        drawn = rng.choice(len(alphabet), p=weights / weights.sum())
        text, unread = text + alphabet[drawn], np.array([[drawn]])
    return text


def write_sample(options: argparse.Namespace) -> None:
    """Print a text drawn from the model in a run folder."""
    try:
        description = json.loads((options.sample / "alphabet.json").read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"train_char_lm: --sample must be the run folder of a language model; {error}. Train one with --run-dir FOLDER.")
    if unknown := set(options.start) - set(description["alphabet"]):
        sys.exit(f"train_char_lm: --start must have characters of the training text only; got {sorted(unknown)}")
    rng = np.random.default_rng(options.seed)
    model = network(*(description[name] for name in ("model", "characters", "hidden", "embedding")), rng)
    load_parameters(model, options.sample / "model.safetensors")
    print(sample(model, description["alphabet"], options.start, options.characters, options.temperature, rng))


def main() -> None:
    """Train, print a sample and the result; or only a sample of a model trained before."""
    flags = parser("Train a character language model.", epochs=4, batch_size=32, learning_rate=0.004)
    flags.add_argument("--text", type=Path, metavar="FILE", help="text to learn, in UTF-8 (Python's help topics)")
    flags.add_argument("--model", choices=CELLS, default="lstm", help="which recurrent layer (%(default)s)")
    flags.add_argument("--hidden", type=positive, default=256, help="its width (%(default)s)")
    flags.add_argument("--embedding", type=positive, default=64, help="width of a character's vector (%(default)s)")
    flags.add_argument("--length", type=positive, default=512, help="characters of a sequence (%(default)s)")
    flags.add_argument("--window", type=positive, default=64, help="characters that an error reaches back (%(default)s)")
    flags.add_argument("--sample", type=Path, metavar="FOLDER", help="train nothing; write text with the model of a run folder")
    flags.add_argument("--characters", type=positive, default=400, help="length of the sample (%(default)s)")
    flags.add_argument("--temperature", type=positive_number, default=0.7, help="of the sample: low is timid (%(default)s)")
    flags.add_argument("--start", default="The ", help="beginning of the sample (%(default)r)")
    options = flags.parse_args()
    if options.sample:
        write_sample(options)
        return
    try:
        text = options.text.read_text(encoding="utf-8") if options.text else default_text()
    except (OSError, UnicodeDecodeError) as error:
        flags.error(f"--text must be a file in UTF-8; {error}")
    alphabet, numbers = numbered(text)
    if len(numbers) // 10 <= options.length or len(numbers) * 9 // 10 <= options.length * options.batch_size:
        flags.error(f"a tenth of the text must hold a sequence, and the rest a batch of them; got {len(numbers)} characters")
    if unknown := set(options.start) - set(alphabet):
        flags.error(f"--start must have characters of the text only; got {sorted(unknown)}")
    training, test = split(numbers, options.length)
    rng = np.random.default_rng(options.seed)
    model = network(options.model, len(alphabet), options.hidden, options.embedding, rng)
    windows = -(-options.length // options.window)
    steps = options.epochs * windows * -(-len(training) // options.batch_size)
    options.run_dir = options.run_dir or run_folder()
    optimizer = Adam(Cosine(options.learning_rate, steps=steps))
    trainer, result = fit(options, model, SoftmaxCrossEntropy(), optimizer, training, test, truncate=options.window, clip_norm=1.0)
    result["metrics"]["bits_per_character"] = result["metrics"]["validation_loss"] / math.log(2)
    if trainer.comm.rank == 0:
        description = {name: getattr(options, name) for name in OPTIONS} | {"characters": len(alphabet), "alphabet": alphabet}
        (options.run_dir / "alphabet.json").write_text(json.dumps(description) + "\n")
        if not options.quiet:
            print(sample(model, alphabet, options.start, options.characters, options.temperature, rng))
    finish(options, trainer, result)


if __name__ == "__main__":
    main()
