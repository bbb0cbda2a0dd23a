"""Train with checkpoints and digests. Usage: replayed.py FOLDER [--nan STEP] [--strict]."""

import argparse
from pathlib import Path

import numpy as np

import ddbp
from ddbp.data.augment import MixUp, Noise
from layers import Dropout, Linear, ReLU, Sequential


class Outside(ddbp.Logger):
    """Sends to a file, as if that were somebody else's tool."""

    def __init__(self, path: Path) -> None:
        super().__init__(every_steps=1)
        self.path = path

    def begin(self, trainer: ddbp.Trainer, run: str, resumed: bool) -> None:
        """Begin."""

    def send(self, values: dict, step: int) -> None:
        """Append the step."""
        with self.path.open("a") as file:
            file.write(f"{step}\n")


def main() -> None:
    """Train two models, the second one in the folder."""
    flags = argparse.ArgumentParser()
    flags.add_argument("folder", type=Path)
    flags.add_argument("--nan", type=int)
    flags.add_argument("--strict", action="store_true")
    options = flags.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((96, 6)).astype(np.float32), rng.integers(0, 3, 96)
    data = ddbp.ArrayDataset(x, y)
    usual = {"loss": "cross_entropy", "batch_size": 16, "shards": 4, "quiet": True}
    first = Sequential(Linear(6, 4, rng=rng), ReLU())
    ddbp.Trainer(first, optimizer="adam", run_dir=options.folder.with_name("first"), **usual).fit(
        data, epochs=1
    )

    class Spoil(ddbp.Callback):
        def on_step_begin(self, trainer: ddbp.Trainer, step: int) -> None:
            if step == options.nan:
                model.layers[0].bias.value[2] = np.inf

    model = Sequential(
        first.layers[0], ReLU(), Dropout(0.3), Linear(4, 8, rng=rng), ReLU(), Linear(8, 3, rng=rng)
    )
    best = ddbp.BestWeights(path=options.folder.with_name("best.safetensors"))
    callbacks = [
        *(ddbp.Checkpoints(every_steps=5, keep_last=9), ddbp.StepDigests(), best, Spoil()),
        Outside(options.folder.with_name("outside")),
    ]
    # Noise is learnt by nobody, and such a rate learns nothing at all.
    trainer = ddbp.Trainer(
        model,
        optimizer=ddbp.SGD(1e3) if options.strict else "adam",
        run_dir=options.folder,
        callbacks=callbacks,
        augment=[] if options.strict else [Noise(0.1), MixUp(0.2, classes=3)],
        doctor="strict" if options.strict else False,
        **usual,
    )
    trainer.fit(data, epochs=4, validation=data)
    options.folder.with_name("reached").write_text("the end")


if __name__ == "__main__":
    main()
