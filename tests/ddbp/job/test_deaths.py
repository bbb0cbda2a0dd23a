"""What `ddbp launch` says of how a process has ended."""

import os
import signal
import subprocess
import sys

import pytest

from ddbp.commands import restarts
from ddbp.job import deaths
from ddbp.job.deaths import Memory


@pytest.fixture
def end():
    """Return the function that runs a line of Python, and returns the wait status as another
    process learns it.
    """
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs pidfd_open")

    def run(line):
        code = f"import os, signal, sys; sys.stdin.read(); {line}"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            descriptor = os.pidfd_open(process.pid)
            process.stdin.close()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            status = deaths.wait_status(descriptor, process.pid)
            os.close(descriptor)
        return status

    return run


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("os._exit(3)", "it left with status 3, as by os._exit"),
        ("os.abort()", "killed by SIGABRT (Aborted)"),
        ("os.kill(os.getpid(), signal.SIGBUS)", "killed by SIGBUS (Bus error)"),
    ],
)
def test_process_of_somebody_else_tells_how_it_ended(line, said, end, tmp_path):
    assert deaths.cause(end(line), Memory(tmp_path, tmp_path)) == said


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


MIB = 2**20
VERSION_1 = {
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
    "memory.limit_in_bytes": f"{100 * MIB}\n",
    "memory.max_usage_in_bytes": f"{99 * MIB}\n",
}
VERSION_2 = {
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    "memory.max": f"{100 * MIB}\n",
    "memory.peak": f"{99 * MIB}\n",
}


@pytest.mark.parametrize(
    ("own", "path", "files"),
    [
        ("4:memory:/jobs/7\n0::/\n", "memory/jobs/7", VERSION_1),
        ("0::/jobs/7\n", "jobs/7", VERSION_2),
        # A container does not see the path of the host.
        ("0::/of/the/host\n", "", VERSION_2),
        ("4:memory:/of/the/host\n", "memory", VERSION_1),
    ],
    ids=["version 1", "version 2", "container", "container, version 1"],
)
def test_control_group_tells_whether_memory_was_wanting(own, path, files, tmp_path):
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    write(root / path, files)
    write(proc / "self", {"cgroup": own})
    memory = Memory(root, proc)
    said = deaths.cause(signal.SIGKILL, memory)
    assert said == (
        "killed by SIGKILL, by somebody: the system has killed nothing for want of memory"
    )
    first = next(iter(files))
    write(root / path, {first: files[first].replace("oom_kill 0", "oom_kill 2")})
    assert deaths.cause(signal.SIGKILL, memory) == (
        "killed by the system, for want of memory (99 of 100 MiB of its control group were in use)"
    )


def test_without_a_control_group_the_count_of_the_system_tells(tmp_path):
    write(tmp_path, {"vmstat": "nr_free_pages 5\noom_kill 3\n"})
    memory = Memory(tmp_path / "none", tmp_path)
    assert memory.killed() is False
    write(tmp_path, {"vmstat": "nr_free_pages 5\noom_kill 4\n"})
    said = "killed by the system, for want of memory"
    assert deaths.cause(signal.SIGKILL, memory) == said


def test_where_nothing_is_known_nothing_is_claimed(tmp_path):
    memory = Memory(tmp_path, tmp_path)
    said = "killed by SIGKILL, perhaps for want of memory"
    assert deaths.cause(signal.SIGKILL, memory) == said
    assert deaths.cause(None, memory) == ""


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Return the function that puts an scontrol on PATH which ends with a status; and what it was
    called with.
    """
    calls = tmp_path / "calls"

    def make(status):
        path = tmp_path / "scontrol"
        path.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho refused >&2\nexit {status}\n')
        path.chmod(0o700)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
        return calls

    return make


def test_job_of_slurm_is_requeued(scontrol):
    calls = scontrol(0)
    assert restarts.requeue() == "job 4711 is requeued"
    assert calls.read_text() == "requeue 4711\n"


def test_job_that_cannot_be_requeued_says_why(scontrol, monkeypatch):
    scontrol(1)
    assert restarts.requeue() == "job 4711 could not be requeued: refused"
    monkeypatch.delenv("SLURM_JOB_ID")
    assert restarts.requeue().startswith("nothing to requeue: this is no job of Slurm")
