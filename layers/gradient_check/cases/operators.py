"""The cases of operators and functions on values."""

from typing import Any

import numpy as np

from layers.engine import operators
from layers.types import Array

from .case import BATCH, Case, Generator, distinct, off_zero, positive, real, values

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)


def _joined(parts: Any) -> Any:
    return operators.concatenate([part * (i + 1) for i, part in enumerate(parts)], axis=-1)


def _with_zeros(rng: Generator) -> tuple[Array, ...]:
    """Draw products of 12 factors (3,), of which the second has one 0 and the third two."""
    x = rng.uniform(0.5, 2, (4, 3, 3))
    x[1, 1, 0] = x[2, 2, 1] = x[3, 2, 0] = 0
    return (x,)


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
    Case("exp", values(operators.exp), real(_ROWS)),
    Case("log", values(operators.log), positive(_ROWS)),
    Case("sqrt", values(operators.sqrt), positive(_ROWS)),
    Case("sin", values(operators.sin), real(_ROWS)),
    Case("cos", values(operators.cos), real(_ROWS)),
    Case("tanh", values(operators.tanh), real(_ROWS)),
    Case("maximum", values(operators.maximum), distinct(_ROWS, _ROWS)),
    Case("minimum", values(operators.minimum), distinct(_ROWS, _ROWS)),
    Case("where", values(lambda a, b: operators.where(np.arange(5) > 2, a, b)), real(_ROWS, _ROWS)),
    Case("a[mask]", values(lambda a: a[np.arange(5) % 2 == 0, :]), real((5, 3)), per_sample=False),
    Case("expm1", values(operators.expm1), real(_ROWS)),
    Case("log1p", values(operators.log1p), positive(_ROWS)),
    Case("erf", values(operators.erf), real(_ROWS)),
    Case("clip", values(lambda a: operators.clip(a, -1.05, 1.05)), distinct(_ROWS)),
    Case("var", values(lambda a: operators.var(a, axis=(0, 2), ddof=1)), real((5, 3, 4)), False),
    Case("var of samples", values(lambda a: a.var(axis=-1, keepdims=True)), real(_DEEP)),
    Case("std", values(lambda a: operators.std(a, axis=-1, ddof=1)), real(_DEEP)),
    Case("norm", values(operators.norm), real(_ROWS), per_sample=False),
    Case("norm of samples", values(lambda a: operators.norm(a, axis=(1, 2))), real(_DEEP)),
    Case("norm of order 1", values(lambda a: operators.norm(a, 1, 1)), off_zero(_ROWS)),
    Case("norm of order inf", values(lambda a: operators.norm(a, np.inf, 1)), distinct(_ROWS)),
    Case("prod", values(lambda a: operators.prod(a, axis=1)), off_zero(_DEEP)),
    Case("prod with zeros", values(lambda a: operators.prod(a, (0, 2), True)), _with_zeros, False),
    Case("cumsum", values(lambda a: operators.cumsum(a, axis=1)), real(_DEEP)),
    Case("cumsum of all", values(operators.cumsum), real((5, 3)), per_sample=False),
    Case("logsumexp", values(lambda a: operators.logsumexp(a, axis=-1)), real(_DEEP)),
    Case("top_k", values(lambda a: operators.top_k(a, 2, axis=1)[0]), distinct(_DEEP)),
    Case("sort", values(lambda a: operators.sort(a, axis=1)), distinct(_DEEP)),
    Case(
        "take_along_axis",
        values(lambda a: operators.take_along_axis(a, np.array([[3, 3, 0]]), axis=1)),
        real(_ROWS),
    ),
    Case(
        "concatenate", values(lambda a, b: operators.concatenate([a, b, a], 1)), real(_ROWS, _ROWS)
    ),
    Case("stack", values(lambda a, b: operators.stack([a, b], axis=-1)), real(_ROWS, _ROWS)),
    Case("split", values(lambda a: _joined(operators.split(a, [1, 3], axis=-1))), real(_DEEP)),
    Case("squeeze", values(lambda a: operators.squeeze(a, 1)), real((BATCH, 1, 3))),
    Case("expand_dims", values(lambda a: operators.expand_dims(a, (1, -1))), real(_ROWS)),
    Case(
        "broadcast_to",
        values(lambda a: operators.broadcast_to(a, (BATCH, 3, 4))),
        real((3, 1)),
        False,
    ),
    Case("swapaxes", values(lambda a: operators.swapaxes(a, 1, 2)), real(_DEEP)),
    Case("moveaxis", values(lambda a: operators.moveaxis(a, -1, 1)), real((BATCH, 2, 3, 4))),
    Case("flip", values(lambda a: operators.flip(a, axis=-1)), real(_DEEP)),
    Case("roll", values(lambda a: operators.roll(a, 2, axis=1)), real(_ROWS)),
    Case("repeat", values(lambda a: operators.repeat(a, [1, 0, 2], axis=1)), real(_DEEP)),
    Case("tile", values(lambda a: operators.tile(a, (1, 2, 1, 3))), real(_DEEP), per_sample=False),
    Case(
        "pad",
        values(lambda a: operators.pad(a, ((0, 0), (1, 2), (0, 1)), constant_values=3)),
        real(_DEEP),
    ),
    Case(
        "pad by reflection",
        values(lambda a: operators.pad(a, [[0, 0], [2, 1]], "reflect")),
        real(_ROWS),
    ),
    Case(
        "einsum",
        values(lambda a, b: operators.einsum("nij,jk->kni", a, b)),
        real(_DEEP, (4, 2)),
        False,
    ),
    Case(
        "einsum of stacks",
        values(lambda a, b: operators.einsum("nij,njl->nl", a, b)),
        real(_DEEP, (BATCH, 4, 2)),
    ),
    Case("einsum of one", values(lambda a: operators.einsum("nij->ji", a)), real((5, 3, 4)), False),
    Case("astype", values(lambda a: a.astype(a.dtype)), real(_ROWS)),
)
