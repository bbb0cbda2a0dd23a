"""The reader in NumPy alone gives what bundles give, in a process that has nothing of ours."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import layers
from ddbp import export
from ddbp.export import numpy_reader

from ...conftest import run_process
from .models import MODELS, NUMPY, by

READER = Path(numpy_reader.__file__)
ALONE = """
import sys
for name in ("ddbp", "layers", "numba", "safetensors", "torch"):
    sys.modules[name] = None
import json
import numpy as np
import numpy_reader
for name, ragged in json.load(open("cases.json")):
    x = np.load(f"{name}.x.npy")
    lengths = np.load(f"{name}.lengths.npy") if ragged else None
    np.save(f"{name}.y.npy", numpy_reader.load(f"{name}.ddbp")(x, lengths))
assert {name for name in sys.modules if sys.modules[name]} & {"ddbp", "layers"} == set()
"""


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Return a folder with the outputs of all models, computed by a process that cannot import
    ours.
    """
    folder = tmp_path_factory.mktemp("reader")
    shutil.copy(READER, folder)
    cases = []
    for case in by(NUMPY):
        x, lengths = case.inputs()
        name = str(MODELS.index(case))
        export.save_bundle(folder / f"{name}.ddbp", case.model())
        np.save(folder / f"{name}.x.npy", x)
        if lengths is not None:
            np.save(folder / f"{name}.lengths.npy", lengths)
        cases.append((name, lengths is not None))
    (folder / "cases.json").write_text(json.dumps(cases))
    script = folder / "alone.py"
    script.write_text(ALONE)
    found = run_process([sys.executable, script], timeout=300, cwd=folder, PYTHONPATH="")
    assert found.status == 0, found.err
    return folder


@pytest.mark.parametrize("case", by(NUMPY), ids=repr)
def test_outputs_are_those_of_the_model(case, computed):
    model, (x, lengths) = case.model(), case.inputs()
    expected = model(x) if lengths is None else model(x, lengths=lengths)
    found = np.load(computed / f"{MODELS.index(case)}.y.npy")
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_it_is_a_program_too(tmp_path):
    model = layers.Linear(3, 2, rng=np.random.default_rng(0))
    export.save_bundle(tmp_path / "a.ddbp", model)
    x = np.ones((2, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    found = run_process(
        [sys.executable, READER, "a.ddbp", "x.npy", "y.npy"], timeout=300, cwd=tmp_path
    )
    assert found.status == 0, found.err
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(x), rtol=1e-6)


def test_as_a_program_it_takes_lengths(tmp_path):
    rng = np.random.default_rng(0)
    model = layers.Sequential(layers.LSTM(3, 4, rng=rng, last=True), layers.Linear(4, 2, rng=rng))
    export.save_bundle(tmp_path / "a.ddbp", model)
    x, lengths = rng.standard_normal((2, 5, 3)).astype(np.float32), np.array([2, 5])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "lengths.npy", lengths)
    command = [sys.executable, READER, "a.ddbp", "x.npy", "y.npy", "lengths.npy"]
    found = run_process(command, timeout=300, cwd=tmp_path)
    assert found.status == 0, found.err
    expected = model(x, lengths=lengths)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


def test_lengths_that_are_none_of_the_input_are_refused(tmp_path):
    export.save_bundle(tmp_path / "a.ddbp", layers.PoolOverTime())
    predict = numpy_reader.load(tmp_path / "a.ddbp")
    x = np.ones((2, 3, 1), np.float32)
    assert predict(x, [1, 3]).shape == (2, 1)
    for wrong in ([0, 3], [1, 4], [1], [1.0, 2.0]):
        with pytest.raises(ValueError, match="lengths must be integers"):
            predict(x, wrong)


def rezipped(path, target, compression=zipfile.ZIP_STORED, leave_out=()):
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist() if name not in leave_out}
    with zipfile.ZipFile(target, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)


def test_tokens_that_a_table_does_not_have_are_refused(tmp_path):
    model = layers.Sequential(layers.Embedding(5, 3, rng=np.random.default_rng(0)), layers.Tanh())
    export.save_bundle(tmp_path / "a.ddbp", model)
    predict = numpy_reader.load(tmp_path / "a.ddbp")
    tokens = np.array([[0, 4]])
    np.testing.assert_allclose(predict(tokens), model(tokens), atol=1e-6)
    for strange in (tokens - 1, tokens + 1, tokens.astype(float)):
        with pytest.raises(ValueError, match="tokens must be integers from 0 to 4"):
            predict(strange)


def test_what_is_no_whole_bundle_is_refused_in_one_line(tmp_path):
    good = tmp_path / "good"
    export.save_bundle(good, layers.Linear(3, 2, rng=np.random.default_rng(0)))
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-30])
    (tmp_path / "empty").touch()
    rezipped(good, tmp_path / "bare", leave_out=["bundle.json"])
    rezipped(good, tmp_path / "packed", zipfile.ZIP_DEFLATED)
    for name, what in (
        ("cut", "cut, which is cut off or no bundle"),
        ("empty", "empty, which is cut off or no bundle"),
        ("bare", "There is no item named 'bundle.json'"),
        ("packed", "bundle.json, compressed"),
        ("none", "No such file"),
    ):
        command = [sys.executable, READER, name, "x.npy", "y.npy"]
        found = run_process(command, timeout=300, cwd=tmp_path)
        assert found.status == 1
        (line,) = found.err.splitlines()
        assert line.startswith("numpy_reader: ")
        assert what in line
    assert not (tmp_path / "y.npy").exists()


def test_compressed_members_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    export.save_bundle(tmp_path / "a", layers.Linear(3, 2, rng=np.random.default_rng(0)))
    rezipped(tmp_path / "a", tmp_path / "b", zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match="compressed"):
        numpy_reader.load(tmp_path / "b")


def test_it_imports_nothing_but_numpy_and_the_standard_library():
    lines = [line.split()[1] for line in READER.read_text().splitlines() if "import " in line[:7]]
    assert {line.split(".")[0] for line in lines} <= {*sys.stdlib_module_names, "numpy"}


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (layers.Upsample(2), "the layer Upsample"),
        (layers.MaxPool2d(2, ceil_mode=True), "an option of pooling"),
        (
            layers.Conv2d(1, 1, 3, padding=1, padding_mode="reflect", rng=np.random.default_rng(0)),
            "padding_mode reflect",
        ),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(layer, what, tmp_path):
    export.save_bundle(tmp_path / "a.ddbp", layers.Sequential(layer))
    with pytest.raises(ValueError, match=what):
        numpy_reader.load(tmp_path / "a.ddbp")(np.zeros((1, 4, 4, 1), np.float32))


def test_damaged_parameters_are_refused(tmp_path):
    path = tmp_path / "a.ddbp"
    export.save_bundle(path, layers.Linear(3, 2, rng=np.random.default_rng(0)))
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["parameters.safetensors"] = members["parameters.safetensors"][:-1] + b"x"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with pytest.raises(ValueError, match="got damaged parameters"):
        numpy_reader.load(path)
