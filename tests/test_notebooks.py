"""The notebooks run from the first cell to the last, and are kept without what they print."""

import json
import time
from pathlib import Path

import pytest

from .mpi.ranks import alive

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells_of(path):
    return [each for each in json.loads(path.read_text())["cells"] if each["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(path):
    for cell in cells_of(path):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


LAST = {
    "start": ["report.html", "model.safetensors"],
    "a-bad-run": ["0."],
}


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_to_its_end(path, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason='needs pip install "ddbp[notebook]"')
    nbclient = pytest.importorskip("nbclient", reason='needs pip install "ddbp[notebook]"')
    pytest.importorskip("ipykernel", reason='needs pip install "ddbp[notebook]"')
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    shown = "".join(
        each.get("text", "") for cell in outputs for each in cell if each.output_type == "stream"
    )
    assert "epoch 6: loss" in shown, "progress of the ranks is shown in the cell"
    assert "Traceback" not in shown
    last = outputs[-1][-1]["data"]["text/plain"]
    assert all(part in last for part in LAST[path.stem])
    if path.stem == "a-bad-run":
        accuracies = [
            float(cell[-1]["data"]["text/plain"])
            for cell, source in zip(outputs, cells_of(path), strict=True)
            if "".join(source["source"]).rstrip().endswith('["validation_accuracy"], 2)')
        ]
        bad, good, mended = accuracies
        assert bad < 0.3
        assert min(good, mended) > 0.85
        assert "WRONG" in shown


CELL = """
import os
import numpy as np
import ddbp
from layers import Linear
from pids import Pids

x = np.zeros((64, 3), np.float32)
model = Linear(3, 2, rng=np.random.default_rng(0))
trainer = ddbp.Trainer(model, loss="mse", optimizer="adam", batch_size=8, callbacks=[Pids()])
trainer.fit(ddbp.ArrayDataset(x, x[:, :2]), epochs=10**6, ranks=2)
"""
PIDS = """
import os, time
from pathlib import Path
import ddbp

class Pids(ddbp.Callback):
    def on_epoch_end(self, trainer, record):
        time.sleep(0.1)
        Path(f"pid-{os.getpid()}").touch()
"""


@pytest.fixture
def training_kernel(tmp_path):
    """Return the manager of a kernel whose cell trains on two ranks, what waits for the answer to
    that, what talks to the kernel, and the processes of the ranks.
    """
    pytest.importorskip("ipykernel", reason='needs pip install "ddbp[notebook]"')
    client = pytest.importorskip("jupyter_client", reason='needs pip install "ddbp[notebook]"')
    (tmp_path / "pids.py").write_text(PIDS)
    manager, talks = client.manager.start_new_kernel(cwd=str(tmp_path), startup_timeout=300)
    cell = talks.execute(CELL)
    until = time.monotonic() + 300
    while len(pids := [int(each.name[4:]) for each in tmp_path.glob("pid-*")]) < 2:
        assert time.monotonic() < until, "ranks do not train"
        time.sleep(0.1)
    yield manager, lambda: answer(talks, cell), talks, pids
    talks.stop_channels()
    manager.shutdown_kernel(now=True)


def answer(talks, cell):
    """Return what the kernel answers to a cell."""
    while True:
        reply = talks.get_shell_msg(timeout=120)
        if reply["parent_header"]["msg_id"] == cell:
            return reply["content"]


def require_gone(pids):
    until = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < until, f"one of the processes {pids} is left"
        time.sleep(0.05)


@pytest.mark.full
def test_interrupted_cell_ends_its_ranks(training_kernel):
    manager, answered, talks, pids = training_kernel
    manager.interrupt_kernel()
    reply = answered()
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    require_gone(pids)
    after = talks.execute("assert trainer.step_count == 0")
    assert answer(talks, after)["status"] == "ok"


@pytest.mark.full
def test_killed_kernel_takes_its_ranks_with_it(training_kernel):
    manager, _, _, pids = training_kernel
    manager.provisioner.process.kill()
    require_gone(pids)
