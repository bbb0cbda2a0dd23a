"""The package as a whole."""

import subprocess
import sys
import tomllib
from pathlib import Path

import ddbp


def test_version_is_that_of_the_project():
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == ddbp.__version__


def test_all_names_exist():
    assert [name for name in ddbp.__all__ if not hasattr(ddbp, name)] == []


def test_it_is_imported_in_a_folder_that_is_removed(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    code = f"import sys; sys.path[:] = {sys.path!r}; import os; os.rmdir({str(folder)!r}); "
    command = [sys.executable, "-c", f"{code}import ddbp; print(ddbp.__version__)"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ddbp.__version__), done.stderr
