"""What sources refuse of samples, and how errors name them."""

from itertools import islice

import numpy as np
import pytest

import ddbp
from ddbp.data import ArraySource, GeneratorSource, ItemSource

from ..training.sentences import FIRST, WORDS, Reader
from ..training.small import LABELS, X, make
from .sources import LENGTHS, Own, mapped, pairs


def test_class_weight_of_a_label_that_does_not_occur_is_refused():
    with pytest.raises(ValueError, match="class_weight must be of labels that occur; got 7"):
        make().fit(Own(), epochs=1, class_weight={7: 1.0})


def test_generator_that_ends_too_early_is_refused_with_how_many_it_has():
    source = GeneratorSource(pairs, samples=len(X) + 1)
    with pytest.raises(
        ValueError, match=r"^GeneratorSource: the generator must yield 84 samples; got 83\."
    ):
        make().fit(source, epochs=1)


def test_generator_that_goes_on_is_refused():
    source = GeneratorSource(pairs, samples=len(X) - 1)
    with pytest.raises(
        ValueError, match=r"the generator must yield 82 samples; got more\. .*islice\(items, 82\)"
    ):
        make().fit(source, epochs=1)
    some = GeneratorSource(lambda: islice(pairs(), 82), samples=82)
    assert len(some.take(np.arange(82)).x) == 82


def spoilt(array, place, value):
    array = array.copy()
    array[place] = value
    return array


def test_value_that_is_not_finite_is_named_with_source_file_and_sample(tmp_path):
    x, y = mapped(tmp_path, x=spoilt(X, (17, 3), np.nan), y=LABELS)
    said = r"^ArraySource: x must be finite; got nan in x\[3\] of sample 17 of .*x\.npy\. Drop"
    with pytest.raises(ValueError, match=said):
        make().fit(ArraySource(x, y), epochs=1)
    with pytest.raises(ValueError, match=said):
        make().evaluate(ArraySource(x, y))
    # A part names the sample by its number in the whole.
    part = ArraySource(x, y).subset(np.arange(10, 40))
    with pytest.raises(ValueError, match=r"nan in x\[3\] of sample 17 of .*x\.npy"):
        make().evaluate(part)


def test_value_of_a_sequence_that_is_not_finite_is_named_with_its_step():
    sequences = [np.full((n, 2), 1.0) for n in (2, 5, 3)]
    sequences[1][4, 1] = np.inf
    source = ItemSource([(each, 0) for each in sequences], lengths=[2, 5, 3])
    with pytest.raises(
        ValueError, match=r"^ItemSource: x must be finite; got inf in x\[4, 1\] of sample 1\."
    ):
        source.astype(np.float32).take(np.array([2, 1]))


def test_row_of_a_table_is_named_with_its_file(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    for part, values in enumerate(([1.0, 2.0], [3.0, None, 4.0])):
        parquet.write_table(arrow.table({"x": values}), tmp_path / f"{part}.parquet")
    paths = [tmp_path / f"{part}.parquet" for part in range(2)]
    said = r"column 'x' must hold a value .* got a null in sample 3 \(row 1 of .*1\.parquet\)"
    with pytest.raises(ValueError, match=said):
        ddbp.data.ArrowSource(paths, x=["x"], cache=tmp_path)


class Changing(Own):
    """Samples whose kind changes at some number."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def take(self, numbers):
        rows = super().take(numbers)
        return self.change(rows) if 40 in numbers else rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows._replace(x=rows.x[:, :5]), r"got x \(5,\) float64 in sample"),
        (lambda rows: rows._replace(y=rows.y.astype(float)), r"y \(\) float64 in sample"),
        (lambda rows: rows._replace(x=(rows.x, rows.x)), r"got x\[0\] \(6,\) float64"),
        (lambda rows: rows._replace(weights=rows.y), r"got weights \(\) float64 .* no other part"),
        (lambda rows: rows._replace(x=rows.x[1:]), "must return as many of x as it is asked for"),
        (lambda rows: rows._replace(x=rows.x.astype(str)), "x must be numeric; got <U"),
        (lambda rows: rows._replace(weights=-1.0 - rows.y), "weights must be at least 0; got -"),
        (lambda rows: rows._replace(x=ddbp.Ragged([*rows.x])), "lengths must hold those of x"),
        (tuple, "take must return Rows; got tuple"),
        (lambda rows: rows._replace(x=3), "x must have an axis of samples"),
    ],
)
def test_samples_of_another_kind_than_the_first_are_refused(change, said):
    with pytest.raises((TypeError, ValueError), match=f"^(Changing|Source.take): .*{said}"):
        make().fit(Changing(change), epochs=1)


def test_too_large_a_number_for_the_type_of_the_model_is_refused():
    with pytest.raises(ValueError, match=r"^Own: x must be at most 3.40e\+38 in size"):
        make().fit(Own(spoilt(X, (17, 3), 1e300)), epochs=1)


def test_sequence_of_another_length_than_was_said_is_refused_by_its_number():
    lengths = [*LENGTHS]
    lengths[9] += 1
    source = ItemSource([*zip(WORDS, FIRST, strict=True)], lengths=lengths)
    with pytest.raises(ValueError, match=r"x of sample 9 must have the length that lengths says"):
        make(Reader(), batch_size=9).fit(source, epochs=1)


@pytest.mark.parametrize(
    ("items", "options", "said"),
    [
        ([], {}, "there must be one sample or more"),
        (iter([1]), {}, "items must have __getitem__ by number and __len__; got a list_it"),
        ([(X[0], 1, 2, 3)], {}, "a sample must be .* got 4 parts"),
        ([{"a": 1}], {}, "x must name a part of samples; got a sample with 'a'"),
        ([{"a": 1}], {"x": "b"}, "samples must have the part 'b'"),
        (
            [(X[0], 1), (X[0, :2], 1)],
            {},
            r"x must have one shape .* got \(2,\) float64 in sample 1",
        ),
        ([(X[0], 1), (X[0], 1.5)], {}, "y must have one shape and type"),
        ([(X[0], 1, 1.0), (X[0], 1)], {}, "all samples must have weights, or none"),
        ([(X[0], "cat")], {}, "y must be numeric"),
        ([(X[0], 1)], {"lengths": [0.5]}, "lengths of x must be integers"),
    ],
)
def test_items_that_make_no_rows_are_refused(items, options, said):
    def read():
        ItemSource(items, **options).astype(np.float32).take(np.arange(len(items)))

    with pytest.raises((TypeError, ValueError), match=f"^ItemSource: {said}"):
        read()


def test_iterator_is_no_generator_that_begins_anew():
    with pytest.raises(TypeError, match="make must be a function that returns a new iterator"):
        GeneratorSource(pairs(), samples=3)


def test_source_without_targets_is_for_prediction_only():
    trainer = make()
    assert np.array_equal(trainer.predict(ArraySource(X)), trainer.predict(X))
    for use in (trainer.evaluate, lambda data: trainer.fit(data, epochs=1)):
        with pytest.raises(ValueError, match="must have targets; got ArraySource"):
            use(ArraySource(X))
