"""Gradients of the scripts of differentiable programming by hand, in NumPy: what the tape is
compared with.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from layers.types import Array

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from problems import cooling, heated_cell, waves


def of_cell(logarithms: Array, currents: Array, measured: Array) -> Array:
    """Return the gradient (5,) of the mean squared error of `heated_cell.Cell` with respect to
    the logarithms of its constants.
    """
    constants = np.exp(logarithms)
    of_core, of_case, inner, outer = 1 / constants[:4]
    coefficient, step = constants[4], 60 / heated_cell.STEPS
    gradient = np.zeros(5)

    def slope(y: Array, heat: Array) -> Array:
        inward = (y[0] - y[1]) * inner
        return np.array(
            [
                (heat * (1 + coefficient * y[0]) - inward) * of_core,
                (inward - y[1] * outer) * of_case,
            ]
        )

    def back(y: Array, heat: Array, g: Array) -> Array:
        """Return the gradient of y, given that of the slope; add those of the constants."""
        core, case = y
        inward, hot = (core - case) * inner, heat * (1 + coefficient * core)
        at_core, at_case = g[0] * of_core, g[1] * of_case
        through = at_case - at_core
        gradient[0] += np.sum(g[0] * (hot - inward))
        gradient[1] += np.sum(g[1] * (inward - case * outer))
        gradient[2] += np.sum(through * (core - case))
        gradient[3] -= np.sum(at_case * case)
        gradient[4] += np.sum(at_core * heat * core)
        return np.array(
            [
                at_core * heat * coefficient + through * inner,
                -through * inner - at_case * outer,
            ]
        )

    heats = currents * currents * heated_cell.RESISTANCE
    y = np.zeros((2, len(currents)))
    stages, differences = [], np.empty_like(measured)
    for heat in heats.T:
        for _ in range(heated_cell.STEPS):
            a = y
            k = slope(a, heat)
            b = y + step / 2 * k
            k, total = slope(b, heat), k
            c = y + step / 2 * k
            k, total = slope(c, heat), total + 2 * k
            d = y + step * k
            total = total + 2 * k + slope(d, heat)
            stages.append((a, b, c, d))
            y = y + step / 6 * total
            at = slice(2 * len(stages) - 2, 2 * len(stages))
            differences[:, at] = y.T - measured[:, at]
    g = np.zeros_like(y)
    for minute in reversed(range(len(heats.T))):
        heat = heats[:, minute]
        for _ in range(heated_cell.STEPS):
            a, b, c, d = stages.pop()
            at = slice(2 * len(stages), 2 * len(stages) + 2)
            g = g + 2 / measured.size * differences[:, at].T
            of_d = back(d, heat, step / 6 * g)
            of_c = back(c, heat, step / 3 * g + step * of_d)
            of_b = back(b, heat, step / 3 * g + step / 2 * of_c)
            g = g + of_d + of_c + of_b + back(a, heat, step / 6 * g + step / 2 * of_b)
    # Of a constant c that is used as 1 / c, d/d(log c) = -1/c d/d(1/c).
    gradient[:4] *= -np.array([of_core, of_case, inner, outer])
    gradient[4] *= coefficient
    return gradient


def of_body(logarithms: Array, sources: Array, measured: Array) -> Array:
    """Return the gradient (H, W) of the mean squared error of `waves.Body` with respect to
    its map.
    """
    squared = np.exp(2 * logarithms) * np.float32(waves.RATIO**2)
    kept, edge = waves.sponge(), waves.SPONGE
    far, every = waves.SIZE - 1 - edge, waves.SPACING
    places = ((edge, slice(None, None, every)), (far, slice(None, None, every)))
    places = (*places, *((along, at) for at, along in places))
    now = np.zeros_like(sources)
    before, laplacians = now, []
    heard = np.empty_like(measured)
    for t, strength in enumerate(waves.ricker().astype(np.float32)):
        of_now = np.zeros_like(now)
        of_now[:, 1:-1, 1:-1] = (
            now[:, 2:, 1:-1]
            + now[:, :-2, 1:-1]
            + now[:, 1:-1, 2:]
            + now[:, 1:-1, :-2]
            - 4 * now[:, 1:-1, 1:-1]
        )
        laplacians.append(of_now)
        now, before = (
            (2 * now - before + squared * of_now + strength * sources) * kept,
            now * kept,
        )
        heard[:, t] = np.concatenate([now[:, i, j] for i, j in places], axis=1)
    differences = (10 * heard - measured) * np.float32(20 / measured.size)
    gradient = np.zeros_like(squared)
    g, g_before = np.zeros_like(now), np.zeros_like(now)
    width = differences.shape[2] // len(places)
    for t in reversed(range(len(laplacians))):
        for side, (i, j) in enumerate(places):
            g[:, i, j] += differences[:, t, side * width : (side + 1) * width]
        g = g * kept
        gradient += np.sum(g * laplacians[t], axis=0)
        through = (squared * g)[:, 1:-1, 1:-1]
        of_now = 2 * g + g_before * kept
        of_now[:, 2:, 1:-1] += through
        of_now[:, :-2, 1:-1] += through
        of_now[:, 1:-1, 2:] += through
        of_now[:, 1:-1, :-2] += through
        of_now[:, 1:-1, 1:-1] -= 4 * through
        g, g_before = of_now, -g
    return gradient * 2 * squared


def of_plan(plan: Any, chosen: Array, state: Array, decision: int) -> Array:
    """Return the gradient (E, STEPS) of the cost of `control_cooling.Plan` with respect to what its
    flows are made of.
    """
    surrogate, forecast = plan.surrogate, plan.forecast
    first, second, last = (surrogate.model[i] for i in (0, 2, 4))
    low, high = cooling.LOWEST, cooling.HIGHEST
    gates = 1 / (1 + np.exp(-chosen))
    flows = (low + (high - low) * gates).astype(np.float32)
    kelvin = state.astype(np.float32)
    inlet = np.full((len(state), 1), cooling.INLET, np.float32)
    taken = []

    def dense(layer: Any, x: Array) -> Array:
        return np.asarray(x @ layer.weight.value.T + layer.bias.value)

    for step in range(cooling.STEPS):
        current = forecast[:, decision + step : decision + step + 1]
        x = np.concatenate([kelvin, current, flows[:, step : step + 1], inlet], axis=1)
        a = dense(first, (x - surrogate.middle) * surrogate.scale)
        of_a = 1 / (1 + np.exp(-a))
        b = dense(second, a * of_a)
        of_b = 1 / (1 + np.exp(-b))
        kelvin = dense(last, b * of_b) * surrogate.deviation + surrogate.mean
        taken.append((a, of_a, b, of_b, kelvin[:, 0]))
    g, of_flows = np.zeros_like(kelvin), 3 * flows**2 / np.float32(0.01**3)
    for step in reversed(range(cooling.STEPS)):
        a, of_a, b, of_b, core = taken[step]
        g[:, 0] += 2 * cooling.PENALTY * np.maximum(core - cooling.LIMIT, 0)
        g = (g * surrogate.deviation) @ last.weight.value
        g = (g * (of_b + b * of_b * (1 - of_b))) @ second.weight.value
        g = (g * (of_a + a * of_a * (1 - of_a))) @ first.weight.value * surrogate.scale
        of_flows[:, step] += g[:, 4]
        g = g[:, :3].copy()
    return of_flows * (high - low) * gates * (1 - gates)
