"""`Trainer.fit(ranks=…)`: the bits of a fit here, and a job that ends with who has started it."""

import importlib
import inspect
import json
import signal
import subprocess
import sys
import time
from copy import deepcopy
from itertools import chain

import numpy as np
import pytest

import ddbp
from ddbp.checkpoint import folder
from ddbp.data.augment import MixUp, Noise
from ddbp.job import temporary
from ddbp.training import in_ranks

from ...conftest import run_process
from ...mpi.ranks import alive, in_full
from .small import DATA, LABELS, X, make
from .stopped_runs import Stop, StopError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs memfd_create")

HOOKS = '''
"""What a user has in a module."""

import json
import os
import signal
import time
from pathlib import Path

import ddbp


class Note(ddbp.Callback):
    """Writes process and environment of each rank to a folder."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_begin(self, trainer, epochs, steps_per_epoch):
        facts = {"pid": os.getpid(), "size": trainer.comm.size, "environment": {**os.environ}}
        (Path(self.folder) / f"rank-{trainer.comm.rank}.json").write_text(json.dumps(facts))


class Slow(ddbp.Callback):
    """Takes time in each step."""

    def on_step_end(self, trainer, step, loss):
        time.sleep(0.05)


class Fail(ddbp.Callback):
    """Fails on a rank after a step, in a way."""

    def __init__(self, rank, step, how):
        self.rank = rank
        self.step = step
        self.how = how

    def on_step_end(self, trainer, step, loss):
        if (trainer.comm.rank, step) == (self.rank, self.step) and trainer.comm.size > 1:
            print("is about to", self.how)
            if self.how == "raise":
                raise ZeroDivisionError("one by nothing")
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise SystemExit(3 if self.how == "leave" else 0)


def misses(prediction, target):
    """Return which labels are missed."""
    return prediction.argmax(axis=1) != target
'''


@pytest.fixture
def hooks(tmp_path, monkeypatch):
    """Return a module of the user's, which ranks find where this process does."""
    (tmp_path / "hooks_of_mine.py").write_text(HOOKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(temporary.tempfile, "tempdir", None)
    sys.modules.pop("hooks_of_mine", None)
    importlib.invalidate_caches()
    yield importlib.import_module("hooks_of_mine")
    sys.modules.pop("hooks_of_mine", None)
    assert not [*tmp_path.glob("ddbp-job-*")]


def state(trainer):
    """Return the state of a trainer, without times."""
    found = trainer.state()
    timed = ("seconds", "samples_per_second")
    values = json.loads(json.dumps(found.values))
    for record in chain(values["fit.history"], *values["fit.earlier"].values()):
        for name in timed:
            record.pop(name)
    values.pop("fit.seconds")
    return values, {name: np.asarray(each).tobytes() for name, each in found.arrays.items()}


def trainer_with(hooks, run_dir, **options):
    """Return a trainer with much that changes during training."""
    return make(
        optimizer=ddbp.AdamW(ddbp.OneCycle(0.01, steps=40), weight_decay=0.01),
        clip_norm=1.0,
        accumulate=2,
        metrics={"misses": hooks.misses, "accuracy": ddbp.accuracy},
        callbacks=[
            ddbp.ExponentialMovingAverage(0.9),
            ddbp.EarlyStopping(patience=50, restore_best_weights=True),
            ddbp.Checkpoints(),
        ],
        doctor=True,
        run_dir=run_dir,
        **options,
    )


def test_fits_here_and_on_ranks_take_turns_with_the_bits_of_those_here(hooks, tmp_path, capfd):
    here, there = (trainer_with(hooks, tmp_path / name) for name in ("here", "there"))
    training, validation = DATA.split(0.2)
    fits = [{"epochs": 2, "class_weight": {1: 2.0}}, {"epochs": 1}, {"epochs": 2}]
    for fit, ranks in zip(fits, (2, None, 3), strict=True):
        expected = here.fit(training, validation=validation, **fit)
        history = there.fit(training, validation=validation, ranks=ranks, **fit)
        assert [record["loss"] for record in history] == [record["loss"] for record in expected]
        (values, arrays), (other_values, other_arrays) = state(here), state(there)
        assert other_values == values
        assert {n for n in arrays if arrays[n] != other_arrays[n]} == set()
    steps = [ddbp.Recording.read(tmp_path / name).steps.tolist() for name in ("here", "there")]
    assert steps[0] == steps[1] != []
    assert len(folder.found(tmp_path / "there" / "checkpoints")) == 3
    metrics = (tmp_path / "there" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [
        record["step"] for fit in values["fit.earlier"].values() for record in fit
    ] + [record["step"] for record in values["fit.history"]]


@pytest.mark.parametrize("step", [2, *in_full(5), 8])
def test_a_run_that_was_stopped_goes_on_on_ranks_to_its_bits(tmp_path, step):
    """A script of two fits, of which the second one ends in the midst, or the first one."""

    def trainer(run_dir, *callbacks, **options):
        kept = ddbp.Checkpoints(every_steps=1)
        given = [kept, *callbacks]
        return make(run_dir=tmp_path / run_dir, callbacks=given, **options), kept

    def fits(trainer, **options):
        return [trainer.fit(DATA, epochs=epochs, **options) for epochs in (1, 2)]

    here, _ = trainer("here")
    expected = fits(here)
    # Checkpoints are told last: the newest one is of the step before.
    stopped, kept = trainer("there", Stop(step + 1))
    with pytest.raises(StopError):
        fits(stopped)
    kept.wait()
    there, _ = trainer("there", resume="auto")
    assert there.step_count == step
    # What was loaded is what would be loaded again.
    again = make()
    again.load_state(there.state())
    assert again.state().values["stream.runs"] == there.state().values["stream.runs"] > 0
    found = fits(there, ranks=2)
    losses = [[[record["loss"] for record in fit] for fit in each] for each in (expected, found)]
    assert losses[1] == losses[0]
    (values, arrays), (other_values, other_arrays) = state(here), state(there)
    assert other_values == values
    assert other_arrays == arrays


def test_a_fit_after_one_that_was_interrupted_begins_anew(tmp_path):
    here, there = (make(callbacks=[Stop(3)]) for _ in range(2))
    for trainer, ranks in ((here, None), (there, 2)):
        with pytest.raises(StopError):
            trainer.fit(DATA, epochs=2)
        trainer.fit(DATA, epochs=2, ranks=ranks)
    assert there.parameters_sha256() == here.parameters_sha256()
    assert there.step_count == here.step_count == 13


def test_augmented_batches_made_ahead_have_the_bits_of_one_process():
    augment = [Noise(0.3), MixUp(0.4, classes=3)]
    here, there = make(augment=augment), make(augment=augment, prefetch=True)
    here.fit(DATA, epochs=2)
    there.fit(ddbp.data.ArraySource(X, LABELS), epochs=2, ranks=2)
    assert there.parameters_sha256() == here.parameters_sha256()


SCRIPT = """
import json
import numpy as np
import ddbp
from hooks_of_mine import Note
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

rng = np.random.default_rng(3)
x = rng.standard_normal((120, 5)).astype(np.float32)
data = ddbp.ArrayDataset(x, (x[:, 0] > 0).astype(np.int64))


def trainer():
    rng = np.random.default_rng(1)
    model = Sequential(Linear(5, 8, rng=rng), ReLU(), Linear(8, 2, rng=rng))
    return ddbp.Trainer(
        model, loss=SoftmaxCrossEntropy(), optimizer="adam", batch_size=24, callbacks=[Note(".")]
    )


here, there = trainer(), trainer()
here.fit(data, epochs=2)
there.fit(data, epochs=2, ranks=2)
print(json.dumps([here.parameters_sha256(), there.parameters_sha256()]))
"""
LAUNCHED = {
    **{"PMI_RANK": "1", "PMI_SIZE": "4", "PMI_FD": "7", "PMIX_RANK": "1", "MPI_LOCALNRANKS": "4"},
    **{"OMPI_COMM_WORLD_SIZE": "4", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"},
    **{"HYDI_CONTROL_FD": "9", "DDBP_MPI": "0", "DDBP_RANK_PROCESS": "1"},
}


def test_plain_script_trains_on_ranks_that_no_launcher_is_known_to(hooks, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run_process([sys.executable, "script.py"], timeout=300, cwd=tmp_path, **LAUNCHED)
    here, there = done.result()
    assert here == there
    # Of the fit on ranks, as of that here, there is a line for each epoch.
    assert len([line for line in done.err.splitlines() if line.startswith("epoch")]) == 4
    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    for facts in found:
        assert facts["size"] == 2
        own = ("DDBP_JOB", "DDBP_PROGRESS", "DDBP_STATUS", "DDBP_BIND", "DDBP_RANK_PROCESS")
        assert {n for n in LAUNCHED if n in facts["environment"]} <= {*own}
        assert facts["environment"]["DDBP_RANK_PROCESS"] == str(facts["pid"])


def test_exception_of_a_rank_comes_back_with_its_traceback(hooks, capfd):
    trainer = make(callbacks=[hooks.Fail(1, 3, "raise")])
    before = trainer.parameters_sha256()
    with pytest.raises(ddbp.RankError) as caught:
        trainer.fit(DATA, epochs=2, ranks=2)
    error = caught.value
    assert (error.rank, error.kind) == (1, "ZeroDivisionError")
    assert str(error).startswith(
        "Trainer.fit: all ranks must come to the end; got ZeroDivisionError on rank 1 of 2: one by"
        " nothing. See the traceback of the rank below."
    )
    assert 'hooks_of_mine.py"' in error.trace
    assert "Traceback" not in capfd.readouterr().err
    assert trainer.parameters_sha256() == before
    trainer.fit(DATA, epochs=1)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("die", r"rank 0 of 2, which died after step 2: killed by SIGKILL"),
        ("leave", r"SystemExit on rank 0 of 2: 3"),
        ("leave quietly", r"SystemExit on rank 0 of 2: 0"),
    ],
)
def test_rank_that_dies_or_leaves_is_named(hooks, how, said):
    with pytest.raises(ddbp.RankError, match=said):
        make(callbacks=[hooks.Fail(0, 3, how)]).fit(DATA, epochs=2, ranks=2)


INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
import numpy as np
import ddbp
from hooks_of_mine import Note, Slow
from layers import Linear, SoftmaxCrossEntropy

x = np.random.default_rng(3).standard_normal((120, 5)).astype(np.float32)
data = ddbp.ArrayDataset(x, (x[:, 0] > 0).astype(np.int64))


def trainer(*callbacks, **options):
    model = Linear(5, 2, rng=np.random.default_rng(1))
    loss = SoftmaxCrossEntropy()
    callbacks = [*callbacks, ddbp.Checkpoints(every_epochs=1000)]
    options = {"batch_size": 24, "callbacks": callbacks, "run_dir": "run", **options}
    return ddbp.Trainer(model, loss=loss, optimizer="adam", quiet=True, **options)


def interrupt():
    while not Path("run/steps.jsonl").exists() or Path("run/steps.jsonl").stat().st_size < 400:
        time.sleep(0.05)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))


# Where a shell has started pytest in the background, it is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt, daemon=True).start()
try:
    trainer(Note("."), Slow()).fit(data, epochs=200, ranks=2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def run_interrupted(path, name):
    """Run the script that is sent a signal while ranks train; return status, output and the ranks'
    processes, once none is left.
    """
    (path / "script.py").write_text(INTERRUPTED)
    command = [sys.executable, "script.py", name]
    done = run_process(command, timeout=300, cwd=path)
    pids = [json.loads((path / f"rank-{rank}.json").read_text())["pid"] for rank in range(2)]
    until = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < until, f"one of the processes {pids} is left"
        time.sleep(0.05)
    return done


def test_interrupt_ends_the_job_which_saves_before(hooks, tmp_path):
    done = run_interrupted(tmp_path, "SIGINT")
    assert done.status == 0, done.err
    assert done.out == "interrupted\n"
    assert 'its checkpoint is that of Trainer(…, resume="auto")' in done.err
    (path,) = folder.found(tmp_path / "run" / "checkpoints")
    assert folder.Checkpoint(path).step < 1000


def test_death_of_the_process_that_has_started_them_ends_the_ranks(hooks, tmp_path):
    done = run_interrupted(tmp_path, "SIGKILL")
    assert done.status == -signal.SIGKILL
    # What was left there is removed by the next one.
    left = [*tmp_path.glob("ddbp-job-*")]
    assert len(left) == 1
    with temporary.folder("job"):
        assert not left[0].exists()


def test_interrupt_while_a_rank_is_started_leaves_no_process(hooks, monkeypatch):
    started, popen = [], subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        signal.raise_signal(signal.SIGINT)
        return started[-1]

    trainer = make()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", start)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(DATA, epochs=1, ranks=2)
        finally:
            signal.signal(signal.SIGINT, before)
    (process,) = started
    assert process.returncode is not None
    assert trainer.step_count == 0


class Mine(ddbp.Callback):
    """It is in no module that other processes can find, as in a cell of a notebook."""


Mine.__module__ = "__main__"


class Forgetful(ddbp.Callback):
    """Does not keep what it is given."""

    def __init__(self, every):
        self._every = every


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"metrics": {"m": lambda prediction, target: 1.0}},
            r"metrics\['m'\], for other processes,",
        ),
        (
            {"callbacks": [Mine()]},
            r"callbacks\[0\].*Mine of __main__\. Move it to a module.*%%writ",
        ),
        (
            {"callbacks": [Forgetful(3)]},
            r"Forgetful, for other processes, must keep .* no attribute every. Write self",
        ),
    ],
)
def test_what_ranks_cannot_have_is_refused_by_name(options, said):
    with pytest.raises(TypeError, match=said):
        make(**options).fit(DATA, epochs=1, ranks=2)


@pytest.mark.parametrize(
    ("ranks", "options", "said"),
    [
        (0, {}, "ranks must be a positive integer"),
        (
            9,
            {},
            "there must be a shard for each rank; got 9 ranks, 8 shards. Make the trainer with",
        ),
        (4, {"batch_size": 3}, "every rank needs a sample of each global batch"),
    ],
)
def test_ranks_that_cannot_be_are_refused(ranks, options, said):
    with pytest.raises(ValueError, match=said):
        make(**options).fit(DATA, epochs=1, ranks=ranks)


def test_refusal_of_a_fit_is_not_left_in_it(hooks):
    class Within(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            trainer.fit(DATA, epochs=1, ranks=2)

    with pytest.raises(RuntimeError, match="between runs"):
        make(callbacks=[Within()]).fit(DATA, epochs=1)


def test_all_arguments_of_a_trainer_reach_the_ranks():
    arguments = {*inspect.signature(ddbp.Trainer).parameters}
    # A doctor is among the callbacks, one host has no network, and ranks go on from a state.
    others = {"doctor", "network", "resume", "resume_options"}
    assert {*in_ranks.made_of(make())} == {"trainer", *arguments} - others


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [
        {"rule": "feedback_alignment"},
        {"exchange": "LocalSGD(workers=4, every=4)", "drop_last": True},
        {"compression": "top-k:0.1"},
        {"loss_scale": ddbp.LossScale(2.0**8)},
        {"memory": "10 MB"},
        {
            "optimizer": ddbp.Adam(
                1e-3, state_bits=8, groups={"layers.0.*": {"learning_rate": 1e-2}}
            )
        },
        {"precision": "bf16"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_all_kinds_reach_the_ranks(options):
    here, there = (make(**deepcopy(options)) for _ in range(2))
    here.fit(DATA, epochs=2)
    there.fit(DATA, epochs=2, ranks=2)
    assert state(there) == state(here)


def test_arrays_that_are_mapped_are_not_copied(hooks, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    saved = []
    save = np.save
    monkeypatch.setattr(
        np, "save", lambda file, array, **_: (saved.append(array), save(file, array))
    )
    here, there = make(), make()
    here.fit(ddbp.ArrayDataset(x, LABELS), epochs=1)
    there.fit(ddbp.data.ArraySource(x, LABELS), epochs=1, ranks=2)
    assert there.parameters_sha256() == here.parameters_sha256()
    assert X.shape not in [array.shape for array in saved]
