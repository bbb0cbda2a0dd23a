"""Measure what an installation of the wheel takes: megabytes of each package, and the time of
`import ddbp`.

    python scripts/bench/install.py [--python PYTHON …] [--rounds R] [--json FILE]

For each Python the wheel is built, and installed without extras into a new environment in a
temporary folder; packages come from where pip finds them. Sizes are of the files on the disk, those
that Python compiles at installation included, without pip itself. Imports are those of a new
process each, in seconds of the processor, once files are in memory; how much time went by, which
other work makes longer, is beside it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness

ROOT = Path(__file__).resolve().parents[2]
_SIZES = """
import json
from importlib import metadata
sizes = {}
for package in metadata.distributions():
    paths = {path.locate() for path in package.files or ()}
    sizes[package.name] = sum(path.stat().st_size for path in paths if path.is_file())
print(json.dumps(sizes))
"""
_CLOCK = "import time; t = time.{1}(); import {0}; print(time.{1}() - t)"
_PACKAGES = ("ddbp", "layers", "numpy", "numba", "llvmlite", "rich", "safetensors")
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)")


def run(command: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Return what a command says that sees nothing of this folder."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    texts = list(map(str, command))
    done = subprocess.run(
        texts, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"install: {' '.join(texts)} failed: {done.stderr}")
    return done


def installed(python: str, folder: Path) -> Path:
    """Return the Python of a new environment that has the wheel, built by `python`."""
    wheels, environment = folder / "wheels", folder / "environment"
    run([python, "-m", "venv", environment], folder)
    own = environment / "bin" / "python"
    run([own, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT], folder)
    (wheel,) = wheels.glob("ddbp-*.whl")
    run([own, "-m", "pip", "install", "-q", wheel], folder)
    return own


def seconds(
    python: Path, module: str, rounds: int, folder: Path, clock: str = "process_time"
) -> float:
    """Return the median time of an import by a clock, after one that fills caches."""
    command = [python, "-c", _CLOCK.format(module, clock)]
    return median([float(run(command, folder).stdout) for _ in range(rounds + 1)][1:])


def slowest(python: Path, folder: Path) -> dict[str, float]:
    """Return the milliseconds of the packages that `import ddbp` takes longest for, each without
    the packages that it imports.
    """
    said = run([python, "-X", "importtime", "-c", "import ddbp"], folder).stderr
    own: dict[str, float] = {}
    for microseconds, _, _, module in _LINE.findall(said):
        package = module.partition(".")[0]
        package = package if package in _PACKAGES else "Python's own, and others"
        own[package] = own.get(package, 0.0) + int(microseconds) / 1e3
    return {name: round(own[name], 1) for name in sorted(own, key=own.__getitem__, reverse=True)}


def row(python: str, rounds: int) -> dict[str, Any]:
    """Return what an installation with a Python takes."""
    with tempfile.TemporaryDirectory(prefix="ddbp-install-") as name:
        folder = Path(name)
        own = installed(python, folder)
        sizes = json.loads(run([own, "-c", _SIZES], folder).stdout)
        sizes = {
            name: size / 1e6 for name, size in sizes.items() if name not in ("pip", "setuptools")
        }
        by_size = sorted(sizes, key=sizes.__getitem__, reverse=True)
        facts = "import json, platform; print(json.dumps(platform.python_version()))"
        versions = "from importlib.metadata import *; import json"
        versions += "; print(json.dumps({d.name: d.version for d in distributions()}))"
        return {
            "python": json.loads(run([own, "-c", facts], folder).stdout),
            "megabytes": round(sum(sizes.values()), 1),
            "packages": {name: round(sizes[name], 1) for name in by_size},
            "versions": json.loads(run([own, "-c", versions], folder).stdout),
            "import_seconds": round(seconds(own, "ddbp", rounds, folder), 3),
            "import_elapsed_seconds": round(
                seconds(own, "ddbp", rounds, folder, "perf_counter"), 3
            ),
            "import_numba_seconds": round(seconds(own, "numba", rounds, folder), 3),
            "import_milliseconds": slowest(own, folder),
        }


def main() -> None:
    """Measure, print, and write the result."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 9)
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="(%(default)s)")
    options = parser.parse_args()
    facts = harness.machine()
    rows = []
    for python in options.python:
        rows.append(row(python, options.rounds))
        last = rows[-1]
        print(f"Python {last['python']}: {last['megabytes']} MB, import {last['import_seconds']} s")
        print(json.dumps(last["packages"]), json.dumps(last["import_milliseconds"]), flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
