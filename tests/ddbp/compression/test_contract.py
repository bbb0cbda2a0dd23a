"""What every compressor keeps, in one process: a row of the table each. On ranks:
tests/mpi/test_compression.py.
"""

import numpy as np
import pytest

import ddbp
from ddbp.comm.serial import SerialCommunicator
from ddbp.compression import chosen
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan
from layers import Dropout, Linear, ReLU, Sequential
from layers.engine.fixed_tree import tree_sum

from ..training.faults import Faulty, marked
from ..training.small import LABELS, X, make, network, parameters
from ..training.snapshots import stopped, through_json, without_times
from .table import ALL, FEEDBACK, ROUNDED

DATA = ddbp.ArrayDataset(X.astype(np.float32), LABELS)
SHARDS = 4
every = pytest.mark.parametrize("name", ALL)
with_feedback = pytest.mark.parametrize("name", FEEDBACK)
rounded = pytest.mark.parametrize("name", ROUNDED)


def wide():
    """Return a network whose parameters fill several blocks."""
    rng = np.random.default_rng(1)
    return Sequential(Linear(20, 90, rng=rng), ReLU(), Linear(90, 70, rng=rng))


def reducer(name, model=None):
    """Return what reduces the gradients of all shards of a model."""
    plan = ShardPlan(SHARDS, 1, 0)
    return Reducer(model or wide(), plan, SerialCommunicator(), compression=chosen(ALL[name]))


def drawn(of, step=0, scale=1.0):
    """Write gradients of all shards, of parameters but not of the gaps between them; return a copy
    of them.
    """
    rng = np.random.default_rng(step)
    of.flat.gradients[...] = 0
    for _, _, start, stop in of.flat.segments():
        of.flat.gradients[:, start:stop] = scale * rng.standard_normal((SHARDS, stop - start))
    return of.flat.gradients.astype(np.float64)


def reduced(of, step=0, start=0, stop=None, scale=1.0):
    """Return a part of the gradient of the batch."""
    if of.compressed is not None and not start:
        of.compressed.encode(scale)
    of.exchange(step, 16, np.zeros(SHARDS))
    gradient = np.full((stop or of.flat.values.size) - start, np.nan, np.float32)
    of.sum(gradient, start, 0)
    return gradient


def trainer(name, **options):
    """Return a small trainer whose gradients are compressed."""
    usual = {"shards": SHARDS, "compression": ALL[name], "optimizer": ddbp.SGD(0.05)}
    return make(**{**usual, **options})


@every
@pytest.mark.parametrize(("start", "stop"), [(16, 48), (1000, 3000), (2048, 4096), (8000, 8250)])
def test_part_of_a_gradient_has_the_bits_of_the_whole(name, start, stop):
    of = reducer(name)
    drawn(of)
    whole = reduced(of)
    assert reduced(of, start=start, stop=stop).tobytes() == whole[start:stop].tobytes()


@every
def test_gaps_between_parameters_stay_zero(name):
    of = reducer(name)
    drawn(of)
    gradient = reduced(of)
    for _, _, start, stop in of.flat.segments():
        gradient[start:stop] = 0
    assert not gradient.any()


@with_feedback
def test_what_was_sent_and_what_was_kept_back_are_all_gradients(name):
    of = reducer(name)
    sent, given = 0.0, 0.0
    for step in range(30):
        given = given + drawn(of, step).sum(axis=0)
        sent = sent + reduced(of, step).astype(np.float64)
        of.compressed.keep(0)
    kept = sum(
        np.concatenate([part.reshape(-1) for _, part in pieces.parts]).astype(np.float64).sum()
        for residual, pieces in of.compressed.state().items()
        if residual.startswith("residuals.")
    )
    assert abs(given.sum() - sent.sum() - kept) < 1e-5 * np.abs(given).sum()
    # Something is kept back, and not ever more of it.
    assert np.abs(given - sent).max() > 0.1
    assert np.linalg.norm(given - sent) < 15 * np.linalg.norm(drawn(of, 0).sum(axis=0))


@with_feedback
def test_scale_of_a_step_is_not_that_of_what_it_keeps_back(name):
    plain, scaled = reducer(name), reducer(name)
    for step in range(3):
        drawn(plain, step)
        expected = reduced(plain, step)
        plain.compressed.keep(0)
        drawn(scaled, step, scale=2.0**step)
        assert reduced(scaled, step, scale=2.0**-step).tobytes() == expected.tobytes()
        scaled.compressed.keep(0)


@rounded
def test_rounded_sums_are_near_and_of_few_values(name):
    of = reducer(name)
    gradients = drawn(of)
    exact = tree_sum(gradients)
    error = reduced(of) - exact
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "int8": 2.0**-6}[name]
    assert 0 < np.abs(error).max() <= 3 * unit * np.abs(gradients).sum(axis=0).max()
    assert np.unique(reduced(of)).size < 0.9 * exact.size


def test_sums_in_8_bits_have_the_mean_of_the_gradient():
    of = reducer("int8")
    exact, steps = tree_sum(drawn(of)), 400
    errors = np.array([reduced(of, step) - exact for step in range(steps)])
    spread = errors.std(axis=0)
    assert spread.max() > 0.01
    # No place, and not all places together, are off by more than chance is.
    found = spread > 0
    assert np.abs(errors.mean(axis=0))[found].max() < 5 * spread.max() / np.sqrt(steps)
    assert abs(errors.mean()) < 5 * spread.max() / np.sqrt(errors.size)


def test_what_is_rounded_to_8_bits_stays_and_takes_its_bytes():
    of = reducer("int8")
    drawn(of)
    gradient, sums = reduced(of), of._rounded
    sent = sums.buffer((1, gradient.size), np.float32)
    assert sent.nbytes == gradient.size + -(-gradient.size // 256)
    sums.encode(sent, gradient[np.newaxis])
    again = np.empty((1, gradient.size), np.float32)
    sums.decode(again, sent)
    assert again.tobytes() == gradient.tobytes()
    once_more = np.empty_like(gradient)
    for sums.step in range(20):
        sums(again, np.ones(1, np.int64), out=once_more)
        assert once_more.tobytes() == gradient.tobytes()


@every
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_in_the_sum(name, value):
    of = reducer(name)
    drawn(of)
    of.flat.gradients[2, 1500] = value
    assert not np.isfinite(reduced(of)).all()


def test_bytes_of_messages_are_those_that_the_docs_tell():
    of = {name: reducer(name) for name in FEEDBACK}
    size = sum(parameter.size for parameter in of["sign"].flat.parameters)
    told = {
        "top-k": 8 * round(0.1 * size),
        "top-k, a count": 8 * 7,
        "power-sgd": 4 * (90 + 20 + 70 + 90 + 90 + 70),
        "power-sgd, rank 3": 4 * (3 * (90 + 20 + 70 + 90) + 90 + 70),
        "sign": size / 8 + 4 * 4,
    }
    for name, least in told.items():
        # Fields begin at cache lines.
        assert least <= of[name].compressed.nbytes <= least + 64 * 7


@every
def test_training_converges_to_where_it_does_without(name):
    plain = make(shards=SHARDS, optimizer=ddbp.SGD(0.05)).fit(DATA, epochs=40)
    mine = trainer(name).fit(DATA, epochs=40)
    assert mine[-1]["loss"] < plain[-1]["loss"] + 0.05 < plain[0]["loss"] / 2


@every
def test_one_shard_and_several_are_compressed_on_one_rank(name):
    digests = {
        shards: trainer(name, shards=shards).fit(DATA, epochs=1)[-1]["loss"]
        - make(shards=shards, optimizer=ddbp.SGD(0.05)).fit(DATA, epochs=1)[-1]["loss"]
        for shards in (1, 3, 4)
    }
    assert all(0 < abs(difference) < 0.5 for difference in digests.values())


@every
def test_group_of_batches_is_compressed_once(name):
    once, grouped = trainer(name), trainer(name, accumulate=2)
    for start in (0, 20, 40):
        rows = slice(start, start + 20)
        once.train_step(X[rows], LABELS[rows])
        for _ in range(2):
            grouped.train_step(X[rows], LABELS[rows])
    # Twice a gradient is rounded otherwise.
    assert np.abs(parameters(grouped) - parameters(once)).max() < 1e-5


@every
def test_norm_is_limited_of_what_is_sent(name):
    limited = trainer(name, clip_norm=0.01, optimizer=ddbp.SGD(1.0))
    before = parameters(limited)
    limited.train_step(X[:20], LABELS[:20])
    assert abs(np.linalg.norm(parameters(limited) - before) - 0.01) < 1e-5


@every
def test_loss_scale_changes_no_bit(name):
    # In 16 bits numbers may be too small, or too large.
    initial = 2.0**2 if name == "float16" else 2.0**14
    scaled = trainer(name, loss_scale=ddbp.LossScale(initial, 3))
    plain = trainer(name)
    scaled.fit(DATA, epochs=3)
    plain.fit(DATA, epochs=3)
    tiny = 1e-6 if name == "float16" else 0
    assert np.abs(parameters(scaled) - parameters(plain)).max() <= tiny


@every
@pytest.mark.parametrize("step", [3, 7])
def test_run_goes_on_from_a_state(name, step):
    def options():
        return {
            "model": network(Dropout(0.2)),
            "shards": SHARDS,
            "compression": ALL[name],
            "optimizer": ddbp.Adam(0.01),
        }

    whole, other = make(**options()), make(**options())
    expected = whole.fit(DATA, epochs=3)
    other.load_state(through_json(stopped(step, data=DATA, **options())))
    assert without_times(other.fit(DATA, epochs=3)) == without_times(expected)
    assert other.parameters_sha256() == whole.parameters_sha256()


@with_feedback
def test_residuals_are_part_of_the_state(name):
    snapshot = stopped(4, data=DATA, shards=SHARDS, compression=ALL[name])
    residuals = [each for name, each in snapshot.arrays.items() if "residuals." in name]
    assert [each.shape for each in residuals] == [
        (SHARDS, *each.shape) for each in network().parameters()
    ]
    assert sum(map(np.count_nonzero, residuals)) > 20
    # Without them the run is another one.
    forgotten = {
        name: np.zeros_like(each) if "residuals." in name else each
        for name, each in snapshot.arrays.items()
    }
    digests = []
    for arrays in (snapshot.arrays, forgotten):
        again = make(shards=SHARDS, compression=ALL[name])
        again.load_state(ddbp.Snapshot(dict(arrays), snapshot.values))
        again.fit(DATA, epochs=3)
        digests.append(again.parameters_sha256())
    assert digests[0] != digests[1]


@every
def test_update_that_is_left_out_leaves_residuals_alone(name):
    spoilt, plain = (
        trainer(name, model=network(Faulty("backward")), on_nonfinite="skip") for _ in range(2)
    )
    bad = marked(X[:20], 3)
    for start in (0, 20, 40):
        rows = slice(start, start + 20)
        for each in (spoilt, plain):
            each.train_step(X[rows], LABELS[rows])
        assert np.isnan(spoilt.train_step(bad, LABELS[:20]))
    assert parameters(spoilt).tobytes() == parameters(plain).tobytes()


@every
def test_frozen_parameters_stay_and_the_residuals_of_others_too(name):
    of = trainer("power-sgd" if name == "power-sgd, rank 3" else name)
    of.train_step(X[:20], LABELS[:20])
    before = of.state().arrays
    of.model[0].freeze()
    frozen = of.model[0].weight.value.copy()
    after = of.state().arrays
    for entry in set(before) & set(after):
        if "residuals." in entry:
            assert after[entry].tobytes() == before[entry].tobytes()
    assert not any("layers.0" in entry for entry in after if "residuals." in entry)
    of.train_step(X[:20], LABELS[:20])
    assert of.model[0].weight.value.tobytes() == frozen.tobytes()
    of.model[0].unfreeze()
    for _ in range(8):
        of.train_step(X[:20], LABELS[:20])
    assert of.model[0].weight.value.tobytes() != frozen.tobytes()


@every
def test_fork_leaves_no_trace(name):
    tried, plain = trainer(name), trainer(name)
    for each in (tried, plain):
        each.fit(DATA, epochs=1)
    assert len(tried.fork(4, learning_rate=0.5)) == 4
    for each in (tried, plain):
        each.fit(DATA, epochs=1)
    assert tried.parameters_sha256() == plain.parameters_sha256()


@every
def test_run_that_was_not_compressed_goes_on_compressed(name, tmp_path):
    def made(**options):
        return make(
            shards=SHARDS,
            run_dir=tmp_path,
            callbacks=[ddbp.Checkpoints(every_steps=4)],
            resume="auto",
            **options,
        )

    made().fit(DATA, epochs=1)
    with pytest.raises(ValueError, match="same compression; got None in the state"):
        made(compression=ALL[name])
    compressed = made(compression=ALL[name], resume_options="compression")
    assert compressed.fit(DATA, epochs=2)[-1]["epoch"] == 2


@every
def test_name_and_configuration_give_the_same(name, tmp_path):
    compressor = chosen(ALL[name])
    assert chosen(str(compressor)) == compressor
    trainer(name, run_dir=tmp_path).fit(DATA, epochs=1)
    assert ddbp.TrainerOptions.read(tmp_path).compression == compressor
