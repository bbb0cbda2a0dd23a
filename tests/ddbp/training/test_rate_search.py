"""The range test of learning rates: what it suggests, that nothing is left of it, and what it
refuses.
"""

import math

import numpy as np
import pytest

import ddbp
from ddbp import figures
from ddbp.optim.rate_range import RateRange, smooth
from ddbp.training import rate_search
from layers import Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy

RNG = np.random.default_rng(5)
CENTRES = RNG.standard_normal((3, 12)) * 2
LABELS = RNG.integers(0, 3, 200)
DATA = ddbp.ArrayDataset(CENTRES[LABELS] + RNG.standard_normal((200, 12)), LABELS)
matplotlib = pytest.mark.skipif(
    figures.find_spec("matplotlib") is None, reason="not installed: pip install 'ddbp[report]'"
)


def made(optimizer=None, **options):
    """Return a trainer of a network with random masks."""
    rng = np.random.default_rng(1)
    model = Sequential(Linear(12, 24, rng=rng), ReLU(), Dropout(0.2), Linear(24, 3, rng=rng))
    usual = {"loss": SoftmaxCrossEntropy(), "batch_size": 16, "shards": 8, "quiet": True}
    return ddbp.Trainer(model, optimizer=optimizer or ddbp.Adam(0.01), **usual | options)


def test_each_step_has_the_rate_that_is_said():
    # A step of plain descent moves parameters by its rate times the gradient: with so low rates
    # that nothing else changes, losses fall as the sum of the rates.
    trainer = made(ddbp.SGD(1.0))
    found = ddbp.lr_find(trainer, DATA, lowest=1e-4, highest=1e-2, steps=11)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 1e-2, 11), rtol=1e-12)
    plain = made(ddbp.SGD(ddbp.Exponential(1e-4, factor=100, steps=10)))
    assert found.losses == plain.fork(11, data=DATA)


def test_the_rates_begin_anew_for_a_trainer_that_has_taken_steps():
    trainer = made()
    trainer.fit(DATA, epochs=2)
    found = ddbp.lr_find(trainer, DATA, lowest=1e-6, highest=1e-5, steps=10)
    assert found.rates[0] == 1e-6
    # Rates so low change next to nothing.
    assert max(found.losses) < 2 * min(found.losses) + 0.3


@pytest.mark.parametrize("optimizer", [
    lambda: ddbp.SGD(0.1, momentum=0.9),
    lambda: ddbp.Adam(ddbp.Cosine(0.01, steps=30)),
    lambda: ddbp.AdamW(0.01, groups={"layers.0.*": {"learning_rate": 0.1}}),
])  # fmt: skip
def test_nothing_is_left_of_it(optimizer):
    def digests(search):
        trainer = made(optimizer())
        batches = trainer.batches(DATA, epochs=2)
        for number, batch in enumerate(batches):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
            if search and number in (0, 4):
                before = trainer.state().digest()
                ddbp.lr_find(trainer, DATA, steps=20)
                assert trainer.state().digest() == before
        return trainer.parameters_sha256()

    assert digests(True) == digests(False)


def test_a_group_keeps_the_ratio_of_its_rate():
    groups = {"layers.0.*": {"learning_rate": 0.2}}
    doubled = made(ddbp.SGD(0.1, groups=groups))
    found = ddbp.lr_find(doubled, DATA, lowest=1e-3, highest=1e-1, steps=10)
    rise = ddbp.Exponential(1e-3, factor=100, steps=9)
    twice = ddbp.Exponential(2e-3, factor=100, steps=9)
    by_hand = made(ddbp.SGD(rise, groups={"layers.0.*": {"learning_rate": twice}}))
    np.testing.assert_allclose(found.losses, by_hand.fork(10, data=DATA), rtol=1e-6)


def test_the_suggestion_trains_better_than_rates_far_from_it():
    found = ddbp.lr_find(made(ddbp.SGD(0.1)), DATA)
    assert found.suggestion is not None

    def loss(rate):
        return made(ddbp.SGD(rate)).fit(DATA, epochs=3)[-1]["loss"]

    assert loss(found.suggestion) < loss(found.suggestion / 100)
    assert str(f"{found.suggestion:.2g}") in found.verdict


def test_it_ends_where_the_loss_diverges():
    found = ddbp.lr_find(made(ddbp.SGD(0.1)), DATA, lowest=1e-3, highest=1e9, steps=60)
    assert len(found.losses) < 60
    assert found.smoothed[-1] > 2 * found.losses[0] or math.isinf(found.smoothed[-1])


def test_a_loss_that_doubles_ends_it_but_not_before_some_steps():
    grown = [1.0] * 9 + [30.0]
    assert rate_search._diverges(grown)
    assert not rate_search._diverges(grown[1:])
    assert not rate_search._diverges([1.0] * 9 + [2.0])
    # Of negative losses, too.
    assert rate_search._diverges([-1.0] * 9 + [30.0])
    assert not rate_search._diverges([-1.0] * 10)


def curve(losses):
    return RateRange([10.0 ** (i - 6) for i in range(len(losses))], losses)


def test_the_rule_is_a_tenth_of_the_rate_of_the_least_smoothed_loss():
    found = curve([2.0] * 4 + [1.0] * 4 + [50.0])
    least = int(np.argmin(found.smoothed))
    assert least == 7
    assert found.suggestion == pytest.approx(found.rates[least] / 10)


@pytest.mark.parametrize(("losses", "said"), [
    ([2.0, 2.0, 2.0, 2.0], "has not fallen"),
    ([2.0, 1.99, 2.0, 2.5], "has not fallen"),
    ([2.0, 1.0, 0.5, 0.2], "still falls at"),
    ([math.inf, math.inf], "has not fallen"),
    ([2.0, math.nan, 3.0], "has not fallen"),
])  # fmt: skip
def test_losses_that_tell_nothing_suggest_nothing(losses, said):
    found = curve(losses)
    assert found.suggestion is None
    assert said in found.verdict


def test_smoothing_is_the_mean_that_forgets():
    assert smooth([1.0, 1.0, 1.0]) == pytest.approx([1, 1, 1])
    first, second = smooth([1.0, 3.0])
    assert first == pytest.approx(1)
    assert second == pytest.approx((0.9 * 1 + 3) / 1.9)
    assert smooth([1.0, math.inf, 1.0])[1:] == [math.inf, math.inf]


@matplotlib
@pytest.mark.parametrize(("name", "begins"), [("r.svg", b"<?xml"), ("r.png", b"\x89PNG")])
def test_the_picture_is_written_whole(tmp_path, name, begins):
    found = curve([2.0] * 4 + [1.0] * 4 + [math.inf])
    found.save(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    figure = ddbp.figure(found)
    (axis,) = figure.axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["loss", "smoothed", f"suggestion {found.suggestion:.2g}"]


@pytest.mark.parametrize("path", ["rates.txt", "rates", 3])
def test_a_picture_of_another_kind_is_refused(path):
    with pytest.raises(ValueError, match=r"must end in \.svg"):
        curve([2.0, 1.0, 3.0]).save(path)


@pytest.mark.parametrize(("options", "words"), [
    ({"lowest": 0}, "lowest must be"),
    ({"highest": math.inf}, "highest must be"),
    ({"lowest": 1.0, "highest": 0.1}, "lowest must be below highest"),
    ({"steps": 3}, "steps must be at least 10"),
    ({"steps": 0}, "steps must be"),
])  # fmt: skip
def test_nonsense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ddbp.lr_find(made(), DATA, **options)


def test_what_is_no_trainer_or_cannot_be_forked_is_refused():
    with pytest.raises(TypeError, match=r"trainer must be a ddbp\.Trainer"):
        ddbp.lr_find(made().model, DATA)
    with pytest.raises(ValueError, match=r"lr_find: .*must have a loss"):
        ddbp.lr_find(made(loss=None), DATA)
    with pytest.raises(RuntimeError, match="lr_find: it needs workers that exchange gradients"):
        ddbp.lr_find(made(exchange=ddbp.LocalSGD(workers=2, every=4), shards=None), DATA)


@pytest.mark.parametrize(("rates", "losses"), [
    ([], []), ([1.0], [1.0, 2.0]), ([2.0, 1.0], [1.0, 1.0]), ([0.0], [1.0]), ([math.inf], [1.0]),
])  # fmt: skip
def test_a_range_of_other_numbers_is_refused(rates, losses):
    with pytest.raises(ValueError, match="RateRange"):
        RateRange(rates, losses)


def test_ranks_that_survive_each_other_are_refused_in_terms_of_what_was_called(monkeypatch):
    trainer = made()
    monkeypatch.setattr(type(trainer.comm), "survives", True)
    said = r"it needs ranks that are not lost or replaced; got --survive\. Start without --survive"
    with pytest.raises(RuntimeError, match=f"^lr_find: {said}"):
        ddbp.lr_find(trainer, DATA)
    with pytest.raises(RuntimeError, match=rf"^Trainer\.fork: {said}"):
        trainer.fork(1, data=DATA)
