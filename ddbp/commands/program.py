"""What `ddbp launch` and `ddbp verify` run: a script, or with -m a module, as python does."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

# In a process of its own: to find a module, Python imports the packages that it lies in.
_FIND = """
import sys
from importlib.util import find_spec
name = sys.argv[1]
spec = find_spec(name)
if spec is None:
    sys.exit("there is none")
if spec.submodule_search_locations is not None and find_spec(name + ".__main__") is None:
    sys.exit("a package is run by its module __main__, and it has none")
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the script or module and its arguments, which are all that follow it."""
    parser.add_argument(
        "-m",
        dest="module",
        action="store_true",
        help="run a module, named in the place of the script, as python -m does",
    )
    parser.add_argument("script", help="the Python script, or with -m the name of the module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options in the arguments; `-mNAME` before the script is `-m NAME`, as for
    python.
    """
    arguments = list(arguments)
    at = next((i for i, argument in enumerate(arguments) if argument[:2] == "-m"), None)
    if at is not None and arguments[at] != "-m":
        apart = [*arguments[:at], "-m", arguments[at][2:], *arguments[at + 1 :]]
        options = parser.parse_args(apart)
        if options.module:
            return options
    return parser.parse_args(arguments)


def arguments_of_python(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """Return what python is to be called with, or end the process where there is no such script or
    module.
    """
    name: str = options.script
    if options.module:
        if reason := _missing(name):
            parser.error(f"python -m must find the module; got {name}: {reason}")
        return ["-m", name, *options.arguments]
    # Of a Path, a name that is too long is an error.
    if not os.path.isfile(name):
        is_module = all(map(str.isidentifier, name.split("."))) and not _missing(name)
        fix = f". It is a module: write -m {name}" if is_module else ""
        parser.error(f"the script must exist; got {name}{fix}")
    return [name, *options.arguments]


def _missing(name: str) -> str:
    """Return why python -m would not find a module, nothing if it would."""
    if name.endswith(".py"):
        module = name.removesuffix(".py").replace(os.sep, ".")
        return f"that is a file. Leave out -m, or name the module: -m {module}"
    found = subprocess.run(
        [sys.executable, "-c", _FIND, name], capture_output=True, text=True, check=False
    )
    return found.stderr.strip().rpartition("\n")[2] if found.returncode else ""
