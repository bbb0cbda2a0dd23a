"""`ddbp demo`: from nothing to a trained, evaluated and reported model."""

import re

import pytest

from ddbp.commands import demo


@pytest.mark.full
def test_it_trains_evaluates_and_reports(tmp_path, run_python):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    finished = run_python("-m", "ddbp", "demo", cwd=tmp_path, timeout=300)
    assert finished.status == 0, finished.err
    share = re.search(r"reads ([\d.]+) % of 360 digits", finished.out)
    assert share is not None, finished.out
    assert float(share[1]) > 96
    assert (tmp_path / "runs" / "demo-1" / "report.html").is_file()
    assert "$ ddbp evaluate runs/demo-1/model.ddbp --data digits" in finished.out


def test_it_has_a_new_folder_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo-1").mkdir(parents=True)
    assert demo._new_folder().as_posix() == "runs/demo-2"


def test_a_step_that_fails_ends_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "_run", lambda arguments: 3)
    assert demo.run(["--run-dir", str(tmp_path / "run")]) == 3
    assert "Done" not in capsys.readouterr().out


def test_it_is_not_for_ranks(monkeypatch, capsys):
    monkeypatch.setattr(demo.settings, "launched", lambda: True)
    assert demo.run([]) == 1
    assert "starts the ranks itself" in capsys.readouterr().err
