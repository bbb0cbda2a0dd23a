"""Parts of data: a function of the seed, stratified, the same for sources."""

import numpy as np
import pytest

import ddbp
from ddbp.data import ArraySource, split

RNG = np.random.default_rng(4)
X, LABELS = np.arange(200.0)[:, None], RNG.choice(4, 200, p=[0.6, 0.25, 0.1, 0.05])
DATA = ddbp.ArrayDataset(X, LABELS)
FRACTIONS = (0.7, 0.2, 0.1)


def numbers(part):
    """Return the numbers of the samples of a part."""
    rows = part.x if isinstance(part, ddbp.ArrayDataset) else part.take(np.arange(len(part))).x
    return rows[:, 0].astype(int).tolist()


@pytest.mark.parametrize("stratified", [False, True])
def test_parts_hold_every_sample_once(stratified):
    parts = split(DATA, FRACTIONS, stratified=stratified)
    assert [len(part) for part in parts] == [140, 40, 20]
    assert sorted(number for part in parts for number in numbers(part)) == list(range(200))
    for part in parts:
        assert np.array_equal(part.y, LABELS[numbers(part)])


@pytest.mark.parametrize("stratified", [False, True])
def test_parts_of_a_source_are_those_of_the_same_data_in_memory(stratified):
    parts = split(ArraySource(X, LABELS), FRACTIONS, seed=3, stratified=stratified)
    expected = split(DATA, FRACTIONS, seed=3, stratified=stratified)
    assert [numbers(part) for part in parts] == [numbers(part) for part in expected]


@pytest.mark.parametrize("seed", range(5))
def test_stratified_parts_have_of_each_label_its_share(seed):
    for part, fraction in zip(
        split(DATA, FRACTIONS, seed=seed, stratified=True), FRACTIONS, strict=True
    ):
        for label in range(4):
            expected = fraction * np.count_nonzero(label == LABELS)
            assert abs(np.count_nonzero(part.y == label) - expected) <= 2


def test_stratified_parts_are_nearer_to_the_shares_than_others():
    def error(stratified):
        return sum(
            abs(np.count_nonzero(part.y == 3) - fraction * np.count_nonzero(LABELS == 3))
            for seed in range(20)
            for part, fraction in zip(
                split(DATA, FRACTIONS, seed=seed, stratified=stratified), FRACTIONS, strict=True
            )
        )

    assert error(True) < 0.6 * error(False)


def test_parts_are_a_function_of_the_seed():
    for stratified in (False, True):
        found = {
            seed: tuple(numbers(split(DATA, FRACTIONS, seed=seed, stratified=stratified)[2]))
            for seed in range(4)
        }
        assert len(set(found.values())) == 4
        again = split(DATA, FRACTIONS, seed=2, stratified=stratified)[2]
        assert tuple(numbers(again)) == found[2]


def test_parts_are_the_same_on_every_processor_and_for_good():
    # Numbers that were right once: what a run was tested on must not depend on the version.
    assert numbers(split(DATA, FRACTIONS, seed=1)[2])[:6] == [72, 123, 6, 78, 137, 35]
    assert numbers(split(DATA, FRACTIONS, seed=1, stratified=True)[2])[:6] == [
        108,
        159,
        197,
        148,
        192,
        67,
    ]


def test_two_parts_are_those_of_the_method_of_data_in_memory():
    expected = DATA.split(0.25, seed=7)
    found = split(DATA, (0.75, 0.25), seed=7)
    assert [numbers(part) for part in found] == [numbers(part) for part in expected]


def test_labels_of_another_kind_stratify_what_has_none():
    source = ArraySource(X)
    groups = np.where(np.arange(200) % 10, "many", "few")
    for part in split(source, (0.5, 0.5), stratified=groups):
        assert np.count_nonzero(groups[numbers(part)] == "few") == 10


def test_every_part_gets_a_sample():
    assert [len(part) for part in split(DATA.subset([1, 2, 3]), (0.98, 0.01, 0.01))] == [1, 1, 1]
    assert [len(part) for part in split(DATA.subset([1, 2, 3]), (0.01, 0.98, 0.01))] == [1, 1, 1]


@pytest.mark.parametrize(
    ("data", "fractions", "options", "said"),
    [
        ((X, LABELS), (0.5, 0.5), {}, "data must be an ArrayDataset or a Source; got a tuple"),
        (DATA, (0.5, 0.6), {}, "fractions must be two or more that add up to 1"),
        (DATA, (1.0,), {}, r"fractions must be numbers in \(0, 1\)"),
        (DATA, (0.5, "x"), {}, "fractions must be numbers"),
        (DATA, 0.5, {}, "the arguments must be"),
        (DATA.subset([1]), (0.5, 0.5), {}, "there must be a sample for each part"),
        (DATA.subset([1, 2]), (0.9, 0.1), {"stratified": True}, "each part must get a sample"),
        (DATA, (0.5, 0.5), {"seed": -1}, "seed must be an integer"),
        (DATA, (0.5, 0.5), {"stratified": X}, "stratified needs one label for each sample"),
        (ddbp.ArrayDataset(X, X), (0.5, 0.5), {"stratified": True}, "stratified needs one label"),
        (ArraySource(X), (0.5, 0.5), {"stratified": True}, "stratified needs one label"),
    ],
)
def test_what_cannot_be_split_is_refused(data, fractions, options, said):
    with pytest.raises((TypeError, ValueError), match=f"^ddbp.data.split: {said}"):
        split(data, fractions, **options)
