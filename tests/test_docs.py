"""Every Python snippet of the pages runs and prints what the page says, and every link leads to a
file.
"""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ddbp
import layers

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

TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
WITH_SNIPPETS = [name for name, text in TEXTS.items() if SNIPPET.search(text)]


def as_said(printed, said):
    """Return whether an output is the one on the page, where … stands for the rest of a word."""
    pattern = re.escape(said).replace("…", r"\S*")
    return re.fullmatch(pattern, printed) is not None


@pytest.mark.parametrize("name", WITH_SNIPPETS)
def test_snippets_run_and_print_what_is_said(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = TEXTS[name]
    namespace = {"__name__": "snippets"}
    for snippet in SNIPPET.finditer(text):
        # Empty lines in front, so that a traceback names the line of the page.
        lines_before = text.count("\n", 0, snippet.start(1))
        exec(compile("\n" * lines_before + snippet[1], ROOT / name, "exec"), namespace)
        printed = capsys.readouterr().out
        assert snippet[2] is None or as_said(printed, snippet[2]), printed


def test_chinese_readme_has_the_code_of_the_english_one():
    english, chinese = (
        re.findall(r"^```\w+\n.*?^```$", TEXTS[name], re.MULTILINE | re.DOTALL)
        for name in ("README.md", "README.zh-CN.md")
    )
    assert english
    assert chinese == english


@pytest.mark.full
def test_a_run_whose_ranks_are_killed_as_the_readme_says_ends_with_its_digest(tmp_path):
    found = re.search(
        r"^```bash\n(run=.*?)^```\n\nends with `(.*?)…`",
        TEXTS["README.md"],
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None
    # `pkill -f` finds all processes that name the script, those of other tests as well.
    script = tmp_path / "train_digits_to_be_killed.py"
    script.write_bytes((ROOT / "scripts" / "train_digits.py").read_bytes())
    lines = found[1].replace("scripts/train_digits.py", script.name)
    lines = lines.replace("-f train_digits.py", f"-f {script.name}")
    # From a file: the command of this shell must not name it.
    commands = tmp_path / "commands"
    commands.write_text(lines)
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", commands],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=800,
        check=True,
    )
    assert found[2] in done.stdout.splitlines()[-1], done.stderr


def names_of(column):
    """Return the names in a column of the table of names, as far as they are Python's."""
    text = TEXTS["docs/coming-from.md"]
    table = text.partition("<!-- names:begin -->")[2].partition("<!-- names:end -->")[0]
    rows = [line.split("|")[1:-1] for line in table.strip().splitlines()[2:]]
    assert len(rows) > 40
    return [name for row in rows for name in re.findall(r"`([A-Za-z]\w*(?:\.\w+)*)", row[column])]


def test_names_for_those_who_come_from_elsewhere_are_ours():
    for name in names_of(0):
        owner, _, attribute = name.partition(".")
        found = getattr(ddbp, owner, None) or getattr(layers, owner)
        assert not attribute or hasattr(found, attribute), name


def test_names_that_they_had_before_are_those_of_pytorch():
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'ddbp[oracle]'")
    parts = ("nn.", "optim.", "utils.", "autograd.")
    names = [name for name in names_of(1) if name.startswith(parts)]
    assert len(names) > 40
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(f"torch.{module}"), attribute), name


def test_the_readme_is_an_invitation_of_a_few_screens():
    assert len(TEXTS["README.md"].splitlines()) < 120


def test_links_lead_to_files_and_commands_name_scripts():
    missing = []
    for name, text in TEXTS.items():
        folder = (ROOT / name).parent
        missing += [f"{name}: {to}" for to in LINK.findall(text) if not (folder / to).exists()]
        missing += [f"{name}: {to}" for to in COMMAND.findall(text) if not (ROOT / to).is_file()]
    assert missing == []


def test_every_room_has_a_guide_of_ten_to_forty_lines():
    rooms = [
        path.parent for top in ("ddbp", "layers") for path in ROOT.glob(f"{top}/*/__init__.py")
    ]
    guides = [room / "README.md" for room in [*rooms, *(ROOT / top for top in ("docs", "tests"))]]
    lines = {
        guide.relative_to(ROOT).as_posix(): len(guide.read_text().splitlines()) for guide in guides
    }
    assert {name: count for name, count in lines.items() if not 10 <= count <= 40} == {}


def test_pages_have_snippets_to_run():
    assert sum(len(SNIPPET.findall(text)) for text in TEXTS.values()) >= 10


def test_every_option_of_the_trainer_is_explained():
    text = "".join(text for name, text in TEXTS.items() if name.startswith("docs/"))
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
