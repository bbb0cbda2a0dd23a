"""Workers that train apart and exchange what they have learned seldom."""

from itertools import pairwise

import numpy as np
import pytest

import ddbp
from ddbp.comm.serial import SerialCommunicator
from ddbp.compression.bits import Codes
from ddbp.data.order import permutation
from ddbp.seldom.fragment import cut
from layers import BatchNorm, Dropout, FlatParameters
from tests.layers.families.oracle import F, torch

from .small import DATA, LABELS, X, make, network, parameters

EXCHANGES = [
    ddbp.LocalSGD(4, 3),
    ddbp.LocalSGD(2, 4, after=3),
    ddbp.DiLoCo(4, 4),
    ddbp.DiLoCo(4, 4, fragments=2, bits=4),
    ddbp.DiLoCo({0: 4, 2: 5, 4: 2}, 4, fragments=2),
]
EVEN = ddbp.ArrayDataset(X[:80], LABELS[:80])


def common(trainer):
    """Return a copy of the parameters that workers have in common."""
    trainer.evaluate(EVEN)
    return parameters(trainer)


# What is computed


@pytest.mark.parametrize("workers", [1, 4])
def test_averages_after_each_batch_are_those_of_workers_that_sum_gradients(workers):
    local = make(exchange=ddbp.LocalSGD(workers, 1))
    summed = make(shards=workers)
    assert local.fit(EVEN, epochs=3)[-1]["loss"] == pytest.approx(
        summed.fit(EVEN, epochs=3)[-1]["loss"], rel=1e-4
    )
    np.testing.assert_allclose(parameters(local), parameters(summed), rtol=1e-4, atol=1e-6)


def quantised(rows, bits):
    """Return what numbers of a worker are in so many bits."""
    codes = Codes(rows.size, bits)
    sent, result = np.zeros(codes.nbytes, np.uint8), np.empty_like(rows)
    codes.encode(sent, rows, sent)
    codes.decode(result, sent, 0)
    return result


def torch_diloco(exchange, optimizer, epochs, batch_size):
    """Return the parameters after training by the published algorithm, written with PyTorch."""
    rows = [DATA.x.astype(np.float32)[:80], LABELS[:80]]
    model = network()
    names = [name for name, _ in model.named_parameters()]
    flat = FlatParameters(model)
    shared = [torch.tensor(each.value.copy()) for each in model.parameters()]
    outer = [each.clone().requires_grad_() for each in shared]
    rate, momentum = exchange.outer().given.base_rate, exchange.outer().momentum
    step_outer = torch.optim.SGD(outer, lr=rate, momentum=momentum, nesterov=momentum > 0)
    workers = [[each.clone().requires_grad_() for each in shared] for _ in range(exchange.workers)]
    inner = [optimizer(worker) for worker in workers]
    places = cut(flat, exchange.fragments)
    members = [
        [i for i, start in enumerate(flat.starts) if place.start <= start < place.stop]
        for place in places
    ]
    assert names == flat.names
    count = 0
    for epoch in range(epochs):
        order = permutation(80, 0, epoch)
        for start in range(0, 80, batch_size):
            of_workers = np.split(order[start : start + batch_size], exchange.workers)
            for worker, step, mine in zip(workers, inner, of_workers, strict=True):
                x, y = (torch.tensor(each[mine]) for each in rows)
                w1, b1, w2, b2 = worker
                loss = F.cross_entropy(F.linear(F.relu(F.linear(x, w1, b1)), w2, b2), y)
                step.zero_grad()
                loss.backward()
                step.step()
            count += 1
            stride = exchange.every // exchange.fragments
            if epoch == epochs - 1 and start + batch_size == 80:
                chosen = [*range(len(outer))]
            elif count % stride:
                continue
            else:
                chosen = members[(count // stride - 1) % exchange.fragments]
            with torch.no_grad():
                for i in chosen:
                    moved = [outer[i] - worker[i] for worker in workers]
                    outer[i].grad = sum(moved) / len(moved)
            frozen = [each for i, each in enumerate(outer) if i not in chosen]
            for each in frozen:
                each.grad = None
            step_outer.step()
            with torch.no_grad():
                for worker in workers:
                    for i in chosen:
                        worker[i].copy_(outer[i])
    return np.concatenate([each.detach().numpy().reshape(-1) for each in outer])


@pytest.mark.parametrize(
    "exchange",
    [
        ddbp.LocalSGD(4, 3),
        ddbp.DiLoCo(4, 4),
        ddbp.DiLoCo(2, 3, outer_rate=0.5, outer_momentum=0.8),
        ddbp.DiLoCo(4, 6, fragments=3),
    ],
    ids=str,
)
def test_parameters_are_those_of_the_published_algorithm_in_pytorch(exchange):
    trainer = make(optimizer=ddbp.AdamW(0.01, weight_decay=0.0), exchange=exchange)
    trainer.fit(EVEN, epochs=5)
    expected = torch_diloco(
        exchange, lambda w: torch.optim.AdamW(w, lr=0.01, weight_decay=0.0), 5, 20
    )
    np.testing.assert_allclose(common(trainer), expected, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("bits", [4, 8])
def test_outer_gradients_in_few_bits_are_the_mean_of_what_codes_stand_for(bits):
    batches = [slice(start, start + 20) for start in (0, 20, 40)]
    halves = slice(0, 10), slice(10, 20)
    start = make()._update.flat.values
    moved = []
    for half in halves:
        alone = make(exchange=ddbp.LocalSGD(1, 100), batch_size=10)
        for batch in batches:
            alone.train_step(X[batch][half], LABELS[batch][half])
        alone._update.rest()
        moved.append(quantised(start - alone._update._values[0], bits))
    exchange = ddbp.DiLoCo(2, 3, outer_rate=0.5, outer_momentum=0.0, bits=bits)
    together = make(exchange=exchange)
    for batch in batches:
        together.train_step(X[batch], LABELS[batch])
    found = together._update.flat.values
    assert not np.array_equal(found, start)
    np.testing.assert_allclose(found, start - (moved[0] + moved[1]) / 4, rtol=1e-6, atol=1e-7)


def test_what_codes_leave_out_is_sent_next():
    exchange = ddbp.DiLoCo(2, 2, outer_rate=1.0, outer_momentum=0.0, bits=4)
    coded = make(exchange=exchange, optimizer=ddbp.SGD(1e-3))
    exact = make(exchange=ddbp.LocalSGD(2, 2), optimizer=ddbp.SGD(1e-3))
    start = parameters(coded)
    for _ in range(20):
        for trainer in (coded, exact):
            trainer.train_step(X[:20], LABELS[:20])
    moved = np.abs(parameters(exact) - start).max()
    # Without that the errors of ten exchanges would add up.
    np.testing.assert_allclose(parameters(coded), parameters(exact), atol=moved / 10 / 5)


def test_fragments_are_whole_parameters_and_nearly_equal():
    flat = FlatParameters(network())
    for fragments in (1, 2, 3, 4):
        places = cut(flat, fragments)
        assert [places[0].start, places[-1].stop] == [0, flat.values.size]
        assert all(a.stop == b.start for a, b in pairwise(places))
        assert all(place.start in flat.starts for place in places)


def test_workers_go_on_apart_between_exchanges_and_have_masks_of_their_own():
    trainer = make(network(Dropout(0.5)), exchange=ddbp.LocalSGD(2, 100))
    for _ in range(4):
        trainer.train_step(X[:20], LABELS[:20])
    trainer.evaluate(EVEN)
    first, second = trainer._update._values
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(parameters(trainer), parameters(make(network(Dropout(0.5)))))


def test_masks_differ_from_batch_to_batch_of_a_round():
    same = ddbp.ArrayDataset(np.ones((80, 6)), np.zeros(80, np.int64))
    trainer = make(network(Dropout(0.5)), exchange=ddbp.LocalSGD(1, 4), optimizer=ddbp.SGD(1e-9))
    losses = []
    for batch in trainer.batches(same, epochs=1):
        value = trainer.loss(trainer.model(batch.x), batch.y)
        losses.append(float(value.array))
        trainer.step(value)
    assert len(set(losses)) == 4


def test_the_loss_of_an_epoch_counts_every_sample_once():
    trainer = make(optimizer=ddbp.SGD(1e-12), exchange=ddbp.LocalSGD(4, 3))
    history = trainer.fit(EVEN, epochs=3, validation=EVEN)
    for record in history:
        assert record["loss"] == pytest.approx(record["validation_loss"], rel=1e-6)
    assert [record["step"] for record in history] == [1, 2, 4]
    history = trainer.fit(EVEN, epochs=2, validation=EVEN)
    for record in history:
        assert record["loss"] == pytest.approx(record["validation_loss"], rel=1e-6)
    # After batches 15, 18 and, as the run ends there, 20.
    assert [record["step"] for record in history] == [5, 7]


def test_statistics_of_workers_are_averaged():
    trainer = make(network(BatchNorm(16)), exchange=ddbp.LocalSGD(2, 4))
    trainer.fit(EVEN, epochs=1)
    update = trainer._update
    for common_state, *own in zip(update._common_states, *update._own_states, strict=True):
        for each in own:
            np.testing.assert_array_equal(each, common_state)
    named = dict(trainer.model.named_states())
    assert all(np.isfinite(state.value).all() for state in named.values())
    alone = make(network(BatchNorm(16)), exchange=ddbp.LocalSGD(2, 100))
    with pytest.warns(RuntimeWarning, match="every=100, 4 batches"):
        alone.fit(EVEN, epochs=1)
    means = [np.mean(each, axis=0) for each in zip(*alone._update._own_states, strict=True)]
    for mean, found in zip(means, update._common_states, strict=True):
        np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)


# The end of a run


@pytest.mark.parametrize(
    "exchange",
    [ddbp.LocalSGD(4, 1000), ddbp.DiLoCo(4, 1000, outer_rate=1.0, outer_momentum=0.0, fragments=2)],
    ids=str,
)
def test_a_run_shorter_than_a_round_ends_with_the_mean_of_the_workers_and_says_so(exchange):
    stepped = make(exchange=exchange)
    for epoch in range(3):
        order = permutation(80, 0, epoch)
        for start in range(0, 80, 20):
            rows = order[start : start + 20]
            stepped.train_step(EVEN.x[rows], LABELS[rows])
    stepped._update.rest()
    trainer = make(exchange=exchange)
    with pytest.warns(RuntimeWarning, match="at most the batches of the whole run; got every=1000"):
        history = trainer.fit(EVEN, epochs=3, validation=EVEN)
    expected = stepped._update._values.mean(axis=0)
    np.testing.assert_allclose(trainer._flat.values, expected, rtol=1e-4, atol=1e-6)
    assert [record["step"] for record in history] == [0, 0, 1]
    assert history[-1]["validation_loss"] < history[1]["validation_loss"]


class Stopping(ddbp.Callback):
    """Stops a run at the end of its second epoch."""

    def on_epoch_end(self, trainer, record):
        trainer.stop = record["epoch"] == 2


class Steps(ddbp.Callback):
    """Notes what it is told of steps."""

    def __init__(self):
        self.losses = []

    def on_step_end(self, trainer, step, loss):
        self.losses.append(loss)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_a_run_that_is_stopped_loses_nothing_that_workers_have_trained(exchange):
    steps = Steps()
    trainer = make(exchange=exchange, callbacks=[Stopping(), steps])
    history = trainer.fit(EVEN, epochs=9)
    update = trainer._update
    for values in update._values:
        np.testing.assert_array_equal(values, trainer._flat.values)
    assert len(history) == 2
    assert len(steps.losses) == trainer.step_count
    assert np.isfinite(steps.losses).all()
    # There is nothing left that another end of a run would change.
    before = trainer.parameters_sha256()
    assert not update.close(trainer.step_count, ())
    assert trainer.parameters_sha256() == before


def test_fragments_that_have_just_been_exchanged_are_not_moved_again_where_a_run_is_stopped():
    exchange = ddbp.DiLoCo(4, 8, fragments=2)
    trainer = make(exchange=exchange, callbacks=[Stopping()])
    kept = Keeping(2)
    other = make(exchange=exchange, callbacks=[kept])
    trainer.fit(EVEN, epochs=9)
    other.fit(EVEN, epochs=9)
    first, second = cut(trainer._flat, 2)
    before = make(exchange=exchange)
    before.load_state(kept.state)
    # Eight batches are over: the second fragment has had its turn.
    after, then = trainer._flat.values, before._flat.values
    np.testing.assert_array_equal(after[second], then[second])
    assert not np.array_equal(after[first], then[first])


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_a_round_that_is_ended_leaves_all_workers_with_what_they_have_trained(exchange):
    steps = Steps()
    stepped = make(exchange=exchange, callbacks=[steps])
    for _ in range(3):
        stepped.train_step(X[:20], LABELS[:20])
    exchanges = stepped.step_count
    workers = stepped._update._values.copy()
    loss = stepped.end_round()
    update = stepped._update
    for values in update._values:
        np.testing.assert_array_equal(values, stepped._flat.values)
    if isinstance(exchange, ddbp.LocalSGD) and not exchange.after:
        np.testing.assert_allclose(stepped._flat.values, workers.mean(axis=0), rtol=1e-4, atol=1e-6)
    fragmented = exchange.fragments > 1
    if exchange.due(3) is None:
        assert np.isfinite(loss)
    if exchange.due(3) is None or fragmented:
        assert stepped.step_count == exchanges + 1 == len(steps.losses)
    # Nothing is left.
    before = stepped.parameters_sha256()
    assert np.isnan(stepped.end_round())
    assert stepped.parameters_sha256() == before
    # Workers go on, and what they train then is exchanged, by the step itself or with the round.
    told = stepped.train_step(X[:20], LABELS[:20]), stepped.end_round()
    assert np.isfinite(told).any()
    assert stepped.parameters_sha256() != before


def test_the_loss_of_a_round_that_is_ended_is_the_mean_of_its_batches():
    trainer = make(exchange=ddbp.LocalSGD(2, 100), optimizer=ddbp.SGD(1e-12))
    for start in (0, 20):
        trainer.train_step(X[start : start + 20], LABELS[start : start + 20])
    found = trainer.evaluate(ddbp.ArrayDataset(X[:40], LABELS[:40]))["loss"]
    assert trainer.end_round() == pytest.approx(found, rel=1e-6)


def test_where_gradients_are_exchanged_in_each_step_there_is_no_round_to_end():
    trainer = make()
    trainer.train_step(X[:20], LABELS[:20])
    before = trainer.parameters_sha256()
    assert np.isnan(trainer.end_round())
    assert (trainer.step_count, trainer.parameters_sha256()) == (1, before)


class Ending(ddbp.Callback):
    """Ends rounds within a fit."""

    def on_step_end(self, trainer, step, loss):
        trainer.end_round()

    def on_epoch_end(self, trainer, record):
        trainer.end_round()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_rounds_that_callbacks_end_are_counted_once_in_the_losses_of_epochs(exchange):
    trainer = make(exchange=exchange, callbacks=[Ending()], optimizer=ddbp.SGD(1e-12))
    for record in trainer.fit(EVEN, epochs=3, validation=EVEN):
        assert record["loss"] == pytest.approx(record["validation_loss"], rel=1e-6)


# How it is called


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_steps_on_given_batches_and_loops_have_the_bits_of_fit(exchange):
    fitted = make(exchange=exchange)
    fitted.fit(EVEN, epochs=5)
    looped = make(exchange=exchange)
    for batch in looped.batches(EVEN, epochs=5):
        looped.step(looped.loss(looped.model(batch.x), batch.y))
    left, stepped = make(exchange=exchange), make(exchange=exchange)
    for batch in left.batches(EVEN, epochs=6):
        if left.epoch == 5:
            break
        left.step(left.loss(left.model(batch.x), batch.y))
    for epoch in range(5):
        order = permutation(80, 0, epoch)
        for start in range(0, 80, 20):
            rows = order[start : start + 20]
            stepped.train_step(EVEN.x[rows], LABELS[rows])
    for other, same in ((looped, fitted), (stepped, left)):
        np.testing.assert_array_equal(common(other), common(same))
        assert other.step_count == same.step_count > 0


def test_a_step_without_an_exchange_has_no_loss_yet():
    trainer = make(exchange=ddbp.LocalSGD(2, 3))
    losses = [trainer.train_step(X[:20], LABELS[:20]) for _ in range(6)]
    assert [np.isnan(loss) for loss in losses] == [True, True, False] * 2
    assert trainer.step_count == 2


def test_what_a_script_makes_of_the_parameters_is_what_all_workers_go_on_with():
    trainer = make(exchange=ddbp.DiLoCo(2, 4, fragments=2), optimizer=ddbp.SGD(1e-12))
    trainer.train_step(X[:20], LABELS[:20])
    with ddbp.modify_parameters(trainer) as mine:
        assert mine
        trainer.model.parameters()[0].value = np.full((16, 6), 3.0)
    trainer.fit(EVEN, epochs=3)
    np.testing.assert_allclose(trainer.model.parameters()[0].value, 3.0, rtol=1e-5)


def test_best_weights_are_those_that_workers_had_in_common():
    best = ddbp.BestWeights("validation_loss", restore=True)
    trainer = make(exchange=ddbp.LocalSGD(2, 3), callbacks=[best], optimizer=ddbp.SGD(5.0))
    history = trainer.fit(EVEN, epochs=4, validation=EVEN)
    assert trainer.evaluate(EVEN)["loss"] == min(each["validation_loss"] for each in history)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_a_configuration_holds_the_exchange_as_a_text(exchange, tmp_path):
    trainer = make(exchange=str(exchange), run_dir=tmp_path)
    assert trainer.options.exchange == exchange
    trainer.fit(EVEN, epochs=1)
    assert ddbp.TrainerOptions.read(tmp_path).exchange == exchange


# States


class Keeping(ddbp.Callback):
    """Keeps the state at the end of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, trainer, record):
        if record["epoch"] == self.epoch:
            self.state = trainer.state()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
@pytest.mark.parametrize("epochs", [1, 3])
def test_training_goes_on_from_a_state_to_the_same_bits(exchange, epochs):
    whole = make(network(Dropout(0.2), BatchNorm(16)), exchange=exchange)
    whole.fit(EVEN, epochs=5)
    keeping = Keeping(epochs)
    first = make(network(Dropout(0.2), BatchNorm(16)), exchange=exchange, callbacks=[keeping])
    first.fit(EVEN, epochs=5)
    other = make(network(Dropout(0.2), BatchNorm(16)), exchange=exchange)
    other.load_state(keeping.state)
    other.fit(EVEN, epochs=5)
    assert other.parameters_sha256() == whole.parameters_sha256()


def test_other_workers_go_on_from_a_state_if_told_so():
    first = make(exchange=ddbp.DiLoCo(4, 4), optimizer=ddbp.Adam(0.01))
    first.fit(EVEN, epochs=2)
    state = first.state()
    more = make(exchange=ddbp.DiLoCo(5, 4), optimizer=ddbp.Adam(0.01))
    with pytest.raises(ValueError, match="same shards"):
        more.load_state(state)
    more._load(state, ["exchange", "shards"])
    assert more.parameters_sha256() == first.parameters_sha256()
    moments = [each.moments["mean"] for each in more._update._optimizers]
    np.testing.assert_array_equal(moments[4], moments[0])
    assert not np.array_equal(moments[1], moments[0])
    assert [each.steps for each in more._update._optimizers] == [8] * 5


def test_a_state_and_the_end_of_a_round_between_two_workers_are_refused():
    trainer = make(exchange=ddbp.LocalSGD(2, 3))
    for batch in trainer.batches(EVEN, epochs=1):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        for call in (trainer.state, trainer.end_round):
            with pytest.raises(RuntimeError, match="between two batches of all workers"):
                call()
        break


# What is refused


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"exchange": ddbp.LocalSGD(3, 4)}, "batch_size must be a multiple of the 3 workers"),
        ({"exchange": ddbp.LocalSGD({0: 4, 9: 6}, 4)}, "multiple of the 6 workers"),
        ({"accumulate": 2}, "a worker updates by each batch"),
        ({"truncate": 2}, "a worker takes whole sequences"),
        ({"loss_scale": ddbp.LossScale()}, "a worker has no loss scale"),
        ({"precision": "float16"}, "no loss scale, which float16 needs; got precision='float16'"),
        ({"rule": "feedback_alignment"}, "workers learn by backpropagation; got rule="),
        ({"on_nonfinite": "skip"}, "workers stop at numbers that are not finite"),
        ({"shards": 8}, "shards must be left out, as each of the 4 workers is one"),
        ({"exchange": ddbp.DiLoCo(4, 4, bits=8), "wire": "float16"}, "wire and bits"),
        ({"exchange": ddbp.DiLoCo(4, 4, bits=8), "compression": "sign"}, "compression and bits"),
        ({"exchange": "LocalSGD(4"}, "exchange must be a LocalSGD or a DiLoCo"),
        ({"exchange": "LocalSGD(4, often=3)"}, "exchange must be a LocalSGD or a DiLoCo"),
        ({"exchange": "LocalSGD(four, 4)"}, "exchange must be a LocalSGD or a DiLoCo"),
        ({"exchange": 4}, "exchange must be a LocalSGD or a DiLoCo"),
        ({"exchange": ddbp.DiLoCo(4, 5, fragments=5)}, "a parameter for each fragment"),
        ({"callbacks": [ddbp.Instruments()]}, "instruments and a doctor"),
        ({"doctor": True}, "instruments and a doctor"),
    ],
    ids=str,
)
def test_what_workers_that_train_apart_have_no_use_for_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        make(**{"exchange": ddbp.LocalSGD(4, 4), **options})


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (ddbp.LocalSGD, {"workers": 0, "every": 4}, "workers"),
        (ddbp.LocalSGD, {"workers": {1: 4}, "every": 4}, "from exchange 0 on"),
        (ddbp.LocalSGD, {"workers": {0: 4, 3: 0}, "every": 4}, "workers"),
        (ddbp.LocalSGD, {"workers": 4, "every": 0}, "every"),
        (ddbp.LocalSGD, {"workers": 4, "every": 4, "after": -1}, "after"),
        (ddbp.DiLoCo, {"workers": 4, "every": 4, "outer_rate": 0.0}, "outer_rate"),
        (ddbp.DiLoCo, {"workers": 4, "every": 4, "outer_momentum": 1.0}, "outer_momentum"),
        (ddbp.DiLoCo, {"workers": 4, "every": 4, "fragments": 3}, "a multiple of fragments"),
        (ddbp.DiLoCo, {"workers": 4, "every": 4, "bits": 3}, "bits must be 4 or 8"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(kind, options, text):
    with pytest.raises(ValueError, match=text):
        kind(**options)


def test_more_ranks_than_workers_are_refused():
    options = ddbp.TrainerOptions(batch_size=20, exchange=ddbp.LocalSGD({0: 4, 3: 2}, 4))
    assert options.on(2).shards == 4
    said = "2 workers allow at most 2 ranks; got 3. Start at most 2 ranks, or write more workers."
    with pytest.raises(ValueError, match=said):
        options.on(3)


def test_a_last_batch_too_small_for_all_workers_is_refused_before_training():
    trainer = make(exchange=ddbp.LocalSGD(4, 4))
    with pytest.raises(ValueError, match="a sample for each of the 4 workers"):
        trainer.fit(DATA, epochs=1)
    assert trainer.step_count == 0
    make(exchange=ddbp.LocalSGD(4, 4), drop_last=True).fit(DATA, epochs=1)


def test_calls_that_are_for_gradients_of_all_are_refused():
    trainer = make(exchange=ddbp.LocalSGD(4, 4))
    for call in (trainer.no_sync, lambda: trainer.batch(X[:20], LABELS[:20])):
        with pytest.raises(RuntimeError, match="workers that train apart"):
            call()
    trainer.fit(EVEN, epochs=1)
    assert not trainer.forkable
    with pytest.raises(RuntimeError, match="exchange gradients"):
        trainer.fork(2)
    trainer.model.parameters()[0].trainable = False
    with pytest.raises(RuntimeError, match="frozen before the trainer is made"):
        trainer.fit(EVEN, epochs=1)


def test_ranks_that_survive_each_other_are_refused(monkeypatch):
    monkeypatch.setattr(SerialCommunicator, "survives", True)
    with pytest.raises(ValueError, match="workers that train apart need ranks that stay"):
        make(exchange=ddbp.LocalSGD(4, 4))


def test_numbers_that_are_not_finite_stop_the_run():
    spoilt = X[:80].copy()
    spoilt[3] = 1e30
    trainer = make(exchange=ddbp.LocalSGD(4, 4), optimizer=ddbp.SGD(1e6))
    with pytest.raises(FloatingPointError):
        trainer.fit(ddbp.ArrayDataset(spoilt, LABELS[:80]), epochs=3)


@pytest.mark.parametrize("exchange", [ddbp.LocalSGD(4, 2), ddbp.DiLoCo(4, 4, fragments=2)], ids=str)
def test_outer_gradients_too_large_for_float16_are_found_before_the_update(exchange):
    trainer = make(exchange=exchange, compression="float16", optimizer=ddbp.SGD(1e7))
    before = trainer._flat.values.copy()
    text = 'compression="float16" needs sums of gradients of at most 65504; got larger .* in step 0'
    with pytest.raises(FloatingPointError, match=text):
        trainer.fit(EVEN, epochs=1)
    shared = np.concatenate([each.values for each in trainer._update._fragments])
    np.testing.assert_array_equal(shared, before)
