"""The table of public calls: each public name with valid arguments, of which the fuzz changes one
at a time. A new public name needs a row here, or in the file of its part.
"""

import numpy as np
from rows_of_data import DATA_ROWS
from rows_of_layers import FUNCTIONS, LAYERS
from rows_of_training import TRAINING
from valid import LABELS, LINES, RNG, ROWS, TOKENS, Row, X, Y, method, network, pooled, row

import layers
from ddbp import attribution, export
from ddbp.data import augment
from ddbp.data.augmenter import Augmenter

EXPLAINED = {"model": network(), "x": ROWS, "target": LABELS}
TABLE, KERNEL = layers.Embedding(7, 5, rng=RNG), layers.Conv1d(6, 5, 3, rng=RNG)


def changes(made):
    """Change images as a trainer does."""
    images = np.zeros((4, 6, 7, 3), np.float32)
    steps = augment.chosen([made])
    given = images, LABELS, None
    Augmenter(steps, 0)(given, np.arange(4), 0, lambda numbers: given, 4)


AUGMENTATIONS = [
    row("augment.Flip", p=0.5, vertical=True, then=changes),
    row("augment.Crop", padding=2, mode="reflect", fill=0.0, then=changes),
    row("augment.Shift", most=2, across=1, mode="wrap", fill=0.0, then=changes),
    row("augment.Affine", degrees=9.0, scale=0.1, shift=1.0, shear=0.1, fill=0.0, then=changes),
    row("augment.CutOut", size=2, fill=0.0, then=changes),
    row("augment.Noise", deviation=0.1, then=changes),
    row("augment.MixUp", alpha=0.2, classes=3, then=changes),
]

ATTRIBUTION = [
    row("attribution.saliency", **EXPLAINED),
    row("attribution.saliency", model=pooled(TABLE), x=TOKENS, target=(0,)),
    row("attribution.gradient_times_input", **EXPLAINED),
    row("attribution.guided_backpropagation", **EXPLAINED),
    *(
        row(f"attribution.{name}", **EXPLAINED, baseline=ROWS)
        for name in ("deep_lift", "occlusion")
    ),
    row("attribution.integrated_gradients", **EXPLAINED, steps=2, endless=("steps",)),
    row("attribution.smooth_grad", **EXPLAINED, draws=2, endless=("draws",)),
    row("attribution.grad_cam", model=pooled(KERNEL), x=LINES, layer=KERNEL, target=LABELS),
    row("attribution.sanity_check", explain=lambda m: attribution.saliency(m, X), model=network()),
]

ESTIMATED = {"max_iter": 2, "hidden_layer_sizes": (3,), "endless": ("max_iter",)}
ESTIMATORS = [
    row("sklearn.DDBPClassifier", **ESTIMATED, then=lambda made: made.fit(X, Y).predict(X)),
    row("sklearn.DDBPRegressor", **ESTIMATED, then=lambda made: made.fit(X, X[:, 0]).predict(X)),
]

EXPORT = [
    row("export.architecture", model=network()),
    row("export.build", description=export.architecture(network()), rng=RNG),
    Row(
        "ddbp.export.register",
        export.register,
        {"kind": layers.Composite, "name": "own"},
    ),
    row(
        "export.save_bundle",
        path="model.ddbp",
        model=network(),
        preprocessing={"kind": "x"},
        task="classification",
        labels=["a", "b", "c"],
        example=X,
    ),
    row("export.load_bundle", path="good.ddbp", then=lambda made: made.predict(X)),
    row("export.load_run", path="run"),
    row("export.Bundle", model=network()),
    method(lambda: export.Bundle(network()), "ddbp.export.Bundle", "predict", x=X),
    row("export.to_torch", model=network(), path="ours.safetensors", names={"0": "a"}),
    row("export.from_torch", model=network(), source=export.to_torch(network())),
    row("export.to_onnx", model=network(), path="model.onnx", example=X),
]

PARTS = {
    "layers": LAYERS,
    "functions": FUNCTIONS,
    "training": TRAINING,
    "attribution": ATTRIBUTION,
    "augmentation": AUGMENTATIONS,
    "data": DATA_ROWS,
    "estimators": ESTIMATORS,
    "export": EXPORT,
}
