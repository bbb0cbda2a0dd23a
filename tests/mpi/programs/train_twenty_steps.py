"""Train small models for twenty steps, in many ways; every rank writes its parameters and
histories.

Usage: train_twenty_steps.py FOLDER [--corrupt RANK STEP]; with --corrupt, that rank changes the
lowest bit of one parameter after that step of a single run.
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
from twenty_steps_models import fitted, network
from twenty_steps_runs import RUNS
from verdict import assert_on_all_ranks

import ddbp
from ddbp.comm.agreement import gather_texts


def main() -> None:
    """Run all and write rank<r>.npz (parameters) and rank<r>.json (histories, without times)."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("folder", type=Path)
    flags.add_argument("--corrupt", type=int, nargs=2, metavar=("RANK", "STEP"))
    options = flags.parse_args()
    comm = ddbp.communicator()
    parameters, histories = {}, {}
    if options.corrupt is not None:
        key = "momentum, 8 shards"
        trainer, history = fitted(
            network(), ddbp.SGD(0.1, momentum=0.9), shards=8, callbacks=[Corrupt(*options.corrupt)]
        )
        parameters[key] = flat(trainer)
        histories[key] = without_times(history) + recorded(trainer)
    else:
        for shards in (8, "ranks"):
            for name, run in RUNS.items():
                trainer, history = run(shards)
                key = f"{name}, {'one shard per rank' if shards == 'ranks' else f'{shards} shards'}"
                parameters[key] = flat(trainer)
                histories[key] = without_times(history) + recorded(trainer)
                assert_on_all_ranks(
                    np.isfinite(parameters[key]).all(), f"parameters of {key} are finite"
                )
    np.savez(options.folder / f"rank{comm.rank}.npz", **parameters)
    (options.folder / f"rank{comm.rank}.json").write_text(json.dumps(histories))


def flat(trainer: ddbp.Trainer) -> np.ndarray:
    """Return all parameters of a model one after the other."""
    return np.concatenate([parameter.value.reshape(-1) for parameter in trainer.model.parameters()])


def recorded(trainer: ddbp.Trainer) -> list[dict]:
    """Return the digests of what instruments have measured, but for times; those of rank 0, which
    keeps it.
    """
    found = [each for each in trainer.callbacks if isinstance(each, ddbp.Instruments)]
    # Workers that train apart have none.
    values = {name: array for each in found for name, array in each.recording.values.items()}
    digests = {
        name: f"{array.shape} {zlib.crc32(array.tobytes()):08x}"
        for name, array in values.items()
        if not name.startswith("seconds")
    }
    return [json.loads(gather_texts(trainer.comm, json.dumps(digests))[0])]


def without_times(history: list[dict]) -> list[dict]:
    """Return the records without what differs from run to run."""
    return [
        {
            name: value
            for name, value in record.items()
            if name not in ("seconds", "samples_per_second", "data_seconds")
        }
        for record in history
    ]


class Corrupt(ddbp.Callback):
    """Changes the lowest bit of the last parameter on one rank after a step."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_step_end(self, trainer: ddbp.Trainer, step: int, loss: float) -> None:
        if step == self.step and trainer.comm.rank == self.rank:
            weight = trainer.model.parameters()[-1].value
            weight[-1] = np.nextafter(weight[-1], np.float32(1))


if __name__ == "__main__":
    main()
