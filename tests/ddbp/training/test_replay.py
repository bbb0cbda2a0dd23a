"""Which arrays of a step once more are shown for a name of `--layer`."""

import json
from itertools import count

import numpy as np
import pytest

import ddbp
from ddbp import settings
from ddbp.instruments.calls import named
from ddbp.training import replay
from layers import GRU, LSTM, Embedding, Linear, PoolOverTime, ReLU, Sequential, models

TOKENS = np.arange(40).reshape(8, 5) % 7
LABELS = np.arange(8) % 3
# With one layer there is nothing between two, with one direction nothing of two.
UNUSED = {"layers.1.dropout", "layers.2._both"}


def recurrent():
    rng = np.random.default_rng(0)
    return Sequential(
        Embedding(7, 4, rng=rng),
        LSTM(4, 6, rng=rng, bidirectional=True),
        GRU(12, 5, rng=rng, layers=2, dropout=0.2),
        PoolOverTime(),
        Linear(5, 8, rng=rng),
        ReLU(),
        Linear(8, 3, rng=rng),
    )


def attentive():
    rng = np.random.default_rng(0)
    return Sequential(models.gpt(rng, 7, 5, 8, depth=1, heads=2), PoolOverTime())


def shown(monkeypatch, folder, model, layer):
    """Return the arrays of a step of a model, by name, that are kept for a layer."""
    folder.mkdir()
    request = {"trainer": 0, "step": 0, "checkpoint": None, "layer": layer}
    (folder / replay.REQUEST).write_text(json.dumps(request))
    monkeypatch.setenv(settings.REPLAY, str(folder))
    monkeypatch.setattr(replay, "_COUNT", count())
    trainer = ddbp.Trainer(model, loss="cross_entropy", optimizer="adam", batch_size=8, quiet=True)
    with pytest.raises(SystemExit) as ended:
        trainer.fit(ddbp.ArrayDataset(TOKENS, LABELS), epochs=1)
    assert ended.value.code == 0
    path = folder / "rank0.npz"
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("network", [recurrent, attentive])
def test_every_layer_that_computes_shows_its_arrays(monkeypatch, tmp_path, network):
    names = {name for name, _ in named(network())} - UNUSED
    for n, name in enumerate(sorted(names)):
        arrays = shown(monkeypatch, tmp_path / f"{n}", network(), name)
        outputs = [array for key, array in arrays.items() if ", output" in key]
        assert outputs, name
        assert any("gradient of output" in key for key in arrays), name
        assert all(np.isfinite(array).all() for array in outputs), name


def test_a_recurrent_layer_shows_what_it_is_made_of(monkeypatch, tmp_path):
    arrays = shown(monkeypatch, tmp_path / "step", recurrent(), "layers.1")
    of = {key.partition(", ")[0].partition(" of ")[2] for key in arrays}
    assert of == {"layers.1.cells.0", "layers.1.cells.1", "layers.1._both"}
    shapes = {array.shape for key, array in arrays.items() if key.endswith(".1, output 0")}
    assert shapes == {(8, 5, 6)}


def test_what_is_told_of_a_step_is_valid_json(monkeypatch, tmp_path):
    def refuse(name):
        raise AssertionError(name)

    shown(monkeypatch, tmp_path / "step", recurrent(), "layers.1")
    text = (tmp_path / "step" / replay.RESULT).read_text()
    found = json.loads(text, parse_constant=refuse)["quantities"]
    assert set(found["alignment_angle"]) == {None}
    assert np.isfinite(found["gradient_norm"]).all()


def test_arrays_for_which_there_is_no_room_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(replay, "_MOST_ELEMENTS", 200)
    assert len(shown(monkeypatch, tmp_path / "step", recurrent(), "layers.1")) == 1
    assert json.loads((tmp_path / "step" / "rank0.json").read_text())["left_out"] > 3
