"""Runs of every layer of the table `layers.gradient_check.cases.CASES`."""

import numpy as np
import pytest

import layers
from layers import Tape
from layers.gradient_check.cases import BATCH, CASES, FAMILY

LAYERS = {case.name: case.make(np.random.default_rng(0)) for case in CASES}
WITH_PARAMETERS = [case for case in CASES if LAYERS[case.name].parameters()]


def of_cases(cases):
    """Return the mark of a test of cases, which are named with their family: by that they are
    spread over processes.
    """
    cases = list(cases)
    names = [f"{FAMILY[case.name]}: {case.name}" for case in cases]
    return pytest.mark.parametrize("case", cases, ids=names)


every, trained = of_cases(CASES), of_cases(WITH_PARAMETERS)
per_sample = of_cases(case for case in CASES if case.per_sample)
joining = of_cases(
    case
    for case in CASES
    if case.name in ("Add", "Multiply", "MeanSquaredError", "maximum", "where")
)


def make(case, dtype=np.float32):
    """Return the layer and its inputs in a dtype, always the same ones."""
    rng = np.random.default_rng(3)
    layer = case.make(rng).astype(dtype)
    return layer, tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in case.inputs(rng))


def gradient_of(case, y, dtype=np.float32):
    """Return the gradient of an output, the same for the same shape."""
    return np.asarray(np.random.default_rng(4).uniform(0.5, 1.5, y.shape), dtype)


def recorded(case, tape, inputs):
    """Return the inputs as a layer gets them: floating arrays as values, or the first array where
    there is none.
    """
    floating = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"] or [0]
    return [
        tape.input(x, gradient=i not in case.constant) if i in floating else x
        for i, x in enumerate(inputs)
    ]


class Run:
    """A forward and a backward pass, with copies of everything that came out."""

    def __init__(self, case, layer, inputs, dy=None, keep=False, **options):
        if not keep:
            for parameter in layer.parameters():
                parameter.forget_gradients()
        tape = Tape(training=case.training, **options)
        values = recorded(case, tape, inputs)
        y = layer(*values)
        self.y = y.array.copy()
        self.dy = gradient_of(case, y, y.dtype) if dy is None else dy
        y.backward(self.dy)
        self.dx = [
            np.array(v.grad) if isinstance(v, layers.Value) and v.wants else None for v in values
        ]
        self.gradients = [np.array(parameter.gradients) for parameter in layer.parameters()]

    def same_bits(self, other):
        pairs = [
            (self.y, other.y),
            *zip(self.dx, other.dx, strict=True),
            *zip(self.gradients, other.gradients, strict=True),
        ]
        return all(a is b or (a.shape == b.shape and a.tobytes() == b.tobytes()) for a, b in pairs)


def rows(inputs, start, stop):
    """Cut the inputs whose axis 0 is the batch."""
    return tuple(x[start:stop] if x.ndim and len(x) == BATCH else x for x in inputs)


def close(a, b, roundings):
    scale = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and bool(np.all(np.abs(a - b) <= roundings * np.finfo(a.dtype).eps * scale))
    )
