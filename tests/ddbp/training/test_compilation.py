"""Kernels of a first step: which will be compiled is known before, and two processes do it."""

import os
import subprocess
import sys

import numpy as np
import pytest

import ddbp
from ddbp.training import compilation
from layers import Linear, ReLU, Sequential
from layers.kernels import ahead, elementwise
from layers.kernels.cache import KernelCache

PROGRAM = """
import numpy as np
import ddbp
from ddbp.training import compilation
from layers import Linear, ReLU, Sequential, Tanh

compilation._SOON = 0
compilation.available_cores = lambda: 2
rng = np.random.default_rng(0)
first, last = Linear(4, 8, rng=rng), Linear(8, 3, rng=rng)
model = Sequential(first, ReLU(), Tanh(), last)
trainer = ddbp.Trainer(model, loss="cross_entropy", optimizer="adam", batch_size=6)
x, y = np.arange(24, dtype=np.float32).reshape(6, 4) / 24, np.arange(6) % 3
print([trainer.train_step(x, y) for _ in range(3)], trainer.parameters_sha256())
"""


def run(folder, before=""):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_two_processes_compile_and_say_how_far_they_are_until_there_is_code(tmp_path):
    out, said = run(tmp_path)
    numbers = [line.split()[2] for line in said.splitlines() if line.endswith(" of 6")]
    assert numbers == ["1", "2", "3", "4", "5", "6"]
    again, said = run(tmp_path)
    assert again == out
    assert "Compiling" not in said


@pytest.mark.parametrize("executable", ["no program", "None"])
def test_one_process_compiles_where_no_other_can_be_started(executable, tmp_path):
    (tmp_path / "none").write_text("")
    name = repr(str(tmp_path / "none")) if executable == "no program" else executable
    out, said = run(tmp_path / "cache", f"import sys\nsys.executable = {name}\n")
    assert out.startswith("[")
    assert said.count(" of 6") == 6


def test_kernels_that_are_looked_for_are_not_run():
    x = np.full(3, -1.0, np.float32)
    y = np.full(3, 7.0, np.float32)
    kernel = elementwise.relu
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KernelCache, "has", lambda *_: False)
        known = dict(kernel.overloads)
        kernel.overloads.clear()
        try:
            with ahead.missing() as found:
                kernel._compile_for_args(y, x)
                kernel._compile_for_args(y, x)
        finally:
            kernel.overloads.update(known)
    assert [(each.kernel, len(each.types)) for each in found] == [(kernel, 2)]
    assert y.tolist() == [7, 7, 7]
    assert found[0].line() is not None


def test_process_of_its_own_leaves_code_in_the_cache(tmp_path):
    of = elementwise.relu.typeof_pyval(np.zeros(3, np.float32))
    line = ahead.Missing(elementwise.relu, (of, of)).line()
    done = subprocess.run(
        [sys.executable, "-m", "ddbp.training.kernel_process"],
        input=line,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"\n"
    assert [path.name.split("-")[0] for path in tmp_path.rglob("*.code")] == ["elementwise.relu"]


def steps_of(model, loss, monkeypatch):
    """Return how often kernels were looked for in a first step, and all losses."""
    looked = []
    missing = compilation.missing
    monkeypatch.setattr(compilation, "missing", lambda: looked.append(1) or missing())
    trainer = ddbp.Trainer(model, loss=loss, optimizer="adam", batch_size=6, quiet=True)
    x, y = np.ones((6, 4), np.float32), np.arange(6) % 3
    return len(looked), [trainer.train_step(x, y) for _ in range(3)], len(looked)


class Own(Sequential):
    """A model of a user, who counts its calls."""

    calls = 0

    def __call__(self, x):
        Own.calls += 1
        return super().__call__(x)


def test_code_of_a_user_is_not_run_for_it(monkeypatch):
    rng = np.random.default_rng(0)
    parts = Linear(4, 8, rng=rng), ReLU(), Linear(8, 3, rng=rng)
    before, losses, looked = steps_of(Own(*parts), "cross_entropy", monkeypatch)
    assert (before, looked, Own.calls) == (0, 0, 3)
    model = Sequential(*(type(part)(4, 3, rng=rng) for part in parts[:1]))
    before, losses, looked = steps_of(model, "cross_entropy", monkeypatch)
    assert (before, looked) == (0, 1)
    assert np.isfinite(losses).all()


class Interrupted:
    """A kernel in whose compilation Ctrl+C is pressed, deep within the compiler; others wait."""

    def __init__(self, line):
        self._line = line

    def line(self):
        return self._line

    def compile(self):
        self.deep_within()

    def deep_within(self):
        raise KeyboardInterrupt


def test_interrupt_ends_both_processes_and_shows_nothing_of_the_compiler(monkeypatch):
    started, popen = [], subprocess.Popen

    def sleeping(command, **options):
        code = "import time; time.sleep(100)"
        started.append(popen([sys.executable, "-c", code], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", sleeping)
    kernels = [Interrupted(None), *(Interrupted(b"\n") for _ in range(4))]
    with pytest.raises(KeyboardInterrupt) as raised:
        compilation.compile_all(kernels, cores=2)
    assert raised.traceback[-1].name == "compile_all"
    assert raised.value.__suppress_context__
    assert [process.poll() for process in started] == [-9]
