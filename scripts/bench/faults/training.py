"""The run that is disturbed: `training.py FOLDER`, where FOLDER holds the text of its job in `job`.

Its model, data and schedule are small, so that a start takes longer than training; it has random
masks, moments, statistics, validation and a best checkpoint, all of which a checkpoint must bring
back.
"""

import json
import os
import sys
from pathlib import Path

from faults.inject import Marks, die_after, outlive
from faults.plan import CHECKPOINT_EVERY, WAITING, Fault, Job

_SURVIVE = os.environ.get("DDBP_SURVIVE")
RANK = int(
    _SURVIVE.split()[2]
    if _SURVIVE
    else os.environ.get("PMI_RANK") or os.environ.get("OMPI_COMM_WORLD_RANK") or 0
)
"""The rank that this process begins as; of one that replaces another it is higher."""


def start(place: Path) -> tuple[Marks, Fault | None]:
    """Return the job and what happens to this process while it starts, if anything."""
    marks = Marks(place, Job.of((place / "job").read_text()))
    number, fault = marks.next() or (0, None)
    replaces = marks.job.ranks <= RANK
    if fault is None or (fault.rank % marks.job.ranks != RANK and not replaces):
        return marks, None
    if fault.kind == "damage" and not replaces:
        from ddbp.checkpoint import folder
        from faults.damage import damage

        step = damage(place / "run" / folder.IN_RUN, fault.place, fault.amount)
        if step is not None:
            marks.say("damaged", step)
        marks.set(number, "damaged" if step is not None else "void")
        return start(place)
    if fault.place != "start" and fault.kind != "other":
        return marks, None
    if not marks.set(number, os.getpid(), "start"):
        return marks, None
    if fault.kind == "kill":
        die_after(fault.amount)
    elif fault.place == "code":
        copy = place / "other_code.py"
        copy.write_text(Path(__file__).read_text() + "\n# Other code.\n")
        os.execv(sys.executable, [sys.executable, str(copy), str(place)])
    return marks, fault


def train(marks: Marks, fault: Fault | None) -> dict[str, object]:
    """Train until the last step after all faults; return what must not depend on them."""
    import numpy as np

    import ddbp
    from faults.inject import Disturber
    from layers import BatchNorm, Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy

    place, job = marks.place, marks.job
    comm = ddbp.communicator()
    (place / f"pid-{comm.slot}").write_text(str(os.getpid()))
    other = fault.place if fault is not None else ""
    rng = np.random.default_rng(4 if other == "data" else 3)
    data = ddbp.ArrayDataset(rng.standard_normal((68, 20)), rng.integers(0, 4, 68))
    rng = np.random.default_rng(1)
    width = 40 if other == "model" else 48
    model = Sequential(
        Linear(20, width, rng=rng),
        BatchNorm(width),
        ReLU(),
        Dropout(0.2),
        Linear(width, 4, rng=rng),
    )
    disturber = Disturber(marks, comm)
    checkpoints = ddbp.Checkpoints(
        every_steps=CHECKPOINT_EVERY,
        keep_best=("validation_loss", 1),
        background=not job.waits,
    )
    disturber.begin()
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(ddbp.Exponential(0.01, factor=0.97)),
        callbacks=[disturber, checkpoints],
        run_dir=place / "run",
        resume="auto",
        quiet=True,
        **({"batch_size": 14, "shards": 6} | job.options),
    )
    if comm.leads:
        marks.say("taken", trainer.step_count)
    history = trainer.fit(data, epochs=epochs(job), validation=data)
    outlive(marks)
    timeless = [{k: v for k, v in each.items() if "second" not in k} for each in history]
    return {
        "leads": comm.leads,
        "rank": comm.rank,
        "sha256": trainer.parameters_sha256(),
        "history": timeless,
        "disk": disturber.disk.calls,
    }


def epochs(job: Job) -> int:
    """Return how many epochs a job has, so that there are steps after its last fault."""
    steps = max(each.step for each in [*job.faults, Fault("", "")])
    if job.mode == "survive":
        steps += WAITING * len(job.faults)
    return steps // job.steps_per_epoch + 3


def main() -> None:
    """Train, and write what came of it."""
    place = Path(sys.argv[1])
    marks, fault = start(place)
    result = train(marks, fault)
    name = "result" if result["leads"] else f"calls-{result['rank']}"
    (place / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
