"""Train networks of which layers are frozen and thaw from epoch to epoch, and two networks that
play against each other.

Usage: freezing.py FOLDER [--apart]; every rank writes its digests and losses. With --apart rank 1
freezes what others do not.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import BatchNorm, Linear, MeanSquaredError, ReLU, Sequential, SoftmaxCrossEntropy

RNG = np.random.default_rng(3)
DATA = ddbp.ArrayDataset(RNG.standard_normal((68, 20)), RNG.integers(0, 4, 68))
OPTIMIZERS = {
    "SGD": lambda: ddbp.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda: ddbp.Adam(0.01, groups={"layers.5.*": {"learning_rate": 0.02}}),
    "Lion in 8 bits": lambda: ddbp.Lion(0.001, state_bits=8),
    "LAMB": lambda: ddbp.LAMB(0.01),
    "Adafactor": lambda: ddbp.Adafactor(0.01),
    "Muon": lambda: ddbp.Muon(0.01),
}


class Thaw(ddbp.Callback):
    """Has one more layer trained from epoch to epoch, and freezes the last one in the end."""

    def on_epoch_begin(self, trainer, epoch):
        trainer.model[(5, 3, 0, 1)[(epoch - 1) % 4]].unfreeze()
        if epoch == 4:
            trainer.model[5].freeze()


def thawing(optimizer, **options) -> ddbp.Trainer:
    """Return a trainer after four epochs of thawing."""
    rng = np.random.default_rng(1)
    model = Sequential(
        Linear(20, 120, rng=rng),
        BatchNorm(120, synchronized=True),
        ReLU(),
        Linear(120, 90, rng=rng),
        ReLU(),
        Linear(90, 4, rng=rng),
    )
    model.freeze()
    model[5].unfreeze()
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=optimizer,
        batch_size=14,
        shards=6,
        quiet=True,
        callbacks=[ddbp.ExponentialMovingAverage(0.9, validation=DATA), Thaw()],
        **options,
    )
    trainer.fit(DATA, epochs=4, validation=DATA)
    return trainer


def adversaries() -> tuple[ddbp.Trainer, ddbp.Trainer, list[float]]:
    """Return a generator's and a critic's trainer after twelve steps of each, and the losses."""
    rng = np.random.default_rng(7)
    generator = Sequential(Linear(3, 80, rng=rng), ReLU(), Linear(80, 20, rng=rng))
    critic = Sequential(Linear(20, 80, rng=rng), ReLU(), Linear(80, 1, rng=rng))
    options = {"batch_size": 14, "shards": 6, "quiet": True}
    first = ddbp.Trainer(generator, optimizer=ddbp.Adam(0.001), **options)
    second = ddbp.Trainer(critic, optimizer=ddbp.SGD(0.01, momentum=0.5), **options)
    error, losses = MeanSquaredError(), []
    for step in range(12):
        noise = np.random.default_rng(step).standard_normal((14, 3)).astype(np.float32)
        ones = np.ones((14, 1), np.float32)
        batch = first.batch(noise, ones)
        losses.append(first.step(error(critic(generator(batch.x)), batch.y)))
        rows = slice(4 * step, 4 * step + 14)
        batch = second.batch(DATA.x[rows].astype(np.float32), generator(noise))
        false = batch.x.tape.input(batch.y, gradient=False)
        targets = np.ones((len(batch.y), 1), np.float32)
        losses.append(second.step(error(critic(batch.x) - critic(false), targets)))
    return first, second, losses


def main() -> None:
    """Train."""
    rank, results = ddbp.communicator().rank, {}
    for name, make in OPTIMIZERS.items():
        for clip in (None, 0.5):
            trainer = thawing(make(), clip_norm=clip)
            if "--apart" in sys.argv:
                if rank == 1:
                    trainer.model[3].freeze()
                trainer.fit(DATA, epochs=1)
            names = ("loss", "validation_loss", "average_loss")
            losses = [record[key] for record in trainer.history for key in names]
            results[f"{name} {clip}: losses"] = np.array(losses)
            results[f"{name} {clip}: digest"] = np.array(trainer.parameters_sha256())
    first, second, losses = adversaries()
    results["adversaries: losses"] = np.array(losses)
    results["adversaries: digests"] = np.array(
        [first.parameters_sha256(), second.parameters_sha256()]
    )
    np.savez(Path(sys.argv[1]) / f"rank{rank}.npz", **results)


if __name__ == "__main__":
    main()
