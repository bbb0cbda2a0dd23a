"""What every layer must keep from step to step: bits, buffers, and what is replayed."""

import numba
import numpy as np

from layers import MeanSquaredError, PReLU, Tape, Workspace
from layers.gradient_check.cases import BATCH

from .contract import Run, every, make

# Some that must take part in steps that are replayed, one or more of each family that does.
REPLAYED = {
    *("Linear", "Linear without bias", "ReLU", "GELU", "PReLU", "Softmax", "Reshape", "LayerNorm"),
    *("Conv2d", "MaxPool2d", "AvgPool2d", "Add", "SoftmaxCrossEntropy", "MeanSquaredError"),
    *("BinaryCrossEntropy", "Dropout", "Dropout2d", "Embedding", "BatchNorm", "BatchNorm2d"),
    *(
        "Residual with BatchNorm and ReLU",
        "GroupNorm",
        "Attention causal",
        "Attention with dropout",
    ),
    *("MultiHeadAttention", "LearnedPositions", "EncoderBlock causal", "Multiply", "RNN", "GRU"),
    *("Coefficients", "a + b", "a - b", "a b", "a / b", "a ** b", "a ** 3", "2 ** a", "-a", "exp"),
    *("log", "sqrt", "sin", "tanh", "erf", "a[1:4]", "reshape", "stack", "squeeze", "split"),
    *("sum over axes", "mean over an axis"),
    *("LSTM", "LSTM with lengths", "LSTM of two layers both ways, last", "GRU, last"),
}


# ---- memory layout, repetition, buffers


@every
def test_second_run_and_any_thread_count_give_the_same_bits(case):
    layer, inputs = make(case)
    first = Run(case, layer, inputs)
    before = numba.get_num_threads()
    try:
        for threads in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            assert Run(case, layer, inputs).same_bits(first)
    finally:
        numba.set_num_threads(before)


@every
def test_nothing_is_allocated_in_the_second_and_third_step(case):
    layer, inputs = make(case)
    workspace = Workspace()
    counts = []
    for step in range(3):
        Run(case, layer, inputs, keep=True, workspace=workspace, step=step)
        counts.append(workspace.allocations)
    assert counts[0] == counts[1] == counts[2]


def steps_of(case, dtype=np.float32):
    """Return bits of the losses and gradients of six steps, over rows in another order each, and
    how many of them were replayed.

    The first input passes through a layer with a parameter, so that there is a gradient, and an
    output that is no number becomes one.
    """
    layer, inputs = make(case, dtype)
    first, last, workspace, found = PReLU(dtype=dtype), MeanSquaredError(), Workspace(), []
    parameters = [*layer.parameters(), *first.parameters()]
    for step in range(6):
        for parameter in parameters:
            parameter.zero_gradient()
        tape = Tape(training=True, workspace=workspace, seed=1, step=step)
        given = [np.roll(x, step, 0) if x.ndim and len(x) == BATCH else x for x in inputs]
        values = [
            tape.input(x, gradient=False)
            if not i or (x.dtype == dtype and i not in case.constant)
            else x
            for i, x in enumerate(given)
        ]
        if values[0].dtype == dtype and values[0].ndim > 1:
            values[0] = first(values[0])
        y = layer(*values)
        y = y[0] if isinstance(y, tuple) else y
        if y.ndim:
            y = last(y, np.ones(y.shape, y.dtype))
        if y.wants:
            y.backward()
        found.append([y.array.tobytes(), *(p.gradient.tobytes() for p in parameters)])
    return found, workspace.replay.steps


@every
def test_steps_that_are_replayed_have_the_bits_of_ordinary_ones(case, monkeypatch):
    found, replayed = steps_of(case)
    if case.name in REPLAYED:
        assert replayed >= 3
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert steps_of(case) == (found, 0)


@every
def test_what_a_buffer_held_does_not_matter(case):
    layer, inputs = make(case)
    workspace = Workspace()
    first = Run(case, layer, inputs, workspace=workspace)
    workspace.spoil()
    assert Run(case, layer, inputs, workspace=workspace).same_bits(first)
