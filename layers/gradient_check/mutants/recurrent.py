"""The mistakes in backpropagation through time."""

from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import Generator, real
from layers.gradient_check.cases.recurrent import HIDDEN, INPUTS, LENGTHS, STEPS
from layers.types import Array, Integers

from .mutant import Gradients, Mutant


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


class _Recurrence(Layer):
    """Goes through (N, T, C) with lengths, right: the kinds say what a step is, the mutants
    override a part of that.
    """

    gates: int

    def __init__(self, rng: Generator) -> None:
        self.weight_ih = Parameter(rng.standard_normal((self.gates * HIDDEN, INPUTS)))
        self.weight_hh = Parameter(rng.standard_normal((self.gates * HIDDEN, HIDDEN)))
        self.bias_hh = Parameter(rng.standard_normal(self.gates * HIDDEN))

    def step(self, x: Array, h: Array, c: Array) -> tuple[Array, Array, Any]:
        """Return the next states, and what `step_back` needs."""
        raise NotImplementedError

    def step_back(self, dh: Array, dc: Array, kept: Any) -> tuple[Array, Array, Array, Array]:
        """Return the gradients of x's and of h's contribution, of h besides that, and of c."""
        raise NotImplementedError

    def valid(self, lengths: Integers, t: int) -> Array:
        return (t < lengths)[:, np.newaxis]

    def source(self, states: list[Array], t: int) -> Array:
        """Return the state that the recurrent weight was multiplied with."""
        return states[t]

    def initial(self, dh: Array, dc: Array) -> Gradients:
        return dh, dc

    def last(self, dh: Array | None, like: Array) -> Array:
        return np.zeros_like(like) if dh is None else dh

    def forward(
        self, call: Any, x: Array, h: Array, c: Array, lengths: Integers
    ) -> tuple[Array, Array]:
        y = np.zeros((len(x), STEPS, HIDDEN), x.dtype)
        states, steps = [h], []
        for t in range(STEPS):
            new_h, new_c, kept = self.step(x[:, t], h, c)
            valid = (t < lengths)[:, np.newaxis]
            h, c = np.where(valid, new_h, h), np.where(valid, new_c, c)
            y[:, t] = np.where(valid, h, 0)
            states.append(h)
            steps.append(kept)
        call.save(x, lengths, states, steps)
        return y, h

    def backward(self, call: Any, dy: Array | None, dh_last: Array | None = None) -> Gradients:
        x, lengths, states, steps = call.saved
        dy = np.zeros((len(x), STEPS, HIDDEN)) if dy is None else dy
        dh, dc = self.last(dh_last, states[0]), np.zeros_like(states[0])
        dx = np.zeros_like(x)
        for t in reversed(range(STEPS)):
            valid = self.valid(lengths, t)
            of_x, of_h, direct, of_c = self.step_back(
                dh + np.where(valid, dy[:, t], 0), dc, steps[t]
            )
            of_x, of_h = np.where(valid, of_x, 0), np.where(valid, of_h, 0)
            dx[:, t] = of_x @ self.weight_ih.value
            dh = np.where(valid, of_h @ self.weight_hh.value + direct, dh)
            dc = np.where(valid, of_c, dc)
            for parameter, left, right in (
                (self.weight_ih, of_x, x[:, t]),
                (self.weight_hh, of_h, self.source(states, t)),
            ):
                for gradient, rows in call.shards(parameter, x):
                    gradient += left[rows].T @ right[rows]
            for gradient, rows in call.shards(self.bias_hh, x):
                gradient += of_h[rows].sum(axis=0)
        return dx, *self.initial(dh, dc), None


class _LSTM(_Recurrence):
    gates = 4

    def step(self, x: Array, h: Array, c: Array) -> tuple[Array, Array, Any]:
        z = x @ self.weight_ih.value.T + h @ self.weight_hh.value.T + self.bias_hh.value
        i, f, g, o = (z[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        new = f * c + i * g
        return o * np.tanh(new), new, (i, f, g, o, c, new)

    def cell(self, dh: Array, dc: Array, o: Array, c: Array) -> Array:
        """Return the gradient of the new cell."""
        return np.asarray(dc + dh * o * (1 - np.tanh(c) ** 2))

    def carried(self, dc: Array, f: Array) -> Array:
        """Return the gradient of the old cell."""
        return dc * f

    def ordered(self, di: Array, df: Array, dg: Array, do: Array) -> Array:
        return np.concatenate([di, df, dg, do], axis=1)

    def step_back(self, dh: Array, dc: Array, kept: Any) -> tuple[Array, Array, Array, Array]:
        i, f, g, o, old, new = kept
        dc = self.cell(dh, dc, o, new)
        dz = self.ordered(
            dc * g * i * (1 - i),
            dc * old * f * (1 - f),
            dc * i * (1 - g * g),
            dh * np.tanh(new) * o * (1 - o),
        )
        return dz, dz, np.zeros_like(dh), self.carried(dc, f)


class _StepTooFar(_LSTM):
    def source(self, states: list[Array], t: int) -> Array:
        return states[t + 1]


class _InitialForgotten(_LSTM):
    def initial(self, dh: Array, dc: Array) -> Gradients:
        return None, dc


class _LastForgotten(_LSTM):
    def last(self, dh: Array | None, like: Array) -> Array:
        return np.zeros_like(like)


class _LengthsIgnored(_LSTM):
    def valid(self, lengths: Integers, t: int) -> Array:
        return np.ones((len(lengths), 1), bool)


class _GatesMixed(_LSTM):
    def ordered(self, di: Array, df: Array, dg: Array, do: Array) -> Array:
        return super().ordered(df, di, dg, do)


class _CellNotForgotten(_LSTM):
    def carried(self, dc: Array, f: Array) -> Array:
        return dc


class _CellNotCarried(_LSTM):
    def carried(self, dc: Array, f: Array) -> Array:
        return 0 * dc


class _NotThroughCell(_LSTM):
    def cell(self, dh: Array, dc: Array, o: Array, c: Array) -> Array:
        return np.asarray(dc + dh * o)


class _GRU(_Recurrence):
    gates = 3

    def step(self, x: Array, h: Array, c: Array) -> tuple[Array, Array, Any]:
        of_x, of_h = x @ self.weight_ih.value.T, h @ self.weight_hh.value.T + self.bias_hh.value
        r, z = (_sigmoid((of_x + of_h)[:, k * HIDDEN : (k + 1) * HIDDEN]) for k in range(2))
        inner = of_h[:, 2 * HIDDEN :]
        n = np.tanh(of_x[:, 2 * HIDDEN :] + r * inner)
        return (1 - z) * n + z * h, c, (r, z, n, inner, h)

    def reset(self, dn: Array, inner: Array, r: Array) -> Array:
        return np.asarray(dn * inner * r * (1 - r))

    def inner(self, dn: Array, r: Array) -> Array:
        return dn * r

    def direct(self, dh: Array, z: Array) -> Array:
        return dh * z

    def step_back(self, dh: Array, dc: Array, kept: Any) -> tuple[Array, Array, Array, Array]:
        r, z, n, inner, old = kept
        dn = dh * (1 - z) * (1 - n * n)
        both = [self.reset(dn, inner, r), dh * (old - n) * z * (1 - z)]
        of_x, of_h = (
            np.concatenate([*both, dn], axis=1),
            np.concatenate([*both, self.inner(dn, r)], axis=1),
        )
        return of_x, of_h, self.direct(dh, z), dc


class _ResetForgotten(_GRU):
    def reset(self, dn: Array, inner: Array, r: Array) -> Array:
        return np.zeros_like(r)


class _InnerNotReset(_GRU):
    def inner(self, dn: Array, r: Array) -> Array:
        return dn


class _DirectForgotten(_GRU):
    def direct(self, dh: Array, z: Array) -> Array:
        return np.zeros_like(z)


def inputs(rng: Generator) -> tuple[Any, ...]:
    """Draw sequences and states, and give lengths."""
    samples = len(LENGTHS)
    return (*real((samples, STEPS, INPUTS), (samples, HIDDEN), (samples, HIDDEN))(rng), LENGTHS)


MUTANTS = tuple(
    Mutant(name, make, inputs)
    for name, make in (
        ("recurrent weight multiplied with the state one step too far", _StepTooFar),
        ("gradient of the initial state forgotten", _InitialForgotten),
        ("gradient of the last state forgotten", _LastForgotten),
        ("lengths ignored on the way back", _LengthsIgnored),
        ("forget gate mixed up with input gate", _GatesMixed),
        ("gradient of the cell past the forget gate", _CellNotForgotten),
        ("gradient of the cell ends after one step", _CellNotCarried),
        ("derivative of the tanh of the cell forgotten", _NotThroughCell),
        ("gradient of the reset gate forgotten", _ResetForgotten),
        ("reset gate forgotten before the recurrent weight", _InnerNotReset),
        ("direct way from state to state forgotten", _DirectForgotten),
    )
)

RIGHT = (_LSTM, _GRU)
"""What the mistakes are made in: the tests show that it passes without them."""
