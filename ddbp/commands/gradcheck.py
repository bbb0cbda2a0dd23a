"""`ddbp gradcheck`: the gradients of all layers and the mutation score, or the gradients of a layer
of the user's own.
"""

import argparse
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import layers
from ddbp import terminal, written
from layers.errors import is_worded, message

_OWNER = "ddbp gradcheck"
# Tried in this order where neither the layer nor the command line says which inputs it takes.
_SHAPES = ((4, 3), (4, 5, 3), (4, 6, 6, 3))

DESCRIPTION = """Check the gradients of all layers, and how many of a list of deliberately wrong
ones the check catches; or check a layer of your own. TARGET is module:Name or path/to/file.py:Name,
where Name is a layer, a class without arguments, a function of values, or a function without
arguments that returns a layer, or (layer, input, ...). The inputs come from the layer's
example_inputs(), if it has that method, or else are random, of the given shapes."""


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status: 0 if every gradient is right and every wrong one was
    caught.
    """
    parser = argparse.ArgumentParser(prog="ddbp gradcheck", description=DESCRIPTION)
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="module:Name or path/to/file.py:Name; all layers unless given",
    )
    parser.add_argument(
        "--shape",
        action="append",
        type=_shape,
        default=[],
        metavar="4,3",
        help="shape of an input; repeat it for several inputs",
    )
    parser.add_argument(
        "--all", dest="details", action="store_true", help="print the whole report of every check"
    )
    parser.add_argument(
        "--seed", type=written.integer, default=0, help="of inputs, cotangents and directions"
    )
    options = parser.parse_args(list(arguments))
    console = terminal.console()
    if options.target is None:
        return _check_table(console, options)
    try:
        name, layer, inputs = _load(options.target, options.shape, options.seed)
        report = layers.gradcheck(layer, *inputs, seed=options.seed)
    except Exception as error:
        print(_told(options.target, error), file=sys.stderr)
        return 2
    console.print(_table([(name, report)]))
    console.print(str(report))
    return 0 if report.passed else 1


def _told(target: str, error: Exception) -> str:
    """Return what is said of an error: where it was in code that is not ours, and what it was."""
    if is_worded(error):
        return str(error)
    ours = tuple(f"{path}{os.sep}" for path in (Path(__file__).parents[1], *layers.__path__))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith((*ours, "<frozen"))]
    fix = "Mend it, or give other inputs by --shape or example_inputs()."
    got = f"{type(error).__name__}: {error}"
    return "".join(traceback.format_list(theirs)) + message(_OWNER, f"{target} must run", got, fix)


# ---- all layers


def _check_table(console: Any, options: argparse.Namespace) -> int:
    from layers.gradient_check.cases import CASES
    from layers.gradient_check.mutants import mutation_score

    rows = []
    with console.status(
        "compiling kernels and checking gradients (the first time takes a minute) …"
    ):
        for case in CASES:
            rng = np.random.default_rng(options.seed)
            made, inputs = case.make(rng), case.inputs(rng)
            report = layers.gradcheck(
                made, *inputs, constant=case.constant, training=case.training, seed=options.seed
            )
            rows.append((case.name, report))
        score = mutation_score(options.seed)
    console.print(_table(rows))
    for name, report in rows:
        if options.details or not report.passed:
            console.print(f"{name}: {report}")
    if options.details:
        mutants = Table("mutant", "revealed by", box=SIMPLE_HEAD)
        for name, what in score.revealed_by.items():
            mutants.add_row(name, what or Text("nothing", "red"))
        console.print(mutants)
    for name, what in score.revealed_by.items():
        if not what:
            console.print(Text("not caught:", "red"), name)
    right = sum(report.passed for _, report in rows)
    console.print(f"gradients: {right}/{len(rows)} cases right")
    console.print(str(score))
    return 0 if right == len(rows) and score.passed else 1


def _table(rows: Sequence[tuple[str, layers.GradientReport]]) -> Table:
    """Return a table of one line per case."""
    table = Table(
        "layer or case",
        "blocks",
        "method",
        "worst error",
        "order",
        "verdict",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in table.columns:
        column.overflow = "fold"
    for name, report in rows:
        blocks = report.blocks
        methods = sorted({block.method.split()[0] for block in blocks})
        orders = [block.order for block in blocks if block.order is not None]
        # Of several orders the one that is farthest from 2 is the news.
        order = (
            f"{max(orders, key=lambda p: abs(p - 2)):.2f}" if orders else "exact" if blocks else "-"
        )
        bad = sorted({block.verdict for block in blocks if not block.passed})
        fine = "kink" if any(block.verdict == "kink" for block in blocks) else "ok"
        verdict = Text(fine, "green")
        if not report.passed:
            verdict = Text(", ".join(bad) or "fault", "red")
        error = f"{report.error:.1e}" if blocks else "-"
        table.add_row(
            name,
            str(len(blocks)),
            ", ".join(methods) or "-",
            error,
            order.replace("-0.00", "0.00"),
            verdict,
        )
    return table


# ---- a layer of the user's own


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(written.integer(size) for part in text.split(",") if (size := part.strip()))
    except ValueError:
        shape = (-1,)
    if any(size < 0 for size in shape):
        raise argparse.ArgumentTypeError(
            message(
                "--shape", "a shape must be sizes with commas", repr(text), "Write --shape 4,3."
            )
        )
    return shape


def _load(
    target: str, shapes: Sequence[tuple[int, ...]], seed: int
) -> tuple[str, Callable[..., Any], tuple[Any, ...]]:
    """Return the name, the layer and the inputs of a target."""
    place, separator, name = target.rpartition(":")
    if not separator or not place or not name:
        fix = "Write mymodule:MyLayer or path/to/file.py:MyLayer."
        raise ValueError(message(_OWNER, "the target must be MODULE:NAME", repr(target), fix))
    found = _module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            known = (
                ", ".join(sorted(key for key in vars(found) if not key.startswith("_")))
                if hasattr(found, "__dict__")
                else ""
            )
            fix = f"Names there are: {known or 'none'}."
            raise ValueError(message(_OWNER, f"{place} must define {name}", f"no {part}", fix))
        found = getattr(found, part)
    layer, inputs = _instance(name, found)
    if inputs is None and hasattr(layer, "example_inputs"):
        given = layer.example_inputs()
        inputs = tuple(given) if isinstance(given, tuple | list) else (given,)
    rng = np.random.default_rng(seed)
    if shapes:
        inputs = tuple(rng.standard_normal(shape) for shape in shapes)
    return name, layer, _guessed(name, layer, rng) if inputs is None else inputs


def _module(place: str) -> Any:
    """Import a module by name or by path, with the current folder on the path."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != place.split(".")[0]:
                raise
            fix = "Run the command in the folder that holds it, or give the path of the file."
            raise ImportError(
                message(_OWNER, "the module must be importable", repr(place), fix)
            ) from None
    path = Path(place).resolve()
    if not path.is_file():
        raise ImportError(
            message(_OWNER, "the file must exist", repr(place), f"The current folder is {folder}.")
        )
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _instance(name: str, found: Any) -> tuple[Callable[..., Any], tuple[Any, ...] | None]:
    """Return the layer, and the inputs if they come with it."""
    if isinstance(found, layers.Module) or (
        callable(found) and not isinstance(found, type) and _needs_arguments(found)
    ):
        return found, None
    if not callable(found):
        fix = "Name a layer, a class, or a function that returns (layer, input, …)."
        raise TypeError(
            message(_OWNER, f"{name} must be a layer or make one", type(found).__name__, fix)
        )
    try:
        made = found()
    except TypeError as error:
        fix = (
            f"Write a function without arguments that returns ({name}(…), input, …), and name that."
        )
        raise TypeError(
            message(
                _OWNER,
                f"{name} must be constructible without arguments",
                f"TypeError: {error}",
                fix,
            )
        ) from error
    parts = made if isinstance(made, tuple) else (made,)
    if not parts or not callable(parts[0]):
        fix = "Return the layer, or (layer, input, …)."
        raise TypeError(
            message(
                _OWNER,
                f"{name}() must return a layer, and its inputs if any",
                type(made).__name__,
                fix,
            )
        )
    return parts[0], tuple(parts[1:]) or None


def _needs_arguments(function: Callable[..., Any]) -> bool:
    """Return whether a function cannot be called without arguments: then it is the function of
    values to be checked.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        p.default is p.empty and p.kind in kinds
        for p in inspect.signature(function).parameters.values()
    )


def _guessed(name: str, layer: Callable[..., Any], rng: np.random.Generator) -> tuple[Any, ...]:
    """Return an input of the first usual shape that the layer takes."""
    reasons = []
    converted = layer.astype(np.float64) if isinstance(layer, layers.Module) else layer
    for shape in _SHAPES:
        x = rng.standard_normal(shape)
        try:
            converted(layers.Tape(training=True).input(x))
        except Exception as error:  # any layer may refuse in its own way; the message repeats it
            reasons.append(
                f"{shape}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            )
        else:
            return (x,)
    fix = "Say --shape 4,7 (once per input), or give the layer a method example_inputs()."
    raise ValueError(
        message(_OWNER, f"{name} needs inputs that it accepts", "; ".join(reasons), fix)
    )
