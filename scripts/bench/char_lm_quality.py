"""Compare validation bits per character of train_char_lm.py's LSTM with those of PyTorch's, after
each epoch of the same steps.

    python scripts/bench/char_lm_quality.py [--seeds K] [--epochs E] [--json FILE]

Both learn the same text in the same order, with the same windows, Adam, schedule and clipping; each
has its library's own initial weights.
"""

import math
import sys
from pathlib import Path
from pydoc_data.topics import topics
from statistics import mean
from typing import Any

from lib import harness

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import train_char_lm as script

import ddbp
from ddbp.data.order import batches, permutation
from ddbp.recipes import networks
from layers import SoftmaxCrossEntropy

BATCH, WINDOW, RATE, HIDDEN, EMBEDDING, LENGTH = 32, 64, 0.004, 256, 64, 512


def ours(
    training: ddbp.ArrayDataset,
    test: ddbp.ArrayDataset,
    alphabet: list[str],
    epochs: int,
    seed: int,
) -> list[float]:
    """Return our validation bits per character after each epoch."""
    rng = np.random.default_rng(seed)
    model = networks.of_tokens("lstm", len(alphabet), HIDDEN, EMBEDDING, WINDOW, rng)
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(ddbp.Cosine(RATE, steps=steps(training, epochs))),
        batch_size=BATCH,
        truncate=WINDOW,
        clip_norm=1.0,
        seed=seed,
        quiet=True,
    )
    history = trainer.fit(training, epochs=epochs, validation=test)
    return [record["validation_loss"] / math.log(2) for record in history]


def steps(training: ddbp.ArrayDataset, epochs: int) -> int:
    """Return the number of steps of the whole run."""
    return epochs * -(-LENGTH // WINDOW) * -(-len(training) // BATCH)


def theirs(
    training: ddbp.ArrayDataset,
    test: ddbp.ArrayDataset,
    alphabet: list[str],
    epochs: int,
    seed: int,
) -> list[float]:
    """Return PyTorch's."""
    torch.manual_seed(seed)
    table, recurrent = (
        torch.nn.Embedding(len(alphabet), EMBEDDING),
        torch.nn.LSTM(EMBEDDING, HIDDEN, batch_first=True),
    )
    head = torch.nn.Linear(HIDDEN, len(alphabet))
    parameters = [*table.parameters(), *recurrent.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps(training, epochs))
    curve = []
    for epoch in range(epochs):
        for rows in batches(len(training), BATCH, permutation(len(training), seed, epoch)):
            state = None
            for start in range(0, LENGTH, WINDOW):
                x, y = (
                    torch.from_numpy(a[rows, start : start + WINDOW])
                    for a in (training.x, training.y)
                )
                h, state = recurrent(table(x), state)
                state = tuple(part.detach() for part in state)
                loss = torch.nn.functional.cross_entropy(head(h).flatten(0, 1), y.flatten())
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            logits = head(recurrent(table(torch.from_numpy(test.x)))[0])
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), torch.from_numpy(test.y).flatten()
            )
        curve.append(loss.item() / math.log(2))
    return curve


def main() -> None:
    """Train both for every seed, print the mean curves and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to SEEDS - 1 (%(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="(%(default)s)")
    options = parser.parse_args()
    facts = harness.machine()
    torch.set_num_threads(harness.THREADS)
    alphabet, numbers = np.unique([*"\n".join(topics.values())], return_inverse=True)
    training, test = script.split(numbers, LENGTH)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        curves = {
            run.__name__: run(training, test, alphabet.tolist(), options.epochs, seed)
            for run in (ours, theirs)
        }
        rows.append({"seed": seed, **curves})
        print(
            seed,
            {name: [round(bits, 3) for bits in curve] for name, curve in curves.items()},
            flush=True,
        )
    means = {
        f"{name}_mean": [
            round(mean(column), 4) for column in zip(*(row[name] for row in rows), strict=True)
        ]
        for name in ("ours", "theirs")
    }
    print(means)
    harness.write(options.json, facts, rows, **means)


if __name__ == "__main__":
    main()
