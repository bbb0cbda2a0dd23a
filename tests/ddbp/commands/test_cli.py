"""The command `ddbp` as a part of pipes."""

import os
import subprocess
import sys
from importlib import metadata

import pytest

from ddbp.commands import cli


@pytest.mark.parametrize("arguments", [["--help"], ["info"]])
def test_a_reader_that_reads_no_further_ends_a_command_without_a_traceback(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ddbp", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_without_a_standard_output_nothing_is_wrong():
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "ddbp", "version"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--help"], ["info"]])
def test_what_finds_no_room_is_told_without_a_traceback(arguments):
    command = [sys.executable, "-m", "ddbp", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = (
        "ddbp: what is printed must find room where standard output leads; got No space left on"
        " device. Make room there, or print it elsewhere.\n"
    )
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version_is_printed(word, capsys):
    assert cli.main([word]) == 0
    assert capsys.readouterr().out == f"{metadata.version('ddbp')}\n"
