"""Calls what is public with one hostile argument at a time, in a process of its own with little
memory; prints a line of JSON for each call that ends otherwise than it may.

    python attack.py PART [STRIDE]
"""

import inspect
import json
import os
import sys
import tempfile
from functools import partial
from typing import Any

import files
import numpy as np
import pyarrow
import rows
import valid
from hostile import arrays, values
from limits import fault, limit
from pyarrow import parquet

import ddbp
from layers import Value
from layers.gradient_check.cases import CASES, Apply


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
        elif isinstance(row.arguments.get(name), Value):
            hostile = {
                **hostile,
                **{
                    text: valid.value(x)
                    for text, x in arrays(row.arguments[name].array).items()
                    if isinstance(x, np.ndarray)
                    and fault(lambda x=x: valid.value(x)) is None
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
        valid.value(x)
    except (TypeError, ValueError):
        return True
    return False


def ways(part: str) -> Any:
    """Yield names, descriptions and functions for all calls of a part."""
    if part != "inputs":
        for row in rows.PARTS[part]:
            for text, function in calls(row):
                yield row.name, text, function
        return
    for case in CASES:
        rng = np.random.default_rng(3)
        layer = case.make(rng)
        inputs = tuple(x.astype(np.float32) if x.dtype.kind == "f" else x for x in case.inputs(rng))
        for index, x in enumerate(inputs):
            # A case of a function is one of values; any layer is called with anything.
            function = isinstance(layer, Apply)
            hostile = arrays(x) if function else {**values(), **arrays(x)}
            for text, value in hostile.items():
                if function and not (isinstance(value, np.ndarray) and value.dtype.char in "fd"):
                    continue
                given = [value if i == index else each for i, each in enumerate(inputs)]
                yield case.name, f"{index} {text}", partial(valid.passes, layer, *given)
        if not isinstance(layer, Apply):
            yield case.name, "one less", partial(valid.passes, layer, *inputs[1:])
            yield case.name, "one more", partial(valid.passes, layer, *inputs, inputs[0])


def main(part: str, stride: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        ddbp.save_parameters(valid.network(), "good.safetensors")
        np.savez("good.npz", x=valid.ROWS)
        table = pyarrow.table({"x": valid.ROWS[:, 0], "y": valid.LABELS})
        parquet.write_table(table, "good.parquet")
        files.write()
        ddbp.export.save_bundle("good.ddbp", valid.network())
        limit()
        # What is printed meanwhile is none of the report.
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        count = 0
        for number, (name, text, function) in enumerate(ways(part)):
            if number % stride and text != "valid":
                continue
            count += 1
            if found := fault(function, system=True):
                print(json.dumps([name, text, found]), file=out, flush=True)
        print(json.dumps(count), file=out, flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 1)
