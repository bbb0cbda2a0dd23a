"""Steps that are replayed: the bits, and the meaning, of ordinary ones, and where they end."""

import gc
import weakref

import numpy as np
import pytest

from layers import (
    GELU,
    Add,
    BatchNorm,
    Dropout,
    Flatten,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tape,
)
from layers.engine.replay.replay import Replayed

from .steps import CLASSES, Steps, network


def test_steps_are_replayed_from_the_third_on_with_the_same_bits(ordinary):
    steps = Steps().take(9)
    assert steps.replayed == 7
    assert steps.found == ordinary(lambda: Steps().take(9)).found


@pytest.mark.parametrize("shards", [(0, 8), (0, 3, 8), (0, 2, 4, 6, 8)])
def test_shards_have_their_gradients_in_replayed_steps(shards, ordinary):
    def run():
        return Steps(shards=shards).take(6, samples=16)

    steps = run()
    assert steps.replayed == 4
    assert steps.found == ordinary(run).found


def test_other_bounds_of_shards_are_another_step(ordinary):
    def run():
        steps = Steps(shards=(0, 3, 8)).take(4)
        steps.shards = np.array((0, 5, 8))
        return steps.take(3)

    assert run().found == ordinary(run).found


def test_environment_must_say_yes_or_no(monkeypatch):
    monkeypatch.setenv("LAYERS_REPLAY", "maybe")
    with pytest.raises(ValueError, match="LAYERS_REPLAY must be 0 or 1; got 'maybe'"):
        Steps().take()


def test_nothing_is_allocated_once_steps_are_replayed():
    steps = Steps().take(4)
    allocations = steps.workspace.allocations
    steps.take(6)
    steps.take(rows=5)
    steps.take(2)
    assert steps.workspace.allocations == allocations


def test_replayed_steps_leave_nothing_to_the_garbage_collector():
    steps = Steps().take(4)
    gc.collect()
    gc.disable()
    try:
        tape, x, y = steps.begin()
        loss = steps.forward(steps.model, x, y, 0)
        gone = weakref.ref(tape)
        assert isinstance(loss, Replayed)
        steps.end(loss)
        del tape, x, loss
        assert gone() is None
    finally:
        gc.enable()


# ---- steps that are other ones


def test_smaller_batch_is_an_ordinary_step_and_the_next_is_replayed(ordinary):
    def run():
        return Steps().take(4).take(rows=5).take(3)

    steps = run()
    assert steps.replayed == 5
    assert steps.found == ordinary(run).found


def test_other_shapes_for_good_are_replayed_in_the_end(ordinary):
    def run():
        return Steps().take(4).take(25, rows=5)

    steps = run()
    assert steps.replayed > 5
    assert steps.found == ordinary(run).found


def branching(model, x, y, step):
    first, last = model._steps
    h = first(x)
    if step % 3 == 2:
        h = GELU()(h)
    return SoftmaxCrossEntropy()(last(h), y)


def test_branch_by_the_step_keeps_its_meaning(ordinary):
    steps = Steps(forward=branching).take(12)
    assert steps.found == ordinary(lambda: Steps(forward=branching).take(12)).found


class BranchingByValue:
    """Branches by what a value holds, in the midst of forward."""

    def __init__(self):
        self.criterion, self.relu, self.ways = SoftmaxCrossEntropy(), ReLU(), []

    def __call__(self, model, x, y, step):
        first, last = model._steps
        h = first(x)
        self.ways.append(bool(h.array.mean() > 0.4))
        if self.ways[-1]:
            h = self.relu(h)
        return self.criterion(last(h), y)


def test_branch_by_a_value_keeps_its_meaning(ordinary):
    forward, other = BranchingByValue(), BranchingByValue()
    steps = Steps(forward=forward).take(30)
    assert steps.found == ordinary(lambda: Steps(forward=other).take(30)).found
    assert forward.ways == other.ways
    assert len({*forward.ways}) == 2


def test_fewer_and_more_calls_than_planned_are_ordinary(ordinary):
    first, second = ReLU(), SoftmaxCrossEntropy()

    def forward(model, x, y, step):
        z = model(x)
        if step == 5:
            z = first(z)
        loss = second(z, y)
        return loss + loss if step == 6 else loss

    # More calls take more memory: then another plan is made.
    steps = Steps(forward=forward).take(12)
    assert steps.replayed == 6
    assert steps.found == ordinary(lambda: Steps(forward=forward).take(12)).found


def test_other_input_of_a_call_is_an_ordinary_step(ordinary):
    def forward(model, x, y, step):
        a, b = model.layers[0](x), model.layers[0](x)
        if step == 6:
            a, b = b, b
        return SOFTMAX(model.layers[2](ADD(a, b)), y)

    steps = Steps(forward=forward).take(9)
    assert steps.replayed == 4
    assert steps.found == ordinary(lambda: Steps(forward=forward).take(9)).found


SOFTMAX, ADD, HALF = SoftmaxCrossEntropy(), Add(), MeanSquaredError()


def test_constant_of_a_call_must_stay(ordinary):
    def forward(model, x, y, step):
        return SOFTMAX(ADD(model(x), 1.0 if step < 5 else 2.0), y)

    steps = Steps(forward=forward).take(8)
    assert 3 <= steps.replayed < 6
    assert steps.found == ordinary(lambda: Steps(forward=forward).take(8)).found


def test_labels_of_another_type_are_converted_anew_in_every_step(ordinary):
    # What comes of the cast is another array in each step.
    def forward(model, x, y, step):
        return SOFTMAX(model(x), y.astype(np.int32))

    steps = Steps(forward=forward).take(8)
    assert steps.replayed == 0
    assert steps.found == ordinary(lambda: Steps(forward=forward).take(8)).found


def test_inputs_may_have_another_shape_and_lie_elsewhere(ordinary):
    model = Sequential(Flatten(), Linear(6, CLASSES, rng=np.random.default_rng(0)))

    def run():
        steps = Steps(Sequential(*model.astype(np.float32).layers))
        steps.x = steps.x.reshape(40, 8, 2, 3)
        return steps.take(4)

    def spread(steps):
        # Not adjacent in memory: the layer makes a copy.
        steps.copy = False
        steps.x = np.repeat(steps.x, 2, axis=-1)[..., ::2]
        return steps.take(3)

    steps = spread(run())
    assert steps.replayed == 2
    assert steps.found == ordinary(lambda: spread(run())).found


def test_targets_that_are_the_inputs_are_no_plan(ordinary):
    model = Linear(6, 6, rng=np.random.default_rng(0))

    def forward(model, x, y, step):
        return HALF(model(x), x.array)

    def run():
        return Steps(model.astype(np.float32), forward).take(6)

    steps = run()
    assert steps.replayed == 0
    assert steps.found == ordinary(run).found


def test_gradients_that_accumulate_are_ordinary(ordinary):
    def run():
        steps = Steps().take(4)
        for _ in range(3):
            _, x, y = steps.begin()
            SOFTMAX(steps.model(x), y).backward()
            tape = Tape(training=True, workspace=steps.workspace)
            x = tape.input(steps.x[7], gradient=False)
            steps.end(steps.criterion(steps.model(x), steps.y[7]))
        return steps.take(2)

    assert run().found == ordinary(run).found


def test_backward_twice_adds(ordinary):
    def run():
        steps = Steps().take(4)
        _, x, y = steps.begin()
        loss = steps.criterion(steps.model(x), y)
        loss.backward()
        steps.end(loss)
        return steps.take(2)

    steps = run()
    assert steps.found == ordinary(run).found


def test_masks_are_those_of_the_step_and_of_its_seed_and_first_sample(ordinary):
    def run():
        steps = Steps(Sequential(*network().layers[:2], Dropout(0.5), network().layers[2]))
        for step in range(12):
            steps.take(step=step, first_sample=8 * (step % 3), seed=step // 8)
        return steps

    steps = run()
    assert steps.replayed == 6
    assert steps.found == ordinary(run).found


@pytest.mark.parametrize("same", [True, False])
def test_constant_of_two_calls_must_be_one_array_again(same, ordinary):
    def forward(model, x, y, step):
        shift = np.full((8, CLASSES), step, np.float32)
        other = shift if same or step < 5 else 2 * shift
        return SOFTMAX(ADD(ADD(model(x), shift), other), y)

    steps = Steps(forward=forward).take(8)
    assert steps.replayed == (6 if same else 3)
    assert steps.found == ordinary(lambda: Steps(forward=forward).take(8)).found


def test_weights_of_another_sum_are_another_step(ordinary):
    weights = np.ones((9, 8), np.float32)
    weights[5:] = np.random.default_rng(0).random((4, 8))

    def run():
        return Steps(forward=lambda model, x, y, n: SOFTMAX(model(x), y, weights[n])).take(9)

    assert run().found == ordinary(run).found


def test_running_statistics_learn_in_replayed_steps(ordinary):
    def run():
        model = network()
        norm = BatchNorm(5)
        steps = Steps(Sequential(model.layers[0], norm, *model.layers[1:])).take(6)
        steps.found.append(
            norm.running_mean.value.tobytes() + norm.running_variance.value.tobytes()
        )
        return steps

    steps = run()
    assert steps.replayed == 4
    assert steps.found == ordinary(run).found
