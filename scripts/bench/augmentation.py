"""Time reading and augmenting batches of CIFAR-size images beside a training step of ResNet-20.

    python scripts/bench/augmentation.py [--batch N] [--json FILE] [--rounds R]

Everything runs on one core, in turns with the step: the rows of a batch are taken out of a data set
in an order that is random, and augmented in this thread, as in `fit` without `prefetch`.
"""

from typing import Any

from lib import harness

import numpy as np

import ddbp
from ddbp.data.augment import Affine, Augmentation, Crop, CutOut, Flip, MixUp, Noise
from ddbp.reduction.shards import ShardPlan
from ddbp.training.loading import Loader
from ddbp.training.options import TrainerOptions
from layers import SoftmaxCrossEntropy, models

SAMPLES = 10_000
USUAL = [Flip(), Crop(4)]
WAYS: dict[str, list[Augmentation]] = {
    "nothing": [],
    "Flip()": [Flip()],
    "Crop(4)": [Crop(4)],
    "Flip(), Crop(4)": USUAL,
    "Flip(), Crop(4), CutOut(8)": [*USUAL, CutOut(8)],
    "Noise(0.1)": [Noise(0.1)],
    "Affine(10, 0.1, 2)": [Affine(10, 0.1, 2)],
    "MixUp(0.2, classes=10)": [MixUp(0.2, classes=10)],
    "Flip(), Crop(4), CutOut(8), MixUp(0.2, classes=10)": [
        *USUAL,
        CutOut(8),
        MixUp(0.2, classes=10),
    ],
}


class Reader:
    """Reads and augments one batch after another."""

    def __init__(self, data: ddbp.ArrayDataset, batch: int, augment: list[Augmentation]) -> None:
        options = TrainerOptions(batch_size=batch, augment=augment)
        self._loader = Loader(options, prefetch=False)
        self._data = data
        self._batch = batch
        self._plan = ShardPlan(1, 1, 0)
        self._start = 0

    def __call__(self) -> Any:
        """Return the next batch."""
        start = self._start
        self._start = (start + self._batch) % (len(self._data) - self._batch)
        (batch,) = self._loader.take(self._data, self._plan, 0, range(start, start + 1))
        return batch


def main() -> None:
    """Time, print and write."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 9)
    parser.add_argument("--batch", type=int, default=128, help="samples (%(default)s)")
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((SAMPLES, 32, 32, 3)).astype(np.float32)
    data = ddbp.ArrayDataset(images, rng.integers(0, 10, SAMPLES))
    trainer = ddbp.Trainer(
        models.resnet20(rng),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(1e-6, momentum=0.9),
        batch_size=options.batch,
        shards=1,
        quiet=True,
    )
    x, y = data.x[: options.batch], data.y[: options.batch]
    contestants: dict[str, Any] = {"step": lambda: trainer.train_step(x, y)}
    contestants |= {name: Reader(data, options.batch, way) for name, way in WAYS.items()}
    times = harness.interleaved(contestants, options.rounds)
    rows = [
        {
            "name": name,
            "ms": harness.spread(times[name]),
            "of_step": harness.ratio(times[name], times["step"]),
        }
        for name in WAYS
    ]
    step = harness.spread(times["step"])
    for row in rows:
        print(row["name"], row["ms"]["median"], row["of_step"], flush=True)
    harness.write(options.json, facts, rows, batch=options.batch, step_ms=step)


if __name__ == "__main__":
    main()
