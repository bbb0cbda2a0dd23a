"""To cool a battery cell: every 150 s a controller sees its three temperatures, and says how much
coolant flows until the next decision. Episodes, of two hours each, are a batch of samples.

    cost = pumping + heat above the limit
         = sum of (flow / 0.01 kg/s)³ + 2 / K² sum of max(0, T_core - 311 K)²

A plan knows the currents of the next 20 minutes, as a route planner does, up to an error.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from layers import Sigmoid, concatenate, maximum
from layers.types import Array

from .battery_cell import FLOW, Surrogate, simulate

DECISIONS = 48  # of an episode
STEPS = 8  # decisions that a plan looks ahead
PHASE = 4  # decisions from one load to the next
LIMIT, PENALTY = 311.0, 2.0  # K, 1/K²
LOWEST, HIGHEST = FLOW
INLET = 298.0  # K


def disturbances(episodes: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return currents (E, DECISIONS + STEPS) in phases of light and heavy load, and what a plan
    takes them for.
    """
    phases = rng.choice((50.0, 100.0, 190.0), (episodes, (DECISIONS + STEPS) // PHASE))
    currents = np.repeat(phases, PHASE, axis=1)
    currents *= rng.uniform(0.8, 1.05, currents.shape)
    return currents, currents * rng.uniform(0.9, 1.1, currents.shape)


def bounded(chosen: Any) -> Any:
    """Return flows between the lowest and the highest for numbers of any size, arrays or values."""
    return LOWEST + (HIGHEST - LOWEST) * Sigmoid()(chosen)


def planned(surrogate: Surrogate, state: Array, currents: Array, flows: Any) -> Any:
    """Return the cost of the flows (E, STEPS) of all plans, by a surrogate of one load step that is
    called again and again.

    Parameters
    ----------
    surrogate
        Of one load step.
    state
        Temperatures (E, 3) at the beginning.
    currents
        What they are taken for (E, STEPS).
    flows
        Values.
    """
    cost = ((flows / 0.01) ** 3).sum()
    kelvin: Any = state.astype(np.float32)
    inlet = np.full((len(currents), 1), INLET, np.float32)
    for step in range(STEPS):
        current, flow = currents[:, step : step + 1], flows[:, step : step + 1]
        kelvin = surrogate(concatenate([kelvin, current, flow, inlet], axis=1))
        cost = cost + PENALTY * (maximum(kelvin[:, 0] - LIMIT, 0.0) ** 2).sum()
    return cost


def costs(control: Callable[[Array, int], Array], currents: Array) -> Array:
    """Return pumping and heat of each row of currents, (2, R), averaged over the decisions."""
    state = np.full((len(currents), 3), 300.0)
    pumping = heat = 0.0
    for decision in range(DECISIONS):
        flow = control(state, decision)
        inlet = np.full(len(flow), INLET)
        state = simulate(np.c_[state, currents[:, decision], flow, inlet])
        pumping = pumping + (flow / 0.01) ** 3
        heat = heat + PENALTY * np.maximum(state[:, 0] - LIMIT, 0.0) ** 2
    return np.array([pumping, heat]) / DECISIONS


class PID:
    """Controllers (C, 5), each of every episode: base flow, set point, proportional, integral and
    differential gain. They know nothing of what is to come.
    """

    def __init__(self, gains: Array, episodes: int) -> None:
        self._gains = np.repeat(gains, episodes, axis=0).T
        self._sum = self._before = 0.0

    def __call__(self, state: Array, decision: int) -> Array:
        """Return the flows (C E,) until the next decision; the integral waits at the limits."""
        base, point, proportional, integral, differential = self._gains
        error = state[:, 0] - point
        change = error - self._before if decision else 0.0
        flow = base + proportional * error + integral * self._sum + differential * change
        free = (flow > LOWEST) & (flow < HIGHEST)
        self._sum = self._sum + np.where(free, error, 0.0)
        self._before = error
        return np.clip(flow, LOWEST, HIGHEST)


def tuned(currents: Array, candidates: int, rng: np.random.Generator) -> PID:
    """Return the PID controller that costs least on these very episodes, of so many drawn at
    random, and again near the best of them.
    """
    low = np.array([LOWEST, LIMIT - 15, 1e-5, 1e-7, 1e-5])
    high = np.array([HIGHEST / 2, LIMIT, 1e-2, 1e-3, 1e-2])
    gains = low * (high / low) ** rng.uniform(0, 1, (candidates, 5))
    for _ in range(2):
        rows = np.tile(currents, (len(gains), 1))
        each = costs(PID(gains, len(currents)), rows).sum(axis=0).reshape(len(gains), -1)
        best = gains[[each.mean(axis=1).argmin()]]
        gains = np.r_[best, np.clip(best * rng.uniform(0.7, 1.4, (candidates, 5)), low, high)]
    return PID(best, len(currents))
