"""Numbers in flags and environment variables: digits of ASCII, and nothing else."""

import argparse
import math
import re

import pytest

from ddbp import settings, written
from ddbp.commands import export, gradcheck, launch, replay, speedrun, verify, watch
from ddbp.recipes import recipe
from ddbp.training import script

OTHER = ["٣", "３", "1٣", "³", "1_0", " 3", "3 ", "3\n", "0x3", "1e3", "", "3.", "--3", "9" * 20]
"""What is no integer; `int`, or `str.isdecimal`, takes some of these."""
NO_NUMBER = ["٣", "３.5", "1_0.0", " 3.5", "3.5\n", "nan", "", "0x1p3", "1e", "٣e3"]
READ = {
    settings.SHARDS: settings.shards,
    settings.RANKS: settings.ranks,
    settings.BUCKET: settings.bucket,
    settings.COMPARE_EVERY: settings.compare_every,
    settings.RANKS_OF_HOST: settings.ranks_of_host,
    settings.VERIFY_STEPS: settings.verify_steps,
    settings.PROGRESS: settings.progress,
    settings.TIMEOUT: settings.timeout,
    settings.STALL_TIMEOUT: settings.stall_timeout,
}


def test_integers_and_numbers_are_read():
    assert [written.integer(text) for text in ("0", "3", "-3", "+3", "9" * 19)] == [
        *(0, 3, -3, 3, 10**19 - 1)
    ]
    assert [written.real(text) for text in ("3", "-.5", "1e3", "inf", "Infinity")] == [
        *(3.0, -0.5, 1000.0, math.inf, math.inf)
    ]


@pytest.mark.parametrize("text", OTHER)
def test_what_is_no_integer_is_refused(text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        written.integer(text)
    for kind in (script.positive_int, script._non_negative_int):
        with pytest.raises(argparse.ArgumentTypeError, match="integer"):
            kind(text)


@pytest.mark.parametrize("text", NO_NUMBER)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        written.real(text)
    for kind in (script.positive_float, watch._seconds, recipe._fraction):
        with pytest.raises(argparse.ArgumentTypeError, match="must be"):
            kind(text)


@pytest.mark.parametrize("name", READ)
def test_variables_of_other_digits_are_refused_by_name(monkeypatch, name):
    monkeypatch.setenv(name, "3")
    assert READ[name]() in (3, 3 * 1024)
    for text in ("٣", "1_0", "３", " 3"):
        monkeypatch.setenv(name, text)
        with pytest.raises(ValueError, match=f"ddbp: {name} must be a .*; got '{text}'"):
            READ[name]()


@pytest.mark.parametrize("text", ["3 4 ٣", "3 4", "3 4 5 6", "3 -4 5", f"3 4 {10**9}", "3 4 1_0"])
def test_place_of_a_rank_must_be_three_numbers(monkeypatch, text):
    monkeypatch.delenv(settings.MPI, raising=False)
    monkeypatch.setenv(settings.JOB, text)
    with pytest.raises(ValueError, match=f"{settings.JOB} must be three numbers; got '{text}'"):
        settings.launched_in_job()
    monkeypatch.setenv(settings.JOB, "3 4 1")
    assert settings.launched_in_job() == (3, 4, 1)


@pytest.mark.parametrize(
    ("command", "arguments", "flag"),
    [
        (launch, ["-n", "٣", "x.py"], "-n/--ranks: invalid integer value"),
        (launch, ["--max-restarts", "1_0", "x.py"], "--max-restarts: invalid integer value"),
        (launch, ["--min-ranks", "٣", "x.py"], "--min-ranks: invalid integer value"),
        (launch, ["--stall-timeout", "٣", "x.py"], "--stall-timeout: invalid real value"),
        (verify, ["--steps", "٣", "x.py"], "--steps: invalid integer value"),
        (verify, ["--timeout", "٣", "x.py"], "--timeout: invalid real value"),
        (replay, ["runs/x", "--step", "٣"], "--step: invalid integer value"),
        (gradcheck, ["--seed", "٣"], "--seed: invalid integer value"),
        (gradcheck, ["x.py:A", "--shape", "4,٣"], "a shape must be sizes with commas"),
        (export, ["runs/x", "--shape", "4,٣"], "--shape: invalid"),
        (speedrun, ["digits", "-n", "٣"], "-n/--ranks: invalid integer value"),
        (watch, ["runs/x", "--interval", "٣"], "--interval: must be in (0, 3600]"),
    ],
)
def test_flags_of_other_digits_are_refused_by_name(command, arguments, flag, capsys):
    with pytest.raises(SystemExit) as ended:
        command.run(arguments)
    assert ended.value.code == 2
    assert flag in capsys.readouterr().err
