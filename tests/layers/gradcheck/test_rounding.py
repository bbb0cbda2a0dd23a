"""The gradient check of what rounds to 16 bits: right models pass, and what is wrong in the rounded
passes alone is found.
"""

import zlib

import numpy as np
import pytest

from layers import (
    GELU,
    GRU,
    LSTM,
    RNN,
    Conv2d,
    EncoderBlock,
    LayerNorm,
    Linear,
    MultiHeadAttention,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    gradcheck,
    set_precision,
)
from layers.engine.tape import Tape
from layers.gradient_check.cases import CASES
from layers.kernels.llvm.simd_bf16 import HAS_DOTS

NAMES = ["bf16", "float16", "bf16x3", *["bf16-dot"] * HAS_DOTS]
_ROWS = (12, 20)
_SERIES = (4, 6, 20)
MODELS = {
    "dense": (lambda rng: Sequential(Linear(20, 33, rng=rng), Tanh()), _ROWS),
    "dense and GELU": (lambda rng: Sequential(Linear(20, 33, rng=rng), GELU()), _ROWS),
    "deep": (
        lambda rng: Sequential(
            Linear(20, 40, rng=rng), ReLU(), Linear(40, 40, rng=rng), ReLU(), Linear(40, 3, rng=rng)
        ),
        _ROWS,
    ),
    "LSTM": (lambda rng: LSTM(20, 17, rng=rng), _SERIES),
    "GRU": (lambda rng: GRU(20, 17, layers=2, rng=rng), _SERIES),
    "RNN": (lambda rng: RNN(20, 17, bidirectional=True, rng=rng), _SERIES),
    "attention": (lambda rng: MultiHeadAttention(20, 4, rng=rng), _SERIES),
    "encoder": (lambda rng: EncoderBlock(20, 4, 33, rng=rng), _SERIES),
    "convolution": (
        lambda rng: Sequential(Conv2d(4, 8, 3, padding=1, rng=rng), Tanh()),
        (3, 6, 6, 4),
    ),
}


def model(kind, name, seed=1):
    """Return a model in a precision, and an input."""
    make, shape = MODELS[kind]
    made = make(np.random.default_rng(seed))
    set_precision(made, name)
    return made, np.random.default_rng([seed, 2]).standard_normal(shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_what_is_right_passes(kind, name):
    report = gradcheck(*model(kind, name), entries=20)
    report.raise_if_wrong()
    assert any(f"in {name} gradients are right" in note for note in report.notes)


def test_a_model_that_does_not_round_is_checked_as_ever():
    report = gradcheck(*model("dense", "float32"), entries=20)
    assert report.passed
    assert report.notes == []


def test_a_loss_of_a_model_is_checked():
    rng = np.random.default_rng(0)
    made = Sequential(Linear(8, 6, rng=rng), LayerNorm(6), Linear(6, 9, rng=rng))
    set_precision(made, "bf16")
    labels = rng.integers(0, 9, 12)

    def loss(x):
        return SoftmaxCrossEntropy()(made(x), labels)

    report = gradcheck(loss, rng.standard_normal((12, 8)))
    report.raise_if_wrong()
    assert any("in bf16" in note for note in report.notes)
    assert {layer.precision.name for _, layer in made.named_layers()} == {"bf16"}


def spoilt(kind, name, spoil, monkeypatch, layer=Linear):
    """Return the report of a model whose rounded backward passes are spoilt in a kind of layer, and
    those in float64 are not.
    """
    right = layer.backward

    def backward(self, call, dy, *more):
        found = right(self, call, dy, *more)
        return found if dy.dtype == np.float64 else spoil(self, call, dy, found)

    monkeypatch.setattr(layer, "backward", backward)
    return gradcheck(*model(kind, name), entries=5)


def times(factor):
    """Return what multiplies the gradient of the input."""
    return lambda layer, call, dy, found: (found[0] * np.float32(factor), *found[1:])


def weight_times(factor):
    """Return what multiplies the gradient of the weight."""

    def spoil(layer, call, dy, found):
        gradients, _ = layer.weight.store.buffer(call.tape.shards)
        gradients *= np.float32(factor)
        return found

    return spoil


def turned(layer, call, dy, found):
    """Transpose the gradient of a square weight."""
    gradients, _ = layer.weight.store.buffer(call.tape.shards)
    if gradients.shape[1] == gradients.shape[2]:
        gradients[...] = gradients.swapaxes(1, 2).copy()
    return found


def without_last(layer, call, dy, found):
    """Leave out the last row of the input's gradient."""
    dx = found[0].copy()
    dx[-1] = 0
    return (dx, *found[1:])


def without_bias(layer, call, dy, found):
    """Leave out what the first rows add to the bias."""
    gradients, _ = layer.bias.store.buffer(call.tape.shards)
    gradients -= dy.reshape(-1, dy.shape[-1])[:2].sum(axis=0)
    return found


def coarse(layer, call, dy, found):
    """Round the gradient of the input to five bits."""
    dx = found[0]
    unit = np.float32(2.0) ** (np.floor(np.log2(np.abs(dx) + 1e-30)) - 2)
    noise = np.random.default_rng(zlib.crc32(dx.tobytes()))
    return (dx + unit * noise.uniform(-1, 1, dx.shape).astype(np.float32), *found[1:])


def infinite(layer, call, dy, found):
    """Overflow in one element."""
    dx = found[0].copy()
    dx.flat[3] = np.inf
    return (dx, *found[1:])


MUTANTS = {
    "sign": times(-1),
    "factor 1.1": times(1.1),
    "factor 0.9": times(0.9),
    "sign of the weight's": weight_times(-1),
    "factor 1.1 of the weight's": weight_times(1.1),
    "transposed": turned,
    "a row missing": without_last,
    "a term of the bias missing": without_bias,
    "too coarse": coarse,
    "overflow": infinite,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_is_wrong_in_rounded_passes_alone_is_found(mutant, name, monkeypatch):
    report = spoilt("deep", name, MUTANTS[mutant], monkeypatch)
    assert not report.passed, str(report)
    hints = " ".join(block.hint for block in report.blocks)
    assert f"in {name} " in hints


@pytest.mark.parametrize("mutant", ["sign", "factor 1.1"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "attention", "convolution"])
def test_what_is_wrong_in_other_layers_is_found(kind, mutant, monkeypatch):
    report = gradcheck(*model(kind, "bf16"), entries=5)
    report.raise_if_wrong()
    factor = np.float32({"sign": -1, "factor 1.1": 1.1}[mutant])
    right = Tape.backward

    def backward(tape, value, gradient, rule):
        right(tape, value, gradient * factor if gradient.dtype == np.float32 else gradient, rule)

    monkeypatch.setattr(Tape, "backward", backward)
    assert not gradcheck(*model(kind, "bf16"), entries=5).passed


def test_backward_that_differs_from_run_to_run_is_found(monkeypatch):
    count = iter(range(10**6))

    def drifting(layer, call, dy, found):
        return (found[0] * np.float32(1 + 2**-20 * (next(count) % 7)), *found[1:])

    report = spoilt("dense", "bf16", drifting, monkeypatch)
    assert "nondeterministic" in {block.verdict for block in report.blocks}


# Every tenth in bfloat16, unless in full.
CHOSEN = [
    pytest.param(case, name, marks=[] if name == "bf16" and not i % 10 else pytest.mark.full)
    for name in NAMES
    for i, case in enumerate(CASES)
]


@pytest.mark.parametrize(("case", "name"), CHOSEN)
def test_every_layer_passes(case, name):
    rng = np.random.default_rng(3)
    layer, inputs = case.make(rng), case.inputs(rng)
    set_precision(layer, name)
    options = {"constant": case.constant, "training": case.training}
    gradcheck(layer, *inputs, **options, entries=5).raise_if_wrong()
