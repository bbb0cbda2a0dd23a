"""The contract of memory: no layout of an input, of dy or of gradients matters, and no kernel reads
or writes beside its arrays.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

import layers

from .contract import WITH_PARAMETERS, Run, every, gradient_of, make, of_cases

GUARDED = Path(__file__).with_name("guarded.py")


def foreign(shape, dtype):
    """Return memory that nobody may read, full of what would be seen in a result."""
    worst = {"f": np.nan, "b": True}.get(dtype.kind)
    return np.full(shape, np.iinfo(dtype).max if worst is None else worst, dtype)


def spaced(x):
    room = foreign([2 * size for size in x.shape], x.dtype)[(slice(None, None, 2),) * x.ndim]
    room[...] = x
    return room


def rows_apart(x):
    room = foreign((*x.shape[:-1], x.shape[-1] + 3), x.dtype)[..., 1:-2]
    room[...] = x
    return room


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def unaligned(x):
    room = np.ndarray(x.shape, x.dtype, np.empty(x.nbytes + 1, np.uint8).data, offset=1)
    room[...] = x
    return room


LAYOUTS = {
    "every second element of every axis": spaced,
    "rows apart": rows_apart,
    "reversed": lambda x: np.flip(np.flip(x).copy()),
    "Fortran order": lambda x: x.copy(order="F"),
    "read-only": read_only,
    "unaligned": unaligned,
    "the first sample again and again": lambda x: np.broadcast_to(x[:1], x.shape),
}


@every
def test_layout_of_inputs_and_dy_does_not_matter(case):
    layer, inputs = make(case)
    for name, layout in LAYOUTS.items():
        given, plain = (
            tuple(f(x) if x.ndim else x for x in inputs)
            for f in (layout, lambda x, layout=layout: layout(x).copy(order="C"))
        )
        y = Run(case, layer, plain).y
        dy = gradient_of(case, y)
        dy = layout(dy) if y.ndim else dy
        expected = Run(case, layer, plain, dy.copy(order="C"))
        assert Run(case, layer, given, dy).same_bits(expected), name


@of_cases(case for case in WITH_PARAMETERS if case.per_shard)
def test_gradients_of_shards_may_lie_apart(case):
    layer, inputs = make(case)
    bounds = (0, 2, 5, 7)
    together = Run(case, layer, inputs, shards=bounds)
    flat = layers.FlatParameters(layer, shards=3)
    assert Run(case, layer, inputs, shards=bounds, keep=True).same_bits(together)
    between = np.ones(flat.gradients.shape[1], bool)
    for _, _, start, stop in flat.segments():
        between[start:stop] = False
    assert not flat.gradients[:, between].any()


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_no_case_reads_or_writes_beside_its_arrays(run_python):
    finished = run_python(GUARDED, timeout=600)
    assert finished.out.splitlines()[-1:] == ["done"], (finished.out[-500:], finished.err[-2000:])
