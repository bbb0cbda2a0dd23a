"""meProp through time: against its equations in NumPy, and what the bits may not depend on."""

from itertools import pairwise

import numpy as np
import pytest

from layers import (
    GRU,
    LSTM,
    RNN,
    KeptGradients,
    Linear,
    LSTMCell,
    Recompute,
    Rule,
    Sequential,
    Tape,
    TreeLSTM,
    Workspace,
    set_precision,
)
from layers.rules import MeProp

from ..bf16 import NAMES
from ..families.recurrent_layers import LENGTHS, SHAPES, C, H, N, T, arrays, kinds, made

PER = pytest.mark.parametrize("per", ["sample", "batch"])
BOUNDS = (0, 2, 3, N)


class Keep(Rule):
    """Keeps so many gradients everywhere."""

    def __init__(self, k, unified=False):
        self.kept = KeptGradients(k, unified)

    def top_k(self, call, width):
        return self.kept


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def masked(dz, k, rows, bounds):
    """Return gradients (R, G, H) of these samples without what is not kept of each gate: of each
    sample's k largest magnitudes, or those of the sums over each shard.
    """
    dz = dz.copy()
    groups = [[at] for at in range(len(rows))]
    if bounds is not None:
        groups = [
            [at for at, n in enumerate(rows) if start <= n < stop]
            for start, stop in pairwise(bounds)
        ]
    for group in filter(None, groups):
        sizes = np.abs(dz[group]).sum(axis=0)
        for gate, others in enumerate(np.argsort(-sizes, axis=1, kind="stable")[:, k:]):
            dz[np.ix_(group, [gate], others)] = 0
    return dz


def through_time(kind, cell, x, lengths, reverse):
    """Return the outputs (N, T, H) of a recurrence, and what its way back takes of each step."""
    p = {name: parameter.value for name, parameter in cell.named_parameters()}
    gates, kept = cell.gates, []
    h, c, y = np.zeros((len(x), H)), np.zeros((len(x), H)), np.zeros((*x.shape[:2], H))
    for t in range(x.shape[1]):
        rows = np.flatnonzero(lengths > t)
        place = lengths[rows] - 1 - t if reverse else np.full(len(rows), t)
        of_x, of_h = (
            (array @ p[f"weight_{name}"].T + p.get(f"bias_{name}", 0)).reshape(len(rows), gates, H)
            for array, name in ((x[rows, place], "ih"), (h[rows], "hh"))
        )
        before, old, z = h, c, of_x + of_h
        h, c = h.copy(), c.copy()
        if kind == "LSTM":
            i, f, o = (sigmoid(z[:, gate]) for gate in (0, 1, 3))
            g = np.tanh(z[:, 2])
            c[rows] = f * old[rows] + i * g
            h[rows], of_gates = o * np.tanh(c[rows]), (i, f, g, o)
        elif kind == "GRU":
            r, update = sigmoid(z[:, 0]), sigmoid(z[:, 1])
            new = np.tanh(of_x[:, 2] + r * of_h[:, 2])
            h[rows], of_gates = (1 - update) * new + update * h[rows], (r, update, new, of_h[:, 2])
        else:
            h[rows] = np.maximum(z[:, 0], 0) if kind == "RNN relu" else np.tanh(z[:, 0])
            of_gates = ()
        y[rows, place] = h[rows]
        kept.append((rows, place, before[rows], old[rows], h[rows], c[rows], of_gates))
    return y, kept


def back_through_time(kind, cell, x, kept, dy, k, bounds):
    """Return the gradient of x, and those of the parameters, where k of each gate are kept."""
    p = {name: parameter.value for name, parameter in cell.named_parameters()}
    dh, dc, dx = np.zeros((len(x), H)), np.zeros((len(x), H)), np.zeros_like(x)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    for rows, place, before, old, h, c, of_gates in reversed(kept):
        total, direct = dh[rows] + dy[rows, place], 0
        if kind == "LSTM":
            i, f, g, o = of_gates
            flat = np.tanh(c)
            dcell = dc[rows] + total * o * (1 - flat**2)
            parts = (
                dcell * g * i * (1 - i),
                dcell * old * f * (1 - f),
                dcell * i * (1 - g**2),
                total * flat * o * (1 - o),
            )
            dc[rows] = dcell * f
        elif kind == "GRU":
            r, update, new, inner = of_gates
            dnew = total * (1 - update) * (1 - new**2)
            dupdate = total * (before - new) * update * (1 - update)
            parts = (dnew * inner * r * (1 - r), dupdate, dnew)
            direct = total * update
        else:
            parts = (total * ((h > 0) if kind == "RNN relu" else 1 - h**2),)
        dgates = masked(np.stack(parts, axis=1), k, rows, bounds)
        dinner = dgates.copy()
        if kind == "GRU":
            dinner[:, 2] *= r
        dgates, dinner = (each.reshape(len(rows), -1) for each in (dgates, dinner))
        dh[rows] = direct + dinner @ p["weight_hh"]
        dx[rows, place] += dgates @ p["weight_ih"]
        found["weight_ih"] += dgates.T @ x[rows, place]
        found["weight_hh"] += dinner.T @ before
        if "bias_ih" in p:
            found["bias_ih"] += dgates.sum(axis=0)
            found["bias_hh"] += dinner.sum(axis=0)
    return dx, list(found.values())


def reference(kind, layer, x, lengths, dy, k, bounds):
    """Return the gradients of x and of all parameters of a layer by the equations."""
    directions = 2 if layer.bidirectional else 1
    levels = []
    for start in range(0, len(layer.cells), directions):
        cells = layer.cells[start : start + directions]
        ways = [through_time(kind, cell, x, lengths, bool(way)) for way, cell in enumerate(cells)]
        levels.append((cells, x, [kept for _, kept in ways]))
        x = np.concatenate([y for y, _ in ways], axis=2)
    found = []
    for cells, x, kept in reversed(levels):
        halves = np.split(dy, len(cells), axis=2)
        ways = [
            back_through_time(kind, *each, k, bounds)
            for each in zip(cells, [x] * len(cells), kept, halves, strict=True)
        ]
        dy = sum(dx for dx, _ in ways)
        found = [each for _, gradients in ways for each in gradients] + found
    return [dy, *found]


def run(layer, x, dy, rule=None, lengths=None, bounds=None, first=None):
    """Return the gradients of x and of all parameters, those of each shard apart."""
    for parameter in layer.parameters():
        parameter.forget_gradients()
    value = Tape(shards=bounds, workspace=Workspace()).input(x)
    layer.run(value, first, lengths)[0].backward(dy, rule=rule)
    return [value.grad.copy(), *(parameter.gradients.copy() for parameter in layer.parameters())]


def in_bytes(arrays):
    return [array.tobytes() for array in arrays]


@kinds
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bounds", [None, (0, N), BOUNDS], ids=["samples", "a batch", "shards"])
def test_the_largest_of_each_gate_go_back_as_by_the_equations(kind, shape, bounds):
    layer = made(kind, **SHAPES[shape])
    x, _, dy, _ = arrays(layer)
    for k in (1, 4):
        rule = Keep(k, bounds is not None)
        dx, *found = run(layer, x, dy, rule, LENGTHS, bounds)
        expected = reference(kind, layer, x, LENGTHS, dy, k, bounds)
        found = [dx, *(each.sum(axis=0) for each in found)]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@kinds
@PER
@pytest.mark.parametrize("precision", ["float32", *NAMES, "bf16x3", "float16"])
def test_the_whole_width_is_backpropagation_bit_for_bit(kind, per, precision):
    layer = made(kind, np.float32, layers=2, bidirectional=True)
    set_precision(layer, precision)
    x, _, dy, _ = arrays(layer, np.float32)
    exact = run(layer, x, dy, None, LENGTHS)
    for k in (H, 1.0):
        rule = MeProp(k, per=per)
        rule.bind(layer)
        assert in_bytes(run(layer, x, dy, rule, LENGTHS)) == in_bytes(exact)


@kinds
@pytest.mark.parametrize("precision", ["float32", *NAMES, "bf16x3", "float16"])
def test_what_is_kept_has_the_bits_of_backpropagation(kind, precision):
    # Of one sample and one step a row of the weight's gradient belongs to a column.
    layer = made(kind, np.float32)
    set_precision(layer, precision)
    x, first, dy, _ = arrays(layer, np.float32)
    x, dy, first = x[:1, :1], dy[:1, :1], (tuple(state[:1] for state in first[0]),)
    exact, found = (run(layer, x, dy, rule, first=first) for rule in (None, Keep(4)))
    for ours, theirs in zip(found[1:], exact[1:], strict=True):
        ours, theirs = (each.reshape(layer.cells[0].gates, H, -1) for each in (ours, theirs))
        kept = ours.any(axis=2)
        assert (kept.sum(axis=1) <= 4).all()
        assert kept.any()
        assert ours[kept].tobytes() == theirs[kept].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_equal_magnitudes_the_lower_columns_are_kept_and_first_what_is_not_finite(dtype):
    layer = RNN(2, 7, nonlinearity="relu", rng=np.random.default_rng(0), dtype=dtype)
    for parameter in layer.parameters():
        parameter.value = np.ones(parameter.shape)
    wrong = [1, np.nan, 9, -np.inf, 2, np.nan, 0]
    rows = ([0, -2, 1, 2, -1, 2, 0], [3, 1, -1, 1, 1, 1, 4], wrong)
    expected = {
        1: [[1], [6], [1]],
        2: [[1, 3], [0, 6], [1, 3]],
        3: [[1, 3, 5], [0, 1, 6], [1, 3, 5]],
    }
    for k, columns in expected.items():
        for row, places in zip(rows, columns, strict=True):
            dy, kept = np.array(row, dtype), np.zeros(7, dtype)
            kept[places] = dy[places]
            *_, bias, _ = run(layer, np.ones((1, 1, 2), dtype), dy.reshape(1, 1, 7), Keep(k))
            np.testing.assert_array_equal(bias[0], kept)


@kinds
@PER
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_shards_have_the_bits_that_they_have_apart(kind, per, precision):
    layer = made(kind, np.float32, layers=2, bidirectional=True)
    set_precision(layer, precision)
    x, _, dy, _ = arrays(layer, np.float32)
    rule = MeProp(3, per=per)
    rule.bind(layer)
    dx, *together = run(layer, x, dy, rule, LENGTHS, BOUNDS)
    for shard, (start, stop) in enumerate(pairwise(BOUNDS)):
        rows = slice(start, stop)
        part, *apart = run(layer, x[rows], dy[rows], rule, LENGTHS[rows])
        assert dx[rows].tobytes() == part.tobytes()
        assert in_bytes(each[shard] for each in together) == in_bytes(each[0] for each in apart)


@kinds
def test_a_sample_does_not_depend_on_the_others_nor_on_padding(kind):
    layer = made(kind, np.float32, layers=2, bidirectional=True)
    x, _, dy, _ = arrays(layer, np.float32)
    for per in ("sample", "batch"):
        rule = MeProp(3, per=per)
        rule.bind(layer)
        padding = np.arange(T)[:, np.newaxis] >= LENGTHS[:, np.newaxis, np.newaxis]
        found = run(layer, x, dy, rule, LENGTHS)
        other = run(
            layer, np.where(padding, np.float32(9), x), np.where(padding, 7, dy), rule, LENGTHS
        )
        assert in_bytes(found) == in_bytes(other)
        if per == "sample":
            for n, length in enumerate(LENGTHS):
                cut = np.s_[n : n + 1, :length]
                assert found[0][cut].tobytes() == run(layer, x[cut], dy[cut], rule)[0].tobytes()


@kinds
@PER
def test_a_second_backward_pass_gives_the_same_again(kind, per):
    # The first one keeps the gradients of the gates where the gates were.
    layer = made(kind, np.float32, layers=2)
    x, _, dy, _ = arrays(layer, np.float32)
    rule = MeProp(2, per=per)
    rule.bind(layer)
    y, found = layer(Tape().input(x), LENGTHS), []
    for each in (rule, None, rule):
        for parameter in layer.parameters():
            parameter.zero_gradient()
        y.backward(dy, rule=each)
        found.append(in_bytes(parameter.gradient for parameter in layer.parameters()))
    assert found[0] == found[2] != found[1]


@kinds
def test_the_layer_that_ran_last_is_exact(kind):
    layer = made(kind, layers=2)
    x, _, dy, _ = arrays(layer)
    rule = MeProp(1)
    rule.bind(layer)
    dx, *found = run(layer, x, dy, rule)
    exact_dx, *exact = run(layer, x, dy)
    half = len(found) // 2
    assert in_bytes(found[half:]) == in_bytes(exact[half:])
    assert all((ours != theirs).any() for ours, theirs in zip(found[:half], exact, strict=False))
    assert (dx != exact_dx).any()


def test_a_share_is_of_the_size_of_a_gate():
    layer = made("LSTM", layers=2)
    x, _, dy, _ = arrays(layer)
    found = []
    for k in (0.34, 3):
        rule = MeProp(k)
        rule.bind(layer)
        found.append(in_bytes(run(layer, x, dy, rule)))
    assert found[0] == found[1]


@kinds
@PER
def test_a_segment_that_is_recomputed_learns_to_the_same_bits(kind, per):
    layer = made(kind, np.float32, layers=2)
    head = Linear(H, 3, rng=np.random.default_rng(4))
    x, rng = arrays(layer, np.float32)[0], np.random.default_rng(5)
    dy, rule, found = rng.standard_normal((N, T, 3)).astype(np.float32), MeProp(2, per=per), []
    for model in (Sequential(layer, head), Sequential(Recompute(layer), head)):
        for parameter in model.parameters():
            parameter.forget_gradients()
        rule.bind(model)
        model(Tape(shards=BOUNDS, workspace=Workspace()).input(x)).backward(dy, rule=rule)
        found.append(in_bytes(parameter.gradients for parameter in model.parameters()))
    assert found[0] == found[1]


def test_a_cell_in_a_loop_is_the_layer():
    layer = made("LSTM")
    cell = LSTMCell(C, H, rng=np.random.default_rng(0), dtype=np.float64)
    for ours, theirs in zip(cell.parameters(), layer.parameters(), strict=True):
        ours.value = theirs.value
    x, _, dy, _ = arrays(layer)
    value, state, loss = Tape().input(x), None, 0.0
    for t in range(T):
        state = cell(value[:, t], state)
        loss = loss + (state[0] * dy[:, t]).sum()
    loss.backward(rule=Keep(2))
    found = [value.grad, *(parameter.gradient[np.newaxis] for parameter in cell.parameters())]
    for ours, theirs in zip(found, run(layer, x, dy, Keep(2)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("make", [LSTM, GRU, RNN])
def test_more_columns_than_a_gate_has_are_refused_by_its_name(make):
    rng = np.random.default_rng(0)
    model = Sequential(make(3, 4, last=True, rng=rng), Linear(4, 2, rng=rng))
    rule = MeProp(5)
    rule.bind(model)
    y = model(Tape().input(np.ones((2, 3, 3), np.float32)))
    must = rf"MeProp: k must be at most the width of {make.__name__}\(3, 4, last=True\), 4; got 5"
    with pytest.raises(ValueError, match=must):
        y.backward(np.ones((2, 2), np.float32), rule=rule)


def test_trees_are_refused_by_name():
    model = Sequential(TreeLSTM(3, 4, rng=np.random.default_rng(0)))
    must = "MeProp: layers with weights must be Linear, convolutions or recurrent layers; .*Tree"
    with pytest.raises(ValueError, match=must):
        MeProp().bind(model)
