"""The handwritten digits that come with the package, in a file of 48 kB.

They are the test set of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak
(1998), of the UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, under the licence
CC BY 4.0, https://creativecommons.org/licenses/by/4.0/: pixels and labels without change, in the
order in which scikit-learn has them.
"""

from importlib import resources

import numpy as np

from layers.checks import positive_int
from layers.errors import message

from .array_dataset import ArrayDataset

_TRAINING = 1437
"""How many of the 1,797 samples are for training."""


def digits(*shape: int) -> tuple[ArrayDataset, ArrayDataset]:
    """Return 1,437 handwritten digits for training and 360 for the test: images of 8 x 8 pixels in
    [0, 1], and their labels 0 to 9. It needs no network.

    >>> training, test = digits()
    >>> images, _ = digits(8, 8, 1)

    Parameters
    ----------
    shape
        Of a sample, with 64 pixels in all; (64,) unless given.

    Notes
    -----
    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998, UCI Machine Learning
    Repository, CC BY 4.0. The split is stratified, and that of scikit-learn's `train_test_split(…,
    test_size=0.2, stratify=y, random_state=0)`.
    """
    sizes = tuple(positive_int("digits", "shape", size, "Write digits(8, 8).") for size in shape)
    if sizes and np.prod(sizes) != 64:
        raise ValueError(message("digits", "a sample must have 64 pixels", shape, "Write (8, 8)."))
    with resources.files(__package__).joinpath("digits.npz").open("rb") as file:
        stored = np.load(file)
        images, labels, order = (stored[name] for name in ("images", "labels", "order"))
    x = (images[order] / np.float32(16)).reshape(-1, *(sizes or (64,)))
    y = labels[order].astype(np.int64)
    first, second = slice(_TRAINING), slice(_TRAINING, None)
    return ArrayDataset(x[first], y[first]), ArrayDataset(x[second], y[second])
