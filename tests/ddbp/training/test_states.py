"""States in training, in files and in digests."""

import numpy as np
import pytest
import safetensors.numpy

import ddbp
from ddbp.comm.base import CommunicationError
from ddbp.comm.serial import SerialCommunicator
from ddbp.reduction.shard_gather import ShardGather
from ddbp.reduction.shards import ShardPlan
from layers import BatchNorm, BatchNorm2d, Flatten, Linear, ReLU, Sequential, SoftmaxCrossEntropy

X = np.random.default_rng(0).standard_normal((22, 4, 4, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 22)


def network(seed=0, **options):
    rng = np.random.default_rng(seed)
    return Sequential(
        BatchNorm2d(3, **options),
        ReLU(),
        Flatten(),
        Linear(48, 8, rng=rng),
        BatchNorm(8, **options),
        Linear(8, 3, rng=rng),
    )


def trained(model, steps=3, **options):
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.1),
        batch_size=22,
        quiet=True,
        **{"shards": 4, **options},
    )
    for _ in range(steps):
        trainer.train_step(X, LABELS)
    return trainer


def values(model):
    return {name: state.value.copy() for name, state in model.named_states()}


@pytest.mark.parametrize("synchronized", [False, True])
@pytest.mark.parametrize("shards", [1, 4])
def test_every_step_moves_running_statistics_once(synchronized, shards):
    model = network(synchronized=synchronized)
    trained(model, steps=2, shards=shards)
    exact = 0.1 * X.astype(float).mean(axis=(0, 1, 2)) * (1 + 0.9)
    np.testing.assert_allclose(model[0].running_mean.value, exact, rtol=1e-5, atol=1e-7)
    variance = X.astype(float).var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(model[0].running_variance.value, 0.81 + 0.19 * variance, rtol=1e-5)


def test_step_that_is_refused_moves_no_running_statistics():
    model = network()
    trainer = trained(model, steps=1)
    before = values(model)
    model[5].bias.value[0] = np.inf
    with pytest.raises(FloatingPointError):
        trainer.train_step(X, LABELS)
    assert all((before[name] == value).all() for name, value in values(model).items())


def test_evaluation_and_prediction_use_and_leave_running_statistics():
    model = network()
    trainer = trained(model)
    before, prediction = values(model), trainer.predict(X)
    # One sample alone has no variance, but in evaluation it needs none.
    assert trainer.predict(X[:1]).tobytes() == prediction[:1].tobytes()
    trainer.evaluate(ddbp.ArrayDataset(X, LABELS))
    assert all((before[name] == value).all() for name, value in values(model).items())


def test_states_are_saved_and_loaded_with_the_parameters(tmp_path):
    model, other = network(), network(seed=5)
    trainer = trained(model)
    ddbp.save_parameters(model, tmp_path / "model.safetensors")
    names = safetensors.numpy.load_file(tmp_path / "model.safetensors").keys()
    assert {
        "layers.0.running_mean",
        "layers.0.running_variance",
        "layers.4.running_mean",
        "layers.0.weight",
    } <= names
    ddbp.load_parameters(other, tmp_path / "model.safetensors")
    assert other(X).tobytes() == trainer.predict(X).tobytes()


def test_file_without_the_states_is_refused(tmp_path):
    model = network()
    arrays = {name: parameter.value for name, parameter in model.named_parameters()}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing \['layers\.0\.running_mean'"):
        ddbp.load_parameters(model, tmp_path / "model.safetensors")


def test_digest_holds_the_states():
    model = network()
    trainer = trained(model)
    before = trainer.parameters_sha256()
    model[0].running_mean.value += 1
    assert trainer.parameters_sha256() != before


def test_run_folder_holds_the_states(tmp_path):
    trainer = ddbp.Trainer(
        network(),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.1),
        batch_size=11,
        run_dir=tmp_path,
        quiet=True,
    )
    trainer.fit(ddbp.ArrayDataset(X, LABELS), epochs=1)
    assert "layers.4.running_variance" in safetensors.numpy.load_file(
        tmp_path / "model.safetensors"
    )


def test_rank_that_gathers_statistics_of_another_number_is_named():
    class Elsewhere(SerialCommunicator):
        """Rank 0 of two; the other is at its ninth gathering."""

        def __init__(self):
            super().__init__()
            self.size = 2

        def gather(self, task, row, same=0):
            row.rows[:, 2] = task[1], 9
            return False

    gather = ShardGather(ShardPlan(2, 2, 0), Elsewhere())
    said = (
        r"rank 0: all ranks must take part in gathering statistics of the batch, number 1; "
        r"got gathering statistics of the batch, number 9 on rank 1\. "
    )
    with pytest.raises(CommunicationError, match=said):
        gather(np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("norm", "asked", "expected"),
    [
        ({}, None, 1),
        ({"synchronized": True}, None, 8),
        ({}, 4, 4),
        (None, None, 8),
    ],
    ids=["apart", "synchronized", "asked for", "none"],
)
def test_unasked_a_model_that_normalises_each_shard_has_one_per_rank(norm, asked, expected):
    rng = np.random.default_rng(0)
    norms = [] if norm is None else [BatchNorm(4, **norm)]
    model = Sequential(Linear(4, 4, rng=rng), *norms)
    options = {"loss": "mse", "optimizer": "adam", "batch_size": 20, "quiet": True}
    assert ddbp.Trainer(model, shards=asked, **options).options.shards == expected
