"""Rules of learning: what is propagated backwards. Exact backpropagation unless another rule is
given.
"""

from typing import TYPE_CHECKING, Any

from layers.types import Array

from .parameter import Parameter

if TYPE_CHECKING:
    from .call import Call


class Rule:
    """A rule of the backward pass, passed as `loss.backward(rule=…)`; this base is exact
    backpropagation.

    Derive from it and override any of the questions; the model stays as it is.
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

    def backward(self, call: "Call", *dys: Any) -> tuple[Array | None, ...]:
        """Return the gradient of each input of `call`, None where there is none, as
        `Layer.backward` does, which this one asks; there is one dy per output, as `error` has
        answered it.
        """
        return call.layer.backward(call, *dys)
