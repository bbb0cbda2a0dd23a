"""What workers compute that train apart and exchange what they have learned seldom."""

from itertools import pairwise

import numpy as np
import pytest

import ddbp
from ddbp.compression.bits import Codes
from ddbp.data.order import permutation
from ddbp.seldom.fragment import cut
from layers import BatchNorm, Dropout, FlatParameters
from tests.layers.families.oracle import F, torch

from .exchanges import EVEN, common
from .small import DATA, LABELS, X, make, network, parameters


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
