"""`Trainer(memory=…)`: the bits of a trainer without, in the memory that it is given."""

import gc
import json
import platform
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import ddbp
from ddbp.training import memory as budgets
from ddbp.training.memory import in_words, parsed
from layers import (
    BatchNorm,
    Composite,
    Dropout,
    Layer,
    Linear,
    MeanSquaredError,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Workspace,
    init,
)

RNG = np.random.default_rng(5)
DATA = ddbp.ArrayDataset(RNG.standard_normal((300, 20)), RNG.integers(0, 3, 300))


def deep(depth=12, width=64):
    rng = np.random.default_rng(1)

    def body():
        last = Linear(width, width, rng=rng, weight_init=init.normal(0.01))
        return Sequential(
            Linear(width, width, rng=rng), BatchNorm(width), ReLU(), Dropout(0.1), last
        )

    return Sequential(
        Linear(20, width, rng=rng),
        *(Residual(body()) for _ in range(depth)),
        Linear(width, 3, rng=rng),
    )


def make(model=None, **options):
    usual = {"loss": SoftmaxCrossEntropy(), "optimizer": ddbp.SGD(0.01), "batch_size": 100}
    return ddbp.Trainer(model or deep(), **(usual | {"quiet": True} | options))


@pytest.fixture(scope="module")
def ordinary():
    trainer = make(shards=2)
    losses = [record["loss"] for record in trainer.fit(DATA, epochs=2)]
    return trainer.parameters_sha256(), losses, trainer._workspace.nbytes


@pytest.mark.parametrize("share", [0.2, 0.25, 0.4, 0.8, 2])
def test_steps_keep_to_the_budget_as_predicted_and_change_no_bit(share, ordinary):
    digest, losses, held = ordinary
    budget = int(share * held)
    trainer = make(shards=2, memory=budget)
    assert [record["loss"] for record in trainer.fit(DATA, epochs=2)] == losses
    assert trainer.parameters_sha256() == digest
    facts, taken = trainer._memory.facts, trainer._workspace.nbytes
    assert taken <= budget
    assert trainer._update.group.newest.workspace is trainer._workspace
    assert abs(facts["predicted"] - taken) <= 0.03 * taken
    assert (facts["plan"] is None) == (share > 1)


@pytest.mark.parametrize("precision", ["bf16", "float16"])
def test_budget_holds_in_16_bits_and_changes_no_bit(precision):
    usual = make(precision=precision)
    usual.fit(DATA, epochs=1)
    trainer = make(precision=precision, memory=int(0.7 * usual._workspace.nbytes))
    trainer.fit(DATA, epochs=1)
    assert trainer.parameters_sha256() == usual.parameters_sha256()
    assert trainer._workspace.nbytes <= trainer._memory.size


def refused_with(precision):
    """Return the least budget that a refusal names, as its text."""
    with pytest.raises(ValueError, match="a step must fit into memory; got") as refusal:
        make(memory="20 kB", precision=precision).fit(DATA, epochs=1)
    return str(refusal.value).partition("The least for this batch is ")[2].partition(" on each")[0]


@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16-dot", "float16"])
def test_least_that_a_refusal_names_is_enough_and_less_than_it_is_not(precision):
    least = refused_with(precision)
    trainer = make(memory=least, precision=precision)
    trainer.fit(DATA, epochs=1)
    assert trainer._memory.facts["layers_again"] > 10
    assert trainer._workspace.nbytes <= parsed(least) < 1.001 * trainer._workspace.nbytes
    with pytest.raises(ValueError, match=f"The least for this batch is {least} on each rank"):
        make(memory=trainer._workspace.nbytes - 1, precision=precision).fit(DATA, epochs=1)


@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16-dot", "float16"])
def test_nothing_is_computed_again_where_what_is_said_to_be_enough_for_that_is_given(precision):
    trainer = make(memory=parsed(refused_with(precision)), precision=precision)
    trainer.fit(DATA, epochs=1)
    enough = trainer._memory.facts["without"]
    assert f"{in_words(enough)} are enough" in trainer._memory._sentence()
    trainer = make(memory=enough, precision=precision)
    trainer.fit(DATA, epochs=1)
    assert trainer._memory.facts["measured"] == trainer._workspace.nbytes == enough
    assert trainer._memory._sentence().endswith("nothing is computed again")


@pytest.mark.parametrize("precision", ["bf16", "float16"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_plans_in_16_bits_take_about_what_is_predicted(share, precision):
    trainer = make(memory="10 MB", precision=precision)
    trainer.fit(DATA, epochs=1)
    trainer = make(memory=int(share * trainer._memory.facts["without"]), precision=precision)
    trainer.fit(DATA, epochs=1)
    facts = trainer._memory.facts
    assert facts["measured"] == trainer._workspace.nbytes
    # By the largest array, of 100 rows of 64 numbers, twice.
    assert abs(facts["predicted"] - facts["measured"]) <= 2 * 100 * 64 * 4


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((999, "0.999 kB"), (480_328, "480.4 kB"), (480_400, "480.4 kB"), (999_999, "1 MB")),
        *((1_500_000, "1.5 MB"), (2_000_000_001, "2.001 GB")),
    ],
)
def test_sizes_are_said_in_four_digits_and_never_too_small(size, text):
    assert in_words(size) == text
    assert parsed(text) >= size


def test_loops_of_a_script_keep_to_the_budget_too():
    digests = []
    for memory in (None, 400_000):
        trainer = make(memory=memory, batch_size=60, accumulate=2)
        for batch in trainer.batches(DATA, epochs=2):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        digests.append(trainer.parameters_sha256())
    assert digests[0] == digests[1]
    assert trainer._memory.facts["plan"] is not None
    assert trainer._workspace.nbytes <= 400_000


@pytest.mark.parametrize("around", [lambda model: model, lambda model: Sequential(model, ReLU())])
def test_later_trainer_without_a_budget_computes_nothing_again(around, ordinary):
    model = deep()
    make(model, memory=int(0.25 * ordinary[2])).fit(DATA, epochs=1)
    assert model._planned is not None
    later = make(around(model))
    assert model._planned is None
    later.train_step(DATA.x[:100], DATA.y[:100])
    assert not later._workspace.stack.need


def test_what_was_held_for_practice_is_free_before_the_first_step(ordinary, monkeypatch):
    practised = []

    class Held(Workspace):
        def __init__(self):
            super().__init__()
            practised.append(weakref.ref(self))

    monkeypatch.setattr(budgets, "Workspace", Held)
    trainer = make(memory=int(0.25 * ordinary[2]))
    trainer.train_step(DATA.x[:100], DATA.y[:100])
    gc.collect()
    assert len(practised) > 1
    held = [each() for each in practised if each() is not None]
    assert held == [trainer._workspace] == [trainer._update.group.newest.workspace]
    assert sum(each.nbytes for each in held) == trainer._memory.facts["measured"]


RESIDENT = """
import sys
import numpy as np, ddbp
from layers import Linear, ReLU, Residual, Sequential, SoftmaxCrossEntropy, init

rng, small = np.random.default_rng(0), init.normal(0.01)
blocks = [
    Residual(Sequential(Linear(128, 128, rng=rng, weight_init=small), ReLU())) for _ in range(64)
]
trainer = ddbp.Trainer(
    Sequential(*blocks, Linear(128, 10, rng=rng)), loss=SoftmaxCrossEntropy(), batch_size=1024,
    optimizer=ddbp.SGD(1e-6), shards=1, quiet=True, memory=eval(sys.argv[1]),
)
for _ in range(4):
    trainer.train_step(np.ones((1024, 128), np.float32), np.arange(1024) % 10)
(line,) = (each for each in open("/proc/self/status") if each.startswith("VmRSS"))
print(1024 * int(line.split()[1]), trainer._workspace.nbytes)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists() or platform.libc_ver()[0] != "glibc",
    reason="Linux says what a process takes, and glibc gives back what is free",
)
def test_the_process_takes_as_much_less_as_steps_do():
    def taken(given):
        command = [sys.executable, "-c", RESIDENT, given]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        return np.array([*map(int, finished.stdout.split())])

    process, steps = taken("None") - taken("'16 MB'")
    assert steps > 80e6
    assert process > 0.9 * steps


def test_larger_batches_get_a_plan_of_their_own():
    trainer = make(memory=500_000)
    x, y = DATA.x.astype(np.float32), DATA.y
    trainer.train_step(x[:50], y[:50])
    first = trainer._memory.facts
    trainer.train_step(x[:40], y[:40])
    assert trainer._memory.facts is first
    trainer.train_step(x[:100], y[:100])
    assert trainer._memory.facts["layers_again"] > first["layers_again"]
    assert trainer._workspace.nbytes <= 500_000


def test_choice_is_said_in_a_line_and_written_to_the_run_folder(tmp_path, capfd):
    make(memory="0.5 MB", run_dir=tmp_path, quiet=False).fit(DATA, epochs=1)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Memory:")]
    assert len(lines) == 1
    assert "of 14 layers are computed again" in lines[0]
    facts = json.loads((tmp_path / "config.json").read_text())["memory"]
    assert facts["budget"] == 500_000
    assert facts["measured"] <= 500_000


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("200 MB", 200_000_000),
        ("1.5 GiB", 3 << 29),
        ("64kB", 64_000),
        (4096, 4096),
        ("12 B", 12),
        ("2e3 kB", 2_000_000),
    ],
)
def test_sizes_are_read(given, size):
    assert parsed(given) == size
    assert parsed(None) is None


@pytest.mark.parametrize(
    "given",
    [
        *("", "200", "MB", "2 parsecs", "-1 MB", 0, -5, 0.5, True, [1], "0 MB"),
        *("200 Mb", "200mb", "1 Gib", "٢٠٠ MB", "９ MB", "1_0 MB", "8.1 EiB"),
        *("9" * 400 + " GB", "1e400 MB", "1e12 GB", 2**63, 10**400),
    ],
)
def test_what_is_no_size_is_refused(given):
    with pytest.raises(
        ValueError, match=r'^Trainer: memory must be a size of .*b are bits\); got .*Write "200 MB"'
    ):
        make(memory=given)


def test_budget_that_was_refused_is_refused_again():
    trainer = make(memory="20 kB")
    for _ in range(2):
        with pytest.raises(ValueError, match="a step must fit into memory; got memory=20 kB"):
            trainer.fit(DATA, epochs=1)


class Own(Composite):
    def __init__(self):
        self.layer = Linear(20, 3, rng=np.random.default_rng(0))

    def __call__(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("options", "must"),
    [
        ({"model": Own()}, "memory= needs a model that is a Sequential; got Own"),
        ({"truncate": 3}, "memory= needs whole sequences; got truncate=3"),
        ({"rule": "feedback_alignment"}, "memory= needs exact backpropagation; got rule="),
        (
            {"exchange": "LocalSGD(workers=4, every=2)"},
            r"memory= needs workers that exchange gradients in each step; got exchange=LocalSGD\(",
        ),
        (
            {"exchange": "DiLoCo(workers=4, every=4)"},
            r"memory= needs workers that exchange gradients in each step; got exchange=DiLoCo\(",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_planned_is_refused(options, must):
    with pytest.raises(ValueError, match=must):
        make(memory="1 MB", **options)


def test_ranks_that_are_left_go_on_with_the_least_where_the_budget_is_for_more(ordinary, capfd):
    digest, losses, _ = ordinary
    trainer = make(shards=2, memory="20 kB", quiet=False)
    trainer._memory._most = 2
    assert [record["loss"] for record in trainer.fit(DATA, epochs=2)] == losses
    assert trainer.parameters_sha256() == digest
    assert trainer._memory.facts["measured"] > 20_000
    assert "of 20 kB, more than that, as ranks were lost" in capfd.readouterr().err


def test_data_of_several_arrays_are_refused():
    data = ddbp.ArrayDataset((DATA.x, DATA.x), DATA.x)
    with pytest.raises(TypeError, match="memory= needs data of one array; got tuple"):
        make(memory="1 MB", loss=MeanSquaredError()).fit(data, epochs=1)


class Overflow(Layer):
    """Gives infinity for a sample."""

    def __init__(self):
        self.at = None

    def __repr__(self):
        return "Overflow()"

    def forward(self, call, x):
        y = x.copy()
        if self.at is not None:
            y[self.at] = np.inf
        return y

    def backward(self, call, dy):
        return (dy,)


def test_layer_that_is_not_finite_is_named(ordinary):
    *_, held = ordinary
    layers = [*deep().layers]
    layers[6:6] = [overflow := Overflow()]
    trainer = make(Sequential(*layers), memory=int(0.3 * held))
    trainer.train_step(DATA.x[:100], DATA.y[:100])
    assert trainer._memory.facts["layers_again"] > 3
    overflow.at = 7
    text = r"the first layer whose output is not finite is layers\.6: Overflow\(\), in sample 7 of"
    with pytest.raises(FloatingPointError, match=text):
        trainer.train_step(DATA.x[:100], DATA.y[:100])
