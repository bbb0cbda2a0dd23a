"""Training of models with segments that are computed again: the bits of the models without."""

from pathlib import Path

import numpy as np
import pytest

import ddbp
from layers import GRU, LSTM, BatchNorm, Dropout, Linear, Recompute, Sequential, Tanh, TapeHook

from .small import DATA, make, network, parameters

SCRIPT = Path(__file__).parents[3] / "scripts" / "image_waves.py"


def trained(model, **options):
    trainer = make(model, optimizer=ddbp.Adam(0.01), clip_norm=1.0, drop_last=True, **options)
    losses = [record["loss"] for record in trainer.fit(DATA, epochs=4)]
    states = [state.value.tobytes() for _, state in trainer.model.named_states()]
    return parameters(trainer).tobytes(), losses, states, trainer.evaluate(DATA)


def middle():
    return Dropout(0.1), BatchNorm(16), Tanh()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shards": 4},
        {"shards": 4, "accumulate": 2},
        {"shards": 3, "precision": "bf16"},
        {"precision": "float16"},
    ],
    ids=str,
)
def test_a_model_with_segments_is_trained_to_the_bits_of_the_one_without(options):
    expected = trained(network(*middle()), **options)
    assert trained(network(Recompute(Sequential(*middle()))), **options) == expected
    assert trained(Recompute(network(Recompute(Sequential(*middle())))), **options) == expected


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_simulation_whose_steps_share_fields_is_trained_to_the_bits_of_the_one_that_is_kept(
    pooled, tmp_path, ranks
):
    found = []
    for number, flags in enumerate(([], ["--recompute"])):
        folder = tmp_path / str(number)
        arguments = "--quiet", "--epochs", 1, "--shards", 2, "--run-dir", folder, *flags
        found.append(pooled(ranks * number, SCRIPT, *arguments).result()["parameters_sha256"])
    assert found[0] == found[1]


def recurrent(wrap):
    rng = np.random.default_rng(3)
    inner = wrap(GRU(8, 5, layers=2, dropout=0.2, rng=rng))
    outer = wrap(Sequential(LSTM(4, 8, rng=rng), Dropout(0.1), inner))
    return Sequential(wrap(Linear(4, 4, rng=rng)), outer, Linear(5, 2, rng=rng))


def in_windows(model, **options):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((40, 7, 4)), rng.standard_normal((40, 7, 2))
    trainer = make(model, loss="mse", optimizer=ddbp.Adam(0.01), batch_size=10, **options)
    losses = [record["loss"] for record in trainer.fit(ddbp.ArrayDataset(x, y), epochs=2)]
    return parameters(trainer).tobytes(), losses


@pytest.mark.parametrize("options", [{}, {"shards": 3, "accumulate": 2}], ids=str)
def test_a_segment_carries_the_state_of_what_is_in_it_from_window_to_window(options):
    expected = in_windows(recurrent(lambda layer: layer), truncate=3, **options)
    assert in_windows(recurrent(Recompute), truncate=3, **options) == expected
    assert in_windows(Recompute(recurrent(Recompute)), truncate=3, **options) == expected


def test_a_segment_without_states_has_no_run():
    assert not hasattr(Recompute(Tanh()), "run")


class Order(ddbp.Callback, TapeHook):
    """Notes when parameters are ready."""

    def __init__(self):
        self.ready = []

    def on_parameter_ready(self, parameter):
        self.ready.append(parameter.shape)


def test_parameters_are_ready_as_soon_as_in_the_model_without_segments():
    orders = []
    for model in (network(*middle()), Recompute(network(Recompute(Sequential(*middle()))))):
        order = Order()
        trained(model, callbacks=[order])
        orders.append(order.ready)
    assert len(orders[0]) > 8
    assert orders[0] == orders[1]
