"""`ddbp launch` around its launcher: what it returns, and what it says of ranks."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from ddbp import settings
from ddbp.comm.abort import SAVED
from ddbp.commands import cli, end_signals, launch, post_mortem, survive
from ddbp.observers import rank_status
from ddbp.observers.observer import StepPhase


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Return the function that runs a line of Python as the launcher that `ddbp launch` starts, and
    returns the status.
    """
    (tmp_path / "train.py").touch()
    monkeypatch.setattr(launch, "find_mpiexec", lambda: "mpiexec")

    def run(line):
        monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", line])
        return launch.run(["-n", "3", str(tmp_path / "train.py")])

    return run


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("", 0),
        ("import sys; sys.exit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
    ],
)
def test_status_is_that_of_the_launcher_or_128_and_its_signal(line, status, script):
    assert script(line) == status


def test_signal_ends_a_launcher_that_does_not_listen(script, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(end_signals, "GRACE", 0.5)
    pid = tmp_path / "pid"
    line = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f" open({str(pid)!r}, 'w').write(str(os.getpid())); os.kill(os.getppid(), signal.SIGTERM);"
        " time.sleep(600)"
    )
    before = signal.getsignal(signal.SIGTERM)
    assert script(line) == 128 + signal.SIGTERM
    assert "ddbp launch: ended by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.fixture
def signalled(monkeypatch):
    """Have a signal come while each process is started; return those that were."""
    started, popen = [], subprocess.Popen

    def start(*arguments, **options):
        process = popen(*arguments, **options)
        started.append(process)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


def test_signal_that_comes_while_the_launcher_is_started_ends_it(script, signalled):
    assert script("import time; time.sleep(600)") == 128 + signal.SIGTERM
    (process,) = signalled
    assert process.returncode is not None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs memfd_create")
def test_signal_that_comes_while_a_rank_is_started_ends_it(signalled, tmp_path):
    line = [sys.executable, "-c", "import time; time.sleep(600)"]
    job = survive.Job(line, {**os.environ}, tmp_path, 3, replaces=True)
    assert job.run() == 128 + signal.SIGTERM
    (process,) = signalled
    assert process.returncode is not None


def test_ranks_start_where_no_folder_for_their_status_can_be_made(script, monkeypatch, capsys):
    def refuse(**options):
        raise FileNotFoundError("no usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    assert script(f"import os, sys; sys.exit({settings.STATUS!r} in os.environ)") == 0
    assert "it will not be known where ranks are: no usable temporary" in capsys.readouterr().err


def test_ranks_are_those_of_another_job_than_the_process_that_launches_them(monkeypatch):
    monkeypatch.setenv(settings.RANK_PROCESS, "1")
    assert settings.is_started_by_a_rank()
    assert settings.RANK_PROCESS not in launch.environment()


def leave(folder, rank, phase):
    rank_status.RankStatus(folder, rank).words[rank_status.PHASE] = phase


def test_ranks_that_have_not_come_to_their_end_are_no_success(tmp_path):
    assert post_mortem.unfinished(tmp_path, 3, None) == []
    leave(tmp_path, 0, StepPhase.END)
    assert post_mortem.unfinished(tmp_path, 3, None) == []
    leave(tmp_path, 1, StepPhase.BACKWARD)
    process = f"process {os.getpid()}"
    (said,) = post_mortem.unfinished(tmp_path, 3, os.getpid())
    assert said.startswith(f"rank 1 ({process}) left without coming to the end of the script, as ")
    leave(tmp_path, 2, StepPhase.EXCHANGE)
    (said,) = post_mortem.unfinished(tmp_path, 3, None)
    assert said.startswith("ranks 1 and 2 (")
    assert "have left, one of them without coming to the end" in said


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "run", interrupt)
    assert cli.main(["launch"]) == 130


@pytest.mark.parametrize(("mode", "refused"), [(0o700, False), (0o702, True), (0o707, True)])
def test_folder_of_statuses_must_be_of_this_user_alone(mode, refused, tmp_path, monkeypatch):
    folder = tmp_path / "status"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv(settings.STATUS, str(folder))
    if not refused:
        assert settings.status_folder() == folder
        return
    said = f"DDBP_STATUS must be a folder of this user alone; got {folder}, which others may write"
    with pytest.raises(ValueError, match=said):
        settings.status_folder()


def test_status_needs_no_room_when_it_is_written_to(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(rank_status, "_OWN", [])
    tmp_path.chmod(0o700)
    monkeypatch.setenv(settings.STATUS, str(tmp_path))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        assert rank_status.own_status(0) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert rank_status.read(tmp_path, 0) is None


@pytest.mark.parametrize(("status", "calls"), [(SAVED, "requeue 4711\n"), (0, ""), (3, "")])
def test_job_of_slurm_is_requeued_when_its_run_has_saved(
    status, calls, tmp_path, monkeypatch, capsys
):
    called = tmp_path / "called"
    called.touch()
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    scontrol.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    (tmp_path / "train.py").touch()
    monkeypatch.setattr(launch, "find_mpiexec", lambda: "mpiexec")
    line = f"import sys; sys.exit({status})"
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", line])
    assert launch.run(["-n", "1", "--requeue", str(tmp_path / "train.py")]) == status
    assert called.read_text() == calls
    assert ("ddbp launch: job 4711 is requeued" in capsys.readouterr().err) == bool(calls)


def test_time_limit_of_stalls_reaches_the_ranks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(settings.STALL_TIMEOUT, "1")
    (tmp_path / "train.py").touch()
    monkeypatch.setattr(launch, "find_mpiexec", lambda: "mpiexec")
    line = f"import os; raise SystemExit(os.environ[{settings.STALL_TIMEOUT!r}] != '7.5')"
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", line])
    train = str(tmp_path / "train.py")
    assert launch.run(["-n", "1", "--stall-timeout", "7.5", train]) == 0
    with pytest.raises(SystemExit):
        launch.run(["-n", "1", "--stall-timeout", "-1", train])
    assert "--stall-timeout must be positive; got -1" in capsys.readouterr().err


def test_more_ranks_at_least_than_there_are_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        launch.run(["-n", "2", "--min-ranks", "5", "train.py"])
    assert ended.value.code == 2
    assert "--min-ranks must be an integer from 1 to 2; got 5" in capsys.readouterr().err
