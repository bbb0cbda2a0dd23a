"""What a model computes products in, and keeps for backward in: float32, or numbers of 16 bits."""

from typing import Any

import numpy as np

from .checks import one_of
from .engine.module import Module
from .engine.precision import BF16, BF16_DOT, BF16X3, FLOAT32, HALF
from .errors import message
from .kernels.llvm.simd_bf16 import HAS_DOTS

_OWNER = "set_precision"
PRECISIONS = {each.name: each for each in (FLOAT32, BF16, BF16_DOT, BF16X3, HALF)}
"""By name. See `set_precision`."""


def set_precision(model: Module, precision: str) -> None:
    """Choose what the products of a model's layers are computed in, and what layers keep for
    backward, in training and prediction, from now on.

    With bfloat16 the operands of a product (inputs, weights, gradients of outputs) are rounded to
    8 bits of mantissa, and its sums are float32: so are weights, outputs, gates, states and all
    gradients of parameters. Which products, and in which order: docs/precision.md. With float16 all
    products are float32: only what is kept for backward has 11 bits of mantissa, and reaches from
    6e-8 to 65504.

    With "bf16x3" the operands of dense and recurrent layers and tree cells are split into two
    bfloat16 numbers, for products that are off by about 4e-6 of their size, 15 times as much as in
    float32: for processors with matrix hardware, and slower than float32 on all others.

    Parameters
    ----------
    model
        A float32 model.
    precision
        "float32"; "bf16", in the order of Intel's TDPBF16PS: the same bits on every processor;
        "bf16-dot", in the order of VDPBF16PS, twice as fast on processors that have it (AMD since
        Zen 4), other bits than "bf16"; "bf16x3", the same bits on every processor; "float16", which
        saves memory and no time.

    Raises
    ------
    TypeError
        No model.
    ValueError
        Another name, a model of another dtype, or a processor without what is asked for.
    """
    given: Any = model
    if not isinstance(given, Module):
        must, fix = "model must be a layer or a model of layers", "Pass it first: (model, 'bf16')."
        raise TypeError(message(_OWNER, must, repr(given), fix))
    one_of(_OWNER, "precision", precision, (*PRECISIONS,), "'float32' is usual.")
    chosen = PRECISIONS[precision]
    if chosen is BF16_DOT and not HAS_DOTS:
        must, fix = "this processor must have AVX512-BF16", "Pass 'bf16': it needs nothing."
        raise ValueError(message(_OWNER, must, "one without it", fix))
    for name, parameter in () if chosen is FLOAT32 else model.named_parameters():
        if parameter.value.dtype != np.float32:
            must, fix = f"{precision} takes a float32 model", "Make it with dtype=np.float32."
            got = f"{parameter.value.dtype} in {name}"
            raise ValueError(message(_OWNER, must, got, fix))
    for _, layer in model.named_layers():
        layer.precision = chosen
