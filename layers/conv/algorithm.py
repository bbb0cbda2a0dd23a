"""What an algorithm of computing a convolution does: `apply`, the convolution itself; `adjoint`,
which carries a gradient of its output back to its input (and is the forward pass of a transposed
convolution); and `gradient`, of its weight.
"""

from typing import Any

import numpy as np

from layers.types import Array, Integers

from .tables import ConvShape


class ConvAlgorithm:
    """What computes a convolution of one shape.

    Most algorithms compute the adjoint as the convolution, by another plan: these have the plans
    `_forward` and `_backward`, and `_correlate`.
    """

    _forward: Any
    _backward: Any

    takes_words = False
    """Whether `gradient` takes words of bfloat16 for what products would round to them."""

    def __init__(self, shape: ConvShape, dtype: Any) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def image(self) -> tuple[int, ...]:
        """The sizes of the input: rows and columns, and the depth before them of a volume."""
        return self.shape.image

    @property
    def outputs(self) -> tuple[int, ...]:
        """The sizes of the output: rows and columns, and the depth before them of a volume."""
        return self.shape.outputs

    def apply(
        self, call: Any, y: Array, x: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        """Write the convolution of x (N, H, W, C) to y (N, P, Q, K); bias (K,), or empty for
        none.
        """
        self._correlate(call, self._forward, y, x, weight, bias, rectified, transposed=False)

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        """Write the adjoint of the convolution, applied to dy (N, P, Q, K), to dx (N, H, W, C);
        bias (C,), or empty.
        """
        self._correlate(call, self._backward, dx, dy, weight, bias, rectified, transposed=True)

    def _correlate(
        self,
        call: Any,
        plan: Any,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array,
        rectified: bool,
        *,
        transposed: bool,
    ) -> None:
        """Write y, made of x by a plan with the weight, or with its transpose."""
        raise NotImplementedError

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        """Write (or add) the weight's gradient of each shard to dw (S, kernel rows, kernel columns,
        C / groups, K).
        """
        raise NotImplementedError
