"""Trainers that share a graph: a step of one leaves nothing in another."""

import copy

import numpy as np
import pytest

import ddbp
from layers import Linear, MeanSquaredError, ReLU, Sequential, Tape

from .small import LABELS, X, make, values


def adversaries(shards=1):
    """Return a generator and a discriminator, and their trainers."""
    rng = np.random.default_rng(7)
    generator = Sequential(Linear(3, 8, rng=rng), ReLU(), Linear(8, 6, rng=rng))
    critic = Sequential(Linear(6, 8, rng=rng), ReLU(), Linear(8, 1, rng=rng))
    options = {"batch_size": 20, "shards": shards, "quiet": True}
    return (
        ddbp.Trainer(generator, optimizer=ddbp.SGD(0.1), **options),
        ddbp.Trainer(critic, optimizer=ddbp.SGD(0.1), **options),
    )


NOISE = np.random.default_rng(8).standard_normal((20, 3)).astype(np.float32)
REAL, ONES = X[:20].astype(np.float32), np.ones((20, 1), np.float32)
ERROR = MeanSquaredError()


def generate(trainer, critic):
    """Take a step of the generator, through the critic."""
    batch = trainer.batch(NOISE, ONES)
    return trainer.step(ERROR(critic.model(trainer.model(batch.x)), batch.y))


def judge(trainer, generator):
    """Take a step of the critic on what is real and what is not."""
    batch = trainer.batch(REAL, ONES)
    false = trainer.model(batch.x.tape.input(generator.model(NOISE), gradient=False))
    return trainer.step(ERROR(trainer.model(batch.x) - false, batch.y))


@pytest.mark.parametrize("shards", [1, 4])
def test_step_of_one_trainer_leaves_nothing_in_the_gradients_of_another(shards):
    generator, critic = adversaries(shards)
    alone = adversaries(shards)[1]
    frozen = copy.deepcopy(generator.model)
    for _ in range(3):
        generate(generator, critic)
        assert all(parameter.store.stale for parameter in critic.model.parameters())
        generator.model[0].weight.value = frozen[0].weight.value
        generator.model[0].bias.value = frozen[0].bias.value
        generator.model[2].weight.value = frozen[2].weight.value
        generator.model[2].bias.value = frozen[2].bias.value
        assert judge(critic, generator) == judge(alone, generator)
    assert critic.parameters_sha256() == alone.parameters_sha256()


def test_step_of_a_trainer_changes_its_own_parameters_only():
    generator, critic = adversaries()
    before = values(critic.model)
    generate(generator, critic)
    assert values(critic.model) == before


def test_loss_of_a_batch_of_another_trainer_is_refused():
    generator, critic = adversaries()
    batch = critic.batch(REAL, ONES)
    with pytest.raises(
        ValueError, match="must be computed from a batch of this trainer; got a batch of"
    ):
        generator.step(ERROR(critic.model(batch.x), batch.y))
    tape = Tape()
    with pytest.raises(ValueError, match="got a tape of its own"):
        critic.step(ERROR(critic.model(tape.input(REAL)), ONES))


@pytest.mark.parametrize("early", [True, False])
def test_gradients_of_a_tape_of_its_own_do_not_join_the_next_step(early):
    x = X[:20].astype(np.float32)
    clean, other = make(), make()
    for trainer in (clean, other):
        for _ in range(3):
            if early:
                batch = trainer.batch(x, LABELS[:20])
            if trainer is other:
                tape = Tape()
                trainer.loss(trainer.model(tape.input(x)), LABELS[:20]).backward()
                assert trainer.model[0].weight.gradient.any()
            if not early:
                batch = trainer.batch(x, LABELS[:20])
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    assert clean.parameters_sha256() == other.parameters_sha256()


def test_tape_of_its_own_may_not_add_to_gradients_that_wait_for_an_update():
    trainer = make(accumulate=2)
    x = X[:20].astype(np.float32)
    trainer.train_step(x, LABELS[:20])
    with pytest.raises(
        ValueError, match=r"wait for an update of a trainer; got .* layers\.2\.weight"
    ):
        trainer.loss(trainer.model(Tape().input(x)), LABELS[:20]).backward()
    trainer.model.freeze()
    values_of = Tape().input(x)
    trainer.loss(trainer.model(values_of), LABELS[:20]).backward()
    assert values_of.grad.any()
