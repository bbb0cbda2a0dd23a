"""The cases of operators and functions on values."""

import numpy as np

from layers.engine import operators

from .case import BATCH, Case, distinct, layer, off_zero, positive, real, values

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)

CASES = (
    Case("a + b", values(lambda a, b: a + b + 2), real(_ROWS, (5,))),
    Case("a - b", values(lambda a, b: 1 - (a - b)), real(_ROWS, (5,))),
    Case("a b", values(lambda a, b: 3 * a * b), real(_ROWS, (5,))),
    Case("a / b", values(lambda a, b: a / b + 2 / b), positive(_ROWS, (5,))),
    Case("a ** b", values(lambda a, b: a**b), positive(_ROWS, (5,))),
    Case("a ** 3", values(lambda a: a**3), real(_ROWS)),
    Case("2 ** a", values(lambda a: 2**a), real(_ROWS)),
    Case("-a", values(lambda a: -a), real(_ROWS)),
    Case("abs a", values(lambda a: abs(a)), off_zero(_ROWS)),
    Case("a @ b", values(lambda a, b: a @ b), real(_ROWS, (5, 4))),
    Case("a @ b of stacks", values(lambda a, b: a @ b), real(_DEEP, (BATCH, 4, 2))),
    Case("a @ vector", values(lambda a, b: a @ b), real(_ROWS, (5,))),
    Case("a.T @ b", values(lambda a, b: a.T @ b), real(_ROWS, (BATCH, 4)), per_sample=False),
    Case("a[1:4]", values(lambda a: a[1:4]), real(_ROWS), per_sample=False),
    Case("a[..., indices]", values(lambda a: a[..., [3, 3, 0]]), real(_ROWS)),
    Case("sum", values(lambda a: a.sum()), real(_ROWS), per_sample=False),
    Case("sum over axes", values(lambda a: a.sum(axis=(1, -1), keepdims=True)), real(_DEEP)),
    Case("mean", values(lambda a: a.mean()), real(_ROWS), per_sample=False),
    Case("mean over an axis", values(lambda a: a.mean(axis=1)), real(_DEEP)),
    Case("max", values(lambda a: a.max()), distinct(_ROWS), per_sample=False),
    Case("max over an axis", values(lambda a: a.max(axis=1)), distinct(_DEEP)),
    Case("min over an axis", values(lambda a: a.min(axis=-1, keepdims=True)), distinct(_DEEP)),
    Case("reshape", values(lambda a: a.reshape(-1, 12)), real(_DEEP)),
    Case("transpose", values(lambda a: a.transpose(0, 2, 1)), real(_DEEP)),
    Case("exp", layer(lambda: operators.exp), real(_ROWS)),
    Case("log", layer(lambda: operators.log), positive(_ROWS)),
    Case("sqrt", layer(lambda: operators.sqrt), positive(_ROWS)),
    Case("sin", layer(lambda: operators.sin), real(_ROWS)),
    Case("cos", layer(lambda: operators.cos), real(_ROWS)),
    Case("tanh", layer(lambda: operators.tanh), real(_ROWS)),
    Case("maximum", values(lambda a, b: operators.maximum(a, b)), distinct(_ROWS, _ROWS)),
    Case("minimum", values(lambda a, b: operators.minimum(a, b)), distinct(_ROWS, _ROWS)),
    Case("where", values(lambda a, b: operators.where(np.arange(5) > 2, a, b)), real(_ROWS, _ROWS)),
)
