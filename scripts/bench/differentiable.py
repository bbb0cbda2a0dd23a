"""Time what the tape costs where ordinary Python is differentiated, beside adjoints written by hand
in NumPy, and run the scripts that do it.

    python scripts/bench/differentiable.py [--json FILE] [--rounds R] [--no-scripts]

The gradients of both are compared before. "simulation" is the same code called with arrays: what is
to be differentiated. Of PyTorch's autograd, which runs the very code of the cell's minutes, the
time is given where that needs nothing of ours.
"""

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lib import adjoints, harness

import numpy as np
import safetensors.numpy
import torch

from layers import Linear, MeanSquaredError, Sequential, SiLU, Tape, Workspace
from layers.types import Array

import control_cooling  # isort: skip - lib.adjoints has put it on the path
from problems import battery_cell, cooling, heated_cell, waves  # isort: skip

SCRIPTS = Path(__file__).resolve().parents[1]
Gradients = dict[str, Callable[[], Any]]


def by_tape(model: Any, parameter: Any, x: Array, y: Array, memory: dict[str, int]) -> Any:
    """Return a function that returns the gradient of a model's mean squared error, and notes the
    bytes that a step held under its name.
    """
    loss, workspace = MeanSquaredError(), Workspace()

    def gradient(name: str) -> Array:
        parameter.zero_gradient()
        tape = Tape(training=True, workspace=workspace)
        loss(model(tape.input(x, gradient=False, copy=False)), y).backward()
        memory[name] = workspace.nbytes
        return np.asarray(parameter.gradient)

    return gradient


def of_models(
    make: Callable[..., Any],
    parameter: Callable[[Any], Any],
    x: Array,
    y: Array,
    adjoint: Callable[..., Array],
) -> tuple[Gradients, dict[str, int]]:
    """Return the contestants of a model's mean squared error, by name, and where the tapes note
    what they hold.
    """
    memory: dict[str, int] = {}
    kept, again = make(), make(recompute=True)
    by_kept = by_tape(kept, parameter(kept), x, y, memory)
    by_again = by_tape(again, parameter(again), x, y, memory)
    return {
        "simulation": lambda: kept(x),
        "by hand": lambda: adjoint(parameter(kept).value, x, y),
        "tape": lambda: by_kept("tape"),
        "tape, recomputed": lambda: by_again("tape, recomputed"),
    }, memory


def cell() -> tuple[Gradients, dict[str, int]]:
    """Return the contestants for the constants of a cell, of 16 experiments."""
    currents = np.random.default_rng(0).uniform(0, 200, (16, heated_cell.MINUTES))
    measured = heated_cell.Cell(heated_cell.TRUE)(currents)
    found, memory = of_models(
        functools.partial(heated_cell.Cell, heated_cell.GUESS),
        lambda model: model.logarithms.values,
        currents,
        measured,
        adjoints.of_cell,
    )
    x, y = torch.from_numpy(currents), torch.from_numpy(measured)
    logarithms = torch.tensor(np.log(heated_cell.GUESS), requires_grad=True)
    minute = heated_cell.Minute()

    def theirs() -> Array:
        logarithms.grad = None
        constants = torch.exp(logarithms).expand(len(x), -1)
        heat = x * x * heated_cell.RESISTANCE
        core = case = 0 * heat[:, 0]
        temperatures: list[Any] = []
        for i in range(heated_cell.MINUTES):
            both = minute(core, case, heat[:, i], constants)
            temperatures += both
            core, case = both[-2:]
        torch.nn.functional.mse_loss(torch.stack(temperatures, dim=1), y).backward()
        gradient: Any = logarithms.grad
        return np.asarray(gradient.numpy())

    return found | {"PyTorch": theirs}, memory


def body() -> tuple[Gradients, dict[str, int]]:
    """Return the contestants for the map of a body, of 12 shots."""
    shots = waves.shots()[:12]
    heard = waves.Body(waves.body())(shots)
    start = np.full((waves.SIZE,) * 2, waves.SPEED)
    return of_models(
        functools.partial(waves.Body, start),
        lambda model: model.map.values,
        shots,
        heard,
        adjoints.of_body,
    )


def plan() -> tuple[Gradients, dict[str, int]]:
    """Return the contestants for a plan of 16 episodes, by a network that has learned nothing."""
    rng = np.random.default_rng(0)
    low, high = battery_cell.bounds(1)
    model = Sequential(
        Linear(6, 64, rng=rng),
        SiLU(),
        Linear(64, 64, rng=rng),
        SiLU(),
        Linear(64, 3, rng=rng),
    )
    scaling = ((high + low) / 2, 2 * np.sqrt(3) / (high - low), [310, 305, 300], [8, 7, 6])
    scaling = battery_cell.Scaling(*map(np.asarray, scaling))
    surrogate = battery_cell.Surrogate(model, scaling)
    plan = control_cooling.Plan(surrogate, cooling.disturbances(16, rng)[1])
    plan.chosen[:] = rng.standard_normal(plan.chosen.shape)
    state = 300 + 15 * rng.random((16, 3))
    return {
        "by hand": lambda: adjoints.of_plan(plan, plan.chosen, state, 0),
        "tape": lambda: plan.gradient(state, 0),
    }, {}


def row(name: str, contestants: Gradients, memory: dict[str, int], rounds: int) -> dict[str, Any]:
    """Return the times of a script's gradients, all of which must agree."""
    gradients = {
        each: function().copy() for each, function in contestants.items() if each != "simulation"
    }
    exact = gradients["by hand"]
    for each, gradient in gradients.items():
        error = float(np.max(np.abs(gradient - exact)) / np.max(np.abs(exact)))
        if not error < 1e-4:
            raise AssertionError(
                f"{name}: the gradient of {each} must be that by hand; off {error}"
            )
    times = harness.interleaved(contestants, rounds, 0.3)
    return {
        "script": name,
        "memory_mb": {each: round(held / 1e6, 3) for each, held in memory.items()},
        "ms": {each: round(median(found) * 1e3, 3) for each, found in times.items()},
        "of_hand": {
            each: harness.ratio(found, times["by hand"])
            for each, found in times.items()
            if each in gradients and each != "by hand"
        },
    }


def results() -> dict[str, Any]:
    """Run the scripts; return their metrics, and the map that was found."""
    found: dict[str, Any] = {}
    for name in ("optimise_physics", "control_cooling", "image_waves"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, SCRIPTS / f"{name}.py", "--quiet", "--run-dir", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
            if name == "image_waves":
                arrays = safetensors.numpy.load_file(Path(folder, "model.safetensors"))
                maps = {"true": np.log(waves.body() / waves.SPEED)}
                maps["found"] = arrays["map.values"]
                found["maps"] = {each: np.round(map_, 3).tolist() for each, map_ in maps.items()}
    return found


def main() -> None:
    """Measure, print a line for each script, and write the file."""
    parser = harness.arguments(str(__doc__).split("\n\n")[0], 11)
    parser.add_argument("--no-scripts", action="store_true", help="only time the gradients")
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    torch.set_num_threads(1)
    rows = []
    for name, make in {
        "optimise_physics": cell,
        "control_cooling": plan,
        "image_waves": body,
    }.items():
        rows.append(row(name, *make(), options.rounds))
        print(rows[-1], flush=True)
    extra = {} if options.no_scripts else {"results": results()}
    harness.write(options.json, facts, rows, **extra)


if __name__ == "__main__":
    main()
