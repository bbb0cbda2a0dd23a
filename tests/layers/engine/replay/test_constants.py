"""Arrays from outside that are other ones in each step: lengths, masks and initial states."""

import numpy as np
import pytest

import layers
from layers import GRU, LSTM, RNN, Linear, MultiHeadAttention, PoolOverTime, Sequential

from .steps import CLASSES, Steps

SAMPLES, TIME, FEATURES = 8, 3, 2
SOFTMAX = layers.SoftmaxCrossEntropy()


class Reading(layers.Composite):
    """A layer that reads sequences, and a dense one on what it gives."""

    def __init__(self, reader, features):
        self.reader = reader
        self.head = Linear(features, CLASSES, rng=np.random.default_rng(1))


def taken(make, forward, steps=9):
    """Return steps on sequences of features, which `forward` calls the reader on."""
    reader, features = make(np.random.default_rng(0))
    result = Steps(
        Reading(reader, features),
        lambda model, x, y, step: SOFTMAX(model.head(forward(model.reader, x, step)), y),
    )
    result.x = result.x.reshape(40, SAMPLES, TIME, FEATURES)
    return result.take(steps)


def drawn(step):
    return np.random.default_rng(step)


def lengths_of(step, least=1):
    return drawn(step).integers(least, TIME + 1, SAMPLES)


READERS = {
    "LSTM": lambda rng: (LSTM(FEATURES, 4, rng=rng, last=True), 4),
    "GRU, both ways": lambda rng: (GRU(FEATURES, 4, rng=rng, last=True, bidirectional=True), 8),
    "RNN": lambda rng: (RNN(FEATURES, 4, rng=rng, last=True), 4),
    "mean": lambda rng: (PoolOverTime("mean"), FEATURES),
    "maximum": lambda rng: (PoolOverTime("max"), FEATURES),
    "last": lambda rng: (PoolOverTime("last"), FEATURES),
}


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("name", READERS)
def test_lengths_are_those_of_each_step(name, dtype, ordinary):
    def run():
        return taken(
            READERS[name], lambda reader, x, step: reader(x, lengths_of(step).astype(dtype))
        )

    steps = run()
    assert steps.replayed >= 6
    assert steps.found == ordinary(run).found


def attention(rng):
    layer = MultiHeadAttention(FEATURES, 1, rng=rng)
    return Sequential(layer, PoolOverTime("mean")), FEATURES


def attending(options):
    """Return what has attention look, and takes the mean over time."""

    def forward(reader, x, step):
        layer, mean = reader._steps
        return mean(layer(x, **options(step)))

    return forward


SEEN = {
    "lengths": lambda step: {"lengths": lengths_of(step, 0)},
    "keys": lambda step: {"keys": drawn(step).random((SAMPLES, TIME)) < 0.6},
    "mask of queries": lambda step: {"mask": drawn(step).random((TIME, TIME)) < 0.6},
    "mask of queries alone": lambda step: {"mask": drawn(step).random((TIME, 1)) < 0.6},
    "keys, mask and lengths": lambda step: {
        "keys": drawn(step).random((SAMPLES, TIME)) < 0.6,
        "mask": drawn(step).random((TIME, TIME)) < 0.8,
        "lengths": lengths_of(step),
    },
}


@pytest.mark.parametrize("name", SEEN)
def test_what_attention_sees_is_that_of_each_step(name, ordinary):
    def run():
        return taken(attention, attending(SEEN[name]))

    steps = run()
    assert steps.replayed >= 6
    assert steps.found == ordinary(run).found


STATES = {
    "LSTM": lambda rng: (LSTM(FEATURES, 4, rng=rng, last=True), 4),
    "GRU": lambda rng: (GRU(FEATURES, 4, rng=rng, last=True, layers=2), 4),
    "RNN": lambda rng: (RNN(FEATURES, 4, rng=rng, last=True), 4),
}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", STATES)
def test_initial_states_are_those_of_each_step(name, precision, ordinary):
    def forward(reader, x, step):
        layers.set_precision(reader, precision) if step == 0 else None
        rng = drawn(step)
        state = tuple(
            tuple(rng.standard_normal((SAMPLES, 4)).astype(np.float32) for _ in range(cell.states))
            for cell in reader.cells
        )
        return reader.run(x, state, lengths_of(step))[0]

    def run():
        return taken(STATES[name], forward)

    steps = run()
    assert steps.replayed >= 6
    assert steps.found == ordinary(run).found


def test_states_go_on_from_step_to_step(ordinary):
    def run():
        carried = [None]

        def forward(reader, x, step):
            y, (state,) = reader.run(x, carried[0] and (carried[0],))
            carried[0] = tuple(np.array(each.array) for each in state)
            return y

        return taken(STATES["LSTM"], forward)

    steps = run()
    assert steps.replayed == 6
    assert steps.found == ordinary(run).found


@pytest.mark.parametrize(
    ("make", "forward", "said"),
    [
        (READERS["LSTM"], lambda reader, x, given: reader(x, given), r"lengths must be in 1..3"),
        (READERS["mean"], lambda reader, x, given: reader(x, given), r"lengths must be in 1..3"),
        (
            attention,
            lambda reader, x, given: attending(lambda _: {"lengths": given})(reader, x, 0),
            r"lengths must be 8 integers in 0..3",
        ),
    ],
    ids=["recurrence", "pooling", "attention"],
)
def test_lengths_that_are_wrong_in_a_replayed_step_are_named(make, forward, said):
    steps = taken(make, lambda reader, x, step: forward(reader, x, lengths_of(step)), 6)
    assert steps.replayed >= 3
    _, x, _ = steps.begin()
    model, given = steps.model, lengths_of(6)
    given[2] = TIME + 1
    with pytest.raises(ValueError, match=said):
        forward(model.reader, x, given)


def test_array_that_was_changed_after_its_call_counts_as_it_was(ordinary):
    def forward(reader, x, step):
        given = lengths_of(step)
        y = reader(x, given)
        given[:] = TIME
        return y

    def run():
        return taken(READERS["LSTM"], forward)

    assert run().found == ordinary(run).found


BESIDE = {
    "-": lambda z, given: z - given,
    "/": lambda z, given: z / given,
    "/, from the right": lambda z, given: given / (z * z + 1),
    "**": lambda z, given: (z * z + 1) ** given,
}


@pytest.mark.parametrize("shape", [(SAMPLES, CLASSES), (CLASSES,), (SAMPLES, 1)], ids=str)
@pytest.mark.parametrize("name", BESIDE)
def test_arrays_beside_values_are_those_of_each_step(name, shape, ordinary):
    def forward(model, x, y, step):
        given = 1 + drawn(step).random(shape).astype(np.float32)
        return SOFTMAX(BESIDE[name](model(x), given), y)

    def run():
        return Steps(forward=forward).take(9)

    steps = run()
    assert steps.found == ordinary(run).found
    assert steps.replayed >= 6
