"""Train a small convolutional network on handwritten digits, and show which pixels decide what it
reads: the test images, and attributions of every method beside them, in attributions.png of the run
folder. Ranks share the images, and what they find is the same bits for any number of them.
"""

import dataclasses
import sys
from functools import partial

import numpy as np

from ddbp import Adam, Trainer, attribution, script
from ddbp.attribution import Attribution
from ddbp.data import digits
from layers import SoftmaxCrossEntropy, models
from layers.types import Array

METHODS = {
    "saliency": attribution.saliency,
    "gradient x input": attribution.gradient_times_input,
    "SmoothGrad": attribution.smooth_grad,
    "integrated gradients": attribution.integrated_gradients,
    "DeepLIFT": attribution.deep_lift,
    "guided backpropagation": attribution.guided_backpropagation,
    # The ReLU after the second convolution.
    "Grad-CAM": partial(attribution.grad_cam, layer="layers.4"),
    "occlusion": partial(attribution.occlusion, window=2),
}


def explained(trainer: Trainer, name: str, images: Array, labels: Array) -> Attribution:
    """Return what a method finds for images, of which each rank takes a share; collective."""
    comm, share = trainer.comm, -(-len(images) // trainer.comm.size)
    # The last ranks may have images twice, so that all have as many.
    first = np.minimum(share * np.arange(comm.size), len(images) - share)
    rows = first[:, np.newaxis] + np.arange(share)
    mine = rows[comm.rank]
    options = {"first_sample": int(mine[0])} if name == "SmoothGrad" else {}
    found = METHODS[name](trainer.model, images[mine], target=labels[mine], **options)
    whole = {}
    for part, array in vars(found).items():
        if isinstance(array, np.ndarray):
            whole[part] = np.empty((len(images), *array.shape[1:]), array.dtype)
            whole[part][rows] = comm.all_gather(array)
    return dataclasses.replace(found, **whole)


def main() -> None:
    """Train, explain, draw, and print the result."""
    flags = script.Flags(__doc__, epochs=10, batch_size=64, learning_rate=0.003)
    flags.add_size("--images", 8, "how many test images are explained")
    options = flags.parse_args()
    training, test = digits(8, 8, 1)
    rng = np.random.default_rng(options.seed)
    model = models.small_cnn(rng, image=(8, 8, 1), widths=(16, 32), hidden=64)
    loss, optimizer = SoftmaxCrossEntropy(), Adam(script.cosine(options, training))
    trainer, result = script.fit(options, model, loss, optimizer, training, test)
    images, labels = test.x[: options.images], test.y[: options.images]
    found = {name: explained(trainer, name, images, labels) for name in METHODS}
    errors = {name: each.error for name, each in found.items() if each.error is not None}
    result["attributions"] = {name: each.sha256() for name, each in found.items()}
    result["error"] = {name: float(np.abs(error).max()) for name, error in errors.items()}
    if trainer.comm.leads:
        picture = trainer.run_dir / "attributions.png"
        first, *others = found.values()
        try:
            first.figure(*others).savefig(picture, dpi=150)
            result["picture"] = str(picture)
        except ImportError as error:
            print(error, file=sys.stderr)
    script.finish(options, trainer, result)


if __name__ == "__main__":
    script.start(main)
