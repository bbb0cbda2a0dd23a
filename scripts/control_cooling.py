"""Cool a battery cell by plans: the gradient of a plan's cost through the surrogate that
`train_surrogate.py` trains says how to change the flow of the coolant. Beside them is a PID
controller that is tuned on the same disturbances.
"""

import numpy as np
from problems.battery_cell import Surrogate
from problems.cooling import STEPS, bounded, costs, disturbances, planned, tuned
from train_surrogate import flags, train

from ddbp import script
from layers import Tape, Workspace
from layers.types import Array

UPDATES, RATE = 15, 0.2  # of a plan


class Plan:
    """Plans for a batch of episodes, each from the one before, of which the first flow is taken."""

    def __init__(self, surrogate: Surrogate, forecast: Array) -> None:
        surrogate.model.freeze()
        self.surrogate, self.forecast = surrogate, forecast.astype(np.float32)
        self.chosen = np.zeros((len(forecast), STEPS), np.float32)
        self.workspace = Workspace()

    def gradient(self, state: Array, decision: int) -> Array:
        """Return the gradient of the cost with respect to what is chosen, (E, STEPS)."""
        chosen = Tape(workspace=self.workspace).input(self.chosen)
        currents = self.forecast[:, decision : decision + STEPS]
        planned(self.surrogate, state, currents, bounded(chosen)).backward()
        return chosen.grad

    def __call__(self, state: Array, decision: int) -> Array:
        """Return the flows (E,) until the next decision, after ever smaller steps of descent."""
        for update in range(UPDATES):
            gradient = self.gradient(state, decision)
            self.chosen -= RATE * 0.9**update * gradient / (np.abs(gradient) + 1e-3)
        return bounded(self.chosen[:, 0].astype(np.float64))


def main() -> None:
    """Train the surrogate, control the cell by plans and by PID, and print the costs."""
    parser = flags(__doc__)
    parser.add_size("--episodes", 16, "of two hours")
    parser.add_size("--candidates", 100, "settings of the PID controller that are tried")
    options = parser.parse_args()
    trainer, result, scaling = train(options, 1)
    rng = np.random.default_rng(options.seed + 1)
    currents, forecast = disturbances(options.episodes, rng)
    plan = Plan(Surrogate(trainer.model, scaling), forecast)
    controllers = {"plan": plan, "pid": tuned(currents, options.candidates, rng)}
    for name, control in controllers.items():
        pumping, heat = costs(control, currents).mean(axis=1).tolist()
        result["metrics"][name] = {"cost": pumping + heat, "pumping": pumping, "heat": heat}
    script.finish(options, trainer, result)


if __name__ == "__main__":
    script.start(main)
