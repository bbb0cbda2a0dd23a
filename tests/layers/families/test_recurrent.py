"""Recurrent layers: what lengths and states mean; cells; shards and memory; wrong inputs."""

from itertools import pairwise

import numpy as np
import pytest

import layers
from layers import GRU, LSTM, RNN, Tape, Workspace
from layers.gradient_check.mutants import recurrent as mutants

from .recurrent_layers import LENGTHS, SHAPES, C, H, N, T, arrays, assert_close, kinds, made, total


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
