"""Parameters in safetensors files."""

import numpy as np
import pytest
import safetensors.numpy

import ddbp
from layers import Linear, ReLU, Sequential, TreeRNN


def network(seed, width=4, dtype=np.float32):
    """Return a small network."""
    rng = np.random.default_rng(seed)
    return Sequential(
        Linear(3, width, rng=rng, dtype=dtype), ReLU(), Linear(width, 2, rng=rng, dtype=dtype)
    )


def bits(model):
    """Return the bytes of all parameters."""
    return [parameter.value.tobytes() for parameter in model.parameters()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_come_back_to_the_last_bit(tmp_path, dtype):
    saved, loaded = network(1, dtype=dtype), network(2, dtype=dtype)
    assert bits(saved) != bits(loaded)
    ddbp.save_parameters(saved, tmp_path / "model.safetensors")
    ddbp.load_parameters(loaded, tmp_path / "model.safetensors")
    assert bits(loaded) == bits(saved)


def test_names_in_the_file_are_those_of_the_model(tmp_path):
    ddbp.save_parameters(network(1), tmp_path / "model.safetensors")
    names = {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}
    assert safetensors.numpy.load_file(tmp_path / "model.safetensors").keys() == names


def test_shared_layer_is_saved_once(tmp_path):
    shared = Linear(3, 3, rng=np.random.default_rng(0))
    ddbp.save_parameters(Sequential(shared, shared), tmp_path / "model.safetensors")
    assert len(safetensors.numpy.load_file(tmp_path / "model.safetensors")) == 2


def test_loading_into_a_trained_model_keeps_it_connected(tmp_path):
    x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    model = network(1)
    trainer = ddbp.Trainer(model, optimizer=ddbp.SGD(0.1), batch_size=8, quiet=True)
    ddbp.save_parameters(network(2), tmp_path / "model.safetensors")
    before = trainer.parameters_sha256()
    ddbp.load_parameters(model, tmp_path / "model.safetensors")
    assert trainer.parameters_sha256() != before
    assert trainer.predict(x).tobytes() == network(2)(x).tobytes()


def test_saving_leaves_no_other_file(tmp_path):
    for seed in (1, 2):
        ddbp.save_parameters(network(seed), tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_parameters_of_another_model_are_refused_by_name(tmp_path):
    ddbp.save_parameters(network(1), tmp_path / "model.safetensors")
    other = Sequential(*network(2), Linear(2, 2, rng=np.random.default_rng(0)))
    before = bits(other)
    must = (
        r"model\.safetensors must hold the parameters of the model; got missing"
        r" \['layers\.3\.bias', 'layers\.3\.weight'\], "
    )
    with pytest.raises(
        ValueError,
        match=rf"^load_parameters: .*{must}unexpected \[\]\. Build the same model first\.$",
    ):
        ddbp.load_parameters(other, tmp_path / "model.safetensors")
    assert bits(other) == before


def test_file_with_names_of_before_says_what_they_are_called_now(tmp_path):
    model = TreeRNN(3, 2, rng=np.random.default_rng(0))
    path = tmp_path / "model.safetensors"
    ddbp.save_parameters(model, path)
    arrays = safetensors.numpy.load_file(path)
    for old, new in (("input_weight", "weight_ih"), ("state_weight", "weight_hh")):
        arrays[old] = arrays.pop(new)
    safetensors.numpy.save_file(arrays, path)
    now = "Rename what the file holds: input_weight is now weight_ih, state_weight is now weight_hh"
    with pytest.raises(ValueError, match=rf"unexpected \['input_weight', .*\. {now}\.$"):
        ddbp.load_parameters(model, path)


def test_parameters_of_another_width_are_refused_with_both_shapes(tmp_path):
    ddbp.save_parameters(network(1, width=5), tmp_path / "model.safetensors")
    model = network(2)
    before = bits(model)
    with pytest.raises(
        ValueError,
        match=r"^load_parameters: layers\.0\.weight must have shape \(4, 3\); got \(5, 3\)\. ",
    ):
        ddbp.load_parameters(model, tmp_path / "model.safetensors")
    assert bits(model) == before


def test_later_mismatch_leaves_earlier_parameters_alone(tmp_path):
    arrays = {
        "layers.0.weight": (4, 3),
        "layers.0.bias": (4,),
        "layers.2.weight": (2, 4),
        "layers.2.bias": (3,),
    }
    safetensors.numpy.save_file(
        {name: np.ones(shape, np.float32) for name, shape in arrays.items()},
        tmp_path / "model.safetensors",
    )
    model = network(2)
    before = bits(model)
    with pytest.raises(ValueError, match=r"layers\.2\.bias must have shape \(2,\); got \(3,\)"):
        ddbp.load_parameters(model, tmp_path / "model.safetensors")
    assert bits(model) == before


def test_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(
        ValueError, match=r"^load_parameters: .*model\.safetensors must be a safetensors file; got "
    ):
        ddbp.load_parameters(network(1), path)


def test_cut_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    ddbp.save_parameters(network(1), path)
    path.write_bytes(path.read_bytes()[:-10])
    model = network(2)
    before = bits(model)
    with pytest.raises(
        ValueError, match=r"^load_parameters: .*model\.safetensors must be a safetensors file; got "
    ):
        ddbp.load_parameters(model, path)
    assert bits(model) == before


def test_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"^load_parameters: path must be a readable file; got .*nowhere\.safet",
    ):
        ddbp.load_parameters(network(1), tmp_path / "nowhere.safetensors")


def test_float32_parameters_load_into_a_float64_model(tmp_path):
    ddbp.save_parameters(network(1, dtype=np.float32), tmp_path / "model.safetensors")
    wide = network(2, dtype=np.float64)
    ddbp.load_parameters(wide, tmp_path / "model.safetensors")
    narrow = network(1, dtype=np.float32)
    for ours, theirs in zip(wide.parameters(), narrow.parameters(), strict=True):
        assert ours.value.tolist() == theirs.value.tolist()
