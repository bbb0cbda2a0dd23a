"""The wheel, installed into new environments of the oldest and the newest Python that are here, and
used from another folder.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from .conftest import clean_environment

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
SCRIPT = """
import json, sys
import numpy as np
import ddbp
from ddbp.data import digits
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

training, test = digits()
rng = np.random.default_rng(0)
model = Sequential(Linear(64, 32, rng=rng), ReLU(), Linear(32, 10, rng=rng))
options = {"loss": SoftmaxCrossEntropy(), "optimizer": ddbp.Adam(0.01), "batch_size": 64}
trainer = ddbp.Trainer(model, quiet=True, **options)
trainer.fit(training, epochs=3)
digest, accuracy = trainer.parameters_sha256(), trainer.evaluate(test)["accuracy"]
if trainer.comm.leads:
    facts = {"file": ddbp.__file__, "digest": digest, "accuracy": accuracy}
    facts |= {"scikit-learn": "sklearn" in sys.modules, "ranks": trainer.comm.size}
    print(json.dumps(facts))
"""


@cache
def pythons():
    """Return the Pythons that are here, by version, from the oldest supported one on: on the PATH,
    or where pyenv keeps them.
    """
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [sys.executable, *kept.glob("3.*/bin/python3")]
    places += [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 20)]
    code = "import sys; print(*sys.version_info[:2])"
    found = {}
    for place in filter(None, places):
        done = subprocess.run([place, "-c", code], capture_output=True, text=True, check=False)
        version = tuple(map(int, done.stdout.split()))
        # Those of virtual environments have no wheels for others.
        if done.returncode == 0 and version >= OLDEST:
            found.setdefault(version, str(place))
    return dict(sorted(found.items()))


def ends():
    """Return the oldest and the newest version."""
    versions = [*pythons()]
    return [*dict.fromkeys((versions[0], versions[-1]))]


def ran(command, folder, **more):
    """Return what a command prints that sees nothing of this repository."""
    environment = {**clean_environment({}), "PYTHONPATH": "", **more}
    texts = list(map(str, command))
    done = subprocess.run(
        texts, cwd=folder, env=environment, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, f"{texts}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    ran(pip, folder)
    (found,) = folder.glob("ddbp-*.whl")
    return found


def test_the_oldest_python_is_the_one_that_pyproject_names():
    said = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert said is not None
    assert tuple(map(int, said[1].split("."))) == OLDEST


@pytest.mark.full
@pytest.mark.parametrize("version", ends(), ids=lambda version: ".".join(map(str, version)))
def test_the_wheel_trains_in_a_new_environment(version, wheel, tmp_path):
    environment = tmp_path / "environment"
    ran([pythons()[version], "-m", "venv", environment], tmp_path)
    python = environment / "bin" / "python"
    ran([python, "-m", "pip", "install", "-q", f"{wheel}[mpich]"], tmp_path)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    digits = tmp_path / "train_digits.py"
    shutil.copy(ROOT / "scripts" / "train_digits.py", digits)

    alone = json.loads(ran([python, script], tmp_path))
    assert Path(alone["file"]).is_relative_to(environment)
    assert not alone["scikit-learn"]
    assert alone["accuracy"] > 0.9
    mpirun = (environment / "bin" / "mpirun", "-n", 2, python)
    together = json.loads(ran([*mpirun, script], tmp_path))
    assert together["ranks"] == 2
    assert together["digest"] == alone["digest"]
    here = ran([sys.executable, script], tmp_path, PYTHONPATH=str(ROOT))
    # The bits are those of this environment, with its own Python and packages.
    assert alone["digest"] == json.loads(here)["digest"]
    # The README's first command.
    said = ran([*mpirun, digits, "--epochs", "2", "--run-dir", tmp_path / "run"], tmp_path)
    assert json.loads(said.splitlines()[-1])["ranks"] == 2
    assert (tmp_path / "run" / "report.html").is_file()

    command = environment / "bin" / "ddbp"
    assert "numba" in ran([command, "info"], tmp_path)
    listed = ran([python, "-m", "pip", "list"], tmp_path)
    for package in ("scikit-learn", "scipy", "torch", "matplotlib"):
        assert package not in listed
    code = "import contextlib\nwith contextlib.suppress(ImportError): import ddbp.sklearn; print(1)"
    assert ran([python, "-c", code], tmp_path) == ""
