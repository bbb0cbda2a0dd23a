"""The package as a whole."""

import tomllib
from pathlib import Path

import ddbp


def test_version_is_that_of_the_project():
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == ddbp.__version__


def test_all_names_exist():
    assert [name for name in ddbp.__all__ if not hasattr(ddbp, name)] == []
