"""Train a small convolutional network on handwritten digits, and show which pixels decide what it
reads: the test images, and attributions of every method beside them, in attributions.png of the run
folder.

Ranks share the images, and what they find is the same bits for any number of them.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ddbp import Adam, Trainer, attribution, script
from ddbp.attribution import Attribution
from ddbp.data import digits
from layers import SoftmaxCrossEntropy, models

METHODS: dict[str, Callable[..., Attribution]] = {
    "saliency": attribution.saliency,
    "gradient x input": attribution.gradient_times_input,
    "SmoothGrad": attribution.smooth_grad,
    "integrated gradients": attribution.integrated_gradients,
    "DeepLIFT": attribution.deep_lift,
    "guided backpropagation": attribution.guided_backpropagation,
    "Grad-CAM": lambda *given, **options: attribution.grad_cam(
        given[0], given[1], "layers.4", *given[2:], **options
    ),
    "occlusion": lambda *given, **options: attribution.occlusion(*given, window=2, **options),
}
"""Each is called with a model, images and their classes; "layers.4" is the ReLU after the second
convolution.
"""


def explained(
    trainer: Trainer, method: str, images: Any, labels: Any, **options: Any
) -> Attribution:
    """Return what a method finds for images, of which each rank takes a share; collective."""
    rank, size, count = trainer.comm.rank, trainer.comm.size, len(images)
    share = -(-count // size)
    # The last ranks may have images twice, so that all have as many.
    bounds = [min(each * share, count - share) for each in range(size)]
    first = bounds[rank]
    if method == "SmoothGrad":
        options["first_sample"] = first
    rows = slice(first, first + share)
    found = METHODS[method](trainer.model, images[rows], labels[rows], **options)

    def gathered(mine: Any) -> Any:
        if mine is None:
            return None
        whole = np.empty((count, *mine.shape[1:]), mine.dtype)
        for start, part in zip(bounds, trainer.comm.all_gather(mine), strict=True):
            whole[start : start + share] = part
        return whole

    names = ("values", "scores", "baseline_scores", "error", "indices")
    return dataclasses.replace(
        found, x=images, **{name: gathered(getattr(found, name)) for name in names}
    )


def main() -> None:
    """Train, explain, draw, and print the result."""
    flags = script.Flags(__doc__, epochs=10, batch_size=64, learning_rate=0.003)
    flags.add_size("--images", 8, "how many test images are explained")
    options = flags.parse_args()
    training, test = digits(8, 8, 1)
    model = models.small_cnn(
        np.random.default_rng(options.seed), image=(8, 8, 1), widths=(16, 32), hidden=64
    )
    trainer, result = script.fit(
        options,
        model,
        SoftmaxCrossEntropy(),
        Adam(script.cosine(options, training)),
        training,
        test,
    )
    images, labels = test.x[: options.images], test.y[: options.images]
    found = {method: explained(trainer, method, images, labels) for method in METHODS}
    result["attributions"] = {method: each.sha256() for method, each in found.items()}
    result["error"] = {
        method: float(np.abs(each.error).max())
        for method, each in found.items()
        if each.error is not None
    }
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
    main()
