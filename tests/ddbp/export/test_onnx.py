"""ONNX: onnxruntime gives what models give, for any number of samples."""

import re

import numpy as np
import pytest

import layers
from ddbp import export
from layers import Composite, models

from .models import ONNX, Exported, by

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ddbp[onnx]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: pip install 'ddbp[oracle]'"
)
RNG = np.random.default_rng(0)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def assert_equal(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found / scale, expected / scale, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", by(ONNX), ids=repr)
def test_outputs_of_onnxruntime_are_those_of_the_model(case, tmp_path):
    model, path = case.model(), tmp_path / "a.onnx"
    x, lengths = case.inputs(samples=3)
    export.to_onnx(model, path, x, lengths=lengths)
    onnx.checker.check_model(str(path), full_check=True)
    runs = session(path)
    for samples in (3, 1, 7):
        x, lengths = case.inputs(samples, seed=samples)
        given = {"input": x} | ({} if lengths is None else {"lengths": lengths})
        expected = model(x) if lengths is None else model(x, lengths=lengths)
        (found,) = runs.run(None, given)
        assert_equal(found, expected)


def exported(model, path, *inputs):
    export.to_onnx(model, path, inputs if inputs[1:] else inputs[0])
    names = [f"input_{i}" for i in range(len(inputs))] if inputs[1:] else ["input"]
    return session(path).run(None, dict(zip(names, inputs, strict=True)))


@pytest.mark.parametrize(
    "name",
    [
        *("GPT", "encoder of lengths", "causal encoder", "LSTM both ways", "words of lengths"),
        *("last over time of lengths", "more steps"),
    ],
)
def test_sequences_may_have_any_length(name, tmp_path):
    more = Exported("more steps", _more_steps, (6, 4))
    case = next(each for each in [*by(ONNX), more] if each.name == name)
    model, path = case.model(), tmp_path / "a.onnx"
    x, lengths = case.inputs(samples=2)
    export.to_onnx(model, path, x, lengths=lengths, any_length=True)
    runs = session(path)
    for steps in (x.shape[1], 5, 1):
        given = {"input": x[:, :steps]}
        if lengths is not None:
            given["lengths"] = np.minimum(lengths, steps)
        expected = (
            model(*given.values())
            if lengths is None
            else model(given["input"], lengths=given["lengths"])
        )
        assert_equal(runs.run(None, given)[0], expected)


def _more_steps(rng):
    return layers.Sequential(
        layers.SinusoidalPositions(9, 4),
        layers.Conv1d(4, 5, 3, padding="same", rng=rng),
        layers.PoolOverTime("last"),
    )


class Own(Composite):
    """What a function makes of the outputs of a layer."""

    def __init__(self, function):
        self.function, self.dense = function, layers.Linear(4, 4, rng=RNG)

    def __call__(self, x):
        return self.function(self.dense(x))


@pytest.mark.parametrize(
    "model",
    [
        Own(lambda h: h[:, -1]),
        Own(lambda h: h[:, 1:]),
        Own(lambda h: h[:, :-1]),
        Own(lambda h: h[:, ::-1]),
        Own(lambda h: h[:, -2:]),
        Own(lambda h: h[:, -1:-3:-1]),
        Own(lambda h: h.reshape((h.shape[0], h.shape[1], 2, 2))),
        layers.GroupNorm(2, 4),
        layers.MaxPool1d(3, stride=2, padding=1),
        layers.AvgPool1d(3, stride=2, padding=1),
        layers.Conv1d(4, 5, 3, stride=2, padding=1, rng=RNG),
    ],
    ids=repr,
)
def test_what_counts_steps_from_the_end_does_so_for_any_length(model, tmp_path):
    path = tmp_path / "a.onnx"
    export.to_onnx(model, path, RNG.standard_normal((2, 6, 4)).astype(np.float32), any_length=True)
    runs = session(path)
    for steps in (6, 3, 7, 11):
        x = RNG.standard_normal((3, steps, 4)).astype(np.float32)
        assert_equal(runs.run(None, {"input": x})[0], model(x))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            Own(lambda h: h.sum(axis=1) / h.shape[1]),
            r"of steps; got Divide\(.*or leave out any_length",
        ),
        (layers.Conv1d(4, 5, 3, stride=2, padding="same", rng=RNG), r"got Conv1d\(4, 5, \(1, 3\)"),
        (layers.AvgPool1d(2, ceil_mode=True), r"got AvgPool1d\("),
        (layers.AdaptiveAvgPool1d(2), r"got AdaptiveAvgPool1d\("),
        (layers.Sequential(layers.Flatten(), layers.Linear(24, 3, rng=RNG)), "other numbers of"),
    ],
    ids=repr,
)
def test_what_depends_on_the_number_of_steps_has_not_any_length(model, says, tmp_path):
    x = RNG.standard_normal((2, 6, 4)).astype(np.float32)
    with pytest.raises(ValueError, match=says):
        export.to_onnx(model, tmp_path / "a.onnx", x, any_length=True)
    assert not any(tmp_path.iterdir())
    export.to_onnx(model, tmp_path / "a.onnx", x)
    assert_equal(session(tmp_path / "a.onnx").run(None, {"input": x})[0], model(x))


def test_what_depends_on_the_number_of_samples_is_refused(tmp_path):
    path, x = tmp_path / "a.onnx", RNG.standard_normal((2, 4)).astype(np.float32)
    for function, layer in (
        (lambda h: h / h.shape[0], "Divide"),
        (lambda h: h + np.ones((h.shape[0], 1), np.float32), "Add"),
    ):
        with pytest.raises(ValueError, match=rf"on the number of samples; got {layer}\("):
            export.to_onnx(Own(function), path, x)
    assert not path.exists()
    # Of one sample, it is the same for any number.
    model = Own(lambda h: h + np.ones((h.shape[0], 1), np.float32))
    export.to_onnx(model, path, x[:1])
    assert_equal(session(path).run(None, {"input": x})[0], model(x))


class Branches(Composite):
    """Ordinary Python with several inputs and outputs."""

    def __init__(self, rng):
        self.first, self.cross = layers.Linear(4, 6, rng=rng), layers.DecoderBlock(6, 2, rng=rng)
        self.cell = layers.LSTMCell(6, 5, rng=rng)

    def __call__(self, x, z):
        h = layers.tanh(self.first(x)) * 2 - x[:, :, :1] / 3
        y = self.cross(h, self.first(z))
        mean = y.mean(axis=1)
        h, c = self.cell(mean)
        h, c = self.cell(y[:, -1], (h, c))
        joined = layers.Concatenate()(h, c, (y @ np.ones((6, 2), np.float32)).sum(axis=1))
        return joined.reshape((len(x.shape) and x.shape[0], 3, 4)), {"y": y}["y"] ** 2


def test_ordinary_python_is_followed(tmp_path):
    model = Branches(RNG)
    x, z = (RNG.standard_normal((3, t, 4)).astype(np.float32) for t in (5, 6))
    found = exported(model, tmp_path / "a.onnx", x, z)
    for each, expected in zip(found, model(x, z), strict=True):
        assert_equal(each, expected)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (layers.Add(), [(3, 4), (3, 4)]),
        (layers.Multiply(), [(3, 2, 4), (3, 1, 4)]),
        (layers.Concatenate(1), [(3, 2, 4), (3, 5, 4)]),
        (layers.Attention(2), [(3, 5, 4), (3, 6, 4), (3, 6, 4)]),
        (layers.Attention(2, causal=True), [(3, 5, 12)]),
        (layers.Attention(2), [(3, 5, 4), (3, 6, 8)]),
        (layers.MultiHeadAttention(4, 2, rng=RNG, cross=True, bias=False), [(3, 5, 4), (3, 6, 4)]),
        (layers.Coefficients([[1.0, 2.0]]), [(3, 4)]),
        (layers.LayerNorm((2, 4), affine=False), [(3, 2, 4)]),
        (layers.RMSNorm((2, 4)), [(3, 2, 4)]),
        (layers.BatchNorm(4, affine=False), [(3, 5, 4)]),
        (layers.InstanceNorm(4), [(3, 5, 4)]),
        (layers.Softmax(1), [(3, 5, 4)]),
        (layers.PReLU(4), [(3, 5, 5, 4)]),
        (layers.Linear(4, 2, rng=RNG), [(3, 5, 5, 4)]),
    ],
    ids=repr,
)
def test_layers_one_by_one(layer, shapes, tmp_path):
    inputs = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    (found,) = exported(layer, tmp_path / "a.onnx", *inputs)
    assert_equal(found, layer(*inputs))


def test_a_model_in_float64_is_written_in_float32(tmp_path):
    model = layers.Sequential(layers.Linear(3, 2, rng=RNG), layers.BatchNorm(2)).astype(np.float64)
    x = RNG.standard_normal((3, 3))
    export.to_onnx(model, tmp_path / "a.onnx", x)
    (found,) = session(tmp_path / "a.onnx").run(None, {"input": x.astype(np.float32)})
    assert_equal(found, model(x).astype(np.float32))


def test_no_images_are_turned_around_between_convolutions(tmp_path):
    x = np.zeros((1, 16, 16, 3), np.float32)
    export.to_onnx(models.resnet20(RNG), tmp_path / "a.onnx", x)
    nodes = onnx.load(tmp_path / "a.onnx").graph.node
    assert [node.op_type for node in nodes].count("Transpose") == 1


def test_layers_without_a_form_in_onnx_are_named_in_one_error(tmp_path):
    class Odd(Composite):
        def __init__(self):
            self.one, self.two = layers.TreeLSTM(3, 4, rng=RNG), layers.TreeRNN(3, 4, rng=RNG)

        def __call__(self, x):
            trees = np.array([[-1, 0], [-1, 0]])
            return layers.expm1(self.one(x, trees) + self.two(x, trees))

    x = np.zeros((2, 2, 3), np.float32)
    must = re.escape("got TreeLSTM(3, 4) (one), TreeRNN(3, 4) (two), the function expm1. Take")
    with pytest.raises(ValueError, match=must):
        export.to_onnx(Odd(), tmp_path / "a.onnx", x)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "example", "options", "must"),
    [
        (3, np.ones((1, 3)), {}, "model must be a layer"),
        (layers.ReLU(), np.ones((0, 3)), {}, "example must be of one sample"),
        (layers.ReLU(), "x", {}, "example must be an array"),
        (layers.ReLU(), np.ones((2, 3)), {"lengths": [1]}, "lengths must be integers of shape"),
    ],
)
def test_wrong_arguments_are_refused(model, example, options, must, tmp_path):
    with pytest.raises((TypeError, ValueError), match=must):
        export.to_onnx(model, tmp_path / "a.onnx", example, **options)


def test_where_onnx_is_not_installed_the_error_says_how(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install \"ddbp\[onnx\]\""):
        export.to_onnx(layers.ReLU(), tmp_path / "a.onnx", np.ones((1, 3)))
