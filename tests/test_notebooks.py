"""The notebooks run from the first cell to the last, and are kept without what they print."""

import json
from pathlib import Path

import pytest

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
    "start": ["report.html", "parameters.safetensors"],
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
