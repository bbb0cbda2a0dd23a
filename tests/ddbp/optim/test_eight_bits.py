"""Moments in 8 bits: they take a quarter of the memory, and training ends where it does with those
of float32.
"""

from inspect import signature
from pathlib import Path

import numpy as np
import pytest

import ddbp
from layers import Linear, MeanSquaredError, Sequential, Tanh

from .given import Given, ours

RNG = np.random.default_rng(5)
X = RNG.standard_normal((256, 20)).astype(np.float32)
Y = np.tanh(X @ RNG.standard_normal((20, 5)) / 3).astype(np.float32)
KINDS = {
    "momentum": lambda **bits: ddbp.SGD(0.05, momentum=0.9, **bits),
    "RMSProp": lambda **bits: ddbp.RMSProp(0.001, **bits),
    "Adam": lambda **bits: ddbp.Adam(0.003, **bits),
    "AMSGrad": lambda **bits: ddbp.AdamW(0.003, amsgrad=True, **bits),
    "RAdam": lambda **bits: ddbp.RAdam(0.003, **bits),
    "Lion": lambda **bits: ddbp.Lion(0.0005, **bits),
}


def loss_after(optimizer, epochs=60):
    """Return the loss of a network that learns from a teacher."""
    rng = np.random.default_rng(1)
    model = Sequential(Linear(20, 64, rng=rng), Tanh(), Linear(64, 5, rng=rng))
    options = {"loss": MeanSquaredError(), "batch_size": 32, "quiet": True}
    trainer = ddbp.Trainer(model, optimizer=optimizer, **options)
    history = trainer.fit(ddbp.ArrayDataset(X, Y), epochs=epochs)
    return np.mean([record["loss"] for record in history[-5:]])


@pytest.mark.parametrize("name", KINDS)
def test_training_ends_where_it_does_with_moments_of_float32(name):
    usual, packed = loss_after(KINDS[name]()), loss_after(KINDS[name](state_bits=8))
    assert packed < 1.1 * usual
    assert usual < 0.1 * loss_after(KINDS[name](), epochs=1)


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 0.27), (np.float64, 0.15)])
def test_moments_take_little_more_than_a_byte_an_element(dtype, most):
    def size(**bits):
        optimizer = ddbp.Adam(0.01, **bits)
        ours(optimizer, dtype)
        return sum(moment.nbytes for moment in optimizer.moments.values())

    assert size(state_bits=8) < most * size()


def test_weights_move_as_with_moments_of_float32_in_each_of_ten_steps():
    found, expected = (ours(ddbp.Adam(0.01, **bits), np.float32)[0] for bits in BITS)
    moved = np.abs(expected - Given(np.float32).weight.value)
    assert np.abs(found - expected).mean() < 0.05 * moved.mean()


BITS = {"state_bits": 8}, {}


@pytest.mark.parametrize("bits", [16, 8.0, True, "8"])
def test_other_bits_are_refused(bits):
    with pytest.raises(ValueError, match=r"Adam: state_bits must be 8 or None; got .* Write"):
        ddbp.Adam(0.01, state_bits=bits)


def test_bits_of_no_moments_are_refused():
    with pytest.raises(ValueError, match="SGD: state_bits=8 needs a momentum above 0"):
        ddbp.SGD(0.1, state_bits=8)


@pytest.mark.parametrize("kind", ["AdaGrad", "Adafactor", "LAMB", "LARS", "Muon"])
def test_other_optimizers_have_no_such_option_as_is_said(kind):
    make = getattr(ddbp, kind)
    assert "state_bits" not in signature(make).parameters
    with pytest.raises(ValueError, match=f"{kind}: state_bits must be left out, as .*; got 8. "):
        make(0.01, state_bits=8)
    text = (Path(__file__).parents[3] / "docs/training.md").read_text()
    assert f"`{kind}`" in text.partition("Others have no such option: ")[2].partition("\n\n")[0]


def test_bits_of_a_group_are_refused():
    optimizer = ddbp.Adam(0.01, groups={"bias": {"state_bits": 8}})
    with pytest.raises(ValueError, match="options of group 'bias' must be those of Adam"):
        ours(optimizer, np.float32)


def test_bits_for_an_update_of_ones_own_are_refused_unless_it_is_by_blocks():
    class Own(ddbp.Adam):
        def update(self, chunk, moments, rate):
            chunk.values[:] -= rate * moments["mean"]

    with pytest.raises(ValueError, match="Own: an update must do all by one `apply`"):
        Own(0.01, state_bits=8)


def test_state_of_other_bits_is_refused():
    def trainer(**bits):
        return ddbp.Trainer(
            Given(np.float32), optimizer=ddbp.Adam(0.01, **bits), batch_size=1, shards=1, quiet=True
        )

    with pytest.raises(ValueError, match=r"a trainer with the same optimizer; got .* state_bits=8"):
        trainer(state_bits=8).load_state(trainer().state())


def test_optimizer_shows_its_bits_where_it_has_any():
    assert "state_bits=8" in repr(ddbp.Adam(0.01, state_bits=8))
    assert "state_bits" not in repr(ddbp.Adam(0.01))
