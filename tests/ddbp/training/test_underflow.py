"""Training with badly scaled inputs holds no number below the normal ones, and leaves the thread's
arithmetic as it was.
"""

import numpy as np
import pytest

import ddbp
import layers
from layers import LSTM, Composite, Linear, ReLU, Sequential, Sigmoid, SoftmaxCrossEntropy, Tanh

from .small import LABELS, make

ROWS, CLASSES = 40, 3
RNG = np.random.default_rng(2)
PIXELS = RNG.uniform(0, 255, (ROWS, 12)).astype(np.float32)


class Masked(Composite):
    """Two of five classes are left out."""

    def __init__(self, network):
        self.network = network

    def __call__(self, x):
        return self.network(x) + np.array([0, 0, 0, -1e30, -1e30], np.float32)


class OfLastState(Composite):
    def __init__(self, rng):
        self.recurrent, self.head = LSTM(4, 8, rng=rng), Linear(8, CLASSES, rng=rng)

    def __call__(self, x):
        return self.head(self.recurrent(x * np.float32(300))[:, -1])


def dense(activation, classes=CLASSES):
    rng = np.random.default_rng(0)
    return Sequential(Linear(12, 16, rng=rng), activation, Linear(16, classes, rng=rng))


MODELS = {
    "pixels": lambda: dense(ReLU()),
    "saturated": lambda: Sequential(*dense(Sigmoid()).layers[:2], *dense(Tanh()).layers[1:]),
    "masked": lambda: Masked(dense(ReLU(), 5)),
    "recurrent": lambda: OfLastState(np.random.default_rng(0)),
}


def subnormal(x):
    """Return how many numbers are below the normal ones."""
    return int(((x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny)).sum())


def flushes():
    """Return whether the thread takes numbers below the normal ones for 0."""
    return bool((np.array([np.finfo(np.float32).tiny]) / np.float32(4) == 0).all())


class Count(layers.TapeHook):
    """Counts them among outputs and gradients."""

    found = seen = 0

    def add(self, x):
        self.found += subnormal(x)
        self.seen += x.size

    def on_forward_end(self, call):
        for x in call.output.arrays:
            self.add(x)

    def on_parameter_ready(self, parameter):
        self.add(parameter.gradient)


@pytest.mark.parametrize(
    "optimizer", [ddbp.Adam(1e-2), ddbp.SGD(0.1, momentum=0.9)], ids=["Adam", "SGD"]
)
@pytest.mark.parametrize("name", MODELS)
def test_training_holds_none_below_the_normal_numbers(name, optimizer):
    count, x = Count(), PIXELS.reshape(ROWS, 3, 4) if name == "recurrent" else PIXELS
    trainer = make(MODELS[name](), batch_size=ROWS, optimizer=optimizer, callbacks=[count])
    for _ in range(30):
        trainer.train_step(x, LABELS[:ROWS])
    assert count.seen > 0
    assert count.found == 0
    state = trainer.state()
    arrays = [parameter.value for parameter in trainer.model.parameters()]
    arrays += [array for array in state.arrays.values() if array.dtype.kind == "f"]
    assert sum(map(subnormal, arrays)) == 0


def test_state_of_an_optimizer_decays_to_0():
    trainer = make(dense(ReLU()), batch_size=ROWS, optimizer=ddbp.Adam(1e-2))
    trainer.train_step(PIXELS, LABELS[:ROWS])
    trainer.model.layers[2].weight.value *= 0
    for _ in range(1200):
        # From here on the first layer has no gradient: its averages decay.
        trainer.train_step(0 * PIXELS, LABELS[:ROWS])
    momenta = [a for name, a in trainer.state().arrays.items() if "layers.0.weight" in name]
    assert sum(map(subnormal, momenta)) == 0


def test_a_trainer_leaves_the_arithmetic_of_the_thread_as_it_was():
    seen = []

    class Callback(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            seen.append(flushes())

    trainer = make(dense(ReLU()), batch_size=20, callbacks=[Callback()])
    data = ddbp.ArrayDataset(PIXELS, LABELS[:ROWS])
    trainer.fit(data, epochs=1)
    trainer.evaluate(data)
    trainer.predict(PIXELS)
    for batch in trainer.batches(data):
        loss = SoftmaxCrossEntropy()(trainer.model(batch.x), batch.y)
        seen.append(flushes())
        trainer.step(loss)
    trainer.model.parameters()[0].value[...] = np.nan
    with pytest.raises(FloatingPointError, match="the loss must be finite"):
        trainer.train_step(PIXELS, LABELS[:ROWS])
    assert not flushes()
    assert not any(seen)
