"""Recurrent layers against PyTorch: outputs, last states and all gradients; what lengths mean;
cells; wrong inputs.
"""

from itertools import pairwise

import numpy as np
import pytest

import layers
from layers import GRU, LSTM, RNN, Tape, Workspace
from layers.gradient_check.mutants import recurrent as mutants

from .oracle import torch

N, T, C, H = 6, 5, 4, 9
LENGTHS = np.array([5, 1, 3, 5, 2, 4])
# Relative to the largest element of an array; gradients of weights sum 30 terms, through five steps
# of rounding.
ROUNDINGS = 128

KINDS = {
    "LSTM": (LSTM, {}),
    "GRU": (GRU, {}),
    "RNN": (RNN, {}),
    "RNN relu": (RNN, {"nonlinearity": "relu"}),
}
SHAPES = {
    "one layer": {},
    "without bias": {"bias": False},
    "three layers": {"layers": 3},
    "both directions": {"bidirectional": True},
    "two layers, both directions": {"layers": 2, "bidirectional": True},
}
kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def made(kind, dtype=np.float64, **options):
    """Return a layer of a kind with weights that are not small."""
    make, given = KINDS[kind]
    rng = np.random.default_rng(2)
    layer = make(C, H, rng=rng, dtype=dtype, **given, **options)
    for parameter in layer.parameters():
        parameter.value = rng.standard_normal(parameter.shape) * 0.5
    return layer


def in_pytorch(kind, layer, dtype, **options):
    """Return PyTorch's layer of a kind with the weights of ours."""
    make, given = KINDS[kind]
    named = {"num_layers" if name == "layers" else name: option for name, option in options.items()}
    other = getattr(torch.nn, make.__name__)(
        C,
        H,
        batch_first=True,
        dtype=torch.float32 if dtype is np.float32 else torch.float64,
        **given,
        **named,
    )
    with torch.no_grad():
        for mine, parameter in zip(layer.parameters(), other.parameters(), strict=True):
            parameter.copy_(torch.tensor(mine.value))
    return other


def arrays(layer, dtype=np.float64):
    """Return an input, the initial state, and gradients of output and last state."""
    rng = np.random.default_rng(3)
    width = layer.hidden_size * (2 if layer.bidirectional else 1)
    states = layer.cells[0].states

    def state():
        return tuple(
            tuple(rng.standard_normal((N, H)).astype(dtype) for _ in range(states))
            for _ in layer.cells
        )

    x, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((N, T, C), (N, T, width)))
    return x, state(), dy, state()


def stacked(state):
    """Return a state as PyTorch has it: (h, c) or h, each (layers, N, H)."""
    parts = [torch.tensor(np.stack(part)) for part in zip(*state, strict=True)]
    return [part.requires_grad_() for part in parts]


def assert_close(ours, theirs, what):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape, what
    assert ours.dtype == theirs.dtype, what
    scale = max(1e-30, float(np.abs(theirs).max(initial=0)))
    np.testing.assert_allclose(
        ours / scale,
        theirs / scale,
        rtol=0,
        atol=ROUNDINGS * np.finfo(theirs.dtype).eps,
        err_msg=what,
    )


def total(y, dy, last, dlast):
    """Return the sum of outputs and last states times their gradients."""
    loss = (y * dy).sum()
    for states, gradients in zip(last, dlast, strict=True):
        for state, gradient in zip(states, gradients, strict=True):
            loss = loss + (state * gradient).sum()
    return loss


@kinds
@dtypes
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_states_and_all_gradients_equal_those_of_pytorch(kind, shape, lengths, dtype):
    ours = made(kind, dtype, **SHAPES[shape])
    theirs = in_pytorch(kind, ours, dtype, **SHAPES[shape])
    x, first, dy, dlast = arrays(ours, dtype)
    tape = Tape()
    value = tape.input(x)
    initial = tuple(tuple(map(tape.input, states)) for states in first)
    y, last = ours.run(value, initial, lengths)

    their_x, their_first = torch.tensor(x, requires_grad=True), stacked(first)
    given = their_x
    if lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            their_x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
    their_y, their_last = theirs(
        given, tuple(their_first) if len(their_first) > 1 else their_first[0]
    )
    if lengths is not None:
        their_y, _ = torch.nn.utils.rnn.pad_packed_sequence(
            their_y, batch_first=True, total_length=T
        )
    their_last = their_last if isinstance(their_last, tuple) else (their_last,)

    assert_close(y.array, their_y, "output")
    for k, expected in enumerate(their_last):
        assert_close(np.stack([states[k].array for states in last]), expected, f"last state {k}")

    total(y, dy, last, dlast).backward()
    loss = (their_y * torch.tensor(dy)).sum()
    for state, gradient in zip(their_last, stacked(dlast), strict=True):
        loss = loss + (state * gradient.detach()).sum()
    loss.backward()
    assert_close(value.grad, their_x.grad, "gradient of x")
    for k, state in enumerate(their_first):
        assert_close(
            np.stack([states[k].grad for states in initial]),
            state.grad,
            f"gradient of initial state {k}",
        )
    for (name, mine), parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(mine.gradient, parameter.grad, f"gradient of {name}")


# ---- lengths


@kinds
@pytest.mark.parametrize("shape", SHAPES)
def test_padding_counts_nowhere(kind, shape):
    layer = made(kind, np.float32, **SHAPES[shape])
    x, first, dy, dlast = arrays(layer, np.float32)
    padding = np.arange(T) >= LENGTHS[:, np.newaxis]

    def run(x, dy):
        for parameter in layer.parameters():
            parameter.zero_gradient()
        value = Tape().input(x)
        y, last = layer.run(value, first, LENGTHS)
        total(y, dy, last, dlast).backward()
        return [
            y.array,
            value.grad,
            *(s.array for states in last for s in states),
            *(p.gradient for p in layer.parameters()),
        ]

    one = [array.copy() for array in run(x, dy)]
    other = run(
        np.where(padding[:, :, np.newaxis], 1e6, x).astype(np.float32),
        np.where(padding[:, :, np.newaxis], 7, dy),
    )
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))
    y, dx = one[:2]
    assert not y[padding].any()
    assert not dx[padding].any()


@kinds
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True, "layers": 2}], ids=["one way", "both ways"]
)
def test_sample_with_a_length_is_the_sample_cut(kind, options):
    layer = made(kind, np.float32, **options)
    x, first, _, _ = arrays(layer, np.float32)
    y, last = layer.run(x, first, LENGTHS)
    for n, length in enumerate(LENGTHS):
        alone = tuple(tuple(state[n : n + 1] for state in states) for states in first)
        y_n, last_n = layer.run(x[n : n + 1, :length], alone)
        assert y[n, :length].tobytes() == y_n[0].tobytes()
        for states, expected in zip(last, last_n, strict=True):
            assert [s[n].tobytes() for s in states] == [s[0].tobytes() for s in expected]


@kinds
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
@pytest.mark.parametrize("shape", SHAPES)
def test_last_output_is_the_last_state_of_pytorch(kind, shape, lengths):
    ours = made(kind, last=True, **SHAPES[shape])
    theirs = in_pytorch(kind, ours, np.float64, **SHAPES[shape])
    x = arrays(ours)[0]
    given = torch.tensor(x, requires_grad=True)
    packed = given
    if lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            given, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
    _, states = theirs(packed)
    directions = 2 if ours.bidirectional else 1
    last = (states[0] if isinstance(states, tuple) else states)[-directions:]
    expected = torch.cat(tuple(last), axis=-1)
    dy = np.random.default_rng(5).standard_normal(expected.shape)
    (expected * torch.tensor(dy)).sum().backward()
    value = Tape().input(x)
    y = ours(value, lengths)
    (y * dy).sum().backward()
    assert_close(y.array, expected, "output")
    assert_close(value.grad, given.grad, "gradient of x")
    for (name, mine), parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(mine.gradient, parameter.grad, f"gradient of {name}")


@kinds
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_last_output_and_its_gradients_do_not_depend_on_the_padding(kind, shards, shape):
    found = []
    for padding in (0, 1, 7, 40):
        layer = made(kind, np.float32, last=True, **SHAPES[shape])
        x = np.pad(arrays(layer, np.float32)[0], ((0, 0), (0, padding), (0, 0)))
        value = Tape(shards=np.linspace(0, N, shards + 1).astype(int)).input(x)
        y = layer(value, LENGTHS)
        (y * y).sum().backward()
        gradients = [parameter.gradients.tobytes() for parameter in layer.parameters()]
        found.append((y.array.tobytes(), value.grad[:, :T].tobytes(), *gradients))
    assert found[1:] == found[:1] * 3


# ---- states


@kinds
def test_sequence_in_two_windows_is_the_sequence(kind):
    layer = made(kind, np.float32)
    x, first, dy, dlast = arrays(layer, np.float32)

    def run(*cuts):
        for parameter in layer.parameters():
            parameter.zero_gradient()
        tape = Tape()
        values = [tape.input(np.ascontiguousarray(x[:, a:b])) for a, b in pairwise(cuts)]
        state, loss, outputs = first, 0.0, []
        for value, a, b in zip(values, cuts, cuts[1:], strict=False):
            y, state = layer.run(value, state)
            outputs.append(y.array)
            loss = (y * dy[:, a:b]).sum() + loss
        (loss + total(y, 0 * y.array, state, dlast)).backward()
        dx = np.concatenate([value.grad for value in values], axis=1)
        return np.concatenate(outputs, axis=1), dx, [p.gradient for p in layer.parameters()]

    y, dx, gradients = run(0, T)
    y_cut, dx_cut, gradients_cut = run(0, 2, T)
    assert y.tobytes() == y_cut.tobytes()
    assert_close(dx_cut, dx, "dx")
    for ours, theirs in zip(gradients_cut, gradients, strict=True):
        assert_close(ours, theirs, "gradient of a parameter")


@kinds
def test_only_the_last_state_is_used(kind):
    layer = made(kind)
    x, first, _, _ = arrays(layer)
    layers.gradcheck(
        lambda x, *state: layer.run(x, (state,), LENGTHS)[1], x, *first[0]
    ).raise_if_wrong()


@kinds
def test_second_backward_pass_on_a_tape_gives_the_same_again(kind):
    # The first one keeps the gradients of the gates where the gates were.
    ours, rng = made(kind, bidirectional=True), np.random.default_rng(4)
    tape = Tape()
    x = tape.input(rng.standard_normal((N, T, C)))
    y = ours(x, lengths=LENGTHS)
    gradient = rng.standard_normal(y.shape)
    found = []
    for _ in range(2):
        for parameter in ours.parameters():
            parameter.zero_gradient()
        y.backward(gradient)
        found.append(
            [
                array.copy()
                for array in (x.grad, *(parameter.gradient for parameter in ours.parameters()))
            ]
        )
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*found, strict=True))


@kinds
def test_state_of_none_is_that_of_zeros(kind):
    layer = made(kind, layers=2)
    x, first, _, _ = arrays(layer)
    zeros = tuple(tuple(np.zeros_like(s) for s in states) for states in first)
    (y, last), (y_zeros, last_zeros) = layer.run(x), layer.run(x, zeros)
    assert y.tobytes() == y_zeros.tobytes() == layer(x).tobytes()
    assert all(
        a.tobytes() == b.tobytes()
        for p, q in zip(last, last_zeros, strict=True)
        for a, b in zip(p, q, strict=True)
    )


# ---- cells


CELLS = {"LSTM": layers.LSTMCell, "GRU": layers.GRUCell, "RNN": layers.RNNCell}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loop_of_cells_is_the_layer_bit_for_bit(kind, dtype):
    layer = made(kind, dtype)
    cell = CELLS[kind](C, H, rng=np.random.default_rng(0), dtype=dtype)
    for mine, parameter in zip(cell.parameters(), layer.parameters(), strict=True):
        mine.value = parameter.value
    x, first, dy, _ = arrays(layer, dtype)
    one, two = Tape().input(x), Tape().input(x)
    y, last = layer.run(one, first)
    state = first[0] if kind == "LSTM" else first[0][0]
    loss = 0.0
    for t in range(T):
        state = cell(two[:, t], state)
        h = state[0] if kind == "LSTM" else state
        assert h.array.tobytes() == np.ascontiguousarray(y.array[:, t]).tobytes()
        loss = (h * dy[:, t]).sum() + loss
    states = state if kind == "LSTM" else (state,)
    assert [s.array.tobytes() for s in states] == [s.array.tobytes() for s in last[0]]
    y.backward(dy)
    loss.backward()
    assert_close(two.grad, one.grad, "gradient of x")
    for mine, parameter in zip(cell.parameters(), layer.parameters(), strict=True):
        assert_close(mine.gradient, parameter.gradient, "gradient of a parameter")


# ---- batches, shards, memory


@kinds
def test_sample_does_not_depend_on_the_batch(kind):
    layer = made(kind, np.float32, bidirectional=True)
    x, first, _, _ = arrays(layer, np.float32)
    y, last = layer.run(x, first, LENGTHS)
    for rows in (slice(0, 1), slice(2, 5), slice(0, 0)):
        part = tuple(tuple(state[rows] for state in states) for states in first)
        y_part, last_part = layer.run(x[rows], part, LENGTHS[rows])
        assert y_part.tobytes() == y[rows].tobytes()
        assert last_part[1][0].tobytes() == last[1][0][rows].tobytes()


@kinds
@pytest.mark.parametrize("ragged", [False, True])
def test_gradient_of_a_shard_is_that_of_its_samples_alone(kind, ragged):
    layer = made(kind, np.float32, layers=2, bidirectional=True)
    x, _, dy, _ = arrays(layer, np.float32)
    bounds = (0, 1, 4, 4, N)

    def gradients(rows, shards):
        for parameter in layer.parameters():
            parameter.forget_gradients()
        value = Tape(shards=shards).input(x[rows])
        layer(value, LENGTHS[rows] if ragged else None).backward(dy[rows])
        return value.grad.copy(), [parameter.gradients.copy() for parameter in layer.parameters()]

    dx, together = gradients(slice(0, N), bounds)
    for s, (start, stop) in enumerate(pairwise(bounds)):
        rows = slice(start, stop)
        dx_alone, alone = gradients(rows, None)
        assert dx[rows].tobytes() == dx_alone.tobytes()
        assert all(a[s].tobytes() == b[0].tobytes() for a, b in zip(together, alone, strict=True))


@kinds
def test_nothing_is_allocated_after_the_second_step(kind):
    layer = made(kind, np.float32, layers=2, bidirectional=True, dropout=0.3)
    x, first, dy, dlast = arrays(layer, np.float32)
    workspace, counts = Workspace(), []
    for _ in range(4):
        tape = Tape(workspace=workspace, training=True, shards=(0, 2, N))
        for parameter in layer.parameters():
            parameter.zero_gradient()
        y, last = layer.run(tape.input(x), first, LENGTHS)
        total(y, dy, last, dlast).backward()
        counts.append(workspace.allocations)
    assert counts[1] == counts[2] == counts[3]


@kinds
def test_dropout_acts_between_layers_in_training_only(kind):
    layer = made(kind, np.float32, layers=2, dropout=0.5)
    whole = made(kind, np.float32, layers=2)
    x = arrays(layer, np.float32)[0]
    assert layer(Tape().input(x)).array.tobytes() == whole(x).tobytes()
    tape = Tape(training=True)
    layer(tape.input(x))
    _, dropout, _ = tape.calls
    assert isinstance(dropout.layer, layers.Dropout)
    assert 0.2 < (dropout.output.array == 0).mean() < 0.9


# ---- initial weights


def test_weights_begin_orthogonal_by_gate_and_the_forget_gate_open():
    layer = LSTM(5, 8, rng=np.random.default_rng(0), dtype=np.float64)
    cell = layer.cells[0]
    for gate in cell.weight_hh.value.reshape(4, 8, 8):
        np.testing.assert_allclose(gate @ gate.T, np.eye(8), atol=1e-12)
    assert np.abs(cell.weight_ih.value).max() <= np.sqrt(6 / 13)
    assert cell.bias_ih.value.tolist() == [0] * 8 + [1] * 8 + [0] * 16
    assert not cell.bias_hh.value.any()
    assert LSTM(5, 8, rng=np.random.default_rng(0), forget_bias=0).cells[0].bias_ih.value.any() == 0


@pytest.mark.parametrize("right", mutants.RIGHT)
def test_layers_that_mistakes_are_made_in_are_right(right):
    rng = np.random.default_rng(0)
    layers.gradcheck(right(rng), *mutants.inputs(rng)).raise_if_wrong()


# ---- refusals

x32 = np.ones((2, 3, 4), np.float32)
h32 = np.ones((2, 5), np.float32)
lstm, gru = (
    LSTM(4, 5, rng=np.random.default_rng(0)),
    GRU(4, 5, rng=np.random.default_rng(0), layers=2),
)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: lstm(x32[..., :3].copy()), ValueError, ["LSTM(4, 5)", "(N, T, 4)", "(2, 3, 3)"]),
        (lambda: lstm(x32[0]), ValueError, ["(N, T, 4)", "(3, 4)", "x[np.newaxis]"]),
        (lambda: lstm(x32[:, :0]), ValueError, ["one time step", "(2, 0, 4)"]),
        (
            lambda: lstm(x32.astype(float)),
            TypeError,
            ["LSTM(4, 5)", "float32", "float64", "astype"],
        ),
        (lambda: lstm(x32, [3, 0]), ValueError, ["lengths", "1..3", "0 of sample 1"]),
        (lambda: lstm(x32, [4, 3]), ValueError, ["lengths", "1..3", "4 of sample 0"]),
        (lambda: lstm(x32, [3, 3, 3]), ValueError, ["lengths", "(2,)", "(3,)"]),
        (lambda: lstm(x32, [3.0, 2.0]), ValueError, ["lengths", "integers", "float64"]),
        (
            lambda: lstm.run(x32, ((h32[:1], h32[:1]),)),
            ValueError,
            ["initial states", "(2, 5)", "(1, 5)"],
        ),
        (
            lambda: lstm.run(x32, ((h32, h32.astype(float)),)),
            ValueError,
            ["initial states", "float32", "float64"],
        ),
        (lambda: lstm.run(x32, ((h32,),)), ValueError, ["LSTM(4, 5)", "1 entries of 2", "[1]"]),
        (lambda: gru.run(x32, ((h32,),)), ValueError, ["GRU(4, 5, layers=2)", "2 entries of 1"]),
        (
            lambda: RNN(4, 5, rng=np.random.default_rng(0), nonlinearity="sin"),
            ValueError,
            ["nonlinearity", "'sin'"],
        ),
        (
            lambda: LSTM(4, 0, rng=np.random.default_rng(0)),
            ValueError,
            ["LSTM", "hidden_size", "positive", "0"],
        ),
        (
            lambda: GRU(4, 5, rng=np.random.default_rng(0), layers=0),
            ValueError,
            ["GRU", "layers", "positive", "0"],
        ),
    ],
)
def test_wrong_inputs_are_refused_by_name_value_and_fix(call, error, words):
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "; got " in text
