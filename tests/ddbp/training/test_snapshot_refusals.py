"""States of other trainers, not whole or damaged: refused by name, and nothing has changed."""

import re

import numpy as np
import pytest

import ddbp
from ddbp.commands import checkpoint
from ddbp.snapshot import VERSION
from ddbp.training.snapshots import _BEFORE
from layers import (
    GRU,
    BatchNorm,
    Dropout,
    Linear,
    MeanSquaredError,
    Sequential,
    SoftmaxCrossEntropy,
)

from .small import DATA, make, network
from .snapshots import SEQUENCES, changed, stopped

OTHERS = {
    "parameters": (
        {"model": Sequential(Linear(6, 16, rng=np.random.default_rng(0)))},
        "layers.2.weight (3, 16) float32, layers.2.bias (3,) float32 in the state, none here",
    ),
    "states": (
        {"model": Sequential(*network(), BatchNorm(3, affine=False))},
        "none in the state, layers.3.running_mean (3,)",
    ),
    "model": ({"model": Sequential(*network(), Dropout(0.5))}, "Dropout(0.5)) here"),
    "loss": (
        {"loss": SoftmaxCrossEntropy(label_smoothing=0.1)},
        "SoftmaxCrossEntropy() in the state, SoftmaxCrossEntropy(label_smoothing=0.1) here",
    ),
    "optimizer": ({"optimizer": ddbp.Adam(0.1)}, "SGD(0.1, "),
    "batch_size": ({"batch_size": 21}, "20 in the state, 21 here"),
    "accumulate": ({"accumulate": 2}, "1 in the state, 2 here"),
    "seed": ({"seed": 1}, "0 in the state, 1 here"),
    "shards": ({"shards": 2}, "8 in the state, 2 here"),
    "clip_norm": ({"clip_norm": 1.0}, "None in the state, 1.0 here"),
    "clip_value": ({"clip_value": 1.0}, "None in the state, 1.0 here"),
    "wire": ({"wire": "float16"}, "None in the state, float16 here"),
    "compression": ({"compression": "top-k:0.5"}, "None in the state, top-k:0.5 here"),
    "l1": ({"l1": 0.5}, "0.0 in the state, 0.5 here"),
    "l2": ({"l2": 0.5}, "0.0 in the state, 0.5 here"),
    "precision": ({"precision": "bf16"}, "float32 in the state, bf16 here"),
    "loss_scale": (
        {"loss_scale": ddbp.LossScale(4.0, 3)},
        "None in the state, LossScale(initial=4.0, interval=3) here",
    ),
    "callbacks": (
        {"callbacks": [ddbp.EarlyStopping()]},
        "none in the state, EarlyStopping.0 here",
    ),
}


def refused(trainer, snapshot, kind, said):
    """Expect an error of `load_state` that says so, and that nothing has changed."""
    before = trainer.state()
    with pytest.raises(kind, match=re.escape(said)):
        trainer.load_state(snapshot)
    after = trainer.state()
    assert after.digest() == before.digest()


@pytest.mark.parametrize("name", OTHERS)
def test_state_of_another_trainer_is_refused_by_what_differs(name):
    options, got = OTHERS[name]
    trainer = make(**options)
    refused(
        trainer,
        stopped(3),
        ValueError,
        f"Trainer.load_state: the state must be of a trainer with the same {name}; got ",
    )
    with pytest.raises(ValueError, match=re.escape(got)):
        trainer.load_state(stopped(3))


ANEW = "Make the trainer alike, or begin a new run"
NEVER = {
    "optimizer": (
        {"optimizer": ddbp.Adam(0.1)},
        "optimizer",
        ANEW + " from the parameters",
    ),
    "exchange": (
        {"exchange": "LocalSGD(4, 2)", "shards": None},
        "shards and exchange",
        ANEW + " from the parameters",
    ),
    "parameters": (OTHERS["parameters"][0], "parameters and model", ANEW + "."),
}


@pytest.mark.parametrize("name", NEVER)
def test_options_that_can_never_differ_are_not_advised_to(name):
    options, changed, fix = NEVER[name]
    said = f"here. A run cannot go on after this change of {changed}. {fix}"
    refused(make(**options), stopped(3), ValueError, said)


def test_options_that_may_differ_are_advised_to():
    other = make(optimizer=ddbp.SGD(0.05, momentum=0.9), batch_size=30)
    said = "resume_options=['optimizer', 'batch_size'] (--resume-options optimizer batch_size)"
    refused(other, stopped(3), ValueError, said)


def test_options_that_are_named_may_differ():
    slower = {"optimizer": ddbp.SGD(0.05, momentum=0.9), "resume_options": ["optimizer"]}
    trainer = make(**slower)
    trainer.load_state(stopped(3))
    assert trainer.step_count == 3
    refused(make(**slower, batch_size=30), stopped(3), ValueError, "the same batch_size")


@pytest.mark.parametrize("version", [None, 0, VERSION + 1, str(VERSION)])
def test_state_of_unknown_version_is_refused(version):
    said = f"Trainer.load_state: the state must be of version {VERSION}; got {version}. "
    refused(make(), changed(stopped(3), snapshot__version=version), ValueError, said)


def test_what_is_no_snapshot_is_refused():
    said = "Trainer.load_state: the state must be a Snapshot; got dict. "
    refused(make(), {"step": 3}, TypeError, said)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("model.layers.0.weight", None, "an array (16, 6) float32; got absent"),
        ("model.layers.0.bias", np.zeros(3, np.float32), "(16,) float32; got an array (3,)"),
        ("optimizer.momentum.layers.0.bias", np.zeros(16), "float32; got an array (16,) float64"),
        ("optimizer.square.layers.0.bias", np.zeros(16), "must be absent; got an array (16,)"),
    ],
)
def test_state_that_is_not_whole_is_refused_by_name(name, array, said):
    snapshot = stopped(3)
    arrays = {other: value for other, value in snapshot.arrays.items() if other != name}
    arrays |= {} if array is None else {name: array}
    other = ddbp.Snapshot(arrays, snapshot.values)
    refused(make(), other, ValueError, f"Trainer.load_state: {name} must be ")
    refused(make(), other, ValueError, said)


MODELS = {
    "observed": lambda: {"model": network(BatchNorm(16)), "accumulate": 3},
    "windows": lambda: {
        "model": GRU(4, 2, rng=np.random.default_rng(0)),
        "loss": MeanSquaredError(),
        "truncate": 3,
    },
    "schedule": lambda: {
        "optimizer": ddbp.Adam(ddbp.WarmUp(ddbp.Plateau(0.1), steps=2)),
        "callbacks": [ddbp.EarlyStopping()],
    },
}


def in_the_midst(kind):
    """Return the state in the midst of a group, an epoch, or the windows of a batch."""
    if kind != "observed":
        return stopped(2, SEQUENCES if kind == "windows" else DATA, **MODELS[kind]())
    trainer = make(**MODELS[kind]())
    for number, batch in enumerate(trainer.batches(DATA, epochs=2), 1):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        if number == 2:
            return trainer.state()
    return None


@pytest.mark.parametrize("kind", MODELS)
def test_state_that_lacks_an_entry_is_refused_by_name(kind):
    snapshot = in_the_midst(kind)
    make(**MODELS[kind]()).load_state(snapshot)
    trainer = make(**MODELS[kind]())
    names = {*snapshot.arrays, *snapshot.values} - {f"facts.{name}" for name in _BEFORE}
    for name in sorted(names):
        arrays, values = (
            {other: entry for other, entry in entries.items() if other != name}
            for entries in (snapshot.arrays, snapshot.values)
        )
        refused(trainer, ddbp.Snapshot(arrays, values), ValueError, "Trainer.load_state: ")
        if not name.startswith(("facts", "snapshot")):
            with pytest.raises(ValueError, match=r"Load the whole of a state\."):
                trainer.load_state(ddbp.Snapshot(arrays, values))


def test_a_state_from_before_there_were_others_is_of_float32():
    snapshot = stopped(3)
    values = {k: v for k, v in snapshot.values.items() if k[6:] not in _BEFORE}
    make().load_state(ddbp.Snapshot(snapshot.arrays, values))
    said = "the same precision; got float32 in the state, bf16 here"
    refused(make(precision="bf16"), ddbp.Snapshot(snapshot.arrays, values), ValueError, said)


@pytest.mark.parametrize("kind", MODELS)
def test_array_that_is_cut_and_value_of_another_kind_are_refused_by_name(kind):
    snapshot = in_the_midst(kind)
    trainer = make(**MODELS[kind]())
    for name, entry in snapshot.arrays.items():
        arrays = snapshot.arrays | {name: entry[:-1]}
        said = f"Trainer.load_state: {name} must be an array ("
        refused(trainer, ddbp.Snapshot(arrays, snapshot.values), ValueError, said)
    for name in snapshot.values:
        values = snapshot.values | {name: {"rubbish": True}}
        said = "Trainer.load_state: " + ("" if name.startswith(("facts", "snapshot")) else name)
        refused(trainer, ddbp.Snapshot(snapshot.arrays, values), ValueError, said)


@pytest.mark.parametrize(
    ("kind", "name", "value", "must"),
    [
        ("schedule", "trainer.step_count", "rubbish", "an integer of at least 0; got 'rubbish'"),
        ("schedule", "trainer.step_count", -5, "an integer of at least 0; got -5"),
        ("schedule", "trainer.step_count", True, "an integer of at least 0; got True"),
        ("schedule", "trainer.stop", 0, "True or False; got 0"),
        ("schedule", "optimizer.steps", 1.5, "an integer of at least 0; got 1.5"),
        ("schedule", "optimizer.schedule.rate", None, "a number; got None"),
        ("schedule", "EarlyStopping.0.bad", -1, "an integer of at least 0; got -1"),
        ("schedule", "stream.position", 999, "a multiple of 20 below 83, or 83; got 999"),
        ("schedule", "stream.position", -5, "a multiple of 20 below 83, or 83; got -5"),
        ("schedule", "stream.position", 7, "a multiple of 20 below 83, or 83; got 7"),
        ("schedule", "stream.first_epoch", 1, "an integer in 0...0 or None; got 1"),
        ("schedule", "stream.samples", None, "an integer in 0...0; got 40"),
        ("schedule", "stream.more", 1, "absent; got 1"),
        ("schedule", "fit.history", [1], "a list of a record; got [1]"),
        ("observed", "accumulation.batches", -1, "an integer of at least 1; got -1"),
        ("observed", "accumulation.batches", 0, "absent; got"),
        ("observed", "accumulation.gathered", [True], "absent; got an array (1, 33) float64"),
        ("observed", "accumulation.gradients", ["nobody"], "a list of a name of a parameter; got"),
        ("windows", "stream.windows.window", -1, "an integer of at least 0; got -1"),
        ("windows", "stream.windows.turn", 1, "an integer in 0...0; got 1"),
        ("windows", "stream.windows.samples", [], "a list of 0 times the structure of"),
        ("windows", "stream.windows.carried", [[7]], "a list of 1 times the structure of a state"),
    ],
)
def test_value_out_of_range_is_refused_by_what_must_hold(kind, name, value, must):
    snapshot = in_the_midst(kind)
    damaged = ddbp.Snapshot(snapshot.arrays, snapshot.values | {name: value})
    trainer = make(**MODELS[kind]())
    refused(trainer, damaged, ValueError, f" must be {must}")


def test_entries_that_no_snapshot_holds_are_refused_by_name():
    snapshot, name = stopped(3), "model.layers.0.bias"
    said = f"Trainer.load_state: {name} must be an array; got list. Load the whole of a state."
    arrays = snapshot.arrays | {name: [1.0, 2.0]}
    refused(make(), ddbp.Snapshot(arrays, snapshot.values), TypeError, said)
    said = "Trainer.load_state: fit.total must be what JSON can hold; got {1, 2}. "
    refused(make(), changed(snapshot, fit__total={1, 2}), TypeError, said)


def test_facts_in_another_order_or_absent_are_refused_as_such():
    snapshot = stopped(3)
    start = "Trainer.load_state: the state must be of a trainer with the same "
    turned = changed(snapshot, facts__parameters=snapshot.values["facts.parameters"][::-1])
    refused(make(), turned, ValueError, f"{start}parameters; got them in another order. ")
    for name in ("clip_norm", "clip_value", "wire", "truncate"):
        values = {k: v for k, v in snapshot.values.items() if k != f"facts.{name}"}
        said = f"{start}{name}; got absent in the state, None here. "
        refused(make(), ddbp.Snapshot(snapshot.arrays, values), ValueError, said)


def test_a_run_begins_anew_from_parameters_as_a_refusal_advises(tmp_path):
    first = make(run_dir=tmp_path / "run", callbacks=[ddbp.Checkpoints(every_steps=5)])
    first.fit(DATA, epochs=1)
    path = tmp_path / "model.safetensors"
    assert checkpoint.run(["export", str(tmp_path / "run"), "-o", str(path)]) == 0
    model = network()
    ddbp.load_parameters(model, path)
    again = make(model=model, rule="feedback_alignment")
    assert again.parameters_sha256() == first.parameters_sha256()
    again.fit(DATA, epochs=1)
