"""`ddbp completion SHELL`: what a shell needs to complete commands, options and files.

It prints a script that stays as it is: a shell asks no Python when a key is pressed.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from layers.errors import message

SHELLS = ("bash", "zsh", "tcsh")

Run = Callable[[Sequence[str]], int]
"""What runs a command."""


class _Found(Exception):  # noqa: N818 - no error: how a parser is got hold of
    """A command has come to parse its arguments."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def run(arguments: Sequence[str]) -> int:
    """Run `ddbp completion`; return the exit status."""
    from .cli import COMMANDS

    parser = argparse.ArgumentParser(
        prog="ddbp completion",
        description="Print a script that has a shell complete ddbp: see docs/clusters.md.",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    options = parser.parse_args(arguments)
    try:
        import shtab
    except ImportError:
        must, fix = "the package shtab must be installed", 'pip install "ddbp[completion]".'
        print(message("ddbp completion", must, "none", fix), file=sys.stderr)
        return 1
    modules = {name: import_module(f".{name.replace('-', '_')}", __package__) for name in COMMANDS}
    whole = _whole({name: module.run for name, module in modules.items()}, shtab.FILE)
    print(shtab.complete(whole, options.shell))
    return 0


def _whole(commands_by_name: Mapping[str, Run], files: Any) -> argparse.ArgumentParser:
    """Return the parser that has those of all commands, and of their recipes; what else they take
    may be files.
    """
    whole = argparse.ArgumentParser(prog="ddbp")
    commands = whole.add_subparsers()
    for name, run in commands_by_name.items():
        parser = _parser_of(name, run)
        recipes = [each for each in parser._actions if each.dest == "recipe" and each.choices]
        if not recipes:
            _add(commands, name, parser, files)
            continue
        of_recipes = commands.add_parser(name, help=parser.description).add_subparsers()
        for recipe in recipes[0].choices or ():
            _add(of_recipes, recipe, _parser_of(name, run, recipe), files)
    commands.add_parser("version", help="print the version")
    return whole


def _add(commands: Any, name: str, parser: argparse.ArgumentParser, files: Any) -> None:
    """Add a command with what its parser knows."""
    known: dict[str, Any] = {"parents": [parser], "add_help": False, "help": parser.description}
    made: Any = commands.add_parser(name, **known)
    for action in made._actions:
        if not action.option_strings and not action.choices:
            action.complete = files


def _parser_of(name: str, run: Run, *recipe: str) -> argparse.ArgumentParser:
    """Return the parser of a command, or of a recipe of it, which makes it when it runs."""
    with _caught(" ".join(("ddbp", name, *recipe)) if recipe else ""):
        try:
            run([*recipe])
        except _Found as found:
            return found.parser
    raise AssertionError(f"{run.__module__} parses no arguments")


@contextmanager
def _caught(program: str) -> Iterator[None]:
    """Return a context in which a parser that is to parse, of a program if one is named, is raised
    instead.
    """
    kind: Any = argparse.ArgumentParser
    parse = kind.parse_known_args

    def found(parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> Any:
        # Without help, it is a part of one that comes later.
        if not program or (parser.prog == program and parser.add_help):
            raise _Found(parser)
        return parse(parser, *arguments, **options)

    kind.parse_known_args = found
    try:
        yield
    finally:
        kind.parse_known_args = parse
