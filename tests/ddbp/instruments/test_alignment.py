"""The angle between the gradient of a rule and the exact one: against NumPy, and where it is."""

import numpy as np
import pytest

import ddbp
from layers import GRU, Linear, ReLU, Reshape, Sequential, SoftmaxCrossEntropy, Tanh, Tape
from layers.rules import FeedbackAlignment, MeProp

RNG = np.random.default_rng(2)
DATA = ddbp.ArrayDataset(RNG.standard_normal((48, 5), np.float32), RNG.integers(0, 3, 48))


def network(activation=ReLU):
    rng = np.random.default_rng(1)
    widths = (Linear(5, 8, rng=rng), activation(), Linear(8, 7, rng=rng), activation())
    return Sequential(*widths, Linear(7, 3, rng=rng))


def trainer(rule, *callbacks, model=None, **options):
    usual = {"optimizer": ddbp.SGD(0.1), "batch_size": 16, "shards": 4, "quiet": True}
    return ddbp.Trainer(
        model or network(),
        loss=SoftmaxCrossEntropy(),
        rule=rule,
        callbacks=callbacks,
        **{**usual, **options},
    )


def gradients(model, rule=None):
    for parameter in model.parameters():
        parameter.zero_gradient()
    value = Tape().input(DATA.x[:16], gradient=False)
    SoftmaxCrossEntropy()(model(value), DATA.y[:16]).backward(rule=rule)
    return [parameter.gradient.astype(np.float64).copy() for parameter in model.parameters()]


@pytest.mark.parametrize("shards", [1, 4, 8])
@pytest.mark.parametrize("rule", [FeedbackAlignment(seed=3), MeProp(3)], ids=repr)
@pytest.mark.parametrize("scaled", [None, ddbp.LossScale(64.0)])
def test_angles_are_those_of_both_gradients_of_the_batch(shards, rule, scaled):
    model, instruments = network(), ddbp.Instruments(1)
    rule.bind(model)
    pairs = zip(gradients(model, rule), gradients(model), strict=True)
    expected = [
        np.degrees(
            np.arccos(np.clip((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()), -1, 1))
        )
        for a, b in pairs
    ]
    ours = trainer(rule, instruments, shards=shards, loss_scale=scaled)
    ours.train_step(DATA.x[:16], DATA.y[:16])
    (found,) = instruments.recording.values["alignment_angle"]
    assert np.allclose(found, expected, atol=0.05)
    assert found[0] > 10
    assert found[-2:].max() < 0.05


@pytest.mark.parametrize(
    "rule", ["feedback_alignment", "meprop", "difference_target_propagation", "forward_forward"]
)
def test_measuring_changes_no_bit_of_training_by_a_rule(rule):
    digests = set()
    for callbacks in ((), (ddbp.Instruments(1),), (ddbp.Instruments(2), ddbp.Doctor())):
        ours = trainer(rule, *callbacks, model=network(Tanh), clip_norm=1.0)
        ours.fit(DATA, epochs=2)
        digests.add(ours.parameters_sha256())
    assert len(digests) == 1


def test_angles_through_time_are_of_passes_that_write_over_what_was_saved():
    rng = np.random.default_rng(1)
    parts = [Reshape(5, 1), GRU(1, 8, rng=rng), GRU(8, 8, last=True, rng=rng)]
    model, instruments, rule = (
        Sequential(*parts, Linear(8, 3, rng=rng)),
        ddbp.Instruments(1),
        MeProp(3),
    )
    rule.bind(model)
    expected = [
        np.degrees(np.arccos((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())))
        for a, b in zip(gradients(model, rule), gradients(model), strict=True)
    ]
    trainer(rule, instruments, model=model).train_step(DATA.x[:16], DATA.y[:16])
    (found,) = instruments.recording.values["alignment_angle"]
    assert np.allclose(found[:-2], expected[:-2], atol=0.05)
    assert found[:4].min() > 10


@pytest.mark.parametrize(("rule", "accumulate"), [(None, 1), ("feedback_alignment", 2)])
def test_there_is_no_angle_without_a_rule_nor_of_several_batches(rule, accumulate):
    instruments = ddbp.Instruments(1)
    trainer(rule, instruments, accumulate=accumulate, batch_size=8).fit(DATA, epochs=1)
    angles = instruments.recording.values["alignment_angle"]
    assert len(angles) == 6 // accumulate
    assert np.isnan(angles).all()


def test_what_a_rule_learns_beside_the_model_has_columns_of_its_own():
    instruments = ddbp.Instruments(1)
    ours = trainer("difference_target_propagation", instruments, model=network(Tanh))
    ours.fit(DATA, epochs=1)
    recording = instruments.recording
    names = ["rule.inverses.0.layers.0.weight", "rule.inverses.0.layers.0.bias"]
    assert recording.parameters[-2:] == names
    assert (recording.values["gradient_norm"][:, -2:] > 0).all()
    assert np.isnan(recording.values["alignment_angle"][:, -2:]).all()
    assert not np.isnan(recording.values["alignment_angle"][:, :-2]).any()
