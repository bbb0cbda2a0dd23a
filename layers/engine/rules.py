"""Rules of learning: what is propagated backwards. Exact backpropagation unless another rule is
given.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from layers.types import Array

from .module import Module
from .parameter import Parameter

if TYPE_CHECKING:
    from .call import Call
    from .value import Value


class KeptGradients(NamedTuple):
    """Which gradients of a layer's outputs a rule keeps: see `Rule.top_k`.

    Attributes
    ----------
    k
        Those of the k largest magnitudes in each row; of equal ones those of the lower columns.
    unified
        Whether all rows of a shard keep the same columns, those of the largest sums of magnitudes.
    """

    k: int
    unified: bool = False


class Rule:
    """A rule of the backward pass, passed as `loss.backward(rule=…)`; this base is exact
    backpropagation.

    Derive from it and override any of the questions; the model stays as it is. What learns by a
    rule for a whole run, as `ddbp.Trainer(rule=…)` does, tells it of the model by `bind`, and asks
    it for the losses of a batch.

    Attributes
    ----------
    bound
        The model that it was bound to last.
    """

    bound: Module | None = None

    def bind(self, model: Module) -> Module | None:
        """Prepare for a model, and refuse one that the rule does not define; return what the rule
        itself has of parameters that are trained with the model's, if anything.
        """
        self.bound = model
        return None

    def losses(self, model: Any, loss: Any, x: Any, *targets: Any) -> "tuple[Value, Value] | None":
        """Return the loss of a batch that is reported, and the value from which the backward pass
        begins, if that is not simply `loss(model(x), *targets)`: else None.
        """
        return None

    def predictor(self, model: Module) -> Module:
        """Return what predicts, and is evaluated, once the rule is bound: the model itself, unless
        the rule has it learn something else.
        """
        return model

    def begin(self, value: "Value", gradient: Array) -> None:
        """Prepare for the backward pass from a value with this gradient."""

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

    def top_k(self, call: "Call", width: int) -> KeptGradients | None:
        """Return which gradients are kept, None for all: of the outputs of a dense layer, of so
        many features, where what belongs to the others is not computed; or of each gate of a
        recurrent layer, of that size, at each step.
        """
        return None

    def backward(self, call: "Call", *dys: Any) -> tuple[Array | None, ...]:
        """Return the gradient of each input of `call`, None where there is none, as
        `Layer.backward` does, which this one asks; there is one dy per output, as `error` has
        answered it.
        """
        return call.layer.backward(call, *dys)

    def state(self) -> dict[str, Array]:
        """Return the arrays of the rule itself that no optimizer changes, by name."""
        return {}

    def load_state(self, state: dict[str, Array]) -> None:
        """Go on with what `state` returned."""
