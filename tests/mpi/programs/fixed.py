"""Train with a doctor. Usage: fixed.py FOLDER [--rate RATE]."""

import argparse
from pathlib import Path

import numpy as np

import ddbp
from layers import Linear, ReLU, Sequential


def main() -> None:
    """Train two models, the second one in the folder, at a rate that is too low."""
    flags = argparse.ArgumentParser()
    flags.add_argument("folder", type=Path)
    flags.add_argument("--rate", type=float, default=1e-6)
    options = flags.parse_args()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((320, 20)).astype(np.float32)
    data = ddbp.ArrayDataset(x, x[:, :4].argmax(axis=1))
    usual = {"loss": "cross_entropy", "batch_size": 16, "shards": 4, "quiet": True}
    first = Sequential(Linear(20, 4, rng=rng))
    other = options.folder.with_name("other")
    ddbp.Trainer(first, optimizer="adam", run_dir=other, **usual).fit(data, epochs=1)
    model = Sequential(Linear(20, 32, rng=rng), ReLU(), Linear(32, 4, rng=rng))
    best = ddbp.BestWeights(path=options.folder.with_name("best.safetensors"))
    ddbp.Trainer(
        model,
        optimizer=ddbp.Adam(ddbp.WarmUp(options.rate, steps=4)),
        run_dir=options.folder,
        callbacks=[ddbp.Instruments(10), ddbp.Doctor(), ddbp.StepDigests(), best],
        **usual,
    ).fit(data, epochs=4, validation=data)


if __name__ == "__main__":
    main()
