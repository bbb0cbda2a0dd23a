"""The command `ddbp` as a part of pipes."""

import os
import subprocess
import sys

import pytest


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
