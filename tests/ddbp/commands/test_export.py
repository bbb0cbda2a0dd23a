"""`ddbp export`: a model of a bundle or of a run for other tools."""

import os
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from ddbp import Adam, ArrayDataset, Checkpoints, Ragged, Trainer, export
from ddbp.commands import cli
from layers import (
    LSTM,
    Composite,
    Embedding,
    Linear,
    PoolOverTime,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)

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


def test_a_model_of_sequences_takes_lengths_and_any_number_of_steps(tmp_path, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ddbp[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    lstm = LSTM(3, 4, rng=RNG, last=True, bidirectional=True)
    words = Sequential(Embedding(7, 3, rng=RNG), lstm, Linear(8, 2, rng=RNG))
    lines = Ragged([[1, 2, 3, 4, 5], [6], [2, 0, 2]])
    export.save_bundle(tmp_path / "a.ddbp", words, example=lines)
    assert export.load_bundle(tmp_path / "a.ddbp").ragged
    target = tmp_path / "a.onnx"
    assert cli.main(["export", str(tmp_path / "a.ddbp"), "--onnx", str(target)]) == 0
    assert "takes lengths of sequences, of any number of steps; outputs" in capsys.readouterr().out
    session = runtime.InferenceSession(target, providers=["CPUExecutionProvider"])
    shapes = [(each.name, each.shape) for each in session.get_inputs()]
    assert shapes == [("input", ["batch", "steps"]), ("lengths", ["batch"])]
    for rows in ([0, 1, 2], [1, 2]):
        x, lengths = lines.padded(rows, rows)
        (found,) = session.run(None, {"input": x, "lengths": lengths})
        expected = export.load_bundle(tmp_path / "a.ddbp").predict(lines[rows])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_lengths_can_be_left_out_and_are_kept_by_another_bundle(tmp_path, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ddbp[onnx]'")
    network = Sequential(LSTM(3, 4, rng=RNG, last=True), Linear(4, 2, rng=RNG))
    source, target = tmp_path / "a.ddbp", tmp_path / "b.ddbp"
    sequences = [RNG.standard_normal((steps, 3)).astype(np.float32) for steps in (4, 2)]
    export.save_bundle(source, network, example=Ragged(sequences))
    command = ["export", str(source), "--onnx", str(tmp_path / "a.onnx"), "--bundle", str(target)]
    assert cli.main([*command, "--no-lengths"]) == 0
    assert "takes lengths" not in capsys.readouterr().out
    assert not export.load_bundle(target).ragged
    assert cli.main(["export", str(source), "--bundle", str(target), "--overwrite"]) == 0
    found = export.load_bundle(target)
    assert found.ragged
    assert found.example == ((4, 3), "float32")
    assert cli.main(["export", str(target)]) == 0
    assert "example: (4, 3) float32, and others of other lengths" in capsys.readouterr().out


def test_lengths_of_what_has_no_steps_are_refused(bundle, tmp_path, capsys):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ddbp[onnx]'")
    plain = tmp_path / "plain.ddbp"
    export.save_bundle(plain, Embedding(3, 2, rng=RNG), example=np.zeros(1, int))
    command = ["export", str(plain), "--onnx", str(tmp_path / "a.onnx"), "--lengths"]
    assert cli.main(command) == 1
    assert "inputs with --lengths or --any-length must have steps" in capsys.readouterr().err


def test_a_missing_run_is_said_before_its_output_and_a_missing_folder_before_any_work(
    bundle, tmp_path, capsys
):
    command = ["export", str(tmp_path / "none"), "--torch", str(bundle)]
    assert cli.main(command) == 1
    assert "a bundle must be a readable file" in capsys.readouterr().err
    for flag in ("--onnx", "--torch", "--bundle"):
        other = tmp_path / f"first{flag}"
        first = "--bundle" if flag == "--torch" else "--torch"
        there = str(tmp_path / "nodir" / "x")
        assert cli.main(["export", str(bundle), first, str(other), flag, there]) == 1
        said = capsys.readouterr().err
        assert f"Make the folder {tmp_path / 'nodir'} first, or write elsewhere." in said
        assert not other.exists()


def test_where_a_bundle_cannot_be_written_the_folder_is_to_be_made(tmp_path):
    with pytest.raises(OSError, match=r"got No such file.* Make the folder .*nodir first"):
        export.save_bundle(tmp_path / "nodir" / "a.ddbp", model())
    with pytest.raises(OSError, match=r"Make the folder .*nodir first"):
        export.to_torch(model(), tmp_path / "nodir" / "a.safetensors")
    (tmp_path / "folder.ddbp").mkdir()
    with pytest.raises(OSError, match="Name a file"):
        export.save_bundle(tmp_path / "folder.ddbp", model())


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
