"""Cool a battery cell by plans: the gradient of a plan's cost through a surrogate of the cell says
how to change the flow of the coolant; beside a PID controller tuned on the same disturbances.

Every 150 s the controller sees the three temperatures of the cell and knows the currents of the
next 20 minutes, as a route planner does, up to an error. It plans the flows of that time such that

    cost = pumping + heat above the limit
         = sum of (flow / 0.01 kg/s)³ + 2 / K² sum of max(0, T_core - 311 K)²

is small, with temperatures by the network of `train_surrogate.py` for one load step, called again
and again, and a few steps of descent from the plan before. The first flow is applied until the next
plan. The PID controller sees the same temperatures, and knows nothing of what is to come.
Episodes, of two hours each, are a batch of samples.
"""

import argparse
from typing import Any

import numpy as np
from train_surrogate import FLOW, Surrogate, flags, simulate, train

from ddbp import script
from layers import Sigmoid, Tape, Workspace, concatenate, maximum
from layers.types import Array

DECISIONS = 48  # of an episode, every 150 s
STEPS, UPDATES, RATE = 8, 15, 0.2  # of a plan
PHASE = 4  # decisions from one load to the next
LIMIT, PENALTY = 311.0, 2.0  # K, 1/K²
LOWEST, HIGHEST = FLOW
INLET = 298.0  # K


def disturbances(episodes: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return currents (E, DECISIONS + preview) in phases of light and heavy load, and what the
    controller takes them for.
    """
    phases = rng.choice((50.0, 100.0, 190.0), (episodes, (DECISIONS + STEPS) // PHASE))
    currents = np.repeat(phases, PHASE, axis=1)
    currents *= rng.uniform(0.8, 1.05, currents.shape)
    return currents, currents * rng.uniform(0.9, 1.1, currents.shape)


class Plan:
    """Plans for a batch of episodes, each from the one before."""

    def __init__(self, surrogate: Surrogate, forecast: Array) -> None:
        surrogate.trainer.model.freeze()
        self.surrogate = surrogate
        self.forecast = forecast.astype(np.float32)
        self.chosen = np.zeros((len(forecast), STEPS), np.float32)
        self.workspace = Workspace()

    def cost(self, tape: Tape, chosen: Any, state: Array, decision: int) -> Any:
        """Return the cost of flows, between the lowest and the highest by a sigmoid."""
        flows = LOWEST + (HIGHEST - LOWEST) * Sigmoid()(chosen)
        cost = ((flows / 0.01) ** 3).sum()
        kelvin = tape.input(state.astype(np.float32), gradient=False)
        inlet = np.full((len(state), 1), INLET, np.float32)
        for step in range(STEPS):
            current = self.forecast[:, decision + step : decision + step + 1]
            flow = flows[:, step : step + 1]
            kelvin = self.surrogate(concatenate([kelvin, current, flow, inlet], axis=1))
            cost = cost + PENALTY * (maximum(kelvin[:, 0] - LIMIT, 0.0) ** 2).sum()
        return cost

    def gradient(self, state: Array, decision: int) -> Array:
        """Return the gradient of the cost with respect to what is chosen, (E, STEPS)."""
        tape = Tape(workspace=self.workspace)
        chosen = tape.input(self.chosen)
        self.cost(tape, chosen, state, decision).backward()
        return chosen.grad

    def __call__(self, state: Array, decision: int) -> Array:
        """Return the flows (E,) until the next decision: against the sign of the gradient, by
        steps that become smaller.
        """
        for update in range(UPDATES):
            gradient = self.gradient(state, decision)
            self.chosen -= RATE * 0.9**update * gradient / (np.abs(gradient) + 1e-3)
        return LOWEST + (HIGHEST - LOWEST) * Sigmoid()(self.chosen[:, 0].astype(np.float64))


class PID:
    """Controllers (C, 5), each of every episode: base flow, set point, proportional, integral and
    differential gain.
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


def costs(control: Any, currents: Array) -> Array:
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


def tuned(currents: Array, candidates: int, rng: np.random.Generator) -> Array:
    """Return the gains (1, 5) of the PID controller that costs least on these very episodes, of so
    many drawn at random, and again near the best of them.
    """
    low = np.array([LOWEST, LIMIT - 15, 1e-5, 1e-7, 1e-5])
    high = np.array([HIGHEST / 2, LIMIT, 1e-2, 1e-3, 1e-2])
    gains = low * (high / low) ** rng.uniform(0, 1, (candidates, 5))
    for _ in range(2):
        rows = np.tile(currents, (len(gains), 1))
        each = costs(PID(gains, len(currents)), rows).sum(axis=0).reshape(len(gains), -1)
        best = gains[[each.mean(axis=1).argmin()]]
        gains = np.r_[best, np.clip(best * rng.uniform(0.7, 1.4, (candidates, 5)), low, high)]
    return best


def main() -> None:
    """Train the surrogate, control the cell by plans and by PID, and print the costs."""
    parser = flags()
    parser.description = "Control the cooling of a battery cell through a surrogate of it."
    parser.add_size("--episodes", 16, "of two hours")
    parser.add_size("--candidates", 100, "settings of the PID controller that are tried")
    options: argparse.Namespace = parser.parse_args()
    surrogate = train(options, 1)
    rng = np.random.default_rng(options.seed + 1)
    currents, forecast = disturbances(options.episodes, rng)
    controllers = {
        "plan": Plan(surrogate, forecast),
        "pid": PID(tuned(currents, options.candidates, rng), len(currents)),
    }
    for name, control in controllers.items():
        pumping, heat = costs(control, currents).mean(axis=1).tolist()
        surrogate.result["metrics"][name] = {
            "cost": pumping + heat,
            "pumping": pumping,
            "heat": heat,
        }
    script.finish(options, surrogate.trainer, surrogate.result)


if __name__ == "__main__":
    main()
