"""States: arrays of a layer that training changes without a gradient."""

import copy
import pickle

import numpy as np
import pytest

import layers
from layers import BatchNorm, Layer, Linear, Parameter, Sequential, State, Tape
from layers.engine.state import unique_states


class Counting(Layer):
    """Counts the samples that it was trained on; y = g x. Backward: dx = g dy."""

    def __init__(self):
        self.gain = Parameter(np.ones(1, np.float32))
        self.seen = State(np.zeros((), np.int64))
        self.parts = {"a": [State(np.zeros(2, np.float32))]}

    def forward(self, call, x):
        if call.training:
            rows = np.diff(call.bounds(len(x)))[:, np.newaxis].astype(float)
            call.on_gathered(
                rows,
                lambda everywhere: setattr(self.seen, "value", self.seen.value + everywhere.sum()),
            )
        return x * self.gain.value

    def backward(self, call, dy):
        return (dy * self.gain.value,)


def test_states_have_dotted_names_and_come_once_when_shared():
    shared = BatchNorm(3)
    net = Sequential(Linear(3, 3, rng=np.random.default_rng(0)), shared, shared, Counting())
    names = [name for name, _ in unique_states(net)]
    assert names == [
        "layers.1.running_mean",
        "layers.1.running_variance",
        "layers.3.seen",
        "layers.3.parts.a.0",
    ]
    assert len(list(net.named_states())) == 6
    assert not any(isinstance(parameter, State) for parameter in net.parameters())


def test_layer_without_states_has_none():
    assert list(Linear(3, 3, rng=np.random.default_rng(0)).named_states()) == []


def test_assignment_copies_and_refuses_another_shape():
    state = State(np.zeros(3, np.float32))
    memory, new = state.value, np.array([1.0, 2.0, 3.0])
    state.value = new
    new[0] = 9
    assert state.value is memory
    assert state.value.tolist() == [1, 2, 3]
    with pytest.raises(
        ValueError, match=r"^State: a new value must have shape \(3,\); got \(2,\)\. "
    ):
        state.value = np.zeros(2)


def test_astype_casts_a_copy_and_leaves_integers():
    layer = Counting()
    wide = layer.astype(np.float64)
    assert (wide.parts["a"][0].dtype, wide.seen.dtype, layer.parts["a"][0].dtype) == (
        np.float64,
        np.int64,
        np.float32,
    )
    wide.parts["a"][0].value = np.ones(2)
    assert not layer.parts["a"][0].value.any()


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
def test_copies_have_states_of_their_own(copied):
    state = State(np.arange(3.0))
    other = copied(state)
    other.value = np.zeros(3)
    assert state.value.tolist() == [0, 1, 2]


def test_layer_of_the_user_learns_once_per_step_from_all_shards():
    layer = Counting()
    layer(Tape(training=True, shards=(0, 2, 5)).input(np.ones((5, 1), np.float32)))
    assert layer.seen.value == 5
    layer(Tape().input(np.ones((5, 1), np.float32)))
    assert layer.seen.value == 5
    layer(
        Tape(training=True, gather=lambda numbers: np.concatenate([numbers, [[95.0]]])).input(
            np.ones((5, 1), np.float32)
        )
    )
    assert layer.seen.value == 105


def test_several_observations_are_gathered_in_one():
    gathered = []

    def gather(numbers):
        gathered.append(numbers.shape)
        return numbers

    net = Sequential(Counting(), BatchNorm(1), Counting())
    tape = Tape(training=True, shards=(0, 2, 5), gather=gather, deferred=True)
    net(tape.input(np.arange(5, dtype=np.float32)[:, np.newaxis]))
    assert [gathered, len(tape.pending), int(net[0].seen.value)] == [[], 3, 0]
    tape.settle()
    assert [gathered, len(tape.pending), int(net[0].seen.value), int(net[2].seen.value)] == [
        [(2, 5)],
        0,
        5,
        5,
    ]


def test_gradient_check_puts_states_back():
    layer = Counting()
    layers.gradcheck(lambda x: layer(x) * 2, np.ones((3, 1)))
    layers.gradcheck(layer, np.ones((3, 1)))
    assert layer.seen.value == 0
