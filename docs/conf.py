"""The site of the documentation: `python -m sphinx -W --keep-going -b html docs docs/_build`."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ddbp  # noqa: E402 - this repository's

project = "ddbp"
author = "the ddbp authors"
copyright = author  # noqa: A001 - Sphinx's name
release = version = ddbp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["README.md", "_build"]
html_theme = "furo"
html_title = f"ddbp {version}"
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]
html_show_sourcelink = False

# Pages are GitHub's Markdown first: plain links, to anchors too, and the headings' own anchors.
myst_heading_anchors = 3
highlight_language = "text"
# Names in docstrings are code, not links to the one of several that Sphinx would choose.
suppress_warnings = ["ref.python"]

default_role = "code"
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "forward_kernel, backward_kernel",
}
autodoc_preserve_defaults = True
# What a layer's `forward` must do stands once, at `Layer`.
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

FROM_THE_ROOT = {
    "index": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "chinese": "README.zh-CN.md",
}


def page_of_the_root(app: Any, name: str, source: list[str]) -> None:
    """Put the text of a page at the repository's root, its links mended, before that in docs/."""
    if name in FROM_THE_ROOT:
        text = (ROOT / FROM_THE_ROOT[name]).read_text()
        for page, original in FROM_THE_ROOT.items():
            text = text.replace(f"]({original})", f"]({page}.md)")
        text = re.sub(r"\]\((?=(?:scripts|ddbp|layers|tests)/|LICENSE)", "](../", text)
        source[0] = text.replace("](docs/", "](") + source[0].partition("\n\n")[2]


def plain_text(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Let * and | in docstrings be what they are, and `Callback`s be plural."""
    parts = "\n".join(lines).split("`")
    parts[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts[::2]]
    parts[2::2] = [f"\\ {part}" if part[:1].isalnum() else part for part in parts[2::2]]
    lines[:] = "`".join(parts).split("\n")


def no_types(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Give the first sentence of an attribute back what Napoleon takes for its type: all before a
    colon.
    """
    if what in ("attribute", "property"):
        for line in [line for line in lines if line.startswith(":type: ")]:
            lines.remove(line)
            lines[0] = f"{line.removeprefix(':type: ')}: {lines[0]}"


def setup(app: Any) -> None:
    """Register what this site does by itself."""
    app.connect("source-read", page_of_the_root)
    app.connect("autodoc-process-docstring", plain_text, priority=100)
    app.connect("autodoc-process-docstring", no_types, priority=900)
