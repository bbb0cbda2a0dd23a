"""What holds for all attacks: little memory, little time, and errors in our own words."""

import argparse
import faulthandler
import os
import re
import resource
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MEMORY = 3 << 30
"""Bytes that an attack may take beside what the libraries have."""
SECONDS = 20.0
"""Seconds of processor time that a call may take; compiling a kernel is the longest."""
ROOT = Path(__file__).parents[2]

_REFUSAL = re.compile(r"[^\s:][^:]*: .+; got .*\. .*\S", re.DOTALL)
_BINDING = re.compile(r"missing \d+ required|unexpected keyword|positional|multiple values")


class TooLongError(BaseException):
    """A call takes too long."""


def _too_long(*_: Any) -> None:
    raise TooLongError


def limit() -> None:
    """Limit memory from now on, and be ready to limit time."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    signal.signal(signal.SIGVTALRM, _too_long)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def fault(function: Callable[[], object], *, system: bool = False) -> str | None:
    """Return what is wrong with how a call ends, None if nothing is.

    With `system`, errors of the operating system that name a file are right, too.
    """
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        function()
    except TooLongError:
        return "takes too long"
    except SystemExit as error:
        return f"SystemExit({error.code})"
    except Exception as error:
        text = str(error)
        # What an argument itself raises is its own.
        if _REFUSAL.fullmatch(text) or text == "no array":
            return None
        if isinstance(error, TypeError) and _BINDING.search(text):
            return None
        if isinstance(error, argparse.ArgumentTypeError):
            return None
        if system and isinstance(error, OSError) and error.filename is not None:
            return None
        places = [
            f"{os.path.relpath(frame.filename, ROOT)}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if "/ddbp/" in frame.filename or "/layers/" in frame.filename
        ]
        return f"{type(error).__name__}: {text[:160]} @ {places[-1:]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None
