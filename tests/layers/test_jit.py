"""Compiled functions and their cache."""

import importlib
import pkgutil

from numba.core.dispatcher import Dispatcher

import layers.kernels


def test_no_two_compiled_functions_have_one_name():
    # Functions of one name that different processes have cached may be taken for each other, which corrupts memory.
    functions = {}
    for module in pkgutil.iter_modules(layers.kernels.__path__):
        for value in vars(importlib.import_module(f"layers.kernels.{module.name}")).values():
            if isinstance(value, Dispatcher):
                functions.setdefault((value.py_func.__module__, value.py_func.__qualname__), set()).add(value)
    assert len(functions) > 100
    assert {name for name, same in functions.items() if len(same) > 1} == set()
