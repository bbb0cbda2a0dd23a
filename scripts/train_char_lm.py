"""Train a character language model on a text, by default Python's help topics: 0.46 MB of English.

Recurrent models read sequences of `--length` characters and learn by truncated backpropagation, a
step for each `--window` of them; a GPT learns windows alone. `ddbp train text` knows other tokens.
"""

import math
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from ddbp import Adam, ArrayDataset, Cosine, TextSamples, script
from ddbp.recipes import networks
from layers import SoftmaxCrossEntropy
from layers.types import Array


def split(numbers: Array, length: int) -> tuple[ArrayDataset, ArrayDataset]:
    """Return sequences of the first nine tenths of a text, and of the rest: pieces (N, T), and what
    follows each character.
    """
    parts = np.split(numbers, [len(numbers) * 9 // 10])
    ends = [(len(part) - 1) // length * length for part in parts]
    pairs = [(part[:end], part[1 : end + 1]) for part, end in zip(parts, ends, strict=True)]
    first, second = (ArrayDataset(*(each.reshape(-1, length) for each in pair)) for pair in pairs)
    return first, second


def main() -> None:
    """Train and print the result."""
    flags = script.Flags(
        "Train a character language model.", epochs=4, batch_size=32, learning_rate=0.004
    )
    flags.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 (Python's help topics)")
    flags.add_choice("--model", [*script.RECURRENT, "gpt"], "which model")
    flags.add_size("--hidden", None, "its width (256; gpt: 128)")
    flags.add_size("--embedding", 64, "width of a character's vector, but for gpt")
    flags.add_size("--length", 512, "characters of a sequence, but for gpt")
    flags.add_size("--window", 64, "characters that an error reaches back")
    options = flags.parse_args()
    text = options.text.read_text(encoding="utf-8") if options.text else "\n".join(topics.values())
    alphabet, numbers = np.unique([*text], return_inverse=True)
    gpt = options.model == "gpt"
    length, hidden = (options.window, 128) if gpt else (options.length, 256)
    training, test = split(numbers, length)
    sizes = len(alphabet), options.hidden or hidden, options.embedding, options.window
    model = networks.of_tokens(options.model, *sizes, np.random.default_rng(options.seed))
    steps = options.epochs * -(-length // options.window) * -(-len(training) // options.batch_size)
    loss, optimizer = SoftmaxCrossEntropy(), Adam(Cosine(options.learning_rate, steps=steps))
    more = {"truncate": None if gpt else options.window, "callbacks": [TextSamples([*alphabet])]}
    data = training, test
    trainer, result = script.fit(options, model, loss, optimizer, *data, clip_norm=1.0, **more)
    result["metrics"]["bits_per_character"] = result["metrics"]["validation_loss"] / math.log(2)
    script.finish(options, trainer, result)


if __name__ == "__main__":
    script.start(main)
