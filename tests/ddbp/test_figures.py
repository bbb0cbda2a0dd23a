"""Figures, and what notebooks show of a history and of a gradient check."""

import pytest

import ddbp
import layers
from ddbp import figures

from .training.small import DATA, make, network

RECORDS = [
    {"epoch": 1, "loss": 0.5, "validation_accuracy": 0.5, "seconds": 1.0},
    {"epoch": 2, "loss": 0.25, "validation_accuracy": 0.75, "seconds": 1.0, "note": "<b>"},
]
matplotlib = pytest.mark.skipif(
    figures.find_spec("matplotlib") is None, reason="not installed: pip install 'ddbp[report]'"
)


def texts(figure):
    """Return the words in a figure: labels of axes, ticks and lines."""
    return [
        text.get_text()
        for axis in figure.axes
        for text in (axis.xaxis.label, *axis.get_yticklabels(), *(legend_of(axis)))
    ]


def legend_of(axis):
    return axis.get_legend().get_texts() if axis.get_legend() else ()


@matplotlib
def test_a_history_becomes_curves_in_a_file(tmp_path):
    figure = ddbp.figure(ddbp.History(RECORDS))
    loss, metrics = figure.axes
    assert loss.lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.25]]
    assert metrics.lines[0].get_xydata().tolist() == [[1, 0.5], [2, 0.75]]
    assert {"loss", "validation accuracy", "epoch"} <= {*texts(figure)}
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


@matplotlib
def test_a_summary_becomes_bars_in_the_order_of_the_layers(tmp_path):
    figure = ddbp.figure(layers.summary(network(), (4, 6)))
    flops = figure.axes[0]
    assert [bar.get_width() for bar in flops.patches] == [2 * 4 * 6 * 16, 0, 2 * 4 * 16 * 3]
    assert [text for text in texts(figure) if text.startswith("layers.")][:3] == [
        "layers.0",
        "layers.1",
        "layers.2",
    ]
    figure.savefig(tmp_path / "summary.svg")


@matplotlib
def test_only_the_largest_of_thousands_of_bars_are_drawn():
    rows = [layers.LayerSummary(f"l{i}", "L()", (), 0, 0, i, 0, 1) for i in range(3000)]
    figure = ddbp.figure(layers.Summary(rows, ((1,),), 0))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [*range(2940, 3000)]


@matplotlib
def test_a_gradient_report_becomes_bars_with_its_verdicts():
    report = layers.gradcheck(layers.Tanh(), DATA.x[:4].astype("float64"))
    assert "input 0: ok" in texts(ddbp.figure(report))


def test_a_history_is_a_list_that_notebooks_show(tmp_path):
    history = make().fit(DATA, epochs=2, validation=DATA)
    assert isinstance(history, list)
    shown = history._repr_html_()
    assert f"{history[1]['validation_loss']:.4g}" in shown
    markup = ddbp.History(RECORDS)._repr_html_()
    assert "&lt;b&gt;" in markup
    assert "<b>" not in markup
    assert "no epoch" in ddbp.History()._repr_html_()


def test_a_gradient_report_is_a_table_in_notebooks():
    report = layers.gradcheck(layers.Tanh(), DATA.x[:4].astype("float64"))
    shown = report._repr_html_()
    assert "passed" in shown
    assert "<td" in shown
    report.faults.append("<script>")
    assert "<script>" not in report._repr_html_()


def test_without_matplotlib_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    words = (
        r'^figure: the package matplotlib must be there; got none\. Install it: pip install "ddbp'
    )
    with pytest.raises(ImportError, match=words):
        ddbp.figure(RECORDS)
    assert "<table>" in ddbp.History(RECORDS)._repr_html_()


@matplotlib
@pytest.mark.parametrize("thing", [3, "x", [1], network()])
def test_what_cannot_be_drawn_is_refused(thing):
    with pytest.raises(TypeError, match=r"^figure: it must be a history, a summary or a gradient"):
        ddbp.figure(thing)


@matplotlib
def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match=r"^figure: a history must have losses or metrics"):
        ddbp.figure(ddbp.History())
