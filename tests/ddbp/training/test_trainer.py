"""The trainer in one process: whole runs, loops, shards, evaluation, penalties."""

import copy

import numpy as np
import pytest

import ddbp
from layers import (
    Composite,
    Dropout,
    Linear,
    MeanSquaredError,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Tape,
)

from .small import DATA, LABELS, X, make, network, parameters

# Whole runs


def test_training_lowers_loss_and_raises_accuracy():
    history = make().fit(DATA, epochs=20, validation=DATA)
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert history[-1]["validation_accuracy"] > 0.9


def test_history_has_a_record_per_epoch():
    history = make().fit(DATA, epochs=3, validation=DATA)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert [record["step"] for record in history] == [5, 10, 15]
    names = {
        "epoch",
        "step",
        "loss",
        "samples_per_second",
        "seconds",
        "validation_loss",
        "validation_accuracy",
    }
    assert all(record.keys() == names for record in history)


def test_loss_of_an_epoch_weighs_its_batches_by_their_samples():
    trainer = make(optimizer=ddbp.SGD(0.0))
    (record,) = trainer.fit(DATA, epochs=1)
    # Nothing moves with a rate of 0, so this is the mean over all samples, the 3 of the last batch
    # among them.
    assert record["loss"] == pytest.approx(trainer.evaluate(DATA)["loss"], rel=1e-6)


def test_second_run_has_the_same_bits():
    runs = []
    for _ in range(2):
        trainer = make(network(Dropout(0.25)), clip_norm=1.0)
        history = trainer.fit(DATA, epochs=3)
        runs.append((trainer.parameters_sha256(), [record["loss"] for record in history]))
    assert runs[0] == runs[1]


def test_another_seed_gives_another_run():
    digests = set()
    for seed in range(3):
        trainer = make(seed=seed)
        trainer.fit(DATA, epochs=1)
        digests.add(trainer.parameters_sha256())
    assert len(digests) == 3


def test_two_fits_go_on_where_one_would():
    one, two = make(), make()
    one.fit(DATA, epochs=4)
    two.fit(DATA, epochs=2)
    two.fit(DATA, epochs=2)
    assert two.parameters_sha256() == one.parameters_sha256()


def test_epochs_have_different_orders():
    trainer = make(optimizer=ddbp.SGD(0.0))
    orders = [
        tuple(label for batch in trainer.batches(DATA) for label in batch.y.tolist())
        for _ in range(3)
    ]
    assert len(set(orders)) == 3
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(LABELS.tolist()))}


def test_float64_data_train_as_their_float32_copies():
    digests = set()
    for x in (X, X.astype(np.float32)):
        trainer = make()
        trainer.fit(ddbp.ArrayDataset(x, LABELS), epochs=2)
        digests.add(trainer.parameters_sha256())
    assert len(digests) == 1


def test_regression_learns():
    y = np.stack([X[:, 0] * X[:, 1], X[:, 2], np.sin(X[:, 3])], axis=1)
    history = make(loss=MeanSquaredError(), optimizer=ddbp.Adam(0.01)).fit(
        ddbp.ArrayDataset(X, y), epochs=30
    )
    assert history[-1]["loss"] < history[0]["loss"] / 3
    assert "accuracy" not in history[-1]


# Custom loops


def test_two_loops_may_take_turns():
    trainer, other = make(), ddbp.ArrayDataset(X[:40], LABELS[:40])
    turns = zip(trainer.batches(DATA, epochs=2), trainer.batches(other, epochs=5), strict=True)
    sizes = [(len(first.y), len(second.y)) for first, second in turns]
    assert sizes == [(20, 20)] * 4 + [(3, 20)] + [(20, 20)] * 4 + [(3, 20)]


BETWEEN = {
    "batch": lambda trainer: trainer.batch(X[:20], LABELS[:20]),
    "train_step": lambda trainer: trainer.train_step(X[:20], LABELS[:20]),
    "fit": lambda trainer: trainer.fit(DATA, epochs=1),
    "fork": lambda trainer: trainer.fork(1, data=DATA),
    "lr_find": lambda trainer: ddbp.lr_find(trainer, DATA),
    "another loop": lambda trainer: next(trainer.batches(DATA)),
}


def by_hand(trainer, loss):
    loss.backward()
    trainer.update(loss)


@pytest.mark.parametrize("between", BETWEEN.values(), ids=[*BETWEEN])
@pytest.mark.parametrize("take", [ddbp.Trainer.step, by_hand])
def test_a_batch_whose_memory_another_has_taken_is_refused_its_step(between, take):
    trainer = make()
    for batch in trainer.batches(DATA):
        loss = trainer.loss(trainer.model(batch.x), batch.y)
        between(trainer)
        before = parameters(trainer)
        with pytest.raises(ValueError, match=r"batch that was made last|has used since"):
            take(trainer, loss)
        np.testing.assert_array_equal(parameters(trainer), before)
        break


def test_custom_loop_has_the_bits_of_fit():
    fitted, looped = make(network(Dropout(0.25))), make(network(Dropout(0.25)))
    history = fitted.fit(DATA, epochs=3)
    losses = [
        (looped.step(looped.loss(looped.model(batch.x), batch.y)), batch.samples)
        for batch in looped.batches(DATA, epochs=3)
    ]
    assert looped.parameters_sha256() == fitted.parameters_sha256()
    last = losses[-5:]
    assert sum(loss * samples for loss, samples in last) / len(DATA) == history[-1]["loss"]


def test_train_step_on_the_same_batches_has_the_bits_of_the_loop():
    looped, stepped = make(), make()
    x = X.astype(np.float32)
    for rows in np.split(np.arange(80), 4):
        batch = looped.batch(x[rows], LABELS[rows])
        loss = looped.step(looped.loss(looped.model(batch.x), batch.y))
        assert stepped.train_step(x[rows], LABELS[rows]) == loss
    assert stepped.parameters_sha256() == looped.parameters_sha256()


def test_steps_go_on_where_training_is():
    trainer, other = make(accumulate=2), make(accumulate=2)
    x, taken, again = X.astype(np.float32), [], []

    def train(trainer, count, told):
        for step in trainer.steps(count):
            told.append(step)
            rows = slice(20 * (step % 4), 20 * (step % 4) + 20)
            trainer.train_step(x[rows], LABELS[rows])

    train(trainer, 3, taken)
    state = trainer.state()
    train(trainer, 5, taken)
    assert taken == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    other.load_state(state)
    train(other, 5, again)
    assert again == taken[6:]
    assert other.parameters_sha256() == trainer.parameters_sha256()
    train(trainer, 5, taken)
    assert len(taken) == 10


@pytest.mark.parametrize("count", [0, -1, 2.5, "3", None])
def test_count_of_steps_must_be_a_positive_integer(count):
    with pytest.raises((TypeError, ValueError), match=r"Trainer\.steps: count must be"):
        next(make().steps(count))


def test_backward_and_update_are_a_step():
    stepped, updated = make(), make()
    for trainer, by_hand in ((stepped, False), (updated, True)):
        for batch in trainer.batches(DATA):
            loss = trainer.loss(trainer.model(batch.x), batch.y)
            if by_hand:
                loss.backward()
                trainer.update(loss)
            else:
                trainer.step(loss)
    assert updated.parameters_sha256() == stepped.parameters_sha256()


def test_loss_may_be_made_of_several_terms():
    trainer = make(loss=None)
    first, second = trainer.model.layers[0], trainer.model.layers[-1]
    batch = trainer.batch(X[:20].astype(np.float32), LABELS[:20])
    hidden = first(batch.x)
    loss = SoftmaxCrossEntropy()(second(hidden), batch.y) + 0.5 * (hidden**2).sum() / batch.samples
    assert trainer.step(loss) == pytest.approx(loss.item(), rel=1e-6)
    assert trainer.step_count == 1


class TwoBranches(Composite):
    """A model that uses one of its two branches at a time."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.branches = [Linear(6, 3, rng=rng), Linear(6, 3, rng=rng)]
        self.used = 0

    def __call__(self, x):
        return self.branches[self.used](x)


@pytest.mark.parametrize("shards", [1, 4])
def test_parameter_without_use_in_a_step_has_no_gradient_then(shards):
    model = TwoBranches()
    trainer = make(model, optimizer=ddbp.SGD(0.1), shards=shards)
    x, labels = X[:20].astype(np.float32), LABELS[:20]
    trainer.train_step(x, labels)
    before = model.branches[0].weight.value.copy()
    model.used = 1
    trainer.train_step(x, labels)
    assert model.branches[0].weight.value.tobytes() == before.tobytes()


# The model's memory


@pytest.mark.parametrize(
    ("move", "name"),
    [
        (lambda model: make(model), "layers.0.weight"),
        (lambda model: make(model[2]), "layers.2.weight"),
        (lambda model: model[0].bias.cast(np.float64), "layers.0.bias"),
    ],
    ids=["another trainer", "a trainer of a part", "another type"],
)
def test_trainer_whose_parameters_have_moved_is_refused_before_it_changes_anything(move, name):
    trainer, x = make(), X[:20].astype(np.float32)
    trainer.train_step(x, LABELS[:20])
    move(trainer.model)
    before, gradients = (
        parameters(trainer),
        [parameter.gradients for parameter in trainer.model.parameters()],
    )
    said = (
        rf"Trainer: the parameters must stay in the memory .*; got {name} moved, by another trainer"
        r" of it or a change of type\. "
    )
    for _ in range(2):
        with pytest.raises(RuntimeError, match=said):
            trainer.train_step(x, LABELS[:20])
    assert parameters(trainer).tobytes() == before.tobytes()
    assert all(
        a is b
        for a, b in zip(
            gradients,
            (parameter.gradients for parameter in trainer.model.parameters()),
            strict=True,
        )
    )


def test_second_trainer_goes_on_and_trainers_of_other_models_do_not_mind():
    first, other = make(), make()
    second = make(first.model)
    reference = make()
    for trainer in (second, other, reference):
        trainer.fit(DATA, epochs=1)
    assert second.parameters_sha256() == other.parameters_sha256() == reference.parameters_sha256()


# The optimizer


def larger_model():
    """Return a network that is larger than that of `make`."""
    rng = np.random.default_rng(3)
    return Sequential(Linear(X.shape[1], 80, rng=rng), Linear(80, 3, rng=rng))


@pytest.mark.parametrize("use", ["train_step", "fit", "batches", "a batch that it has made before"])
def test_trainer_whose_optimizer_another_has_got_is_refused_before_it_changes_anything(use):
    optimizer, x, y = ddbp.SGD(0.125, momentum=0.5), X[:20].astype(np.float32), LABELS[:20]
    first = make(optimizer=optimizer)
    first.train_step(x, y)
    batch = first.batch(x, y)
    loss = first.loss(first.model(batch.x), batch.y)
    second, alone = (
        make(larger_model(), optimizer=optimizer),
        make(larger_model(), optimizer=ddbp.SGD(0.125, momentum=0.5)),
    )
    before = parameters(first)
    deeds = {
        "train_step": lambda: first.train_step(x, y),
        "fit": lambda: first.fit(DATA, epochs=1),
        "batches": lambda: next(first.batches(DATA)),
        "a batch that it has made before": lambda: first.step(loss),
    }
    got = r"got SGD\(0\.125, .*\), with which another trainer was made since\. "
    with pytest.raises(
        RuntimeError,
        match=(
            rf"Trainer: the optimizer must belong to this trainer; {got}Make an optimizer for each"
        ),
    ):
        deeds[use]()
    assert parameters(first).tobytes() == before.tobytes()
    for trainer in (second, alone):
        trainer.fit(DATA, epochs=1)
    assert parameters(second).tobytes() == parameters(alone).tobytes()


def test_optimizer_goes_on_to_the_next_trainer_of_a_model_with_a_fresh_state():
    optimizer = ddbp.SGD(0.125, momentum=0.5)
    first = make(optimizer=optimizer)
    first.fit(DATA, epochs=1)
    middle = copy.deepcopy(first.model)
    second, afresh = (
        make(first.model, optimizer=optimizer),
        make(middle, optimizer=ddbp.SGD(0.125, momentum=0.5)),
    )
    for trainer in (second, afresh):
        trainer.fit(DATA, epochs=1)
    assert parameters(second).tobytes() == parameters(afresh).tobytes()


# Shards and the last batch


@pytest.mark.parametrize("shards", [2, 5, 8, 20])
def test_shards_change_the_run_by_rounding_only(shards):
    one, many = make(network(dtype=np.float64)), make(network(dtype=np.float64), shards=shards)
    histories = [trainer.fit(DATA, epochs=3, validation=DATA) for trainer in (one, many)]
    np.testing.assert_allclose(parameters(many), parameters(one), rtol=0, atol=1e-13)
    assert histories[1][-1]["validation_loss"] == pytest.approx(
        histories[0][-1]["validation_loss"], rel=1e-13
    )


def test_last_batch_may_leave_shards_empty():
    # 83 = 4 * 20 + 3 samples: five of eight shards of the last batch have none.
    trainer, reference = make(network(dtype=np.float64), shards=8), make(network(dtype=np.float64))
    for one in (trainer, reference):
        one.train_step(X[-3:], LABELS[-3:])
    np.testing.assert_allclose(parameters(trainer), parameters(reference), rtol=0, atol=1e-14)


def test_sums_of_the_shards_make_up_the_loss():
    trainer = make(network(dtype=np.float64), shards=8)
    batch = trainer.batch(X[:19], LABELS[:19])
    loss = trainer.loss(trainer.model(batch.x), batch.y)
    assert loss.shard_sums.shape == (8,)
    assert loss.shard_sums.sum() / 19 == pytest.approx(loss.item(), rel=1e-14)
    assert trainer.step(loss) == pytest.approx(loss.item(), rel=1e-14)


def test_model_without_trainer_gives_the_gradient_that_the_trainer_takes():
    model, reference = network(dtype=np.float64), network(dtype=np.float64)
    trainer = make(model, optimizer=ddbp.SGD(1.0))
    before = parameters(trainer)
    trainer.train_step(X[:20], LABELS[:20])
    SoftmaxCrossEntropy()(reference(Tape().input(X[:20])), LABELS[:20]).backward()
    gradient = np.concatenate(
        [parameter.gradient.reshape(-1) for parameter in reference.parameters()]
    )
    np.testing.assert_allclose(before - parameters(trainer), gradient, rtol=0, atol=1e-15)


# Evaluation and prediction


@pytest.mark.parametrize("batch_size", [1, 20, 50, 83])
@pytest.mark.parametrize("shards", [1, 8])
def test_evaluation_in_batches_is_that_of_all_samples_at_once(batch_size, shards):
    trainer = make(network(dtype=np.float64), batch_size=batch_size, shards=shards)
    logits = trainer.model(X)
    found = trainer.evaluate(DATA)
    assert found["loss"] == pytest.approx(float(SoftmaxCrossEntropy()(logits, LABELS)), rel=1e-14)
    assert found["accuracy"] == np.mean(logits.argmax(axis=1) == LABELS)


def test_evaluation_drops_nothing_out_and_changes_nothing():
    trainer = make(network(Dropout(0.5)))
    before = trainer.parameters_sha256()
    assert trainer.evaluate(DATA) == trainer.evaluate(DATA) == make(network()).evaluate(DATA)
    assert trainer.parameters_sha256() == before


def test_evaluation_between_steps_does_not_change_the_run():
    plain, watched = make(network(Dropout(0.25))), make(network(Dropout(0.25)))
    plain.fit(DATA, epochs=2)
    watched.fit(DATA, epochs=2, validation=ddbp.ArrayDataset(X[:7], LABELS[:7]))
    assert watched.parameters_sha256() == plain.parameters_sha256()


def test_own_metrics_are_reported_as_means_over_samples():
    trainer = make(metrics={"label": lambda prediction, target: target})
    assert trainer.evaluate(DATA)["label"] == pytest.approx(LABELS.mean(), rel=1e-14)


def test_prediction_in_batches_has_the_bits_of_all_at_once():
    trainer = make()
    trainer.fit(DATA, epochs=1)
    assert trainer.predict(X).tobytes() == trainer.model(X.astype(np.float32)).tobytes()


def test_prediction_for_nothing_is_empty():
    assert make().predict(np.zeros((0, 6))).shape == (0, 3)


# Penalties


@pytest.mark.parametrize(("l1", "l2"), [(0.1, 0.0), (0.0, 0.3), (0.1, 0.3)])
@pytest.mark.parametrize("shards", [1, 4])
def test_penalties_take_part_in_loss_and_gradient(l1, l2, shards):
    rng = np.random.default_rng(1)
    model = Sequential(
        Linear(6, 4, rng=rng, dtype=np.float64), Tanh(), Linear(4, 3, rng=rng, dtype=np.float64)
    )
    trainer = make(model, optimizer=ddbp.SGD(1.0), l1=l1, l2=l2, shards=shards)

    def objective():
        weights = [layer.weight.value for layer in (model[0], model[2])]
        penalty = sum(l1 * np.abs(w).sum() + l2 * (w**2).sum() / 2 for w in weights)
        return float(SoftmaxCrossEntropy()(model(X[:20]), LABELS[:20])) + penalty

    h = 1e-6
    expected, before = [], []
    for parameter in model.parameters():
        for i in np.ndindex(parameter.shape):
            value = parameter.value[i]
            before.append(value)
            parameter.value[i] = value + h
            above = objective()
            parameter.value[i] = value - h
            expected.append((above - objective()) / (2 * h))
            parameter.value[i] = value
    loss = objective()
    assert trainer.train_step(X[:20], LABELS[:20]) == pytest.approx(loss, rel=1e-13)
    # The difference quotient is good to h² and to the roundoff of the objective over h.
    np.testing.assert_allclose(np.array(before) - parameters(trainer), expected, rtol=0, atol=1e-8)
