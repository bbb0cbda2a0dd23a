"""Errors that say what must hold, told in a line, and not as a traceback; what they advise are
flags of the command, and not arguments of functions.
"""

import argparse
import re
import shlex
from collections.abc import Callable

from ddbp.training import refusals

_WRITE = r"(?P<write>(?:, or write |, write |, or |[Oo]r write |Write )?)"
_ROLE = r'roles=\{"(?P<name>.+?)": "(?P<role>ignore|category|number|date)"\}'
_ROLES = {"ignore": "ignore", "category": "categories", "number": "numbers", "date": "dates"}
"""The flags that name columns, by the roles that they have then."""


def told_in_a_line(act: Callable[[], None], options: argparse.Namespace) -> int:
    """Return the exit status of an act of a command that has these options: 1, and the error in a
    line, if it refuses what it is given.
    """
    return refusals.told_in_a_line(act, lambda line: in_flags(line, options))


def in_flags(line: str, options: argparse.Namespace) -> str:
    """Return the message of an error with flags in place of the arguments of functions that it
    advises; advice that needs a flag which the command has not is left out.
    """
    must, got, rest = line.partition(refusals.GOT)
    for pattern, flags in _ADVICE:

        def told(found: re.Match[str], flags: Callable[..., dict[str, str]] = flags) -> str:
            wanted = flags(found)
            if not all(hasattr(options, name) for name in wanted):
                return ""
            return found["write"] + ", or ".join(wanted.values())

        rest = pattern.sub(told, rest)
    # What was left out has left its full stop.
    return f"{must}{got}{re.sub(r'(?<=[.]) [.]', '', rest)}".rstrip()


def _of_role(found: re.Match[str]) -> dict[str, str]:
    flag = _ROLES[found["role"]]
    result = {flag: f"--{flag} {shlex.quote(found['name'])}"}
    if found["or"]:
        result["categories"] = f"--categories {shlex.quote(found['name'])}{found['or']}"
    return result


def _is(name: str, words: str) -> Callable[[re.Match[str]], dict[str, str]]:
    """Return what makes words, which may have groups of a match, of advice that needs a flag."""
    return lambda found: {name: found.expand(words)}


_ADVICE = [
    (re.compile(_WRITE + pattern), flags)
    for pattern, flags in (
        (
            _ROLE + r'(?:, or "category"(?P<or> if it is one))?',
            _of_role,
        ),
        (r"skip_bad=True", _is("skip_bad", "--skip-bad")),
        (r'task="(\w+)"', _is("task", r"--task \2")),
        (r'(?:TableEncoder\.fit\(\.\.\., )?unknown="(\w+)"\)?', _is("unknown", r"--unknown \2")),
        (r"Change roles", _is("ignore", "Name fewer columns in --ignore")),
        (
            r"Use larger fractions, or leave out stratified",
            _is("validation", "Take a larger --validation, or more data"),
        ),
        (
            r"augment=\[(.+)\], of ddbp\.data\.augment",
            _is("augment", r'--augment "\2", or --augment none'),
        ),
    )
]
"""Advice of functions that commands call, and the flags that stand for it, by the options that the
command must have.
"""
