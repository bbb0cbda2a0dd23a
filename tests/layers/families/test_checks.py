"""Checks of options and inputs: what they take, and how they refuse the rest."""

import re

import numpy as np
import pytest

from layers.checks import (
    fraction,
    non_negative,
    non_negative_int,
    positive,
    positive_int,
    require_images,
    require_input,
)

NUMBERS = [
    (positive_int, (1, np.int32(5)), (0, -1, 1.0, True, "1"), "n must be a positive integer"),
    (
        lambda *a: non_negative_int(*a, "fix."),
        (0, 3, 2**64 - 1),
        (-1, 0.5, False, 2**64),
        "n must be an integer from 0 to 2^64 - 1",
    ),
    (lambda *a: positive(*a, "fix."), (1e-9, 2), (0, -1, np.nan), "n must be positive"),
    (non_negative, (0, 0.5), (-1e-9, np.nan), "n must not be negative"),
    (lambda *a: fraction(*a, "fix."), (0, 0.999), (-0.1, 1, np.nan), "n must be in [0, 1)"),
    (
        lambda *a: fraction(*a, "fix.", closed=True),
        (0, 1),
        (-0.1, 1.01, np.nan),
        "n must be in [0, 1]",
    ),
]


@pytest.mark.parametrize(
    ("check", "right", "wrong", "must"), NUMBERS, ids=[must for *_, must in NUMBERS]
)
def test_number_is_returned_or_refused_with_its_value(check, right, wrong, must):
    for value in right:
        assert check("Owner", "n", value) == value
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^Owner: {re.escape(must)}; got .*\. .*\.$"):
            check("Owner", "n", value)


ROWS, IMAGES, SEQUENCES = ("N", "…", 5), ("N", "H", "W", 5), ("N", "T", 5)
# Axes and shapes that fit, then shapes that do not, each with the fix.
INPUTS = [
    (
        ROWS,
        [(2, 5), (0, 5), (2, 3, 4, 5)],
        {(5,): "batch axis", (4,): "usual fix", (2, 4): "usual fix", (): "usual fix"},
    ),
    (
        IMAGES,
        [(2, 3, 4, 5), (0, 3, 4, 5)],
        {
            (3, 4, 5): "A single image needs a batch axis",
            (2, 3, 4): "usual fix",
            (2, 5, 3, 4): "x.transpose(0, 2, 3, 1)",
            (2, 3, 4, 6): "usual fix",
            (1, 2, 3, 4, 5): "usual fix",
        },
    ),
    (
        SEQUENCES,
        [(2, 3, 5)],
        {(3, 5): "A single sequence needs a batch axis", (2, 5, 3): "x.transpose(0, 2, 1)"},
    ),
    ((2, 3, 5), [(2, 3, 5)], {(2, 4, 5): "usual fix", (1, 3, 5): "usual fix", (2, 3): "usual fix"}),
]


@pytest.mark.parametrize(("axes", "right", "wrong"), INPUTS, ids=str)
def test_input_of_another_shape_is_refused_with_what_mends_it(axes, right, wrong):
    for shape in right:
        require_input("Owner", np.zeros(shape), axes, None, "usual fix")
    for shape, fix in wrong.items():
        wanted = ", ".join(map(str, axes)).replace("…", "...")
        must = f"Owner: the input must have shape ({wanted}); got {shape}. "
        with pytest.raises(ValueError, match=f"^{re.escape(must)}.*{re.escape(fix)}"):
            require_input("Owner", np.zeros(shape), axes, None, "usual fix")


def test_images_of_any_number_of_channels_are_taken():
    require_images("Owner", np.zeros((2, 3, 4, 5)))
    for shape in ((3, 4, 5), (2, 3, 4, 5, 6)):
        with pytest.raises(ValueError, match=re.escape("shape (N, H, W, C); got")):
            require_images("Owner", np.zeros(shape))


@pytest.mark.parametrize("dtype", [None, np.dtype(np.float32)])
def test_input_of_another_type_is_refused_with_the_conversion(dtype):
    require_input("Owner", np.zeros((2, 5), np.float32), ROWS, dtype)
    with pytest.raises(TypeError, match=r"got int64\. Convert it with x\.astype\(np\.float32\)"):
        require_input("Owner", np.zeros((2, 5), np.int64), ROWS, dtype)
    if dtype is None:
        require_input("Owner", np.zeros((2, 5), complex), ROWS)
    else:
        with pytest.raises(TypeError, match=r"the dtype of the weights, float32; got float64"):
            require_input("Owner", np.zeros((2, 5)), ROWS, dtype)
