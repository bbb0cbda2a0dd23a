"""The twins of `layers.gradient_check.cases.recurrent`: one sample, one step, one unit at a
time.
"""

import math

import numpy as np

GATES = {"rnn": 1, "relu": 1, "lstm": 4, "gru": 3}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def step(kind, p, x, h, c):
    """Return the next h and c of one sample."""
    hidden = len(h)
    w_ih, w_hh = p["weight_ih"], p["weight_hh"]

    def parts(gate, j):
        row = gate * hidden + j
        of_x = sum(w_ih[row, k] * x[k] for k in range(len(x))) + (
            p["bias_ih"][row] if "bias_ih" in p else 0
        )
        of_h = sum(w_hh[row, k] * h[k] for k in range(hidden)) + (
            p["bias_hh"][row] if "bias_hh" in p else 0
        )
        return of_x, of_h

    new_h, new_c = np.zeros(hidden), np.zeros(hidden)
    for j in range(hidden):
        both = [parts(gate, j) for gate in range(GATES[kind])]
        if kind == "rnn":
            new_h[j] = math.tanh(sum(both[0]))
        elif kind == "relu":
            new_h[j] = max(sum(both[0]), 0)
        elif kind == "lstm":
            i, f, g, o = (
                sigmoid(sum(both[0])),
                sigmoid(sum(both[1])),
                math.tanh(sum(both[2])),
                sigmoid(sum(both[3])),
            )
            new_c[j] = f * c[j] + i * g
            new_h[j] = o * math.tanh(new_c[j])
        else:
            r, z = sigmoid(sum(both[0])), sigmoid(sum(both[1]))
            n = math.tanh(both[2][0] + r * both[2][1])
            new_h[j] = (1 - z) * n + z * h[j]
    return new_h, new_c


def one_way(kind, p, x, lengths, backwards, h, c):
    """Return the outputs (N, T, H) and the last h and c of one layer in one direction."""
    samples, steps, _ = x.shape
    hidden = p["weight_hh"].shape[1]
    y, h, c = np.zeros((samples, steps, hidden)), h.copy(), c.copy()
    for n in range(samples):
        order = list(range(steps if lengths is None else lengths[n]))
        for t in reversed(order) if backwards else order:
            h[n], c[n] = step(kind, p, x[n, t], h[n], c[n])
            y[n, t] = h[n]
    return y, h, c


def through(kind, parameters, x, lengths=None, first=None, prefix="", layers=1, both=False):
    """Return the outputs, and the last (h, c) of every layer and direction."""
    last = []
    for _ in range(layers):
        outputs = []
        for direction in range(2 if both else 1):
            index = len(last)
            own = f"{prefix}cells.{index}."
            p = {
                name.removeprefix(own): value
                for name, value in parameters.items()
                if name.startswith(own)
            }
            zeros = np.zeros((len(x), p["weight_hh"].shape[1]))
            h, c = (zeros, zeros) if first is None else first[index]
            y, h, c = one_way(kind, p, x, lengths, direction == 1, h, c)
            outputs.append(y)
            last.append((h, c))
        x = np.concatenate(outputs, axis=-1)
    return x, last


def outputs(kind, **options):
    return lambda p, x, lengths=None: through(kind, p, x, lengths, **options)[0]


def everything(kind, p, x, first, lengths=None, both=False):
    """Return outputs and last states side by side."""
    y, last = through(kind, p, x, lengths, first, prefix="layers.0.", both=both)
    states = [state for h, c in last for state in ((h, c) if kind == "lstm" else (h,))]
    return np.concatenate([y.reshape(len(y), y.shape[1] * y.shape[2]), *states], axis=-1)


def one_step(kind, p, x, h, c, prefix="layer."):
    _, ((h, c),) = through(kind, p, x[:, np.newaxis], None, [(h, c)], prefix=prefix)
    return h, c


def both_ways(kind):
    return lambda p, x, h, back, lengths: everything(
        kind, p, x, [(h, h), (back, back)], lengths, both=True
    )


def at_the_end(kind, directions=1, **options):
    """Return the last h of the last layer, of both directions side by side."""

    def last(p, x, lengths=None):
        states = through(kind, p, x, lengths, **options)[1][-directions:]
        return np.concatenate([h for h, _ in states], axis=-1)

    return last


TWO = {"layers": 2, "both": True}

TWINS = {
    "RNN": outputs("rnn"),
    "RNN without bias": outputs("rnn"),
    "RNN of relu": outputs("relu"),
    "RNN of relu both ways with lengths": outputs("relu", both=True),
    "RNN of two layers both ways with lengths": outputs("rnn", **TWO),
    "RNN both ways with states and lengths": both_ways("rnn"),
    "RNNCell": lambda p, x, h: one_step("rnn", p, x, h, h)[0],
    "LSTM": outputs("lstm"),
    "LSTM without bias": outputs("lstm"),
    "LSTM both ways": outputs("lstm", both=True),
    "LSTM with lengths": outputs("lstm"),
    "LSTM of two layers both ways with lengths": outputs("lstm", **TWO),
    "LSTM with states": lambda p, x, h, c: everything("lstm", p, x, [(h, c)]),
    "LSTM with states and lengths": lambda p, x, h, c, lengths: everything(
        "lstm", p, x, [(h, c)], lengths
    ),
    "LSTM of which the last state is used": lambda p, x, lengths: through(
        "lstm", p, x, lengths, prefix="layers.0."
    )[1][0][0],
    "LSTM of two layers both ways, last": at_the_end("lstm", 2, **TWO),
    "RNN both ways, last": at_the_end("rnn", 2, both=True),
    "LSTMCell": lambda p, x, h, c: np.concatenate(
        one_step("lstm", p, x, h, c, prefix="layers.0.layer."), axis=-1
    ),
    "GRU": outputs("gru"),
    "GRU without bias": outputs("gru"),
    "GRU with lengths": outputs("gru"),
    "GRU of two layers both ways with lengths": outputs("gru", **TWO),
    "GRU, last": at_the_end("gru"),
    "GRU with states": lambda p, x, h: everything("gru", p, x, [(h, h)]),
    "GRU both ways with states and lengths": both_ways("gru"),
    "GRUCell": lambda p, x, h: one_step("gru", p, x, h, h)[0],
}
