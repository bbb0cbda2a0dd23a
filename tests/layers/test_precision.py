"""Models that multiply in bfloat16."""

import numpy as np
import pytest

from layers import (
    GELU,
    GRU,
    LSTM,
    RNN,
    Attention,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    EncoderBlock,
    Linear,
    Sequential,
    Tanh,
    Tape,
    TreeLSTM,
    TreeRNN,
    precision,
    set_precision,
)
from layers.engine.precision import Precision
from layers.kernels.llvm.simd_bf16 import HAS_DOTS

from .bf16 import NAMES, rounded

in_bf16 = pytest.mark.parametrize("name", NAMES)
with_panels = pytest.mark.parametrize("name", [*NAMES, "bf16x3"])
EPS = 2.0**-24


def passed(model, x, dy, shards=None, further=()):
    """Return the output, the gradient of the input and those of the parameters."""
    tape = Tape(training=True, shards=shards)
    value = tape.input(x)
    y = model(value, *further)
    y = y[0] if isinstance(y, tuple) else y
    y.backward(dy)
    gradients = {name: each.gradient.copy() for name, each in model.named_parameters()}
    return {"y": y.array.copy(), "dx": value.grad.copy(), **gradients}


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@in_bf16
@pytest.mark.parametrize("shards", [None, (0, 30, 64)], ids=["one shard", "two shards"])
def test_a_dense_layer_rounds_the_operands_of_its_products_and_nothing_else(name, shards):
    layer = Linear(50, 37, rng=np.random.default_rng(0))
    layer.bias.value[...] = draw(37)
    set_precision(layer, name)
    x, dy = draw(64, 50), draw(64, 37)
    found = passed(layer, x, dy, shards)
    weight = rounded(layer.weight.value)
    products = {
        "y": (rounded(x), weight.T, layer.bias.value),
        "dx": (rounded(dy), weight, 0),
        "weight": (rounded(dy).T, rounded(x), 0),
    }
    for what, (a, b, bias) in products.items():
        size = np.abs(a) @ np.abs(b) + np.abs(bias)
        error = np.abs(found[what] - (a @ b + bias))
        # Of a sum of n float32 numbers each rounding is at most half a unit of the last place.
        assert (error <= (a.shape[1] + 3) * EPS * size).all(), what
    np.testing.assert_allclose(found["bias"], dy.astype(np.float64).sum(axis=0), atol=1e-5)
    np.testing.assert_array_equal(layer(x), found["y"])


MODELS = {
    "dense": lambda rng: Sequential(Linear(20, 33, rng=rng), Tanh(), Linear(33, 33, rng=rng)),
    "dense with GELU": lambda rng: Sequential(Linear(20, 33, rng=rng), GELU()),
    "LSTM": lambda rng: LSTM(20, 33, rng=rng),
    "LSTM in both directions": lambda rng: LSTM(20, 33, bidirectional=True, rng=rng),
    "GRU": lambda rng: GRU(20, 33, layers=2, rng=rng),
    "RNN": lambda rng: RNN(20, 33, rng=rng),
    "convolution": lambda rng: Conv2d(20, 33, 3, padding=1, rng=rng),
    "convolution in groups": lambda rng: Conv2d(20, 36, 3, stride=2, groups=2, rng=rng),
    "convolution of sequences": lambda rng: Conv1d(20, 33, 4, padding=(3, 0), rng=rng),
    "convolution of a mirrored image": lambda rng: Conv2d(
        20, 33, 3, padding=1, padding_mode="reflect", rng=rng
    ),
    "transposed convolution": lambda rng: ConvTranspose2d(20, 33, 3, stride=2, rng=rng),
    "encoder": lambda rng: EncoderBlock(20, 4, 33, rng=rng),
    "attention": lambda rng: Attention(2),
    "causal attention": lambda rng: Attention(3, causal=True),
    "tree RNN": lambda rng: TreeRNN(20, 33, rng=rng),
    "tree LSTM": lambda rng: TreeLSTM(20, 33, rng=rng),
}
SHAPES = {
    "": (6, 9, 20),
    "dense": (12, 20),
    "convolution of sequences": (6, 9, 20),
    "convolution": (6, 5, 7, 20),
    "transposed convolution": (6, 5, 7, 20),
    "attention": (6, 45, 3 * 20),
    "causal attention": (4, 130, 3 * 21),
}
PARENTS = np.tile([1, 4, 3, 4, -1, -2, -2, -2, -2], (6, 1))


def inputs_of(kind):
    """Return the input of a kind of model, by the longest name that it begins with, and what more
    it is called with.
    """
    shape = SHAPES[max((name for name in SHAPES if kind.startswith(name)), key=len)]
    return draw(*shape), (PARENTS,) if kind.startswith("tree") else ()


@in_bf16
@pytest.mark.parametrize("kind", MODELS)
def test_every_gradient_differs_from_that_of_float32_by_about_an_eps_of_bfloat16(kind, name):
    found = {}
    x, further = inputs_of(kind)
    for each in ("float32", name):
        model = MODELS[kind](np.random.default_rng(1))
        set_precision(model, each)
        assert {layer.precision.name for _, layer in model.named_layers()} == {each}
        y = model(x, *further)
        dy = draw(*np.shape(y[0] if isinstance(y, tuple) else y), seed=1)
        found[each] = passed(model, x, dy, (0, 2, len(x)), further)
    for what, expected in found["float32"].items():
        if not np.any(expected):
            continue
        error = np.linalg.norm(found[name][what] - expected) / np.linalg.norm(expected)
        # 2^-9, half a unit of the last place of bfloat16, times what some steps and layers make.
        assert error < 10 * 2**-9, (what, error)
        assert error > 0 or what.endswith(("bias", "shift")), what


def without_weights(kind):
    """Return whether a model computes all in float32 unless it rounds."""
    return "convolution" in kind or "attention" in kind


@pytest.mark.parametrize("kind", MODELS)
def test_operands_that_are_split_give_gradients_of_about_float32(kind):
    found = {}
    x, further = inputs_of(kind)
    for name in ("float32", "bf16x3"):
        model = MODELS[kind](np.random.default_rng(1))
        set_precision(model, name)
        y = model(x, *further)
        dy = draw(*np.shape(y[0] if isinstance(y, tuple) else y), seed=1)
        found[name] = passed(model, x, dy, (0, 2, len(x)), further)
    for what, expected in found["float32"].items():
        error = np.linalg.norm(found["bf16x3"][what] - expected)
        assert error <= 3e-5 * np.linalg.norm(expected), (what, error)
        rounds = np.any(expected) and not what.endswith(("bias", "shift"))
        assert (error > 0) == (rounds and not without_weights(kind)) or not rounds, what


@pytest.mark.parametrize("kind", MODELS)
def test_float16_changes_gradients_alone_by_about_an_eps_of_it(kind):
    found = {}
    x, further = inputs_of(kind)
    for name in ("float32", "float16"):
        model = MODELS[kind](np.random.default_rng(1))
        set_precision(model, name)
        y = model(x, *further)
        dy = draw(*np.shape(y[0] if isinstance(y, tuple) else y), seed=1)
        found[name] = passed(model, x, dy, (0, 2, len(x)), further)
    expected, rounded_ = found["float32"], found["float16"]
    assert rounded_.pop("y").tobytes() == expected["y"].tobytes()
    for what, gradient in rounded_.items():
        error = np.linalg.norm(gradient - expected[what])
        assert error <= 10 * 2.0**-12 * np.linalg.norm(expected[what]), what


@pytest.mark.parametrize("name", [*NAMES, "bf16x3", "float16"])
def test_a_copy_in_float64_does_not_round(name):
    model, x = MODELS["dense"](np.random.default_rng(1)), draw(6, 20)
    expected = model.astype(np.float64)(x.astype(np.float64))
    set_precision(model, name)
    wide = model.astype(np.float64)
    assert (wide(x.astype(np.float64)) == expected).all()
    assert {layer.precision.name for _, layer in wide.named_layers()} == {"float32"}
    assert {layer.precision.name for _, layer in model.named_layers()} == {name}
    again = model.astype(np.float32)
    assert {layer.precision.name for _, layer in again.named_layers()} == {name}


def test_what_float16_cannot_hold_is_infinite_on_its_way_back():
    layer = Linear(3, 2, rng=np.random.default_rng(0))
    set_precision(layer, "float16")
    x = np.array([[1.0, 2.0, 7e4]], np.float32)
    found = passed(layer, x, np.ones((1, 2), np.float32))
    assert np.isfinite(found["y"]).all()
    assert np.isinf(found["weight"][:, 2]).all()
    assert np.isfinite(found["weight"][:, :2]).all()


@with_panels
@pytest.mark.parametrize("kind", ["dense", "LSTM"])
def test_no_weight_is_packed_for_a_gradient_that_nobody_wants(kind, name, monkeypatch):
    packed, pack, operands = [], Precision.pack, Precision.operands

    def counted(self, *arguments):
        *_, weight, transposed = arguments
        packed.append((weight.shape, transposed))
        return pack(self, *arguments)

    def counted_together(self, call, weight, *, both):
        packed.extend([(weight.shape, True), (weight.shape, False)][: 1 + both])
        return operands(self, call, weight, both=both)

    monkeypatch.setattr(Precision, "pack", counted)
    monkeypatch.setattr(Precision, "operands", counted_together)
    model, x = MODELS[kind](np.random.default_rng(1)), draw(6, 9, 20)
    set_precision(model, name)
    gradients = []
    for wanted in (True, False):
        packed.clear()
        tape = Tape(training=True)
        y = model(tape.input(x, gradient=wanted))
        y = y[0] if isinstance(y, tuple) else y
        y.backward(np.ones(y.array.shape, np.float32))
        gradients.append([each.gradient.copy() for _, each in model.named_parameters()])
        first = (33, 20) if kind == "dense" else (132, 20)
        assert ((first, False) in packed) == wanted
        assert (first, True) in packed
        for _, each in model.named_parameters():
            each.zero_gradient()
    for with_it, without in zip(*gradients, strict=True):
        np.testing.assert_array_equal(with_it, without)


@with_panels
def test_backward_goes_through_the_weight_that_forward_has_used(name):
    layer, x, dy = Linear(20, 33, rng=np.random.default_rng(0)), draw(12, 20), draw(12, 33)
    set_precision(layer, name)
    expected = passed(layer, x, dy)["dx"]
    tape = Tape(training=True)
    value = tape.input(x)
    y = layer(value)
    # In place, of which nobody is told; the next forward sees it.
    layer.weight.value[...] *= 2
    y.backward(dy)
    np.testing.assert_array_equal(value.grad, expected)
    np.testing.assert_array_equal(passed(layer, x, dy)["dx"], 2 * expected)


@with_panels
def test_a_model_goes_back_to_float32(name):
    model, x = MODELS["LSTM"](np.random.default_rng(1)), draw(6, 9, 20)
    before, *_ = model(x)
    set_precision(model, name)
    between, *_ = model(x)
    set_precision(model, "float32")
    after, *_ = model(x)
    assert (before == after).all()
    assert (before != between).any()


def test_convolution_of_single_channels_stays_in_float32():
    layer, x = Conv2d(3, 3, 3, groups=3, rng=np.random.default_rng(0)), draw(2, 8, 8, 3)
    before = layer(x)
    set_precision(layer, "bf16")
    np.testing.assert_array_equal(layer(x), before)


@pytest.mark.skipif(not HAS_DOTS, reason="this processor has no AVX512-BF16")
def test_dot_products_leave_convolution_where_float32_is_faster():
    rng = np.random.default_rng(0)
    for layer, there in (
        (Conv2d(16, 16, 3, padding=1, rng=rng), "Winograd(2, 4, 4)"),
        (Conv2d(1, 16, 9, rng=rng), "FewChannels()"),
        (Conv2d(16, 32, 1, stride=2, rng=rng), "Direct()"),
        (Conv2d(16, 32, 3, stride=2, rng=rng), "Unrolled(bf16-dot)"),
        (Conv2d(16, 16, 3, padding=1, algorithm="direct", rng=rng), "Unrolled(bf16-dot)"),
    ):
        set_precision(layer, "bf16-dot")
        assert repr(layer.algorithm_for(draw(1, 16, 16, layer.in_channels))) == there


def test_what_cannot_be_is_refused(monkeypatch):
    model = Linear(3, 2, rng=np.random.default_rng(0), dtype=np.float64)
    with pytest.raises(ValueError, match="bf16 takes a float32 model; got float64 in weight"):
        set_precision(model, "bf16")
    with pytest.raises(ValueError, match="bf16x3 takes a float32 model; got float64 in weight"):
        set_precision(model, "bf16x3")
    with pytest.raises(ValueError, match="float16 takes a float32 model; got float64 in weight"):
        set_precision(model, "float16")
    names = "float32, bf16, bf16-dot, bf16x3, float16"
    with pytest.raises(ValueError, match=f"precision must be one of {names}"):
        set_precision(model, "fp16")
    monkeypatch.setattr(precision, "HAS_DOTS", False)
    with pytest.raises(ValueError, match="this processor must have AVX512-BF16"):
        set_precision(Linear(3, 2, rng=np.random.default_rng(0)), "bf16-dot")


@pytest.mark.skipif(not HAS_DOTS, reason="this processor has no AVX512-BF16")
@pytest.mark.parametrize(
    "told",
    [
        {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
        {"NUMBA_CPU_FEATURES": "+avx512bf16,-avx512f"},
        {"NUMBA_CPU_NAME": "znver4", "NUMBA_CPU_FEATURES": "-avx512bf16"},
        {"NUMBA_CPU_FEATURES": "+avx512bf16", "LAYERS_VECTOR_BYTES": "32"},
    ],
    ids=str,
)
def test_dots_that_numba_is_not_told_of_are_refused_in_words(told, run_python):
    code = (
        "import numpy as np, layers\n"
        "layer = layers.Linear(3, 2, rng=np.random.default_rng(0))\n"
        "layers.set_precision(layer, 'bf16-dot')"
    )
    done = run_python("-W", "ignore", "-c", code, **told)
    assert done.status == 1
    assert "ValueError: set_precision: this processor must have AVX512-BF16" in done.err
