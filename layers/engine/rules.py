"""Rules of learning: what is propagated backwards. Exact backpropagation unless another rule is
given.
"""

from typing import TYPE_CHECKING

from layers.types import Array

from .parameter import Parameter

if TYPE_CHECKING:
    from .call import Call


class Rule:
    """A rule of the backward pass, passed as `loss.backward(rule=…)`; this base is exact
    backpropagation.

    Derive from it and override either question; the model stays as it is.
    """

    def error(self, call: "Call", dy: Array) -> Array:
        """Return the gradient that the layer of `call` shall receive instead of `dy`; never write
        into `dy`.
        """
        return dy

    def feedback(self, parameter: Parameter) -> Array:
        """Return the array that carries the error back instead of the parameter's value (same
        shape).
        """
        return parameter.value
