"""Of several shards, a rank keeps partial sums: when trainers add gradients up, and what a failed
pass leaves.
"""

from contextlib import nullcontext

import numpy as np
import pytest

from ddbp.reduction.shards import ShardPlan
from layers import (
    GELU,
    GRU,
    LSTM,
    RNN,
    BatchNorm,
    Conv2d,
    Embedding,
    Flatten,
    Layer,
    Linear,
    Reshape,
    Sequential,
    TapeHook,
    models,
)

from . import small
from .small import LABELS, make, network, parameters

X, ROWS = small.X.astype(np.float32), slice(0, 24)


class Probe(Layer):
    """Passes on what it gets; backward notes what another layer keeps by then, or fails."""

    def __init__(self, fails_in=()):
        self.kept, self._watched, self._passes, self._fails_in = [], [], 0, fails_in

    def watch(self, *layers):
        self._watched = list(layers)

    def forward(self, call, x):
        return x

    def backward(self, call, dy):
        self._passes += 1
        if self._passes in self._fails_in:
            raise RuntimeError("on purpose")
        self.kept.append(
            [
                parameter.gradients is not None
                for layer in self._watched
                for parameter in layer.parameters()
            ]
        )
        return (dy,)


def probed(shards, **options):
    """Return a trainer, and a probe between the first and the last layer that watches both."""
    probe = Probe()
    model = network(probe)
    probe.watch(model[-1], model[0])
    return make(model, shards=shards, batch_size=24, **options), probe


def test_gradients_of_shards_are_kept_no_longer_than_it_takes():
    trainer, probe = probed(4)
    for _ in range(3):
        trainer.train_step(X[ROWS], LABELS[ROWS])
    assert probe.kept == [[False] * 4] * 3
    assert trainer._flat.gradients.shape == (1, trainer._flat.values.size)


@pytest.mark.parametrize(
    ("rank", "kept"), [(0, [(0, 2)]), (1, [(2, 2), (4, 1)]), (2, [(5, 1), (6, 2)])]
)
def test_ranks_keep_the_largest_nodes_of_the_tree_that_they_can_form(rank, kept):
    assert ShardPlan(8, 3, rank).kept(rank) == kept


class Watching(TapeHook):
    """Notes of how many shards there are gradients when a parameter is ready."""

    def __init__(self):
        self.seen = set()

    def on_parameter_ready(self, parameter):
        self.seen.add(0 if parameter.gradients is None else len(parameter.gradients))


def _networks():
    rng = np.random.default_rng(2)

    def embedded(*middle):
        return lambda: Sequential(Embedding(9, 12, rng=rng), *[each() for each in middle])

    return {
        "dense": lambda: Sequential(
            Flatten(), Linear(11, 210, rng=rng), GELU(), Linear(210, 9, rng=rng)
        ),
        "convolution": lambda: Sequential(
            Reshape(11, 1, 1),
            Conv2d(1, 4, 1, rng=rng),
            BatchNorm(4),
            Flatten(),
            Linear(44, 9, rng=rng),
        ),
        "lstm": embedded(lambda: LSTM(12, 20, rng=rng), lambda: Linear(20, 9, rng=rng)),
        "gru": embedded(lambda: GRU(12, 20, rng=rng), lambda: Linear(20, 9, rng=rng)),
        "rnn": embedded(lambda: RNN(12, 20, rng=rng), lambda: Linear(20, 9, rng=rng)),
    }


@pytest.mark.parametrize("shards", [3, 8])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", ["dense", "convolution", "lstm", "gru", "rnn", "gpt"])
def test_sums_are_those_of_gradients_that_somebody_looks_at(kind, precision, shards):
    """Where a hook looks on, the gradients of shards are computed apart, and then added up."""
    rng = np.random.default_rng(7)
    x = rng.integers(0, 9, (40, 11))
    of_tokens = kind in ("lstm", "gru", "rnn", "gpt")
    y = x if of_tokens else x[:, 0]
    x = x if of_tokens else x.astype(np.float32)
    results = []
    for hooks in ([], [Watching()]):
        model = models.gpt(np.random.default_rng(2), 9, 11, 16, depth=1, heads=2)
        if kind != "gpt":
            model = _networks()[kind]()
        options = {"shards": shards, "precision": precision, "callbacks": hooks}
        trainer = make(model, batch_size=40, **options)
        results.append(([trainer.train_step(x, y) for _ in range(4)], parameters(trainer)))
        if hooks:
            assert hooks[0].seen == {shards}
    assert results[0][0] == results[1][0]
    assert results[0][1].tobytes() == results[1][1].tobytes()


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_recurrences_in_16_bits_take_no_more_memory_for_eight_shards(kind):
    x, held = np.random.default_rng(7).integers(0, 9, (40, 11)), []
    for shards in (1, 8):
        trainer = make(_networks()[kind](), shards=shards, batch_size=40, precision="bf16")
        for _ in range(3):
            trainer.train_step(x, x)
        held.append(trainer._workspace.nbytes)
    assert held[1] < 1.01 * held[0]


def test_one_shard_is_kept_as_it_is():
    trainer, probe = probed(1)
    trainer.train_step(X[ROWS], LABELS[ROWS])
    trainer.train_step(X[ROWS], LABELS[ROWS])
    assert probe.kept == [[True] * 4] * 2


@pytest.mark.parametrize("held", [False, True], ids=["accumulate", "no_sync"])
def test_shards_are_kept_apart_until_the_last_batch_of_a_group(held):
    trainer, probe = probed(4, **({} if held else {"accumulate": 3}))
    for number in range(6):
        with trainer.no_sync() if held and number % 3 < 2 else nullcontext():
            trainer.train_step(X[ROWS], LABELS[ROWS])
    # The last layer has contributed by then, the first one in the batches before.
    assert [kept[::2] for kept in probe.kept] == [[True, False], [True, True], [False, True]] * 2


def test_backward_of_ones_own_keeps_shards_apart_until_the_update():
    trainer, probe = probed(4)
    batch = trainer.batch(X[ROWS], LABELS[ROWS])
    loss = trainer.loss(trainer.model(batch.x), batch.y)
    loss.backward()
    assert probe.kept == [[True, True, False, False]]
    trainer.update(loss)
    assert parameters(trainer).tobytes() == one_step(4).tobytes()


def one_step(shards, **options):
    trainer = make(network(Probe()), shards=shards, batch_size=24, **options)
    trainer.train_step(X[ROWS], LABELS[ROWS])
    return parameters(trainer)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("shards", [1, 4])
def test_failed_pass_leaves_nothing_of_its_group(shards, accumulate):
    """The third pass of a trainer that updates after one or two fails: the group that it belongs to
    begins anew.
    """
    results = []
    for fails_in in ((), (3,)):
        trainer = make(
            network(Probe(fails_in)), shards=shards, batch_size=24, accumulate=accumulate
        )
        for _ in range(2):
            trainer.train_step(X[ROWS], LABELS[ROWS])
        if fails_in:
            with pytest.raises(RuntimeError, match="on purpose"):
                trainer.train_step(X[ROWS], LABELS[ROWS])
        losses = [trainer.train_step(X[ROWS], LABELS[ROWS]) for _ in range(2)]
        results.append((losses, parameters(trainer)))
    np.testing.assert_array_equal(results[1][0], results[0][0])
    assert results[1][1].tobytes() == results[0][1].tobytes()


def test_failed_pass_takes_the_batches_before_it_in_its_group_with_it():
    results = []
    for fails_in in ((), (2,)):
        trainer = make(network(Probe(fails_in)), shards=4, batch_size=24, accumulate=2)
        if fails_in:
            trainer.train_step(X[40:64], LABELS[40:64])
            with pytest.raises(RuntimeError, match="on purpose"):
                trainer.train_step(X[ROWS], LABELS[ROWS])
        for _ in range(2):
            trainer.train_step(X[ROWS], LABELS[ROWS])
        results.append(parameters(trainer))
    assert results[0].tobytes() == results[1].tobytes()


def test_parameters_that_only_some_batches_use_take_part():
    """A layer that the last batch of a group does not use has been added up all the same."""
    results = []
    for shards in (1, 4):
        model = network()
        extra = Linear(6, 6, rng=np.random.default_rng(8))
        model.extra = extra
        trainer = make(model, shards=shards, batch_size=24, accumulate=2)
        for used in (True, False) * 2:
            batch = trainer.batch(X[ROWS], LABELS[ROWS])
            trainer.step(trainer.loss(model(extra(batch.x) if used else batch.x), batch.y))
        results.append(parameters(trainer))
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-5)
    assert not (extra.weight.value == Linear(6, 6, rng=np.random.default_rng(8)).weight.value).any()
