"""The page of a run: what stands in it, that it is whole, bounded and safe."""

import base64
import json
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ddbp.report import page, thin
from ddbp.report.run import Run

from .folders import LAYERS, find, lines, record, run_folder

VOID = {"meta", "link", "br"}
# What a page may weigh.
MOST_BYTES = 1_500_000


class Outline(HTMLParser):
    """Headings, texts and open elements of a page."""

    def __init__(self):
        super().__init__()
        self.open, self.sections, self.headings, self.words, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h2", "h3"):
            (self.sections if self.open[-1] == "h2" else self.headings).append(data)
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


def outline(text):
    """Return the outline of a page, all elements of which are closed."""
    found = Outline()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def drawn(text):
    """Return the data that the script of a page draws."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def figures(text):
    """Return the figures of a page by title."""
    return {figure["title"]: figure for figure in drawn(text)["figures"]}


def test_page_has_a_section_for_all_that_the_folder_holds(tmp_path):
    folder = run_folder(tmp_path / "run")
    record(folder)
    find(folder)
    text = page.page([Run.read(folder)])
    headings = outline(text).headings
    parts = ["Overview", "Findings", "Curves", "Gradient flow", "Updates", "Activations", "Time"]
    parts += ["Configuration", "Environment"]
    assert outline(text).sections == parts
    assert {"Loss", "Validation accuracy", "Learning rate", "Update to weight ratio"} <= {*headings}
    assert drawn(text)["marks"] == [{"x": 20.0, "text": "dying units"}]
    said = {words.strip() for words in outline(text).words}
    assert {"Lower the rate.", "3 of 4 units are 0", "They never fire."} <= said
    assert {"layer layers.1 step 20", "share 0.75"} <= said


def test_curves_are_the_numbers_of_the_folder(tmp_path):
    loss = figures(page.page([Run.read(run_folder(tmp_path / "run"))]))["Loss"]["series"][0]
    assert loss["x"] == [*range(1, 41)]
    assert loss["y"] == [float(f"{2 / n:.5g}") for n in range(1, 41)]
    assert loss["low"] == [float(f"{1 / n:.5g}") for n in range(1, 41)]


def test_maps_have_a_row_for_each_layer_and_a_column_for_each_step(tmp_path):
    folder = run_folder(tmp_path / "run")
    record(folder, value=0.01)
    flow = figures(page.page([Run.read(folder)]))["Gradients at the layers"]
    assert flow["names"] == LAYERS
    assert flow["steps"] == [*range(0, 40, 5)]
    assert len(base64.b64decode(flow["cells"])) == 2 * 3 * 8
    assert flow["low"] == flow["high"] == pytest.approx(-2, abs=1e-6)


@pytest.mark.parametrize("log", [True, False])
def test_codes_of_a_map_are_its_numbers_to_a_thousandth(log):
    values = np.array([[1e-9, 3.0, 0.0], [math.nan, 250.0, math.inf]])
    coded = thin.coded(values, log=log)
    codes = np.frombuffer(base64.b64decode(coded["cells"]), "<u2").reshape(2, 3)
    assert codes[1, 0] == codes[1, 2] == thin.MISSING
    assert codes[0, 2] == (65534 if log else 0)
    levels = coded["low"] + codes[[0, 0, 1], [0, 1, 1]] / 65533 * (coded["high"] - coded["low"])
    numbers = 10**levels if log else levels
    np.testing.assert_allclose(numbers, [1e-9, 3.0, 250.0], rtol=1e-3, atol=0 if log else 4e-3)


def test_long_curves_keep_their_extremes():
    y = np.sin(np.arange(100_000.0))
    y[77_777] = 50
    found = thin.curve(np.arange(100_000.0), y)
    assert len(found["x"]) == thin.MOST_POINTS
    assert max(found["high"]) == 50
    assert found["x"][-1] == 99_999


MARKUP = "</script><img src=x onerror=alert(1)>&\"'\u2028"


def test_names_with_markup_are_text(tmp_path):
    folder = run_folder(tmp_path / "<b>run", error=MARKUP)
    configuration = {MARKUP: MARKUP, "environment": {MARKUP: MARKUP}}
    (folder / "config.json").write_text(json.dumps(configuration))
    lines(folder / "metrics.jsonl", [{"epoch": 1, "step": 1, f"validation_{MARKUP}": 1.0}])
    lines(folder / "nonfinite.jsonl", [{MARKUP: MARKUP}])
    record(folder, names=[MARKUP, "a", "b"])
    find(folder, rule=MARKUP, layer=MARKUP, cause=MARKUP, remedy=MARKUP, numbers={MARKUP: MARKUP})
    runs = [Run.read(folder)], [Run.read(folder), Run.read(run_folder(tmp_path / "<b>run2"))]
    for each in runs:
        text = page.page(each)
        tags = [tag for tag, _ in outline(text).tags]
        assert "img" not in tags
        assert "b" not in tags
        assert tags.count("script") == 3
        assert text.count("</script") == 3
        assert drawn(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300])
def test_page_of_numbers_of_any_kind_is_whole(tmp_path, value):
    folder = run_folder(tmp_path / "run")
    with np.errstate(all="ignore"):
        record(folder, value=value)
    keys = ("loss", "validation_loss", "step", "epoch", "samples_per_second")
    lines(folder / "metrics.jsonl", [dict.fromkeys(keys, value)] * 3)
    lines(folder / "steps.jsonl", [{"step": n, "loss": value, "low": value} for n in range(9)])
    find(folder, step=value, numbers={"x": value})
    outline(page.page([Run.read(folder)]))


@pytest.mark.parametrize("other", ["x", None, [], {}, True, 10**400, -1, [[1]], {"a": {}}], ids=str)
def test_page_of_what_another_version_wrote_is_whole(tmp_path, other):
    folder = run_folder(tmp_path / "run")
    names = ["status", "started", "ended", "written", "steps", "step", "error", "host", "process"]
    names.append("parameters_sha256")
    (folder / "status.json").write_text(json.dumps(dict.fromkeys(names, other)))
    names = ("command", "model", "epochs", "ranks", "environment", "batch_size")
    (folder / "config.json").write_text(json.dumps(dict.fromkeys(names, other)))
    keys = ("epoch", "step", "loss", "validation_loss", "samples_per_second", "seconds")
    lines(folder / "metrics.jsonl", [dict.fromkeys(keys, other)] * 2)
    lines(folder / "steps.jsonl", [dict.fromkeys(("step", "loss", "learning_rate"), other)])
    find(folder, **dict.fromkeys(("rule", "layer", "step", "cause", "remedy", "numbers"), other))
    np.savez(folder / "samples.npz", facts=np.array(json.dumps(other)), pairs=np.zeros((2, 2)))
    outline(page.page([Run.read(folder)]))
    outline(page.page([Run.read(folder), Run.read(run_folder(tmp_path / "good"))]))


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "status.json"])
def test_page_of_a_folder_with_one_file_says_what_is_missing(tmp_path, name):
    whole = run_folder(tmp_path / "whole")
    folder = tmp_path / "run"
    folder.mkdir()
    (whole / name).rename(folder / name)
    found = outline(page.page([Run.read(folder)]))
    assert ("ul", {"class": "problems"}) in found.tags


def test_page_of_thousands_of_layers_is_bounded_and_says_what_it_leaves_out(tmp_path):
    folder = run_folder(tmp_path / "run", epochs=20, steps=20_000)
    record(folder, names=[f"block.{n}.weight" for n in range(3000)], rows=70)
    text = page.page([Run.read(folder)])
    assert len(text.encode()) < MOST_BYTES
    assert "128 of 3000 layers are shown." in text


def test_page_compares_runs(tmp_path):
    first, second = run_folder(tmp_path / "a" / "run"), run_folder(tmp_path / "b" / "run")
    (second / "config.json").write_text('{"epochs": 4, "ranks": 2, "seed": 5}')
    text = page.page([Run.read(first), Run.read(second)])
    found = figures(text)
    for title in ("Loss", "Validation loss", "Validation accuracy", "Learning rate"):
        assert [each["label"] for each in found[title]["series"]] == ["a/run", "b/run"]
    words = outline(text).words
    assert "seed" in words
    assert "epochs" not in words


def test_page_asks_the_network_for_nothing(tmp_path):
    text = page.page([Run.read(run_folder(tmp_path / "run"))])
    found = outline(text)
    addresses = [each.get(name, "") for _, each in found.tags for name in ("src", "href")]
    assert [each for each in addresses if each and each[0] != "#"] == ["data:,"]
    policy = next(each["content"] for tag, each in found.tags if "http-equiv" in each)
    assert policy.startswith("default-src 'none';")


def test_page_that_cannot_be_written_is_refused_and_nothing_is_left(tmp_path):
    run = Run.read(run_folder(tmp_path / "run"))
    (tmp_path / "file").touch()
    for target, why in (
        (tmp_path / "file" / "report.html", "Not a directory"),
        (tmp_path / "run", "Is a directory"),
    ):
        said = f"ddbp.report: the page must be writable; got {target}: {why}. Name another"
        with pytest.raises(OSError, match=re.escape(said)):
            page.write([run], target)
    page.write([run], tmp_path / "report.html")
    assert sorted(os.listdir(tmp_path)) == ["file", "report.html", "run"]
