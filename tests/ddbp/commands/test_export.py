"""`ddbp export`: a model of a bundle or of a run for other tools."""

import os
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from ddbp import Adam, ArrayDataset, Checkpoints, Trainer, export
from ddbp.commands import cli
from layers import Composite, Embedding, Linear, PoolOverTime, ReLU, Sequential, SoftmaxCrossEntropy

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def model():
    rng = np.random.default_rng(1)
    return Sequential(Linear(4, 5, rng=rng), ReLU(), Linear(5, 2, rng=rng))


@pytest.fixture
def bundle(tmp_path):
    export.save_bundle(tmp_path / "a.ddbp", model(), labels=["no", "yes"], example=X)
    return tmp_path / "a.ddbp"


def trained(folder, network=None, **options):
    network = network or model()
    trainer = Trainer(
        network,
        loss=SoftmaxCrossEntropy(),
        optimizer=Adam(0.01),
        batch_size=10,
        run_dir=folder,
        quiet=True,
        **options,
    )
    trainer.fit(ArrayDataset(X, Y), epochs=2)
    return network


def test_a_bundle_becomes_files_of_others(bundle, tmp_path, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ddbp[onnx]'")
    target, weights = tmp_path / "a.onnx", tmp_path / "a.safetensors"
    assert cli.main(["export", str(bundle), "--onnx", str(target), "--torch", str(weights)]) == 0
    out = capsys.readouterr().out
    assert "4 arrays with PyTorch's names" in out
    assert safetensors.numpy.load_file(weights).keys() == {
        f"{i}.{n}" for i in (0, 2) for n in ("weight", "bias")
    }
    assert target.stat().st_size > 100
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        assert "is not installed" in out
    else:
        assert "outputs of onnxruntime differ by" in out


def test_files_that_are_there_stay_unless_told(bundle, tmp_path, capsys):
    command = ["export", str(bundle), "--torch", str(bundle)]
    before = bundle.read_bytes()
    assert cli.main(command) == 1
    assert "export must write a new file" in capsys.readouterr().err
    assert bundle.read_bytes() == before
    (tmp_path / "b").touch()
    assert cli.main(["export", str(bundle), "--torch", str(tmp_path / "b"), "--overwrite"]) == 0


def test_what_a_bundle_holds_is_shown(bundle, capsys):
    assert cli.main(["export", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "labels: no, yes\nexample: (4,) float32\nparameters: 37\nmodel: Sequential(" in out


def test_a_run_that_has_ended_becomes_a_bundle(tmp_path):
    network = trained(tmp_path / "run")
    out = tmp_path / "a.ddbp"
    assert cli.main(["export", str(tmp_path / "run"), "--bundle", str(out), "--shape", "4"]) == 0
    found = export.load_bundle(out)
    np.testing.assert_array_equal(found.predict(X), network(X))
    assert found.example == ((4,), "float32")


def test_of_a_run_on_its_way_the_newest_checkpoint_is_taken(tmp_path):
    network = trained(tmp_path / "run", callbacks=[Checkpoints(every_epochs=1)])
    (tmp_path / "run" / "model.safetensors").unlink()
    found = export.load_run(tmp_path / "run").model
    np.testing.assert_array_equal(found(X), network(X))


def test_parameters_of_the_run_before_are_not_those_of_this_one(tmp_path):
    trained(tmp_path / "run", callbacks=[Checkpoints(every_epochs=1)])
    parameters = tmp_path / "run" / "model.safetensors"
    network = model()
    export.save_bundle(tmp_path / "a.ddbp", network)
    with zipfile.ZipFile(tmp_path / "a.ddbp") as file:
        parameters.write_bytes(file.read("parameters.safetensors"))
    found = export.load_run(tmp_path / "run").model
    np.testing.assert_array_equal(found(X), network(X))
    os.utime(parameters, (1, 1))
    found = export.load_run(tmp_path / "run").model
    assert not np.array_equal(found(X), network(X))


def test_what_a_run_lacks_is_said(tmp_path, capsys):
    class Own(Composite):
        def __init__(self, body):
            self.body = body

        def __call__(self, x):
            return self.body(x)

    trained(tmp_path / "own", Own(model()))
    trained(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    for folder, must in (
        ("own", "run that has architecture.json; got none. Register layers of your own"),
        ("run", "must have model.safetensors or a whole checkpoint; got neither"),
    ):
        assert cli.main(["export", str(tmp_path / folder)]) == 1
        assert must in capsys.readouterr().err
    (tmp_path / "run" / "architecture.json").write_text("{")
    assert cli.main(["export", str(tmp_path / "run")]) == 1
    assert "must be JSON" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "none")]) == 1
    assert "a bundle must be a readable file" in capsys.readouterr().err


def test_the_example_is_made_of_a_shape(tmp_path, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ddbp[onnx]'")
    words = Sequential(Embedding(7, 3, rng=RNG), PoolOverTime(), Linear(3, 2, rng=RNG))
    export.save_bundle(tmp_path / "a.ddbp", words)
    command = ["export", str(tmp_path / "a.ddbp"), "--onnx", str(tmp_path / "a.onnx")]
    assert cli.main(command) == 1
    assert "the shape of an input must be known" in capsys.readouterr().err
    assert cli.main([*command, "--shape", "6", "--lengths", "--any-length"]) == 0
    for wrong in ("0", "x", "1,,2", "-1"):
        with pytest.raises(SystemExit):
            cli.main([*command, "--shape", wrong])
