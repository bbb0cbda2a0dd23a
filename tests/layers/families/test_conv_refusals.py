"""What convolutions refuse, and how they say it: who, what must hold, what was got, and the likely
fix.
"""

import numpy as np
import pytest

from layers import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Tape,
)

rng = np.random.default_rng(0)


def image(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


# (layer, input, exception, what the message must hold)
REFUSED = [
    (
        Conv2d(3, 4, 5, rng=rng),
        image(2, 4, 6, 3),
        ValueError,
        ["(5, 5)", "padded image", "(4, 6)", "Pad more"],
    ),
    (
        Conv2d(3, 4, 3, rng=rng, dilation=2, padding=1),
        image(2, 2, 6, 3),
        ValueError,
        ["(5, 5)", "(4, 8)", "Pad more"],
    ),
    (
        Conv2d(3, 4, 3, rng=rng),
        image(2, 5, 5, 4),
        ValueError,
        ["(N, H, W, 3)", "(2, 5, 5, 4)", "last axis"],
    ),
    (
        Conv2d(3, 4, 3, rng=rng),
        image(2, 3, 8, 8),
        ValueError,
        ["(N, H, W, 3)", "(2, 3, 8, 8)", "x.transpose(0, 2, 3, 1)"],
    ),
    (
        Conv2d(3, 4, 3, rng=rng),
        image(8, 8, 3),
        ValueError,
        ["(N, H, W, 3)", "(8, 8, 3)", "x[np.newaxis]"],
    ),
    (Conv2d(3, 4, 3, rng=rng), image(2, 75), ValueError, ["(N, H, W, 3)", "(2, 75)"]),
    (
        Conv2d(3, 4, 3, rng=rng),
        image(2, 5, 5, 3, dtype=float),
        TypeError,
        ["float32", "float64", "astype"],
    ),
    (
        Conv2d(3, 4, 3, rng=rng),
        image(2, 5, 5, 3, dtype=np.uint8),
        TypeError,
        ["float32", "uint8", "x.astype(np.float32)"],
    ),
    (
        Conv1d(3, 4, 3, rng=rng),
        image(2, 3, 9),
        ValueError,
        ["Conv1d(", "(N, T, 3)", "(2, 3, 9)", "x.transpose(0, 2, 1)"],
    ),
    (
        Conv1d(3, 4, 3, rng=rng),
        image(2, 5, 5, 3),
        ValueError,
        ["Conv1d(", "(N, T, 3)", "(2, 5, 5, 3)"],
    ),
    (
        Conv1d(3, 4, 3, rng=rng),
        image(2, 2, 3),
        ValueError,
        ["Conv1d(", "(1, 3)", "(1, 2)", "Pad more"],
    ),
    (
        Conv1d(3, 4, 3, rng=rng),
        image(2, 9, 3, dtype=float),
        TypeError,
        ["Conv1d(", "float32", "float64", "astype"],
    ),
    (
        ConvTranspose2d(3, 4, 3, rng=rng),
        image(2, 5, 5, 4),
        ValueError,
        ["(N, H, W, 3)", "(2, 5, 5, 4)", "last axis"],
    ),
    (
        ConvTranspose2d(3, 4, 3, rng=rng),
        image(2, 3, 5, 5),
        ValueError,
        ["(N, H, W, 3)", "x.transpose(0, 2, 3, 1)"],
    ),
    (
        ConvTranspose2d(3, 4, 3, rng=rng, padding=2),
        image(2, 1, 9, 3),
        ValueError,
        ["at least one pixel", "(-1, 7)", "Pad less"],
    ),
    (
        ConvTranspose2d(3, 4, 3, rng=rng),
        image(2, 5, 5, 3, dtype=float),
        TypeError,
        ["float32", "float64", "astype"],
    ),
    (
        Conv2d(3, 4, 3, rng=rng, padding=((0, 0), (3, 1)), padding_mode="reflect"),
        image(2, 5, 3, 3),
        ValueError,
        ["padding_mode='reflect' takes at most 2 from an axis of length 3", "(3, 1)", "Pad less"],
    ),
    (
        Conv2d(3, 4, 5, rng=rng, padding="same", padding_mode="reflect"),
        image(2, 2, 9, 3),
        ValueError,
        ["takes at most 1 from an axis of length 2", "(2, 2)", "with zeros"],
    ),
    (
        Conv1d(3, 4, 3, rng=rng, padding=5, padding_mode="circular"),
        image(2, 4, 3),
        ValueError,
        ["Conv1d(", "padding_mode='circular' takes at most 4", "(5, 5)"],
    ),
    (
        Conv2d(3, 4, 3, rng=rng, padding=2, padding_mode="replicate"),
        image(2, 0, 4, 3),
        ValueError,
        ["padding_mode='replicate' takes at most 0", "(2, 2)"],
    ),
    (
        Conv2d(3, 4, 4, rng=rng, padding=1, padding_mode="circular"),
        image(2, 1, 4, 3),
        ValueError,
        ["(4, 4)", "padded image", "(3, 6)", "Pad more"],
    ),
    (
        Conv3d(3, 4, 3, rng=rng),
        image(2, 5, 5, 3),
        ValueError,
        ["Conv3d(", "(N, D, H, W, 3)", "(2, 5, 5, 3)", "A single volume", "x[np.newaxis]"],
    ),
    (
        Conv3d(3, 4, 3, rng=rng),
        image(2, 3, 5, 6, 7),
        ValueError,
        ["(N, D, H, W, 3)", "(2, 3, 5, 6, 7)", "x.transpose(0, 2, 3, 4, 1)"],
    ),
    (
        Conv3d(3, 4, 3, rng=rng, padding=(0, 1, 1)),
        image(2, 2, 5, 5, 3),
        ValueError,
        ["the window (3, 3, 3) must fit", "(2, 7, 7)", "Pad more"],
    ),
    (
        Conv3d(3, 4, 3, rng=rng, padding=(3, 0, 0), padding_mode="reflect"),
        image(2, 3, 5, 5, 3),
        ValueError,
        ["takes at most 2 from an axis of length 3", "(3, 3)"],
    ),
    (
        Conv3d(3, 4, 3, rng=rng),
        image(2, 5, 5, 5, 3, dtype=float),
        TypeError,
        ["float32", "float64", "astype"],
    ),
    (
        ConvTranspose1d(3, 4, 3, rng=rng),
        image(2, 3, 9),
        ValueError,
        ["ConvTranspose1d(", "(N, T, 3)", "(2, 3, 9)", "x.transpose(0, 2, 1)"],
    ),
    (
        ConvTranspose3d(3, 4, 3, rng=rng),
        image(2, 3, 5, 6, 7),
        ValueError,
        ["ConvTranspose3d(", "(N, D, H, W, 3)", "x.transpose(0, 2, 3, 4, 1)"],
    ),
    (
        ConvTranspose3d(3, 4, 3, rng=rng, padding=(0, 2, 0)),
        image(2, 5, 1, 5, 3),
        ValueError,
        ["at least one pixel", "(7, -1, 7)", "Pad less"],
    ),
    (
        ConvTranspose1d(3, 4, 3, rng=rng, padding=2),
        image(2, 2, 3),
        ValueError,
        ["ConvTranspose1d(", "at least one pixel", "(1, 0)", "Pad less"],
    ),
]


@pytest.mark.parametrize(
    ("layer", "x", "error", "words"),
    REFUSED,
    ids=[f"{row[0]!r}-{i}" for i, row in enumerate(REFUSED)],
)
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "arrays"])
def test_wrong_inputs_are_refused_by_name_shape_and_fix(layer, x, error, words, recorded):
    with pytest.raises(error) as caught:
        layer(Tape(training=True).input(x) if recorded else x)
    text = str(caught.value)
    assert all(word in text for word in [repr(layer), *words]), text
    assert "; got " in text


# (layer, arguments, options, what the message must hold)
MISMADE = [
    (Conv2d, (3, 4, 3), {"stride": 0}, ["Conv2d: stride must", "at least 1", "got 0"]),
    (Conv2d, (3, 4, 3), {"stride": (2, 0)}, ["stride must", "got (2, 0)"]),
    (Conv2d, (3, 4, 3), {"stride": 1.5}, ["stride must", "integers", "got 1.5"]),
    (Conv2d, (3, 4, 0), {}, ["kernel_size must", "at least 1", "got 0"]),
    (
        Conv2d,
        (3, 4, (3, 3, 3)),
        {},
        ["kernel_size must be one or two integers", "got (3, 3, 3)", "(rows, columns)"],
    ),
    (Conv2d, (3, 4, 3), {"dilation": 0}, ["dilation must", "at least 1", "got 0"]),
    (Conv2d, (3, 4, 3), {"padding": -1}, ["padding must", "at least 0", "got -1"]),
    (Conv2d, (3, 4, 3), {"padding": "full"}, ["padding must", "got 'full'", '"same" or "valid"']),
    (Conv2d, (3, 4, 3), {"padding": (1, (2, -1))}, ["padding must", "at least 0", "got (2, -1)"]),
    (Conv2d, (3, 4, 3), {"padding": (1, (2, 0, 1))}, ["padding must", "got (2, 0, 1)", "after"]),
    (Conv2d, (3, 4, 3), {"padding": (1, 2, 3)}, ["one or two integers", "got (1, 2, 3)"]),
    (
        Conv2d,
        (3, 4, 3),
        {"padding_mode": "symmetric"},
        ["padding_mode must be one of zeros, reflect, replicate, circular", "got 'symmetric'"],
    ),
    (Conv2d, (3, 4, 3), {"padding": None}, ["padding must", "got None", '"same"']),
    (Conv2d, (0, 4, 3), {}, ["channels must be a positive integer", "got 0"]),
    (Conv2d, (3, 2.0, 3), {}, ["channels must be a positive integer", "got 2.0"]),
    (Conv2d, (3, 4, 3), {"groups": 0}, ["groups must be a positive integer", "got 0"]),
    (
        Conv2d,
        (4, 6, 3),
        {"groups": 4},
        ["groups must divide the channels, 4 and 6", "got 4", "common divisor"],
    ),
    (Conv2d, (4, 6, 3), {"groups": 3}, ["groups must divide the channels, 4 and 6", "got 3"]),
    (
        Conv2d,
        (3, 4, 3),
        {"algorithm": "winograd"},
        ["algorithm must be one of default, fastest, direct", "got 'winograd'"],
    ),
    (Conv1d, (3, 4, 3), {"stride": 0}, ["Conv1d: stride must", "at least 1"]),
    (Conv1d, (3, 4, 3), {"padding": "full"}, ["Conv1d: padding must", "got 'full'", '"same"']),
    (Conv1d, (3, 4, 3), {"padding": (1, 2, 3)}, ["Conv1d: padding must", "got (1, 2, 3)"]),
    (Conv1d, (3, 4, 3), {"padding_mode": "wrap"}, ["Conv1d: padding_mode must", "got 'wrap'"]),
    (Conv3d, (3, 4, (3, 3)), {}, ["Conv3d: kernel_size", "one or three integers", "(depth, rows"]),
    (Conv3d, (3, 4, 3), {"padding": (1, 2)}, ["one or three integers", "got (1, 2)", "before"]),
    (Conv3d, (3, 4, 3), {"stride": (1, 0, 1)}, ["Conv3d: stride must", "got (1, 0, 1)"]),
    (Conv3d, (4, 6, 3), {"groups": 4}, ["Conv3d: groups must divide"]),
    (
        ConvTranspose1d,
        (3, 4, 3),
        {"output_padding": 1},
        ["ConvTranspose1d(", "output_padding must be smaller than the stride", "got (0, 1)"],
    ),
    (
        ConvTranspose3d,
        (3, 4, 3),
        {"padding": (1, 1)},
        ["ConvTranspose3d: padding", "three integers"],
    ),
    (
        ConvTranspose3d,
        (3, 4, 3),
        {"stride": 2, "output_padding": (1, 1, 2)},
        ["ConvTranspose3d(", "output_padding must be smaller", "got (1, 1, 2)"],
    ),
    (ConvTranspose1d, (3, 4, 3), {"padding": "same"}, ["ConvTranspose1d: padding must"]),
    (Conv1d, (3, 4, 3), {"padding": -2}, ["Conv1d: padding must", "-2"]),
    (Conv1d, (4, 6, 3), {"groups": 4}, ["Conv1d: groups must divide"]),
    (
        ConvTranspose2d,
        (3, 4, 3),
        {"stride": 0},
        ["ConvTranspose2d: stride must", "at least 1", "got 0"],
    ),
    (
        ConvTranspose2d,
        (3, 4, 3),
        {"padding": -1},
        ["ConvTranspose2d: padding must", "at least 0", "got -1"],
    ),
    (
        ConvTranspose2d,
        (3, 4, 3),
        {"padding": "same"},
        ["ConvTranspose2d: padding must", "got 'same'", "Pass one number"],
    ),
    (
        ConvTranspose2d,
        (3, 4, 3),
        {"output_padding": 1},
        ["output_padding must be smaller than the stride", "got (1, 1)"],
    ),
    (
        ConvTranspose2d,
        (3, 4, 3),
        {"stride": 2, "output_padding": (1, 2)},
        ["output_padding must", "got (1, 2)", "Raise the stride"],
    ),
    (
        ConvTranspose2d,
        (3, 4, 3),
        {"output_padding": -1},
        ["output_padding must", "at least 0", "got -1"],
    ),
    (ConvTranspose2d, (4, 6, 3), {"groups": 4}, ["ConvTranspose2d: groups must divide"]),
    (
        ConvTranspose2d,
        (3, 4, 3),
        {"algorithm": "best"},
        ["ConvTranspose2d: algorithm must be one of", "got 'best'"],
    ),
]


@pytest.mark.parametrize(
    ("layer", "arguments", "options", "words"),
    MISMADE,
    ids=[f"{r[0].__name__}-{r[1]}-{r[2]}" for r in MISMADE],
)
def test_wrong_options_are_refused_by_name_value_and_fix(layer, arguments, options, words):
    with pytest.raises(ValueError, match="; got ") as caught:
        layer(*arguments, rng=rng, **options)
    text = str(caught.value)
    assert all(word in text for word in words), text


def test_transposed_convolution_does_not_offer_same():
    with pytest.raises(ValueError, match="padding must") as caught:
        ConvTranspose2d(3, 4, 3, rng=rng, padding="same")
    assert 'padding="same"' not in str(caught.value)


def test_representations_say_what_differs_from_the_usual():
    assert repr(Conv2d(3, 4, 3, rng=rng)) == "Conv2d(3, 4, (3, 3))"
    assert repr(Conv2d(4, 4, (3, 1), rng=rng, stride=2, padding="same", groups=2, bias=False)) == (
        "Conv2d(4, 4, (3, 1), stride=(2, 2), padding=same, groups=2, bias=False)"
    )
    assert repr(Conv1d(3, 4, 3, rng=rng)) == "Conv1d(3, 4, (1, 3))"
    assert repr(Conv2d(3, 4, 3, rng=rng, padding=((0, 1), (2, 2)), padding_mode="reflect")) == (
        "Conv2d(3, 4, (3, 3), padding=((0, 1), 2), padding_mode=reflect)"
    )
    assert repr(Conv2d(3, 4, 3, rng=rng, padding="valid")) == "Conv2d(3, 4, (3, 3))"
    assert repr(Conv3d(3, 4, 3, rng=rng, padding=1)) == "Conv3d(3, 4, (3, 3, 3), padding=(1, 1, 1))"
    assert repr(ConvTranspose1d(3, 4, 3, rng=rng)) == "ConvTranspose1d(3, 4, (1, 3))"
    assert repr(ConvTranspose2d(3, 4, 3, rng=rng, stride=2, output_padding=1)) == (
        "ConvTranspose2d(3, 4, (3, 3), stride=(2, 2), output_padding=(1, 1))"
    )
