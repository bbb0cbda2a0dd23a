"""Calls commands with arguments of anybody's making, in a process of its own; prints a line of JSON
for each call that ends otherwise than it may.

    python attack_commands.py [STRIDE]
"""

import io
import itertools
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from limits import TooLongError, limit

import ddbp
from ddbp.commands import cli, launch, survive, verify

SECONDS = 300
"""Seconds that a call may take, on a busy machine, too: checking the gradients of all layers takes
a minute of a core of its own.
"""
TEXTS = (
    *("", " ", "x", "-", "--", "-1", "0", "1", "1.5", "nan", "inf", "-inf", "1e999", "²", "1_0"),
    *("9" * 30, "9" * 5000, "1,2", ",", "2**3", "a:b", ":", "a:1,b:", "a:-1", "a:0", "a:9" * 300),
    *("\udcff", "\x1b[2J", "é" * 300, "x" * 300, "x" * 5000, "../x", "/", ".", "..", "/dev/null"),
    *("/dev/zero/x", "train.py", "empty", "step-1", "-x", "--no-such", "--help", "a\nb", "[red]"),
)
TARGETS = (
    *(
        "os:path",
        "os:getpid",
        "json:dumps",
        "builtins:int",
        "builtins:print",
        "math:pi",
        "math:sin",
    ),
    *(".:x", "..:x", "..os:x", "os.:x", ".py:x", "empty:x", "train.py:", "train.py:x", ":x", "x:"),
    *("none.py:x", "layers:Linear", "layers:ReLU", "layers:relu", "layers:Tape", "layers:nothing"),
    *("layers:Sequential.forward", "layers.errors:message", "os:path.join", "sys:stdout", "a b:c"),
    *("made.py:nothing", "made.py:empty", "made.py:number", "made.py:texts", "made.py:endless"),
    *("made.py:integers", "made.py:examples", "made.py:needs"),
)
MADE = """
import numpy as np
from layers import ReLU
nothing = lambda: None
empty = lambda: ()
number = lambda: 3
texts = lambda: (ReLU(), "x")
endless = lambda: (ReLU(), np.array([np.nan, np.inf]))
integers = lambda: (ReLU(), np.arange(3))
class examples(ReLU):
    def example_inputs(self): return 3
def needs(x, *, y): return x
"""


def calls() -> Iterator[list[str]]:
    """Yield lists of arguments."""
    script = ["train.py", "--epochs", "1"]
    done = ["done"]
    options = {
        "launch": {
            **dict.fromkeys(("-n", "--ranks", "--max-restarts", "--min-ranks"), script),
            **dict.fromkeys(("--stall-timeout", "--survive --hosts", "--survive -n"), script),
            **dict.fromkeys(("-m", "-n 2", "--survive --no-replace --requeue"), ()),
            "--hosts": script,
        },
        "verify": {
            **dict.fromkeys(("-n", "--ranks", "--steps", "--timeout", "--keep"), script),
            **dict.fromkeys(("-m", "-n 1,2"), ()),
        },
        "gradcheck": {"": [], "--shape": ["layers:ReLU"], "--seed": ["layers:ReLU"]},
        **{
            f"checkpoint {name}": {"": [], "runs": []}
            for name in ("list", "show", "verify", "export", "nothing")
        },
        "export": {
            "": (),
            **dict.fromkeys(("--shape", "--torch", "--onnx", "--bundle", "--names"), done),
        },
        "report": {"": (), "-o": ["done"], "done": ()},
        "runs": {"": (), "--json": ()},
        "watch": {"": (), "--once": (), "--interval": ["done"]},
        "doctor": {"": (), "done": (), "--fix": (), "--fix --print": done},
        "replay": {
            "--step 1": (),
            **dict.fromkeys(("--step", "--step 1 -n", "--step 1 --layer"), done),
            "--step 1 --json --save": done,
        },
        "train": {
            "": (),
            **dict.fromkeys(("table --epochs 1 --data", "text --epochs 1 --data"), ()),
            **dict.fromkeys(("images --epochs 1 --data", "series --epochs 1 --data"), ()),
            "table --data x --epochs": (),
        },
        "lr-find": {"": (), "table --steps 10 --data": ()},
        "evaluate": {"": (), "done --data": ()},
        "predict": {"": ["x"], "done": (), "done x --output": ()},
        "checkpoint export -o": {"": ["runs"], "x --overwrite": []},
        **{name: {"": ()} for name in ("", "info", "version", "checkpoint", "launch", "verify")},
    }
    for command, table in options.items():
        for option, rest in table.items():
            words = [*command.split(), *option.split()]
            yield [*words, *rest]
            for text in TEXTS:
                if words == ["gradcheck"] and text in ("--", ""):
                    continue
                if words[:1] in (["runs"], ["train"]) and text in ("/", ".."):
                    # Whatever this machine holds is read.
                    continue
                yield [*words, text, *rest]
    for target in TARGETS:
        yield ["gradcheck", target]
        yield ["gradcheck", target, "--shape", "2,0"]
    for text in TEXTS:
        yield [text, "x"]


def fault(arguments: list[str]) -> str | None:
    """Return what is wrong with how a command ends, None if nothing is."""
    signal.alarm(SECONDS)
    try:
        return _fault(arguments)
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> None:
    raise TooLongError(f"more than {SECONDS} s")


def _fault(arguments: list[str]) -> str | None:
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = cli.main(arguments)
    except SystemExit as error:
        status = error.code
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} @ {frame.filename}:{frame.lineno}"
    err.flush()
    said = err.buffer.getvalue().decode()
    if status not in (0, 1, 2) or "Traceback" in said or "Errno" in said:
        return f"status {status}: {said[-200:]}"
    out.flush()
    # What a check of gradients finds is printed, and no error.
    ours = status == 0 or out.buffer.tell() or said.startswith("usage: ddbp COMMAND")
    return None if ours or "; got " in said or ": error: " in said else f"says {said[-200:]!r}"


def main(stride: int) -> None:
    launch.find_mpiexec = lambda: sys.executable
    launch._is_open_mpi = lambda mpiexec: True
    launch.run_launcher = lambda *of_another: 0
    survive.Job.run = lambda self: 0
    survive.Job.step = -1
    verify._run = lambda mpiexec, ranks, *of_another: verify.Run(ranks, 0.0, {})
    ddbp.communicator()
    count = 0
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        sys.path.insert(0, "")
        Path("train.py").touch()
        Path("made.py").write_text(MADE)
        for folder in ("empty", "runs", "step-1", "done"):
            Path(folder).mkdir()
        process = {"python": ["train.py"], "folder": place, "trainer": 0, "shards": 1}
        Path("done", "config.json").write_text(json.dumps({"process": process}))
        Path("done", "status.json").write_text('{"status": "finished"}')
        limit()
        signal.signal(signal.SIGALRM, _too_long)
        for arguments in itertools.islice(calls(), 0, None, stride):
            count += 1
            if found := fault(arguments):
                print(json.dumps([str(arguments)[:200], found]), flush=True)
        os.chdir("/")
    print(json.dumps(count), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1)
