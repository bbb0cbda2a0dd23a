"""Who needs an ordinary step, and what may change between steps and within one."""

import sys

import numpy as np
import pytest

import layers
from layers import (
    ReLU,
    Rule,
    SoftmaxCrossEntropy,
    TapeHook,
)

from .steps import CLASSES, Steps, network

SOFTMAX = SoftmaxCrossEntropy()


# ---- who needs an ordinary tape


class Watching(TapeHook):
    """Writes down the outputs of calls."""

    def __init__(self):
        self.outputs = []

    def on_forward_end(self, call):
        self.outputs.append(call.output.array.tobytes())


def test_hook_sees_all_of_its_step_and_the_next_is_replayed(ordinary):
    def run(hook):
        return Steps().take(4).take(hooks=[hook]).take(3)

    here, there = Watching(), Watching()
    steps = run(here)
    assert steps.replayed == 5
    assert steps.found == ordinary(lambda: run(there)).found
    assert here.outputs == there.outputs
    assert len(here.outputs) == 3


def test_hook_of_the_backward_pass_alone_is_told(ordinary):
    class Told(TapeHook):
        def __init__(self):
            self.calls = []

        def on_backward_end(self, call):
            self.calls.append((call.index, type(call.layer), call.inputs[0].array.tobytes()))

    def run(hook):
        steps = Steps().take(4)
        tape, x, y = steps.begin()
        loss = steps.criterion(steps.model(x), y)
        with tape.observed(hook):
            steps.end(loss)
        return steps.take(2)

    here, there = Told(), Told()
    assert run(here).found == ordinary(lambda: run(there)).found
    assert here.calls == there.calls
    assert len(here.calls) == 3


def test_rule_of_learning_is_asked(ordinary):
    class Reversed(Rule):
        def feedback(self, parameter):
            return -parameter.value

    def run():
        steps = Steps().take(4)
        for _ in range(2):
            _, x, y = steps.begin()
            steps.end(steps.criterion(steps.model(x), y), rule=Reversed())
        return steps.take(2)

    assert run().found == ordinary(run).found


def test_gradient_of_a_value_is_kept(ordinary):
    kept = []

    def run():
        steps = Steps().take(4)
        _, x, y = steps.begin()
        z = steps.model(x).keep_grad()
        steps.end(steps.criterion(z, y))
        kept.append(z.grad.tobytes())
        return steps.take(2)

    assert run().found == ordinary(run).found
    assert kept[0] == kept[1]


def test_other_gradient_of_the_loss_is_propagated(ordinary):
    def run():
        steps = Steps().take(4)
        _, x, y = steps.begin()
        steps.end(steps.criterion(steps.model(x), y), gradient=0.5)
        return steps.take(2)

    assert run().found == ordinary(run).found


def test_debugger_sees_ordinary_steps():
    steps = Steps().take(4)
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        steps.take(2)
    finally:
        sys.settrace(before)
    assert steps.replayed == 2
    assert steps.take().replayed == 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_calls_of_a_replayed_tape_are_those_of_an_ordinary_one(when):
    steps = Steps().take(4)
    tape, x, y = steps.begin()
    h = steps.model(x)
    loss = steps.criterion(h, y)
    if when == "after":
        loss.backward()
    assert [call.layer for call in tape.calls] == [*steps.model._steps, steps.criterion]
    first, second, third = tape.calls
    assert first.inputs == (x,)
    assert second.output is h
    assert (h.call, loss.call) == (second, third)
    assert first.saved[0] is x.array
    assert loss.shard_sums.sum() / 8 == pytest.approx(loss.item())


def test_layer_of_a_user_is_asked_in_every_step_whatever_it_says():
    class Counted(ReLU):
        calls = 0

        def forward(self, call, x):
            Counted.calls += 1
            return super().forward(call, x)

    counted = Counted()
    steps = Steps(forward=lambda model, x, y, _: SOFTMAX(counted(model(x)), y)).take(6)
    assert counted.replayable
    assert (steps.replayed, Counted.calls) == (0, 6)


class Liar(layers.Layer):
    """The identity of a layer that says of itself what is not so, as if it was of this package."""

    __module__ = "layers.liar"
    replayable = True

    def forward(self, call, x):
        y = call.buffer("y", x.shape, x.dtype)
        self.write(call, y, x)
        return y

    def backward(self, call, dy):
        return (dy,)


class Besides(Liar):
    __module__ = "layers.liar"

    def write(self, call, y, x):
        call.run(np.copyto, y, x)
        y += 1


class ByData(Liar):
    __module__ = "layers.liar"

    def write(self, call, y, x):
        call.run(np.add, x, x.dtype.type(x.mean()), y)


class Anew(Liar):
    __module__ = "layers.liar"

    def write(self, call, y, x):
        call.run(np.copyto, y, x + 1)


class ByGather(Liar):
    """Asks the other ranks for numbers, which may have others in the next step."""

    __module__ = "layers.liar"

    def write(self, call, y, x):
        call.gather(np.zeros((1, 1)))
        call.run(np.copyto, y, x)


class Honest(Liar):
    __module__ = "layers.liar"

    def write(self, call, y, x):
        call.run(np.copyto, y, x)


@pytest.mark.parametrize("kind", [Besides, ByData, Anew, ByGather, Honest])
def test_layer_that_lies_about_itself_is_not_trusted(kind, ordinary):
    def run():
        liar = kind()
        return Steps(forward=lambda model, x, y, _: SOFTMAX(liar(model(x)), y)).take(8)

    steps = run()
    assert (steps.replayed > 0) == (kind is Honest)
    assert steps.found == ordinary(run).found


# ---- what may change between steps


def test_parameters_may_be_frozen_and_tied(ordinary):
    def run():
        steps = Steps().take(4)
        steps.model.layers[0].freeze()
        steps.take(4)
        steps.model.unfreeze()
        steps.take(4)
        steps.model.layers[2].bias = layers.Parameter(np.ones(CLASSES, np.float32))
        return steps.take(4)

    steps = run()
    assert steps.found == ordinary(run).found
    assert steps.replayed > 0


@pytest.mark.parametrize("place", ["before the model", "before the loss", "before backward"])
@pytest.mark.parametrize("change", ["precision", "weight"])
def test_what_changes_within_a_step_counts_from_there_on(place, change, ordinary):
    def run():
        steps = Steps().take(4)

        def come_to(here):
            if here == place and change == "precision":
                layers.set_precision(steps.model, "bf16")
            elif here == place:
                steps.model.layers[2].weight = layers.Parameter(np.ones((CLASSES, 5), np.float32))

        _, x, y = steps.begin(8)
        come_to("before the model")
        prediction = steps.model(x)
        come_to("before the loss")
        loss = steps.criterion(prediction, y)
        come_to("before backward")
        steps.end(loss)
        return steps

    assert run().found == ordinary(run).found


def test_forward_that_is_put_in_place_of_a_layers_is_called():
    steps = Steps().take(4)
    first, seen = steps.model._steps[0], []
    forward = first.forward
    first.forward = lambda call, x: seen.append(len(x)) or forward(call, x)
    steps.take(3)
    assert seen == [8, 8, 8]


def test_model_that_is_made_meanwhile_changes_nothing():
    steps = Steps().take(4)
    network().freeze()
    assert steps.take(2).replayed == 4


def test_gradients_of_another_owner_are_no_plan():
    steps = Steps()
    layers.FlatParameters(steps.model)
    steps.take(4)
    assert steps.replayed == 0


def test_losses_that_are_kept_hold_their_numbers():
    steps, kept = Steps(), []
    for _ in range(8):
        _, x, y = steps.begin()
        kept.append(steps.criterion(steps.model(x), y))
        steps.end(kept[-1])
    assert steps.replayed == 6
    assert [each.array.tobytes() for each in kept] == [bits[0] for bits in steps.found]
    assert len({each.item() for each in kept}) == 8


def test_two_tapes_may_be_begun_before_either_is_used(ordinary):
    def run():
        steps = Steps().take(4)
        pairs = [steps.begin(), None]
        h = steps.model(pairs[0][1])
        steps.taken += 1
        pairs[1] = steps.begin()
        steps.end(steps.criterion(h, pairs[0][2]))
        steps.taken -= 1
        for parameter in steps.model.parameters():
            parameter.zero_gradient()
        steps.end(steps.criterion(steps.model(pairs[1][1]), pairs[1][2]))
        return steps.take(3)

    assert run().found == ordinary(run).found


def test_wrong_label_in_a_replayed_step_is_named():
    steps = Steps().take(4)
    _, x, y = steps.begin()
    y[3] = CLASSES
    with pytest.raises(ValueError, match=f"labels must be in 0..2 for 3 logits; got {CLASSES}"):
        steps.criterion(steps.model(x), y)
    y[3] = 0
    steps.take(2)


def test_loss_that_is_not_finite_is_there():
    steps = Steps().take(4)
    _, x, y = steps.begin()
    x.array[0] = np.inf
    loss = steps.criterion(steps.model(x), y)
    assert np.isnan(loss.item())
    assert not np.isfinite(loss.tape.calls[0].output.array).all()
