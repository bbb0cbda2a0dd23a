"""Every Python snippet of the pages runs and prints what the page says, and every link leads to a
file.
"""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ddbp

ROOT = Path(__file__).parents[1]
ROOMS = [
    path for top in ("ddbp", "layers", "scripts", "tests") for path in (ROOT / top).rglob("*.md")
]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOMS])
# A snippet, and the output that may follow it.
SNIPPET = re.compile(
    r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"\bpython ((?:scripts|tests)/[\w/]+\.py)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def as_said(printed, said):
    """Return whether an output is the one on the page, where … stands for the rest of a word."""
    pattern = re.escape(said).replace("…", r"\S*")
    return re.fullmatch(pattern, printed) is not None


@pages
def test_snippets_run_and_print_what_is_said(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    namespace = {"__name__": "snippets"}
    for snippet in SNIPPET.finditer(text):
        # Empty lines in front, so that a traceback names the line of the page.
        lines_before = text.count("\n", 0, snippet.start(1))
        exec(compile("\n" * lines_before + snippet[1], page, "exec"), namespace)
        printed = capsys.readouterr().out
        assert snippet[2] is None or as_said(printed, snippet[2]), printed


def test_the_readme_is_an_invitation_of_a_few_screens():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 120


@pages
def test_links_lead_to_files(page):
    missing = [
        target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()
    ]
    assert not missing


@pages
def test_scripts_that_are_named_exist(page):
    missing = [
        script for script in COMMAND.findall(page.read_text()) if not (ROOT / script).is_file()
    ]
    assert not missing


def test_pages_have_snippets_to_run():
    assert sum(len(SNIPPET.findall(page.read_text())) for page in PAGES) >= 10


def test_every_option_of_the_trainer_is_explained():
    text = "".join(page.read_text() for page in PAGES)
    options = inspect.signature(ddbp.Trainer).parameters.keys() - {"model"}
    assert sorted(name for name in options if not re.search(rf"\b{name}=|`{name}`", text)) == []


def test_every_flag_of_the_scripts_is_listed():
    flag = re.compile(r"add_\w+\(\s*\"(--[\w-]+)\"")
    text = (ROOT / "docs" / "training.md").read_text()
    table = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `train_")}
    missing = []
    for script in sorted((ROOT / "scripts").glob("train_*.py")):
        flags = flag.findall(script.read_text())
        missing += [
            f"{script.name} {name}"
            for name in flags
            if not re.search(rf"{name}\b", table.get(script.name, ""))
        ]
    common = flag.findall((ROOT / "ddbp" / "training" / "script.py").read_text())
    assert len(common) >= 8
    assert missing + [name for name in common if f"`{name}`" not in text] == []


def test_tables_and_pictures_agree_with_the_results_they_come_from():
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "publish.py"), "--check"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{finished.stderr} Run scripts/bench/publish.py."
