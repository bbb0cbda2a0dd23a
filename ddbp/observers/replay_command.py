"""The command that shows a step of a run once more."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from ddbp.files import read_text

_INTERACTIVE = (
    *("IPython", "code", "colab_kernel_launcher", "idlelib", "ipykernel", "ipykernel_launcher"),
    *("ipython", "ipython3", "jupyter", "jupyter-console", "jupyter-lab", "jupyter-notebook"),
)
"""Modules and scripts that wait for what is typed."""
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def runs_again(arguments: Sequence[str]) -> bool:
    """Return whether Python does the same once more with these arguments: that of a script or a
    module, and not of what was typed in, or of a notebook.
    """
    rest = iter(arguments)
    for each in rest:
        if each in _WITH_VALUE:
            next(rest, None)
        elif each == "-" or not each.startswith("-"):
            return each != "-" and Path(each).name not in _INTERACTIVE
        elif not each.startswith(_WITH_VALUE):
            # Options of one letter may stand together; what follows c or m is theirs.
            letters, at, name = each[1:].partition("m")
            if "c" in letters or "i" in letters:
                return False
            if at and not letters.startswith("-"):
                return (name or next(rest, "")).partition(".")[0] not in ("", *_INTERACTIVE)
    return False


def replay_command(run: Path | None, step: int) -> str:
    """Return the command that shows a step of a run once more, "" if there is none: its folder does
    not say how the script was started, or that was none.

    Parameters
    ----------
    run
        The run folder, if there is one.
    step
        The step, from 0.
    """
    if run is None:
        return ""
    try:
        again = runs_again(json.loads(read_text(run / "config.json"))["process"]["python"])
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError):
        return ""
    return f"ddbp replay {shlex.quote(str(run))} --step {step}" if again else ""


def in_words(run: Path | None, step: int) -> str:
    """Return a line that tells the command, "" if there is none."""
    command = replay_command(run, step)
    return command and f"To see this step once more: {command}"
