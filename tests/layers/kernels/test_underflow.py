"""Below the normal numbers there is 0 while layers compute, and nowhere else."""

import threading

import llvmlite.binding
import numpy as np
import pytest
from llvmlite import ir

from layers import Layer, Linear, Tape
from layers.kernels import underflow

DTYPES = [np.float32, np.float64]
either = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def subnormal(dtype):
    """Return whether NumPy makes a number below the normal ones here and now."""
    return bool(np.array([np.finfo(dtype).tiny]) / dtype(4) > 0)


@pytest.fixture(autouse=True)
def _nothing_stays():
    yield
    assert all(map(subnormal, DTYPES))


class Quarter(Layer):
    """x / 4, by NumPy."""

    def forward(self, call, x):
        return x / x.dtype.type(4)

    def backward(self, call, dy):
        return (dy / dy.dtype.type(4),)


class Third(Layer):
    def forward(self, call, x):
        return x / x.dtype.type(3)


class Failing(Quarter):
    def forward(self, call, x):
        raise RuntimeError("in forward")


class FailingBackward(Quarter):
    def backward(self, call, dy):
        raise RuntimeError("in backward")


@either
def test_what_lies_below_the_normal_numbers_is_0_as_a_result_and_as_an_operand(dtype):
    tiny = np.array([np.finfo(dtype).tiny, -np.finfo(dtype).tiny])
    small = tiny / dtype(4)
    mode = underflow.flush()
    try:
        assert ((tiny / dtype(4)).tolist(), (tiny * dtype(1)).tolist()) == ([0, 0], tiny.tolist())
        assert (small * dtype(8)).tolist() == [0, 0]
    finally:
        underflow.restore(mode)
    assert (small * dtype(8)).tolist() == (2 * tiny).tolist()


def test_a_thread_returns_to_the_mode_that_it_came_from():
    outer = underflow.flush()
    inner = underflow.flush()
    underflow.restore(inner)
    assert not subnormal(np.float32)
    underflow.restore(outer)
    assert subnormal(np.float32)


def test_other_threads_keep_their_mode():
    seen = []
    flushing, over = threading.Event(), threading.Event()

    def elsewhere():
        flushing.wait()
        seen.append(subnormal(np.float32))
        over.set()

    threading.Thread(target=elsewhere).start()
    mode = underflow.flush()
    try:
        flushing.set()
        over.wait()
    finally:
        underflow.restore(mode)
    assert seen == [True]


@either
def test_layers_flush_on_a_tape_and_without_one(dtype):
    x = np.array([np.finfo(dtype).tiny, 1], dtype)
    assert Quarter()(x).tolist() == [0, 0.25]
    tape = Tape()
    value = tape.input(x)
    y = Quarter()(value)
    assert y.array.tolist() == [0, 0.25]
    assert subnormal(dtype)
    y.backward(x)
    assert value.grad.tolist() == [0, 0.25]


@either
def test_arithmetic_on_values_flushes(dtype):
    tiny = np.finfo(dtype).tiny
    value = Tape().input(np.array([tiny, 1], dtype))
    for y in (value * value, value / dtype(4), value**2, value * dtype(0.25)):
        assert y.array[0] == 0
    ((value + value) * dtype(0.125)).sum().backward()
    assert value.grad.tolist() == [0.25, 0.25]
    (value * dtype(0.5)).backward(np.array([tiny, 1], dtype))
    assert value.grad.tolist() == [0, 0.5]


def test_the_mode_of_before_returns_when_a_layer_fails():
    x = np.ones(2, np.float32)
    with pytest.raises(RuntimeError, match="in forward"):
        Failing()(x)
    assert subnormal(np.float32)
    with pytest.raises(RuntimeError, match="in forward"):
        Failing()(Tape().input(x))
    assert subnormal(np.float32)
    y = FailingBackward()(Tape().input(x))
    with pytest.raises(RuntimeError, match="in backward"):
        y.backward(x)


def test_rounding_is_to_nearest_whatever_it_was():
    if underflow._ARCHITECTURE != "x86_64":
        pytest.skip("the bits are those of MXCSR")
    x, nearest = np.ones(3, np.float32), np.float32(1) / np.float32(3)
    before = underflow.flush()
    underflow.restore(0x7F80)  # Towards zero: what a foreign library may leave behind.
    try:
        truncated, layered = x / np.float32(3), Third()(x)
    finally:
        underflow.restore(before)
    assert (truncated < nearest).all()
    assert (layered == nearest).all()


def test_gradients_that_vanish_are_0():
    tape = Tape()
    x = tape.input(np.full((2, 3), 1e-30, np.float32))
    linear = Linear(3, 4, rng=np.random.default_rng(0))
    y = linear(x)
    y.backward(np.full((2, 4), 1e-12, np.float32))
    assert (linear.weight.gradient == 0).all()


@pytest.mark.parametrize(
    ("triple", "instructions"),
    [
        ("x86_64-linux-gnu", ["stmxcsr", "ldmxcsr"]),
        ("aarch64-linux-gnu", ["mrs", "FPCR", "msr"]),
        ("riscv64-linux-gnu", []),
    ],
)
def test_code_is_right_for_other_processors(triple, instructions):
    binding = llvmlite.binding
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = triple
    integer = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(integer, [integer]), "exchange")
    builder = ir.IRBuilder(function.append_basic_block())
    architecture = triple.partition("-")[0]
    builder.ret(underflow.emit_exchange(builder, function.args[0], architecture))
    machine = binding.Target.from_triple(triple).create_target_machine()
    text = machine.emit_assembly(binding.parse_assembly(str(module))).lower()
    assert all(each.lower() in text for each in instructions), text
