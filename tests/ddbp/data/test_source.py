"""Sources: the same bits as the same samples in memory, read by number."""

import numpy as np
import pytest

import ddbp
from ddbp.data import ArraySource, GeneratorSource, ItemSource
from ddbp.reduction.shards import ShardPlan
from ddbp.training.batch import RowBuffers, local_batch
from layers import MeanSquaredError

from ..training.sentences import FIRST, WORDS, A, B, Labeller
from ..training.small import DATA, LABELS, RNG, X, make
from .sources import KINDS, LABELLED, SEQUENCES, Own, mapped, pairs

WEIGHTS = RNG.uniform(0.5, 2, len(X))


class InOrder(ddbp.ArrayDataset):
    """A data set whose samples come as they are numbered."""

    def order(self, seed, epoch):
        return np.arange(len(self))

    def astype(self, dtype, owner="InOrder"):
        data = super().astype(dtype, owner)
        result = object.__new__(InOrder)
        vars(result).update(vars(data))
        return result


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


def test_data_sets_of_pytorch_give_arrays():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the oracle extra")
    from torch.utils import data

    whole = data.TensorDataset(torch.tensor(X), torch.tensor(LABELS))
    for items in (whole, data.Subset(whole, range(len(X)))):
        rows = ItemSource(items).take(np.array([5, 2]))
        assert np.array_equal(rows.x, X[[5, 2]])
        assert np.array_equal(rows.y, LABELS[[5, 2]])
