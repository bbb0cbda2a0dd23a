"""Compiled functions and their cache."""

import importlib
import pkgutil

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import layers.kernels
from layers.engine.memory import contiguous
from layers.kernels import cache, gemm
from layers.kernels.jit import inlined, kernel


def test_no_two_compiled_functions_have_one_name():
    # Functions of one name that different processes have cached may be taken for each other, which
    # corrupts memory.
    functions = {}
    for module in pkgutil.walk_packages(layers.kernels.__path__, "layers.kernels."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Dispatcher):
                functions.setdefault(
                    (value.py_func.__module__, value.py_func.__qualname__), set()
                ).add(value)
    assert len(functions) > 100
    assert {name for name, same in functions.items() if len(same) > 1} == set()


def test_helper_is_called_by_kernels_and_refuses_python():
    @inlined
    def square(x):
        return x * x

    def squares(y, x):
        """Writes y = x²."""
        for i in range(y.size):
            y[i] = square(x[i])

    def assert_refused():
        with pytest.raises(
            TypeError,
            match=(
                r"a helper must be called by a kernel; got a call from Python\. Call it in a"
                r" @kernel"
            ),
        ):
            square(3.0)

    assert_refused()
    x = np.arange(5.0)
    y = np.empty_like(x)
    kernel(squares, cache=False)(y, x)
    assert (y == x * x).all()
    # Now there is code for this type, none of which Python could call.
    assert_refused()


def test_kernel_refuses_arrays_that_it_would_read_elsewhere():
    def double(y, x):
        """Writes y = 2 x."""
        for i in range(y.size):
            y[i] = 2 * x[i]

    doubled, x = kernel(double, cache=False), np.arange(12.0)
    read_only = x.copy()
    read_only.flags.writeable = False
    wrong = (x[::2], x[::-1], read_only, np.broadcast_to(x[:1], 12), x.reshape(4, 3).T)
    for each in wrong:
        with pytest.raises(TypeError, match=r"double: arrays must be contiguous .* as x\."):
            doubled(np.empty(each.size), each)
        doubled(np.empty(each.size), contiguous(each).reshape(-1))
    assert len(doubled.overloads) == 1


def test_edit_compiles_only_kernels_that_it_reaches(monkeypatch):
    def digests():
        cache.module_digest.cache_clear()
        return {
            path.relative_to(cache.ROOM).as_posix(): cache.module_digest(path)
            for path in cache.sources()
        }

    before, read = digests(), cache._content
    monkeypatch.setattr(
        cache, "_content", lambda path: read(path) + b"# edited" * (path.name == "gemm.py")
    )
    changed = {name for name, digest in digests().items() if digest != before[name]}
    cache.module_digest.cache_clear()
    assert {"gemm.py", "dense.py", "recurrent.py", "attention.py"} <= changed
    assert not {"pool.py", "optimizer.py", "batch_norm.py", "jit.py", "llvm/simd.py"} & changed


def test_edit_of_what_keeps_machine_code_compiles_nothing():
    for keeper in ("cache.py", "cache_folder.py"):
        assert cache.closure(cache.ROOM / "gemm.py").isdisjoint({cache.ROOM / keeper})
    assert cache.ROOM / "jit.py" in cache.closure(cache.ROOM / "gemm.py")


def test_machine_code_lies_in_a_folder_of_its_file_and_digest():
    digest = cache.module_digest(cache.ROOM / "gemm.py")
    assert gemm.multiply.stats.cache_path == str(cache.CACHE_FOLDER / f"gemm-{digest}")


def test_helper_is_compiled_once_for_literals_and_variables():
    @inlined
    def scaled(x, factor, negative):
        return -factor * x if negative else factor * x

    def scale(y, x, factor, negative):
        """Writes y = factor x, -factor x if so said, and 2 x + 0 x."""
        for i in range(x.size):
            y[0, i] = scaled(x[i], factor, negative)
            y[1, i] = scaled(x[i], 2, False) + scaled(x[i], 0, True)

    x, y = np.arange(5.0), np.empty((2, 5))
    kernel(scale, cache=False)(y, x, 3, True)
    assert (y == [-3 * x, 2 * x]).all()
    assert len(scaled.overloads) == 1


SHARED = """
import numpy as np
from numba.core import event
from layers.kernels.jit import inlined, kernel, shared

class Compiled(event.Listener):
    names = []
    def on_start(self, event):
        self.names.append(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event):
        pass

event.register("numba:compile", Compiled())

@shared
def add(y, x, factor):
    for i in range(x.size):
        y[i] += factor * x[i]

@inlined
def add_twice(y, x):
    add(y, x, 2)

@kernel
def first(y, x):
    add(y, x, 1)
    add_twice(y, x)

@kernel
def second(y, x):
    add_twice(y, x)

y, x = np.zeros(9), np.arange(9.0)
first(y, x)
second(y, x)
assert (y == 5 * x).all(), y
print(*sorted(name for name in Compiled.names if name != "impl"))
"""


def test_kernels_refer_to_one_machine_code_of_a_shared_helper(run_python, tmp_path):
    program = tmp_path / "shared_helper.py"
    program.write_text(SHARED)

    def compiled():
        done = run_python(program, NUMBA_CACHE_DIR=str(tmp_path))
        assert done.status == 0, done.err
        return done.out.split()

    assert compiled() == ["add", "add_twice", "first", "second"]
    assert compiled() == []
    # Without the helper's code, the kernels' would lead nowhere: it is compiled before they load.
    (code,) = tmp_path.rglob("shared_helper.add-*.code")
    code.unlink()
    assert compiled() == ["add"]
