"""The command `ddbp`."""

import signal
import sys
from collections.abc import Sequence
from importlib import metadata

USAGE = """usage: ddbp COMMAND …

commands:
  launch [-n N] script.py …   run a script on all cores (or N ranks), one process each
  verify [-n 1,2,3] script.py run a script on several numbers of ranks and compare all bits
                              (both take -m module, as python does, instead of script.py)
  checkpoint COMMAND FOLDER   list, show, verify or export the checkpoints of a run
  report RUN [RUN …]          write the report of a run anew, or a page that compares several
  runs [FOLDER]               list the runs in a folder
  watch RUN                   follow a run that goes on, from wherever its folder is seen
  gradcheck [module:Layer]    check the gradients of all layers, or of one of yours
  info                        print what a bug report needs
  version                     print the version

ddbp COMMAND --help tells more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status, 130 where Ctrl+C has ended it."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(arguments: Sequence[str] | None) -> int:
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    rest = rest[:-1]
    if command == "launch":
        from . import launch

        return launch.run(rest)
    if command == "verify":
        from . import verify

        return verify.run(rest)
    if command == "checkpoint":
        from . import checkpoint

        return checkpoint.run(rest)
    if command == "report":
        from . import report

        return report.run(rest)
    if command == "runs":
        from . import runs

        return runs.run(rest)
    if command == "watch":
        from . import watch

        return watch.run(rest)
    if command == "gradcheck":
        from . import gradcheck

        return gradcheck.run(rest)
    if command == "info":
        from . import info

        return info.run()
    if command == "version":
        print(metadata.version("ddbp"))
        return 0
    if command in ("", "-h", "--help"):
        print(USAGE)
        return 0 if command else 2
    known = "launch, verify, checkpoint, report, runs, watch, gradcheck, info, version"
    print(
        f"ddbp: the command must be one of {known}; got {command!r}. See ddbp --help.",
        file=sys.stderr,
    )
    return 2
