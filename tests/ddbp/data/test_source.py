"""Sources: the same bits as the same samples in memory, read by number, and what is refused."""

import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import ddbp
from ddbp.data import ArraySource, GeneratorSource, ItemSource, Rows, Source, open_arrays
from ddbp.reduction.shards import ShardPlan
from ddbp.training.batch import RowBuffers, local_batch
from layers import MeanSquaredError

from ..training.sentences import FIRST, WORDS, A, B, Labeller, Reader
from ..training.small import DATA, LABELS, RNG, X, make

WEIGHTS = RNG.uniform(0.5, 2, len(X))


class Own(Source):
    """A source as a user writes it, which keeps what it was asked for."""

    def __init__(self, x=X, y=LABELS, weights=None):
        self.arrays = x, y, weights
        self.asked = []

    def __len__(self):
        return len(self.arrays[0])

    def take(self, numbers):
        self.asked.append(numbers.tolist())
        return Rows(*(each if each is None else each[numbers] for each in self.arrays))


class InOrder(ddbp.ArrayDataset):
    """A data set whose samples come as they are numbered."""

    def order(self, seed, epoch):
        return np.arange(len(self))

    def astype(self, dtype, owner="InOrder"):
        data = super().astype(dtype, owner)
        result = object.__new__(InOrder)
        vars(result).update(vars(data))
        return result


def mapped(folder, **arrays):
    """Return maps of arrays in `.npy` files."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return [open_arrays(folder / f"{name}.npy") for name in arrays]


def of_npz(folder):
    np.savez(folder / "all.npz", x=X, labels=LABELS)
    arrays = open_arrays(folder / "all.npz")
    return ArraySource(arrays["x"], arrays["labels"])


def of_safetensors(folder):
    safetensors.numpy.save_file({"x": X, "y": LABELS}, folder / "all.safetensors")
    arrays = open_arrays(folder / "all.safetensors")
    return ArraySource(arrays["x"], arrays["y"])


def of_arrow(folder, kind="arrow"):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import ipc, parquet

    rows = arrow.FixedSizeListArray.from_arrays(arrow.array(X.ravel()), X.shape[1])
    table = arrow.table({"x": rows, "y": LABELS, "name": ["a"] * len(X)})
    path = folder / f"all.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=30)
    elif kind == "stream":
        with ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    else:
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    return ddbp.data.ArrowSource(path, x="x", y="y", cache=folder)


def of_columns(folder):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    names = [f"c{n}" for n in range(X.shape[1])]
    for part, rows in enumerate((slice(0, 50), slice(50, None))):
        columns = dict(zip(names, X[rows].T, strict=True)) | {"y": LABELS[rows]}
        parquet.write_table(arrow.table(columns), folder / f"part{part}.parquet")
    paths = [folder / f"part{part}.parquet" for part in range(2)]
    return ddbp.data.ArrowSource(paths, x=names, y="y", cache=folder / "cache")


def of_hdf5(folder):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(folder / "data.h5", "w") as file:
        file["x"], file["y"] = X, LABELS
    file = h5py.File(folder / "data.h5", "r")
    return ArraySource(file["x"], file["y"])


def of_zarr(folder):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    zarr.save_group(str(folder / "data.zarr"), x=X, y=LABELS)
    group = zarr.open_group(str(folder / "data.zarr"), mode="r")
    return ArraySource(group["x"], group["y"])


class Several:
    """Gives several samples at once, as newer data sets of PyTorch do."""

    def __len__(self):
        return len(X)

    def __getitem__(self, number):
        raise AssertionError("several are asked for at once")

    def __getitems__(self, numbers):
        return [(X[number], LABELS[number]) for number in numbers]


class Grid:
    """An array that is read by lists of rising rows only, as those of HDF5."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        assert rows == sorted(set(rows))
        return self.array[rows]


KINDS = {
    "own": lambda folder: Own(),
    "arrays": lambda folder: ArraySource(X, LABELS),
    "npy": lambda folder: ArraySource(*mapped(folder, x=X, y=LABELS)),
    "paths": lambda folder: (
        mapped(folder, x=X, y=LABELS) and ArraySource(folder / "x.npy", str(folder / "y.npy"))
    ),
    "other byte order, by columns": lambda folder: ArraySource(
        *mapped(folder, x=np.asfortranarray(X, ">f8"), y=LABELS)
    ),
    "npz": of_npz,
    "safetensors": of_safetensors,
    "rows of another library": lambda folder: ArraySource(Grid(X), Grid(LABELS)),
    "hdf5": of_hdf5,
    "zarr": of_zarr,
    "arrow": of_arrow,
    "arrow stream": lambda folder: of_arrow(folder, "stream"),
    "parquet": lambda folder: of_arrow(folder, "parquet"),
    "columns of parquet": of_columns,
    "items": lambda folder: ItemSource(list(zip(X, LABELS, strict=True))),
    "items at once": lambda folder: ItemSource(Several()),
    "named items": lambda folder: ItemSource(
        [{"a": x, "b": y} for x, y in zip(X, LABELS, strict=True)], x="a", y="b"
    ),
    "a map": lambda folder: Own(2 * X).map(lambda x, y: (x / 2, y)),
    "a subset": lambda folder: Own(X[::-1], LABELS[::-1]).subset(np.arange(len(X))[::-1]),
}


@pytest.fixture(scope="module")
def in_memory():
    trainer = make(accumulate=2)
    history = trainer.fit(DATA, epochs=2, validation=DATA)
    return trainer, history


@pytest.mark.parametrize("kind", KINDS)
def test_source_gives_the_bits_of_the_same_samples_in_memory(kind, tmp_path, in_memory):
    source = KINDS[kind](tmp_path)
    trainer, (expected, history) = make(accumulate=2), in_memory
    found = trainer.fit(source, epochs=2, validation=source)
    assert trainer.parameters_sha256() == expected.parameters_sha256()
    for one, other in zip(found, history, strict=True):
        assert one["validation_loss"] == other["validation_loss"]
        assert one["validation_accuracy"] == other["validation_accuracy"]
    assert np.array_equal(trainer.predict(source), expected.predict(DATA.x))


@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_each_rank_reads_its_own_rows_only(ranks):
    data = DATA.astype(np.float32)
    rows = data.order(3, 1)[20:43]
    for rank in range(ranks):
        source = Own()
        reading = source.astype(np.float32)
        source.asked.clear()
        plan = ShardPlan(8, ranks, rank)
        ours = local_batch(reading, plan, rows, RowBuffers().take)
        theirs = local_batch(data, plan, rows, RowBuffers().take)
        first, stop, _ = plan.rows(len(rows))
        assert source.asked == [rows[first:stop].tolist()]
        assert ours.x.dtype == theirs.x.dtype
        assert np.array_equal(ours.x, theirs.x)
        assert np.array_equal(ours.y, theirs.y)
        assert np.array_equal(ours.numbers, theirs.numbers)


def test_rank_without_rows_has_arrays_of_the_kind():
    plan = ShardPlan(8, 8, 0)
    assert plan.rows(1)[:2] == (0, 0)
    ours = local_batch(Own().astype(np.float32), plan, np.array([4]), RowBuffers().take)
    assert ours.x.shape == (0, 6)
    assert ours.y.shape == (0,)
    source = ItemSource([*zip(WORDS, FIRST, strict=True)], lengths=[*map(len, WORDS)])
    ours = local_batch(source.astype(np.float32), plan, np.array([4]), RowBuffers().take)
    assert ours.x.values.shape == (0, len(WORDS[4]))


LENGTHS = [len(word) for word in WORDS]
LABELLED = [word % 3 for word in WORDS]
SEQUENCES = {
    "items": lambda folder: ItemSource(
        [*zip(WORDS, LABELLED, strict=True)], lengths={"x": LENGTHS, "y": LENGTHS}
    ),
    "files": lambda folder: ArraySource(
        *(
            ddbp.Ragged.joined(values, LENGTHS)
            for values in mapped(folder, x=np.concatenate(WORDS), y=np.concatenate(LABELLED))
        )
    ),
    "arrow": lambda folder: lists(folder, "arrow"),
    "parquet": lambda folder: lists(folder, "parquet"),
    "a part": lambda folder: SEQUENCES["items"](folder).subset(range(len(WORDS))),
}


def lists(folder, kind):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import feather, parquet

    table = arrow.table({"words": [w.tolist() for w in WORDS], "labels": LABELLED})
    if kind == "parquet":
        parquet.write_table(table, folder / "lists", row_group_size=10)
    else:
        feather.write_feather(table, folder / "lists", compression="uncompressed", chunksize=7)
    return ddbp.data.ArrowSource(folder / "lists", x="words", y="labels", cache=folder)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences_of_a_source_are_padded_to_the_longest_of_the_global_batch(kind, tmp_path):
    data = ddbp.ArrayDataset(WORDS, LABELLED)
    digests = set()
    for each in (data, SEQUENCES[kind](tmp_path)):
        trainer = make(Labeller(), batch_size=8)
        trainer.fit(each, epochs=2, validation=each)
        predicted = trainer.predict(data.x if each is data else each)
        digests.add((trainer.parameters_sha256(), predicted.shape, predicted.tobytes()))
    assert len(digests) == 1
    source, rows = SEQUENCES[kind](tmp_path).astype(np.float32), np.arange(3, 12)
    for rank in range(3):
        ours, theirs = (
            local_batch(each, ShardPlan(3, 3, rank), rows, RowBuffers().take)
            for each in (source, data.astype(np.float32))
        )
        for one, other in zip(
            (*ours.x, ours.y, ours.weights), (*theirs.x, theirs.y, theirs.weights), strict=True
        ):
            assert np.array_equal(one, other)


def test_several_inputs_and_targets_come_from_a_source():
    x, y = {"b": B, "a": A}, (FIRST, A[:, :1])
    source = ItemSource(
        [{"a": a, "b": b, "n": n} for a, b, n in zip(A, B, FIRST, strict=True)],
        x={"b": "b", "a": "a"},
        y=("n", "b"),
    )
    rows = source.take(np.array([3, 1]))
    assert np.array_equal(rows.x["a"], A[[3, 1]])
    assert np.array_equal(rows.y[1], B[[3, 1]])
    arrays = ArraySource(x, y).take(np.array([3, 1]))
    assert [*arrays.x] == ["b", "a"]
    assert np.array_equal(arrays.y[1], A[[3, 1], :1])


@pytest.mark.parametrize("given", ["weights", "class_weight", "both"])
def test_weights_of_a_source_count_as_those_in_memory(given, tmp_path):
    weights = None if given == "class_weight" else WEIGHTS
    class_weight = None if given == "weights" else "balanced"
    digests = set()
    for data in (
        ddbp.ArrayDataset(X, LABELS, weights=weights),
        ArraySource(*mapped(tmp_path, x=X, y=LABELS), weights=weights),
        Own(weights=weights),
    ):
        trainer = make()
        trainer.fit(data, epochs=2, class_weight=class_weight)
        digests.add(trainer.parameters_sha256())
    assert len(digests) == 1


def test_class_weights_of_ragged_targets_count_as_those_in_memory():
    digests = set()
    for data in (ddbp.ArrayDataset(WORDS, LABELLED), SEQUENCES["items"](None)):
        trainer = make(Labeller(), batch_size=8)
        trainer.fit(data, epochs=1, class_weight={0: 1.0, 2: 3.0})
        digests.add(trainer.parameters_sha256())
    assert len(digests) == 1


def test_class_weight_of_a_label_that_does_not_occur_is_refused():
    with pytest.raises(ValueError, match="class_weight must be of labels that occur; got 7"):
        make().fit(Own(), epochs=1, class_weight={7: 1.0})


def pairs():
    yield from zip(X, LABELS, strict=True)


def test_generator_gives_its_samples_in_order_epoch_after_epoch():
    began = []

    def begin():
        began.append(None)
        return pairs()

    digests = set()
    for data in (InOrder(X, LABELS), GeneratorSource(begin, samples=len(X))):
        trainer = make()
        trainer.fit(data, epochs=3)
        digests.add(trainer.parameters_sha256())
    assert len(digests) == 1
    # What samples are and their digest are asked for beside the epochs.
    assert len(began) <= 6


@pytest.mark.parametrize("ranks", [1, 3, 8])
def test_ranks_of_a_generator_have_their_rows_of_each_batch(ranks):
    for rank in range(ranks):
        source = GeneratorSource(pairs, len(X)).astype(np.float64)
        order = source.order(1, 2)
        for start in range(0, len(X), 20):
            plan, rows = ShardPlan(8, ranks, rank), order[start : start + 20]
            batch = local_batch(source, plan, rows, RowBuffers().take)
            first, stop, _ = plan.rows(len(rows))
            assert np.array_equal(batch.x, X[start + first : start + stop])


def test_parts_of_a_generator_stay_in_its_order():
    source = GeneratorSource(pairs, len(X))
    first, second = ddbp.data.split(source, (0.7, 0.3), seed=4)
    assert first.ordered
    rows = second.take(second.order(0, 5))
    numbers = [int(np.flatnonzero((x == X).all(axis=1))[0]) for x in rows.x]
    assert numbers == sorted(numbers)
    assert len(first) + len(second) == len(X)


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


def test_run_that_was_stopped_in_the_midst_of_an_epoch_goes_on_with_the_same_source_only(tmp_path):
    class Stop(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            if step == 6:
                self.snapshot = trainer.state()
                raise ddbp.TrainingOver

    whole, stop = make(), Stop()
    whole.fit(Own(), epochs=3)
    stopped = make(callbacks=[stop])
    stopped.fit(Own(), epochs=3)
    for source in (Own(), ArraySource(X, LABELS)):
        trainer = make()
        trainer.load_state(stop.snapshot)
        trainer.fit(source, epochs=3)
        assert trainer.parameters_sha256() == whole.parameters_sha256()
    trainer = make()
    trainer.load_state(stop.snapshot)
    with pytest.raises(ValueError, match="the data must be those of the epoch"):
        trainer.fit(Own(X + 1), epochs=3)


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


def test_source_is_no_copy_of_what_it_reads(tmp_path):
    x, y = mapped(tmp_path, x=X, y=LABELS)
    source = ArraySource(x, y)
    assert repr(source) == "ArraySource(x=(83, 6) float64, y=(83,) int64)"
    assert source._arrays["x"] is x


def test_loop_of_a_script_and_fork_take_a_source():
    digests = set()
    for data in (DATA, Own()):
        trainer = make()
        losses = [
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
            for batch in trainer.batches(data, epochs=2)
        ]
        forked = make().fork(3, data=data)
        digests.add((trainer.parameters_sha256(), *losses, *forked))
    assert len(digests) == 1


def test_run_folder_and_doctor_take_a_source(tmp_path):
    found = {}
    for name, data in (("memory", DATA), ("source", Own())):
        trainer = make(run_dir=tmp_path / name, doctor=True)
        trainer.fit(data, epochs=2, validation=data)
        with np.load(tmp_path / name / "samples.npz") as arrays:
            found[name] = {key: array.tobytes() for key, array in arrays.items()}
        assert (tmp_path / name / "report.html").is_file()
    assert found["memory"] == found["source"]


def test_truncated_windows_come_from_a_source():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((30, 7, 4)), rng.standard_normal((30, 7, 2))
    from layers import LSTM, Linear, Sequential

    digests = set()
    for data in (ddbp.ArrayDataset(x, y), ArraySource(x, y)):
        model = Sequential(
            LSTM(4, 5, rng=np.random.default_rng(1)), Linear(5, 2, rng=np.random.default_rng(2))
        )
        trainer = make(model, loss=MeanSquaredError(), batch_size=10, truncate=3, accumulate=2)
        trainer.fit(data, epochs=2)
        digests.add(trainer.parameters_sha256())
    assert len(digests) == 1


def test_damaged_and_foreign_files_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "small.npz", x=X)
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    np.save(tmp_path / "cut.npy", X)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    (tmp_path / "none.npz").write_bytes(b"no archive")
    (tmp_path / "text.csv").write_text("1,2")
    header = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 400]}}
    for name, entry in (
        ("offsets", header),
        ("bf16", {"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}),
        ("outside", {"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}),
        ("empty", {"a": {}}),
    ):
        text = json.dumps(entry).encode()
        content = len(text).to_bytes(8, "little") + text + b"12"
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "long.safetensors").write_bytes(b"\xff" * 9)
    for name, said in (
        ("small.npz", "arrays in .* must be stored as they are; got x.npy compressed"),
        ("objects.npy", "must hold numbers; got Python objects"),
        ("cut.npy", "must be a whole .npy file; got 4104 bytes where 4112 are needed"),
        ("none.npz", "must be a whole .npz file; got"),
        ("text.csv", "must be a file of arrays; got '.csv'"),
        ("offsets.safetensors", "must be a whole .safetensors file; got a of shape"),
        ("outside.safetensors", "must be a whole .safetensors file; got"),
        ("empty.safetensors", "must be a whole .safetensors file; got"),
        ("bf16.safetensors", "must have a type of NumPy; got BF16"),
        ("long.safetensors", "must be a whole .safetensors file; got a header of"),
    ):
        with pytest.raises(ValueError, match=f"^open_arrays: .*{said}"):
            open_arrays(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="must be a file; got no such file"):
        open_arrays(tmp_path / "missing.npy")
    with pytest.raises(FileNotFoundError, match="got a folder"):
        open_arrays(tmp_path.with_suffix(".npy").mkdir() or tmp_path.with_suffix(".npy"))


def test_file_that_was_cut_while_it_is_read_is_refused(tmp_path):
    x = np.zeros((600, 1 << 13), np.float32)
    np.save(tmp_path / "x.npy", x)
    source = ArraySource(tmp_path / "x.npy")
    os.truncate(tmp_path / "x.npy", 1 << 20)
    assert np.array_equal(source.take(np.arange(3)).x, x[:3])
    with pytest.raises(ValueError, match=r"x\.npy must stay as it was; got its end at byte"):
        source.take(np.array([599]))


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_rows_of_many_record_batches_come_in_the_order_that_is_asked_for(tmp_path, compression):
    # What is compressed is read in memory, what is not in its file.
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import ipc

    flags = LABELS % 2 == 0
    lists = [np.arange(n % 5 + 1) + n for n in range(len(X))]
    table = {"x": X[:, 0], "flag": flags, "lists": [each.tolist() for each in lists], "y": LABELS}
    parts = arrow.table(table).to_batches(max_chunksize=7)
    paths = [tmp_path / "one.arrow", tmp_path / "other.arrow"]
    for path, some in zip(paths, (parts[:3], parts[3:]), strict=True):
        options = ipc.IpcWriteOptions(compression=compression)
        with ipc.new_file(path, parts[0].schema, options=options) as writer:
            for each in some:
                writer.write_batch(each)
    source = ddbp.data.ArrowSource(paths, x={"x": "x", "flag": "flag", "lists": "lists"}, y="y")
    numbers = np.array([60, 20, 21, 22, 0, 60, 61, *range(len(X) - 1, 0, -3)])
    rows = source.take(numbers)
    np.testing.assert_array_equal(rows.x["x"], X[numbers, 0])
    np.testing.assert_array_equal(rows.x["flag"], flags[numbers])
    np.testing.assert_array_equal(
        rows.x["lists"].values, np.concatenate([lists[n] for n in numbers])
    )
    np.testing.assert_array_equal(rows.x["lists"].lengths, [len(lists[n]) for n in numbers])
    np.testing.assert_array_equal(rows.y, LABELS[numbers])
    np.testing.assert_array_equal(source.targets(numbers), LABELS[numbers])


def test_arrow_refuses_what_it_cannot_read(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    table = {"x": [1.0, 2.0], "text": ["a", "b"], "lists": [[1], []], "full": [[1], [2]]}
    parquet.write_table(arrow.table(table), tmp_path / "some.parquet")
    (tmp_path / "none.arrow").write_bytes(b"ARROW1 and nothing")
    (tmp_path / "none.parquet").write_bytes(b"PAR1 and nothing")
    (tmp_path / "empty").touch()
    for name, x, said in (
        ("some.parquet", "z", "must have the column 'z'; got columns x, text"),
        ("some.parquet", "text", "column 'text' must hold numbers, or lists of them; got string"),
        ("some.parquet", "lists", "lists of column 'lists' must not be empty; got sample 1"),
        ("some.parquet", ["x", "full"], "x must be of numbers; got the lists of 'full'"),
        ("some.parquet", 3, "columns must be named by texts; got 3"),
        ("none.arrow", "x", "must be a whole Arrow or Parquet file"),
        ("none.parquet", "x", "must be a whole Arrow or Parquet file"),
        ("empty", "x", "must be a whole Arrow or Parquet file"),
        ("missing", "x", "must be a file; got no such file"),
    ):
        with pytest.raises(
            (TypeError, ValueError, FileNotFoundError), match=f"^ArrowSource: .*{said}"
        ):
            ddbp.data.ArrowSource(tmp_path / name, x=x, cache=tmp_path / "cache")


def test_parquet_is_converted_once_and_anew_when_it_changes(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path, cache = tmp_path / "some.parquet", tmp_path / "cache"
    for rows, files in ((2, 1), (2, 1), (3, 2)):
        if not path.exists() or rows == 3:
            parquet.write_table(arrow.table({"x": np.arange(float(rows))}), path)
        source = ddbp.data.ArrowSource(path, x="x", cache=cache)
        assert len(source) == rows
        assert len([*Path(cache).glob("*.arrow")]) == files


def test_parquet_is_converted_anew_when_another_has_its_size_and_time(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path, times = tmp_path / "some.parquet", []
    for value in (1.0, 2.0):
        parquet.write_table(arrow.table({"x": np.full(3, value)}), path)
        times = times or [path.stat().st_atime_ns, path.stat().st_mtime_ns]
        os.utime(path, ns=tuple(times))
        source = ddbp.data.ArrowSource(path, x="x", cache=tmp_path / "cache")
        assert source.take(np.arange(3)).x.tolist() == [value] * 3


def resident():
    """Return the bytes of this process in memory, with what it has mapped of files (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
@pytest.mark.parametrize("whole", [True, False])
def test_what_was_read_of_a_file_does_not_stay_in_memory(whole, tmp_path):
    rows, features = 400, 1 << 18
    with (tmp_path / "x.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, features)}
        np.lib.format.write_array_header_1_0(file, header)
        # A hole, which reads as zeros.
        file.truncate(file.tell() + 4 * rows * features)
    # In columns nothing lies together that could be read by itself: what is mapped is let go.
    source = ArraySource(
        open_arrays(tmp_path / "x.npy")[:, :: 1 if whole else 2], np.zeros(rows, int)
    ).astype(np.float32)
    before = resident()
    most = 0
    for start in range(0, rows, 10):
        source.take(source.order(0, 0)[start : start + 10])
        most = max(most, resident() - before)
    # Of 400 MiB that were read.
    assert most < 150 << 20


def test_data_sets_of_pytorch_give_arrays():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the oracle extra")
    from torch.utils import data

    whole = data.TensorDataset(torch.tensor(X), torch.tensor(LABELS))
    for items in (whole, data.Subset(whole, range(len(X)))):
        rows = ItemSource(items).take(np.array([5, 2]))
        assert np.array_equal(rows.x, X[[5, 2]])
        assert np.array_equal(rows.y, LABELS[[5, 2]])


def test_lists_of_one_length_are_rows_of_an_array(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import feather

    table = arrow.table({"x": X.tolist(), "y": LABELS})
    feather.write_feather(table, tmp_path / "x", compression="uncompressed", chunksize=20)
    source = ddbp.data.ArrowSource(tmp_path / "x", x="x", y="y")
    assert not source.lengths
    assert np.array_equal(source.take(np.array([70, 2, 2])).x, X[[70, 2, 2]])
