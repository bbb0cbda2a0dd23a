"""Truncated backpropagation through time in the trainer, with a recurrent network made of plain
layers.
"""

import numpy as np
import pytest

import ddbp
from layers import (
    LSTM,
    Composite,
    Concatenate,
    Linear,
    MeanSquaredError,
    Recompute,
    Residual,
    Sequential,
    Tanh,
    Tape,
)

RNG = np.random.default_rng(4)
N, T, WIDTH = 6, 10, 5
X, Y = RNG.standard_normal((N, T, 3)), RNG.standard_normal((N, T, 2))


class Elman(Composite):
    """h_t = tanh(W [x_t, h_(t-1)]), y_t = V h_t."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.inner, self.outer = (
            Linear(3 + WIDTH, WIDTH, rng=rng, dtype=np.float64),
            Linear(WIDTH, 2, rng=rng, dtype=np.float64),
        )

    def run(self, x, state=None):
        """Return outputs and last state of x (N, T, 3)."""
        h = np.zeros((len(x), WIDTH)) if state is None else state
        outputs = []
        for t in range(x.shape[1]):
            h = Tanh()(self.inner(Concatenate()(x[:, t], h)))
            outputs.append(self.outer(h).reshape(len(x), 1, 2))
        return Concatenate(1)(*outputs), h

    def __call__(self, x):
        return self.run(x)[0]


def trainer(**options):
    """Return a quiet trainer of such a network."""
    usual = {"loss": MeanSquaredError(), "optimizer": ddbp.SGD(0.1), "batch_size": N, "quiet": True}
    return ddbp.Trainer(Elman(), **(usual | options))


def weights(model):
    """Return a copy of all parameters."""
    return np.concatenate([parameter.value.reshape(-1) for parameter in model.parameters()])


def by_hand(steps, *, carried=True):
    """Return the weights after one pass over the windows, with gradient descent and detached states
    written out.
    """
    model, state = Elman(), None
    for start in range(0, T, steps):
        tape = Tape()
        x = tape.input(X[:, start : start + steps], gradient=False)
        y, state = model.run(x, state if carried else None)
        state = state.array.copy()
        loss = ((y - Y[:, start : start + steps]) ** 2).mean()
        loss.backward()
        for parameter in model.parameters():
            parameter.value = parameter.value - 0.1 * parameter.gradient
            parameter.zero_gradient()
    return weights(model)


def test_window_as_long_as_the_sequences_gives_the_bits_of_full_backpropagation():
    full, truncated = trainer(), trainer(truncate=T)
    losses = [[each.train_step(X, Y) for _ in range(3)] for each in (full, truncated)]
    assert losses[0] == losses[1]
    assert full.parameters_sha256() == truncated.parameters_sha256()


@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_windows_equal_a_loop_with_detached_states(steps):
    ours = trainer(truncate=steps)
    ours.train_step(X, Y)
    np.testing.assert_allclose(weights(ours.model), by_hand(steps), rtol=1e-12)
    assert not np.allclose(weights(ours.model), by_hand(steps, carried=False), rtol=1e-6)


def test_every_batch_begins_with_the_first_state():
    one, two = (
        trainer(truncate=4, optimizer=ddbp.SGD(0.0)),
        trainer(truncate=4, optimizer=ddbp.SGD(0.0)),
    )
    two.train_step(-X, Y)
    assert one.train_step(X, Y) == two.train_step(X, Y)


def test_loss_of_a_batch_weighs_its_windows_by_their_steps():
    still = trainer(truncate=4, optimizer=ddbp.SGD(0.0))
    expected = ((Elman()(X) - Y) ** 2).mean()
    assert still.train_step(X, Y) == pytest.approx(expected, rel=1e-12)
    (record,) = still.fit(ddbp.ArrayDataset(X, Y), epochs=1)
    assert record["loss"] == pytest.approx(expected, rel=1e-12)


def test_every_window_is_a_step():
    fitted = trainer(truncate=4, batch_size=4)
    (record,) = fitted.fit(ddbp.ArrayDataset(X, Y), epochs=1)
    assert record["step"] == 2 * 3


def test_several_shards_are_truncated_alike():
    ours = trainer(truncate=3, shards=3)
    ours.train_step(X, Y)
    np.testing.assert_allclose(weights(ours.model), by_hand(3), rtol=1e-12)


@pytest.mark.parametrize("steps", [0, -1, 2.5, "all"])
def test_window_that_is_no_positive_integer_is_refused(steps):
    with pytest.raises(ValueError, match="Trainer: truncate must be a positive integer"):
        trainer(truncate=steps)


def test_model_without_run_is_refused():
    with pytest.raises(
        TypeError, match=r"Trainer: truncate needs a model with run\(x, state\); got Linear"
    ):
        ddbp.Trainer(
            Linear(3, 2, rng=RNG),
            loss=MeanSquaredError(),
            optimizer=ddbp.SGD(0.1),
            batch_size=2,
            truncate=2,
        )


@pytest.mark.parametrize("wrap", [Residual, lambda body: Recompute(Residual(body))])
def test_residual_block_that_would_forget_the_state_is_refused(wrap):
    model = Sequential(wrap(Sequential(LSTM(3, 3, rng=RNG), Tanh())), Linear(3, 2, rng=RNG))
    must = "Trainer: truncate needs layers that carry their state; got a recurrent layer within"
    with pytest.raises(TypeError, match=rf"{must} layers\.0(\.segment)?, a Residual\. "):
        ddbp.Trainer(model, loss="mse", optimizer="adam", batch_size=2, truncate=2)


@pytest.mark.parametrize("y", [Y[:, 0], Y[:, :-1]])
def test_targets_without_the_time_steps_are_refused(y):
    with pytest.raises(
        ValueError, match=r"Trainer: truncate needs x \(N, T, \.\.\.\) and targets \(N, T, \.\.\.\)"
    ):
        trainer(truncate=2).fit(ddbp.ArrayDataset(X, y), epochs=1)
