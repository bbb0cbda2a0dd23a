"""The command `ddbp`."""

import os
import select
import signal
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import TextIO

from layers.errors import message

USAGE = """usage: ddbp COMMAND …

commands:
  demo                        from nothing to a trained, evaluated and reported model in a minute
  train RECIPE --data DATA    train on images, a table, a text or series
  lr-find RECIPE --data DATA  look for a learning rate
  evaluate BUNDLE --data DATA loss and metrics of a trained model
  predict BUNDLE FILE …       what it says of files
  launch [-n N] script.py …   run a script on all cores (or N ranks), one process each
  verify [-n 1,2,3] script.py run a script on several numbers of ranks and compare all bits
                              (both take -m module, as python does, instead of script.py)
  replay RUN --step N         a step of a run once more, bit for bit, with every instrument
  checkpoint COMMAND FOLDER   list, show, verify or export the checkpoints of a run
  export BUNDLE_OR_RUN        a model as ONNX, as PyTorch's safetensors, or as a bundle
  report RUN [RUN …]          write the report of a run anew, or a page that compares several
  runs [FOLDER]               list the runs in a folder
  watch RUN                   follow a run that goes on, from wherever its folder is seen
  doctor [--fix] RUN          print what was found to be wrong in a run; or run it with the remedy
  speedrun TASK               train a fixed task until its target is reached; or verify an entry
  gradcheck [module:Layer]    check the gradients of all layers, or of one of yours
  info                        print what a bug report needs
  completion SHELL            print a script that has a shell complete all of this
  version                     print the version

ddbp COMMAND --help tells more."""

COMMANDS = (
    "demo",
    "train",
    "lr-find",
    "evaluate",
    "predict",
    "launch",
    "verify",
    "replay",
    "checkpoint",
    "export",
    "report",
    "runs",
    "watch",
    "doctor",
    "speedrun",
    "gradcheck",
    "info",
    "completion",
)
"""Each is a module of this room with a function `run`, which is imported when it is asked for; for
the dash of a command it has an underscore.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 130 where Ctrl+C has ended it, 141 where nobody reads
    on what it prints, as `head` does not, 1 where what it prints finds no room.
    """
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
        if not unread:
            raise
        _drop(*unread)
        return 128 + signal.SIGPIPE
    except OSError as error:
        # Errors of files name them.
        if error.filename is not None or not _is_full(sys.stdout):
            raise
        _drop(sys.stdout)
        must = "what is printed must find room where standard output leads"
        fix = "Make room there, or print it elsewhere."
        print(message("ddbp", must, error.strerror, fix), file=sys.stderr)
        return 1


def _is_unread(stream: TextIO | None) -> bool:
    """Return whether a stream is a pipe whose reader has gone."""
    try:
        place = -1 if stream is None else stream.fileno()
    except (OSError, ValueError):
        # It is none of the system's.
        return False
    if place < 0:
        return False
    poll = select.poll()
    poll.register(place, select.POLLOUT)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))


def _is_full(stream: TextIO | None) -> bool:
    """Return whether the place of a stream takes nothing more, not even the end of a line."""
    try:
        if stream is not None:
            print(file=stream, flush=True)
    except OSError:
        return True
    return False


def _drop(*streams: TextIO) -> None:
    """Have what is left of streams go nowhere when Python ends."""
    with open(os.devnull, "w") as nowhere:
        for stream in streams:
            os.dup2(nowhere.fileno(), stream.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    if not given:
        print(USAGE, file=sys.stderr)
        return 2
    command, *rest = given
    if command in COMMANDS:
        status: int = import_module(f".{command.replace('-', '_')}", __package__).run(rest)
        return status
    if command in ("version", "--version") and not rest:
        print(metadata.version("ddbp"))
        return 0
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    must, got = f"the command must be one of {', '.join([*COMMANDS, 'version'])}", command
    if command == "version":
        must, got = "version takes no arguments", " ".join(rest)
    print(message("ddbp", must, repr(got), "See ddbp --help."), file=sys.stderr)
    return 2
