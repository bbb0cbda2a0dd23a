"""The command that shows a step of a run once more."""

import json
import shlex
from pathlib import Path

from ddbp.files import read_text


def replay_command(run: Path | None, step: int) -> str:
    """Return the command that shows a step of a run once more, "" if there is none: its folder does
    not say how the script was started, or that was no file.

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
        arguments = json.loads(read_text(run / "config.json"))["process"]["python"]
        is_file = arguments[0] not in ("-", "-c")
    except (LookupError, OSError, RecursionError, TypeError, ValueError):
        return ""
    return f"ddbp replay {shlex.quote(str(run))} --step {step}" if is_file else ""


def in_words(run: Path | None, step: int) -> str:
    """Return a line that tells the command, "" if there is none."""
    command = replay_command(run, step)
    return command and f"To see this step once more: {command}"
