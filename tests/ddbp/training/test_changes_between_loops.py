"""Changes of parameters between the loops of a script that goes on: each is made once."""

import pytest

import ddbp

from .small import DATA
from .stopped_runs import Stop, StopError, checkpoints, trainer_in


def halve(trainer):
    with ddbp.modify_parameters(trainer) as mine:
        if mine:
            trainer.model[0].weight.value *= 0.5


def train_and_change(trainer):
    """Train as a script does that changes parameters before, between and in its loops."""
    halve(trainer)
    trainer.fit(DATA, epochs=1)
    for callback in trainer.callbacks:
        if isinstance(callback, ddbp.Checkpoints):
            callback.write(trainer)
    halve(trainer)
    halve(trainer)
    for batch in trainer.batches(DATA):
        halve(trainer)
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    halve(trainer)
    for step in trainer.steps(14):
        halve(trainer)
        trainer.train_step(DATA.x[step : step + 20], DATA.y[step : step + 20])
    halve(trainer)
    trainer.fit(DATA, epochs=1)
    return trainer.parameters_sha256()


# Steps 1 to 5 are those of the first fit, 6 to 10 of the loop, 11 to 14 of train_step.
@pytest.mark.parametrize("step", [1, 5, 6, 8, 10, 11, 13, 14, 15, 18])
@pytest.mark.parametrize("keep", [0, 1])
def test_changes_between_loops_are_made_once(tmp_path, step, keep):
    expected = train_and_change(trainer_in(tmp_path / "whole", [checkpoints()]))
    run_dir = tmp_path / "stopped"
    with pytest.raises(StopError):
        train_and_change(
            trainer_in(run_dir, [checkpoints(every_steps=keep + 1, keep_last=1), Stop(step)])
        )
    trainer = trainer_in(run_dir, [checkpoints(every_steps=1)], resume="auto")
    assert train_and_change(trainer) == expected


@pytest.mark.parametrize("changes", [0, 1, 2])
def test_state_between_loops_knows_the_changes_before_it(tmp_path, changes):
    whole = trainer_in(tmp_path / "whole")
    whole.fit(DATA, epochs=1)
    halve(whole)
    halve(whole)
    first = trainer_in(tmp_path / "first", [checkpoints(every_epochs=9)])
    first.fit(DATA, epochs=1)
    for _ in range(changes):
        halve(first)
    first.callbacks[-1].write(first)
    second = trainer_in(tmp_path / "first", [checkpoints()], resume="auto")
    second.fit(DATA, epochs=1)
    halve(second)
    halve(second)
    assert second.parameters_sha256() == whole.parameters_sha256()


def test_change_after_a_state_that_a_script_has_loaded_is_made(tmp_path):
    first, second, other = (trainer_in(tmp_path / name) for name in "abc")
    first.fit(DATA, epochs=1)
    halve(first)
    second.load_state(first.state())
    assert second.parameters_sha256() == first.parameters_sha256()
    halve(second)
    assert second.parameters_sha256() != first.parameters_sha256()
    halve(first)
    assert second.parameters_sha256() == first.parameters_sha256()
    other.load_state(second.state())
    assert other.state().digest() == second.state().digest()


def test_loop_of_train_step_that_counts_its_steps_changes_parameters_in_each(tmp_path):
    def train(trainer, end):
        while trainer.step_count < end:
            halve(trainer)
            trainer.train_step(DATA.x[:20], DATA.y[:20])
        return trainer.parameters_sha256()

    expected = train(trainer_in(tmp_path / "whole"), 6)
    with pytest.raises(StopError):
        train(trainer_in(tmp_path / "run", [checkpoints(every_steps=1), Stop(4)]), 6)
    again = trainer_in(tmp_path / "run", [checkpoints()], resume="auto")
    assert train(again, 6) == expected
