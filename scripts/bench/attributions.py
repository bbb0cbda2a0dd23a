"""Compare attributions of a network that reads handwritten digits: how complete they are, whether
they depend on what the network has learned, and what hiding pixels says of them.

    python scripts/bench/attributions.py [--json FILE]

The network is that of scripts/attribute.py. Similarities are Spearman's rank correlations of
attributions, by their sizes or with their signs, means over images. The area over the curve is the
mean fall of the explained logit while pixels are set to 0 from the largest attribution to the
smallest, relative to the fall when all are: Samek et al., "Evaluating the visualization of what a
deep neural network has learned", 2017; 0.5 is what pixels in random order give where each counts
the same.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from lib import harness

import numpy as np

from ddbp import Adam, Cosine, Trainer
from ddbp.attribution import Attribution, sanity_check
from ddbp.data import digits
from layers import SoftmaxCrossEntropy, models

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from attribute import METHODS

EPOCHS, IMAGES, SHOWN = 20, 100, 5


def trained() -> tuple[Any, Any]:
    """Return the network, and the images for the test."""
    training, test = digits(8, 8, 1)
    model = models.small_cnn(np.random.default_rng(0), image=(8, 8, 1), widths=(16, 32), hidden=64)
    steps = EPOCHS * -(-len(training) // 64)
    trainer = Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=Adam(Cosine(0.003, steps=steps)),
        batch_size=64,
        shards=8,
        quiet=True,
    )
    trainer.fit(training, epochs=EPOCHS)
    print("accuracy", round(trainer.evaluate(test)["accuracy"], 4))
    return model, test


def area_over_curve(model: Any, found: Attribution, labels: Any) -> float:
    """Return the mean fall while pixels are hidden from the largest attribution on."""
    images = np.array(found.x)
    rows = np.arange(len(images))
    order = np.argsort(-found.values.reshape(len(images), -1), axis=1, kind="stable")
    pixels = images.reshape(len(images), -1)
    curve = [model(images)[rows, labels]]
    for place in order.T:
        pixels[rows, place] = 0
        curve.append(model(images)[rows, labels])
    falls = curve[0] - np.array(curve)
    return float(np.mean(falls.mean(axis=0)) / np.mean(falls[-1]))


def main() -> None:
    """Measure, print and write the file."""
    options = harness.arguments(str(__doc__).splitlines()[0], None).parse_args()
    model, test = trained()
    read = model(test.x.astype(np.float32)).argmax(axis=1) == test.y
    images, labels = test.x[read][:IMAGES].astype(np.float32), test.y[read][:IMAGES]
    # One of each of the first classes is shown.
    shown = [int(np.flatnonzero(labels == digit)[0]) for digit in range(SHOWN)]
    rows = []
    for name, method in METHODS.items():
        explain = partial(method, x=images, target=labels)
        found = explain(model)
        alike, with_signs = (
            sanity_check(explain, model, signed=signed) for signed in (False, True)
        )
        row: dict[str, Any] = {
            "method": name,
            "error": None,
            "similarity": {layer: round(similarity, 3) for layer, similarity in alike.items()},
            "signed": {layer: round(similarity, 3) for layer, similarity in with_signs.items()},
            "area_over_curve": round(area_over_curve(model, found, labels), 3),
            "maps": [_rounded(found.values[n]) for n in shown],
        }
        if found.error is not None:
            differences = np.abs(found.scores - found.baseline_scores)
            row["error"] = float(f"{np.abs(found.error).max() / differences.mean():.2g}")
        rows.append(row)
        print({key: value for key, value in row.items() if key != "maps"})
    pictures = [_rounded(images[n]) for n in shown]
    harness.write(options.json, harness.machine(), rows, images=pictures, count=len(images))


def _rounded(image: Any) -> str:
    """Return the pixels of an image as shares of the largest one in size."""
    largest = float(np.abs(image).max()) or 1.0
    return " ".join(f"{pixel / largest:.2g}" for pixel in image.reshape(-1).tolist())


if __name__ == "__main__":
    main()
