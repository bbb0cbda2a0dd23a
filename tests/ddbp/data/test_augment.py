"""What augmentations make of samples, against slow and obvious twins."""

import math

import numpy as np
import pytest
from scipy import stats

from ddbp.data.augment import (
    Affine,
    Augmentation,
    Crop,
    CutOut,
    Flip,
    Keys,
    MixUp,
    Noise,
    Shift,
    chosen,
)
from ddbp.data.augmenter import Augmenter

from ...layers.twins.dropout import philox

FIRST = 2**31
RNG = np.random.default_rng(2)
IMAGES = RNG.standard_normal((9, 6, 5, 3)).astype(np.float32)
NUMBERS = np.array([3, 700, 0, 5, 2**33, 12, 13, 14, 15])
EACH = (
    *(
        Flip(),
        Flip(0.3, vertical=True),
        Crop(2),
        Crop(3, "edge"),
        Crop(2, "reflect"),
        Crop(9, "wrap"),
    ),
    *(Crop(2, fill=7.0), Shift(2), Shift(1, 3, "wrap"), Affine(30, 0.3, 1.5, 0.2), CutOut(3)),
    *(CutOut(2, fill=1.0), Noise(0.3)),
)


def read(numbers):
    raise AssertionError("nothing is mixed")


def augmented(steps, x, numbers=NUMBERS, epoch=4, seed=11):
    steps = [steps] if isinstance(steps, Augmentation) else steps
    return Augmenter(steps, seed)((x, None, None), numbers, epoch, read, 20)[0]


def words(numbers=NUMBERS, epoch=4, seed=11, draw=FIRST, block=0):
    """Return four 32-bit words of each sample, by another Philox."""
    low = 2**32 - 1
    return [philox((block, int(n) & low, epoch, draw), (seed & low, seed >> 32)) for n in numbers]


def integer(word, least, most):
    return least + (word * (most - least + 1) >> 32)


def place(i, size, mode):
    """Return where the element is that stands at i, None for none."""
    if mode == "constant":
        return i if 0 <= i < size else None
    if mode == "edge":
        return min(max(i, 0), size - 1)
    if mode == "wrap":
        return i % size
    there = [*range(size), *range(size - 2, 0, -1)]
    return there[i % len(there)]


def moved(x, offsets, mode, fill=0.0):
    y = np.full_like(x, fill)
    for n, h, w in np.ndindex(x.shape[:3]):
        row, column = (
            place(h + offsets[n][0], x.shape[1], mode),
            place(w + offsets[n][1], x.shape[2], mode),
        )
        if row is not None and column is not None:
            y[n, h, w] = x[n, row, column]
    return y


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_crop_pads_and_cuts_at_the_place_of_the_sample(mode, dtype):
    x = (IMAGES * 50 + 128).clip(0, 255).astype(dtype)
    offsets = [[integer(word, -4, 4) for word in four[:2]] for four in words()]
    assert len({*map(tuple, offsets)}) > 4
    np.testing.assert_array_equal(
        augmented(Crop(4, mode, fill=9), x), moved(x, offsets, mode, fill=9)
    )


def test_shift_moves_sequences_in_time_and_images_along_both_axes():
    down = [integer(four[0], -2, 2) for four in words()]
    across = [integer(four[0], -3, 3) for four in words(draw=FIRST + 1)]
    sequences = IMAGES.reshape(9, 6, 15)
    expected = moved(sequences[:, :, None], [(n, 0) for n in down], "edge")[:, :, 0]
    np.testing.assert_array_equal(augmented(Shift(2), sequences), expected)
    np.testing.assert_array_equal(augmented(Shift(2), IMAGES), expected.reshape(IMAGES.shape))
    both = moved(IMAGES, [*zip(down, across, strict=True)], "wrap")
    np.testing.assert_array_equal(augmented(Shift(2, 3, "wrap"), IMAGES), both)
    np.testing.assert_array_equal(
        augmented(Shift(2), IMAGES[:, :, 0, 0]),
        moved(IMAGES[:, :, :1, :1], [(n, 0) for n in down], "edge")[:, :, 0, 0],
    )


def test_flip_turns_rows_and_columns_with_its_probability():
    turned = [[word < round(0.7 * 2**32) for word in four[:2]] for four in words()]
    expected = np.stack(
        [
            x[:: -1 if rows else 1, :: -1 if columns else 1]
            for x, (columns, rows) in zip(IMAGES, turned, strict=True)
        ]
    )
    np.testing.assert_array_equal(augmented(Flip(0.7, vertical=True), IMAGES), expected)
    np.testing.assert_array_equal(augmented(Flip(1.0), IMAGES), IMAGES[:, :, ::-1])
    np.testing.assert_array_equal(augmented(Flip(0.0, vertical=True), IMAGES), IMAGES)


def test_cut_out_covers_a_square_that_may_reach_over_the_border():
    expected = IMAGES.copy()
    rows = [integer(four[0], 0, 5) for four in words()]
    columns = [integer(four[0], 0, 4) for four in words(draw=FIRST + 1)]
    for x, row, column in zip(expected, rows, columns, strict=True):
        x[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0.5
    np.testing.assert_array_equal(augmented(CutOut(3, fill=0.5), IMAGES), expected)


def test_noise_is_normal_and_of_the_sample():
    for n in (0, 4):
        row = words(NUMBERS[n : n + 1], block=2)[0]
        u, v = ((word + 0.5) / 2**32 for word in row[2:])
        z = math.sqrt(-2 * math.log(u)) * math.sin(2 * math.pi * v)
        got = augmented(Noise(0.3), IMAGES)[n].reshape(-1)[11]
        assert got == pytest.approx(IMAGES[n].reshape(-1)[11] + 0.3 * z, rel=1e-6)
    x = np.zeros((64, 1001))
    z = augmented(Noise(1.0), x, np.arange(64))
    assert stats.kstest(z.reshape(-1), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z)[np.triu_indices(64, 1)]).max() < 0.2


def test_affine_turns_scales_and_moves_about_the_centre():
    four, five = words()[2], words(block=1)[2]
    drawn = [2 * (word + 0.5) / 2**32 - 1 for word in (*four, *five)]
    angle, grown = math.radians(30) * drawn[0], 1 + 0.3 * abs(drawn[1])
    step = grown if drawn[1] < 0 else 1 / grown
    matrix = step * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    matrix = np.array([[1, 0], [0.2 * drawn[4], 1]]) @ matrix
    middle, x = np.array([2.5, 2.0]), IMAGES[2]
    expected = np.empty_like(x)
    for h, w in np.ndindex(6, 5):
        at = matrix @ (np.array([h, w]) - middle) + middle + 1.5 * np.array(drawn[2:4])
        total = 0.0
        for row, column in np.ndindex(6, 5):
            weight = max(0, 1 - abs(at[0] - row)) * max(0, 1 - abs(at[1] - column))
            total = total + weight * x[row, column].astype(np.float64)
        expected[h, w] = total
    got = augmented(Affine(30, 0.3, 1.5, 0.2), IMAGES)[2]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_array_equal(augmented(Affine(), IMAGES), IMAGES)


@pytest.mark.parametrize("step", [*EACH, [Flip(), Crop(2), CutOut(2), Noise(0.1)]], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_sample_has_the_same_bits_in_any_batch_and_another_epoch_has_others(step, dtype):
    x = (IMAGES * 50 + 128).clip(0, 255).astype(dtype)
    x.flags.writeable = False
    whole = augmented(step, x).copy()
    assert whole.dtype == dtype
    for order in (np.arange(9)[::-1], np.array([4]), np.arange(0)):
        np.testing.assert_array_equal(augmented(step, x[order], NUMBERS[order]), whole[order])
    for others in ({"epoch": 5}, {"seed": 12}, {"numbers": NUMBERS + 1}):
        assert (augmented(step, x, **others) != whole).any(), others


def test_equal_augmentations_in_a_list_draw_apart():
    once, twice = (augmented([Noise(1.0)] * n, np.zeros((2, 400)), np.arange(2)) for n in (1, 2))
    assert abs(np.corrcoef(once[0], (twice - once)[0])[0, 1]) < 0.2


# Mix-up

POINTS = RNG.standard_normal((30, 4)).astype(np.float32)
LABELS = np.arange(30) % 5


def mixed(steps, numbers, y=LABELS, weights=None, epoch=2):
    def read(rows):
        return POINTS[rows], y[rows], None if weights is None else weights[rows]

    own = read(numbers)
    return Augmenter(steps, 11)(own, numbers, epoch, read, 30)


def draws(mix, numbers, place=0, epoch=2):
    keys = Keys(numbers, epoch, 11, FIRST + 2 * place)
    return mix.partners(keys, 30), mix.shares(keys)


@pytest.mark.parametrize("labels", [LABELS, np.eye(5)[LABELS], LABELS[:, None] * 0.5])
def test_mix_up_mixes_samples_and_targets_with_those_of_the_data_set(labels):
    numbers = np.array([4, 17, 2, 29])
    mix = MixUp(0.4, classes=5)
    x, y, weights = mixed([mix], numbers, labels)
    partners, shares = draws(mix, numbers)
    s = shares[:, None]
    soft = np.eye(5)[LABELS] if labels.ndim == 1 else labels
    np.testing.assert_allclose(x, (1 - s) * POINTS[numbers] + s * POINTS[partners], rtol=1e-5)
    np.testing.assert_allclose(y, (1 - s) * soft[numbers] + s * soft[partners], atol=1e-6)
    assert weights is None


def test_partner_is_as_it_is_in_that_epoch_after_the_augmentations_before():
    numbers = np.array([4, 17, 2, 29])
    mix = MixUp(1.0, classes=5)
    x, _, _ = mixed([Noise(2.0), mix, Shift(1)], numbers)
    partners, shares = draws(mix, numbers, place=1)
    s = shares[:, None]

    def noisy(rows):
        return augmented(Noise(2.0), POINTS[rows], rows, epoch=2).copy()

    before = (1 - s) * noisy(numbers) + s * noisy(partners)
    down = [integer(four[0], -1, 1) for four in words(numbers, 2, draw=FIRST + 4)]
    expected = moved(before[:, :, None, None], [(n, 0) for n in down], "edge")[:, :, 0, 0]
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)


def test_weighted_samples_count_in_a_mixture_as_they_do_alone():
    # The cross-entropy is linear in the target: so is what a mixture adds to the loss.
    numbers, weights = np.arange(30), RNG.uniform(0, 3, 30)
    weights[:7] = 0
    mix = MixUp(0.7, classes=5)
    _, y, counts = mixed([mix], numbers, weights=weights)
    partners, shares = draws(mix, numbers)
    s, soft = shares[:, None], np.eye(5)[LABELS]
    expected = (1 - s) * (weights[:, None] * soft) + s * (weights[:, None] * soft)[partners]
    np.testing.assert_allclose(counts[:, None] * y, expected, atol=1e-6)
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 2.5, 4.0])
def test_shares_are_of_the_beta_distribution_and_partners_uniform(alpha):
    numbers = np.arange(4000)
    partners, shares = draws(MixUp(alpha), numbers)
    assert stats.kstest(shares, "beta", args=(alpha, alpha)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(partners, minlength=30)).pvalue > 1e-3
    assert abs(np.corrcoef(partners, shares)[0, 1]) < 0.06


# What is refused, and what is written


def test_text_and_repr_give_the_same_augmentations():
    text = ", ".join(map(repr, EACH))
    assert chosen(text) == chosen([*EACH]) == chosen([*map(repr, EACH)]) == EACH
    assert chosen(None) == chosen([]) == chosen("") == ()
    assert chosen(Flip()) == (Flip(),)
    assert Flip() != Flip(0.4)
    assert len({Flip(), Flip(), Crop(2)}) == 2


@pytest.mark.parametrize(
    "given",
    [
        *(
            3,
            "Flip(",
            "Turn()",
            "Flip(1, 2, 3)",
            "__import__('os')",
            [None],
            [Flip],
            ["x"],
            {"a": 1},
        ),
        [MixUp(), MixUp()],
        "Flip(p=2)",
    ],
    ids=repr,
)
def test_what_is_no_list_of_augmentations_is_refused(given):
    with pytest.raises(ValueError, match=r"(Trainer: augment|Flip: p) must .*; got "):
        chosen(given)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Crop(0), "Crop: padding must be"),
        (
            lambda: Crop(2, "mirror"),
            "mode must be one of constant, edge, wrap, reflect; got 'mirror'",
        ),
        (lambda: Shift(-1), "Shift: most must be"),
        (lambda: Affine(190), "degrees must be from 0 to 180"),
        (lambda: CutOut(0), "CutOut: size must be"),
        (lambda: Noise(0.0), "Noise: deviation must be"),
        (lambda: MixUp(0.01), "alpha must be from 0.05 to 4"),
        (lambda: MixUp(1, classes=0), "MixUp: classes must be"),
        (lambda: augmented(Flip(), POINTS, np.arange(30)), r"must be images \(N, H, W, C\)"),
        (lambda: augmented(Shift(1, 1), POINTS, np.arange(30)), "3 axes or more"),
        (lambda: augmented(Noise(1), LABELS, np.arange(30)), "floating numbers or uint8"),
        (lambda: augmented(Noise(1), (POINTS,), np.arange(30)), "one array; got a tuple"),
        (
            lambda: mixed([MixUp()], np.arange(3)),
            r"labels \(N,\) of which .* Write MixUp\(classes=10\)",
        ),
        (lambda: mixed([MixUp(classes=4)], np.arange(9)), r"labels must be in 0..3; got 0..4"),
        (
            lambda: mixed([MixUp(classes=5)], np.arange(9), weights=np.ones((30, 2))),
            r"weights must be those of samples \(N,\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("augmentation", "said"),
    [
        (Crop(8), "Crop: padding must be less than the samples are long, 8; got 8"),
        (Shift(1, 9, mode="constant"), "Shift: across must be less than .*, 9; got 9"),
        (CutOut(30), "CutOut: size must be less than .*, 8; got 30"),
    ],
)
def test_what_may_leave_nothing_of_an_image_is_refused(augmentation, said):
    with pytest.raises(ValueError, match=said):
        augmentation.require(np.ones((2, 8, 9, 3), np.float32))
