"""Calls what is public with one hostile argument at a time, in a process of its own with little
memory; prints a line of JSON for each call that ends otherwise than it may.

    python attack.py PART…
"""

import faulthandler
import inspect
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from typing import Any

import numpy as np
import rows
from hostile import arrays, values

import ddbp

MEMORY = 3 << 30
"""Bytes that a call may take beside what the libraries have."""
SECONDS = 20.0
"""Seconds of processor time that a call may take; compiling a kernel is the longest."""
REFUSAL = re.compile(r"(?s)[^\s:][^:]*: .+; got .*\. .*\S")
BINDING = re.compile(
    r"missing \d+ required|unexpected keyword|takes .* positional|multiple values|keyword-only"
)


class TooLong(BaseException):
    """A call takes too long."""


def _too_long(*_: Any) -> None:
    raise TooLong


def fault(function: Any) -> str | None:
    """Return what is wrong with how a call ends, None if nothing is."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        function()
    except TooLong:
        return "takes too long"
    except SystemExit as error:
        return f"SystemExit({error.code})"
    except Exception as error:
        text = str(error)
        if text == "no array":
            # What an argument itself raises is its own.
            return None
        if REFUSAL.fullmatch(text) or (type(error) is TypeError and BINDING.search(text)):
            return None
        last = [
            f"{os.path.relpath(frame.filename, rows.Path(ddbp.__file__).parents[1])}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if "/ddbp/" in frame.filename or "/layers/" in frame.filename
        ]
        return f"{type(error).__name__}: {text[:160]} @ {last[-1:]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def calls(row: Any) -> Any:
    """Yield a description and a function for each way to call a row with one hostile argument."""

    def call(arguments: dict[Any, Any]) -> Any:
        given = [each for name, each in arguments.items() if isinstance(name, int)]
        named = {name: each for name, each in arguments.items() if not isinstance(name, int)}
        return row.then(row.function(*given, **named))

    yield "valid", lambda: call(row.arguments)
    try:
        taken = inspect.signature(row.of or row.function).parameters.values()
    except (TypeError, ValueError):
        taken = []
    options = [
        each.name
        for each in taken
        if each.name != "self" and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    names = list(row.arguments)
    positional = sum(isinstance(name, int) for name in names)
    names += [name for name in options[positional:] if name not in names]
    for name in names:
        hostile = values()
        if isinstance(row.arguments.get(name), np.ndarray):
            hostile = {**hostile, **arrays(row.arguments[name])}
        elif isinstance(row.arguments.get(name), rows.layers.Value):
            hostile = {
                **hostile,
                **{
                    text: rows.value(x)
                    for text, x in arrays(row.arguments[name].array).items()
                    if isinstance(x, np.ndarray)
                    and fault(lambda x=x: rows.value(x)) is None
                    and not _refused(x)
                },
            }
        for text, value in hostile.items():
            if name in row.endless and isinstance(value, int | np.integer) and value > 100:
                continue
            yield (
                f"{name}={text}",
                lambda name=name, value=value: call({**row.arguments, name: value}),
            )


def _refused(x: Any) -> bool:
    try:
        rows.value(x)
    except (TypeError, ValueError):
        return True
    return False


def main(parts: list[str]) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    signal.signal(signal.SIGVTALRM, _too_long)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        ddbp.save_parameters(rows.network(), "good.safetensors")
        held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        count = 0
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        for part in parts:
            for row in rows.PARTS[part]:
                for text, function in calls(row):
                    count += 1
                    began = time.process_time()
                    found = fault(function)
                    if (took := time.process_time() - began) > 0.5 and os.environ.get("FUZZ_TRACE"):
                        print("SLOW", row.name, text, took, file=sys.stderr, flush=True)
                    if found:
                        print(json.dumps([row.name, text, found]), file=out, flush=True)
        print(json.dumps(count), file=out, flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main(sys.argv[1:])
