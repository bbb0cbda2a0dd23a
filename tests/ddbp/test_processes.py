"""What shows only in a process of its own: imports, threads, launchers, and life without MPI."""

import argparse
import json
import os
import re
import sys

import pytest

import ddbp
from ddbp import settings
from ddbp.commands import cli, launch, program, verify

TRAIN_DIGITS = """
import json, sys
from sklearn.datasets import load_digits
import numpy as np
import ddbp
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

x, y = load_digits(return_X_y=True)
data, test = ddbp.ArrayDataset(x / 16, y).split(0.2)
rng = np.random.default_rng(0)
model = Sequential(Linear(64, 32, rng=rng), ReLU(), Linear(32, 10, rng=rng))
criterion, adam = SoftmaxCrossEntropy(), ddbp.Adam(0.01)
trainer = ddbp.Trainer(model, loss=criterion, optimizer=adam, batch_size=64, quiet=True)
(record,) = trainer.fit(data, epochs=1, validation=test)
facts = {"accuracy": record["validation_accuracy"], "mpi4py": "mpi4py" in sys.modules}
print(json.dumps({**facts, **trainer.comm.describe()}))
"""

START = """
import numpy as np, ddbp, layers
model = layers.Linear(2, 2, rng=np.random.default_rng(0))
trainer = ddbp.Trainer(model, optimizer=ddbp.SGD(0.1), batch_size=4, quiet=True)
print(trainer.comm.size)
"""


def test_one_process_trains_where_mpi4py_cannot_be_imported(run_python, tmp_path):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('there is no MPI here')")
    blocked = run_python("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport mpi4py")
    assert "there is no MPI here" in blocked.err
    finished = run_python(
        "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{TRAIN_DIGITS}"
    )
    assert finished.status == 0, finished.err
    result = json.loads(finished.out)
    assert result["accuracy"] > 0.5
    assert result["ranks"] == 1


def test_training_in_one_process_does_not_import_mpi4py(run_python):
    finished = run_python("-c", TRAIN_DIGITS)
    assert finished.status == 0, finished.err
    assert json.loads(finished.out)["mpi4py"] is False


def test_imports_do_not_import_mpi4py_nor_layers_ddbp(run_python):
    packages = ("layers", "ddbp", "ddbp.commands.cli", "ddbp.commands.info")
    code = "import sys, importlib\n"
    for package in packages:
        code += f"importlib.import_module({package!r})\n"
        code += f"print({package!r}, 'mpi4py' in sys.modules, 'ddbp' in sys.modules)\n"
    finished = run_python("-c", code, PMI_SIZE="4", PMI_RANK="0")
    expected = [f"{package} False {package != 'layers'}" for package in packages]
    assert finished.out.splitlines() == expected, finished.err


def test_shadowing_module_is_named(run_python, tmp_path):
    (tmp_path / "layers.py").write_text("class Dense: pass\n")
    (tmp_path / "script.py").write_text("import ddbp\n")
    finished = run_python(tmp_path / "script.py")
    assert finished.status != 0
    said = (
        "ImportError: ddbp: the package `layers` of ddbp must be importable; got"
        f" {tmp_path / 'layers.py'}, which shadows it. "
    )
    assert said + "Rename your own layers module or take its folder off sys.path." in finished.err


def test_trainer_sets_every_loaded_thread_pool_to_one_thread(run_python):
    code = (
        "import numba, scipy.linalg, sklearn.utils, threadpoolctl"
        + START
        + "print(sorted({pool['num_threads'] for pool in threadpoolctl.threadpool_info()}),"
        " numba.get_num_threads())"
    )
    finished = run_python(
        "-c", code, OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2", NUMBA_NUM_THREADS="2"
    )
    assert finished.out.splitlines()[-1:] == ["[1] 1"], finished.err


@pytest.mark.parametrize(
    ("environment", "got"),
    [
        ({"PMI_SIZE": "4", "PMI_RANK": "0"}, "1 of 4 ranks, library "),
        ({"OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "0"}, "mpirun of Open MPI, library "),
    ],
    ids=["MPICH", "Open MPI"],
)
def test_launcher_of_another_mpi_library_is_refused(environment, got, run_python):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    library = run_python("-c", "from mpi4py import MPI; print(MPI.Get_library_version())").out
    if "Open MPI" in library and "OMPI_COMM_WORLD_SIZE" in environment:
        pytest.skip("the library here is Open MPI itself")
    if not library:
        pytest.skip("there is no MPI library")
    finished = run_python("-c", START, **environment)
    assert finished.status != 0
    assert (
        f"CommunicationError: ddbp: mpirun and the MPI library must belong together; got {got}"
        in finished.err
    )
    assert 'Start with "ddbp launch"' in finished.err


def test_run_under_a_launcher_without_mpi_library_says_how_to_get_one(run_python, tmp_path):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('there is no MPI here')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{START}"
    finished = run_python("-c", code, PMI_SIZE="2", PMI_RANK="0")
    assert finished.status != 0
    said = "ddbp: a run under mpirun needs an MPI library; got there is no MPI here. "
    assert (
        said + 'Install one with pip install "ddbp[mpich]", or load your site\'s module.'
        in finished.err
    )


@pytest.mark.parametrize("variable", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_environment_may_be_overridden(variable, run_python):
    finished = run_python("-c", START, **{variable: "4", "DDBP_MPI": "0"})
    assert finished.out.split() == ["1"], finished.err


BAD_LIMIT = "ddbp: DDBP_TIMEOUT must be a positive number of seconds; got "


def test_ranks_with_a_bad_time_limit_do_not_start(run_python):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    finished = run_python("-c", START, DDBP_MPI="1", DDBP_TIMEOUT="soon")
    assert finished.status != 0
    assert f"{BAD_LIMIT}'soon'. " in finished.err


@pytest.mark.parametrize("limit", ["soon", "0", "-3", "nan"])
def test_time_limit_that_is_no_positive_number_is_refused(limit, monkeypatch):
    monkeypatch.setenv("DDBP_TIMEOUT", limit)
    with pytest.raises(ValueError, match=re.escape(f"{BAD_LIMIT}'{limit}'. ")):
        settings.timeout()


# The launcher


@pytest.fixture
def script(tmp_path):
    """Return a script that prints its arguments and how it was launched."""
    path = tmp_path / "script.py"
    # One rank prints: the launcher does not keep the lines of several apart.
    code = START.replace(
        "print(trainer.comm.size)",
        "if trainer.comm.rank == 0: print(trainer.comm.size, *sys.argv[1:], threads)",
    )
    path.write_text(f"import os, sys\nthreads = os.environ['OMP_NUM_THREADS']{code}")
    return path


def test_launch_without_an_mpiexec_says_how_to_get_one(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch.run([str(script)]) != 0
    said = (
        f"ddbp launch: there must be an mpiexec; got none in {tmp_path} or on PATH. Install one"
        ' with pip install "ddbp[mpich]"'
    )
    assert said in capsys.readouterr().err


def test_launch_prefers_the_mpiexec_beside_python(monkeypatch, tmp_path):
    for folder in ("beside", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mpiexec").write_text("#!/bin/sh\n")
        (tmp_path / folder / "mpiexec").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert launch.find_mpiexec() == str(tmp_path / "beside" / "mpiexec")
    os.remove(tmp_path / "beside" / "mpiexec")
    assert launch.find_mpiexec() == str(tmp_path / "elsewhere" / "mpiexec")


def test_launch_starts_the_script_with_its_arguments_on_so_many_ranks(script, mpirun, run_python):
    finished = run_python("-m", "ddbp", "launch", "-n", 3, script, "--flag", "a b")
    assert finished.status == 0, finished.err
    assert finished.out.splitlines() == ["3 --flag a b 1"]


@pytest.fixture
def package(script, tmp_path):
    """Return the folder of a package whose modules are the script, and one that ends badly."""
    folder = tmp_path / "here" / "package" / "inner"
    folder.mkdir(parents=True)
    for name in ("train", "__main__"):
        (folder / f"{name}.py").write_text(script.read_text())
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "__init__.py").write_text("import nowhere_at_all")
    return tmp_path / "here"


@pytest.mark.parametrize("name", ["package.inner.train", "package.inner"])
def test_launch_starts_a_module_with_its_arguments(name, package, mpirun, run_python):
    finished = run_python("-m", "ddbp", "launch", "-n", 2, "-m", name, "-n", "a b", cwd=package)
    assert finished.status == 0, finished.err
    assert finished.out.splitlines() == ["2 -n a b 1"]


def test_ranks_state_which_module_they_run(package, run_python):
    told = "\nfrom ddbp.training.checks import code_facts\nprint(code_facts()['script'])"
    for name in ("train", "__main__"):
        with (package / "package" / "inner" / f"{name}.py").open("a") as file:
            file.write(told)
    script, main, train = (
        run_python(*arguments, cwd=package, OMP_NUM_THREADS="1").out.splitlines()[-1].split()
        for arguments in (
            ("package/inner/train.py",),
            ("-m", "package.inner"),
            ("-m", "package.inner.train"),
        )
    )
    (digest,) = script
    assert main == ["package.inner.__main__", digest]
    assert train == ["package.inner.train", digest]


def test_arguments_of_a_script_are_left_to_it(script, mpirun, run_python):
    finished = run_python("-m", "ddbp", "launch", "-n", 1, script, "-m", "package")
    assert finished.status == 0, finished.err
    assert finished.out.splitlines() == ["1 -m package 1"]


@pytest.mark.parametrize("command", [launch, verify])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("package.nowhere", "there is none"),
        ("nowhere.train", "ModuleNotFoundError: No module named 'nowhere'"),
        ("package", "a package is run by its module __main__, and it has none"),
        ("package.broken.train", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("package/train.py", "that is a file. Leave out -m, or name the module: -m package.train"),
    ],
)
def test_module_that_cannot_be_run_is_refused_before_ranks_start(
    command, name, reason, package, monkeypatch, capsys
):
    monkeypatch.chdir(package)
    monkeypatch.setattr(launch, "command", None)
    with pytest.raises(SystemExit) as ended:
        command.run(["-m", name, "--flag"])
    assert ended.value.code == 2
    assert f"python -m must find the module; got {name}: {reason}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [launch, verify])
def test_module_named_as_a_script_is_refused_with_how_to_run_it(
    command, package, monkeypatch, capsys
):
    monkeypatch.chdir(package)
    monkeypatch.setattr(launch, "command", None)
    with pytest.raises(SystemExit) as ended:
        command.run(["package.inner.train", "-m", "other"])
    assert ended.value.code == 2
    must = "the script must exist; got package.inner.train"
    assert f"{must}. It is a module: write -m package.inner.train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["-mpackage", "-n", "-mb"], (True, "package", ["-n", "-mb"])),
        (["-n", "3", "-mpackage"], (True, "package", [])),
        (["-m", "package", "-mb"], (True, "package", ["-mb"])),
        (["train.py", "-mb", "-m", "c"], (False, "train.py", ["-mb", "-m", "c"])),
    ],
)
def test_name_of_the_module_may_be_joined_to_its_option(arguments, what):
    parser = argparse.ArgumentParser()
    parser.add_argument("-n")
    program.add_arguments(parser)
    options = program.parse(parser, arguments)
    assert (options.module, options.script, options.arguments) == what


def test_launch_returns_the_status_of_a_failure(mpirun, run_python, tmp_path):
    (tmp_path / "fails.py").write_text("import sys\nsys.exit(3)\n")
    assert run_python("-m", "ddbp", "launch", "-n", 1, tmp_path / "fails.py").status != 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-n", "0", "{script}"], "-n must be an integer from 1 to 1048576; got 0"),
        (["nowhere.py"], "the script must exist; got nowhere.py"),
    ],
)
def test_launch_refuses_what_cannot_be(arguments, said, script, capsys):
    with pytest.raises(SystemExit) as ended:
        launch.run([argument.format(script=script) for argument in arguments])
    assert ended.value.code != 0
    assert said in capsys.readouterr().err


# The command line


def test_version_is_printed(run_python):
    assert run_python("-m", "ddbp", "version").out.split() == [ddbp.__version__]


def test_info_states_what_a_bug_report_needs(capsys):
    assert cli.main(["info"]) == 0
    said = capsys.readouterr().out
    for name in (
        "python",
        "numpy",
        "numba",
        "mpi4py",
        "cpu",
        "cores",
        "kernel cache",
        "mpiexec",
        "mpi library",
    ):
        assert f"\n{name} " in f"\n{said}"


def test_unknown_command_is_refused(capsys):
    assert cli.main(["lunch"]) != 0
    said = capsys.readouterr().err
    assert "ddbp: the command must be one of" in said
    assert "got 'lunch'" in said


def test_help_names_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("launch", "info", "version"))
