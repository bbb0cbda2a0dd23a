"""The layer contract: a forward, and the backward that belongs to it."""

from typing import TYPE_CHECKING, Any

from numpy import ndarray
from numpy.ma import MaskedArray

from layers.checks import require_numbers, require_unmasked
from layers.errors import worded
from layers.kernels import underflow
from layers.types import Array

from .forward_call import ForwardCall
from .inference import INFERENCE
from .module import Module

if TYPE_CHECKING:
    from .call import Call
    from .tape import Tape


class Recorded:
    """What a tape hands out in place of an array; `layers.Value` is the only one."""

    __slots__ = ()
    tape: "Tape"
    array: Array
    wants: bool


class Layer(Module):
    """A differentiable function with parameters, and `State` only where training itself changes it.

    Arrays in, array out, and nothing is recorded. If any input is a `Value`, the call is recorded
    on its tape and the result is a `Value`. Because what backward needs is kept by the call, one
    layer may be used many times in one graph.

    A layer of your own defines `forward` and `backward`; parameters are attributes of type
    `Parameter`:

    >>> class Scale(Layer):
    ...     def __init__(self, features):
    ...         self.gain = Parameter(np.ones(features, np.float32))
    ...     def forward(self, call, x):
    ...         call.save(x)
    ...         return x * self.gain.value
    ...     def backward(self, call, dy):
    ...         (x,) = call.saved
    ...         for gradient, rows in call.shards(self.gain, dy):
    ...             gradient += (dy[rows] * x[rows]).sum(axis=0)
    ...         return (dy * call.feedback(self.gain),)
    """

    analytic: bool = False
    """Whether forward also takes complex arrays and is then analytic: the gradient check can use a
    complex step.
    """

    keeps_constants: bool = True
    """Whether backward may read inputs that are no values: a recorded call then gets copies of such
    arrays, so that it does not matter what becomes of them.
    """

    elementwise: bool = False
    """Whether each number of the output depends on those at its place alone, as inputs broadcast:
    it does not matter then on which axis samples lie.
    """

    call_kind: "type[Call] | None" = None
    """The class of its recorded calls, if it is one of its own."""

    def forward(self, call: ForwardCall, *inputs: Any) -> Any:
        """Return the output for the input arrays, or a tuple of outputs; what backward needs goes
        to `call.save`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(call, *inputs)")

    def answer(self, call: ForwardCall, *inputs: Any) -> Any:
        """Return what `forward` does; where a layer of this package cannot take its inputs, the
        error says so in our words.
        """
        try:
            return self.forward(call, *inputs)
        except Exception as error:
            ours = worded(self, error) if self.__module__.startswith("layers.") else error
            if ours is error:
                raise
            raise ours from error

    def backward(self, call: "Call", dy: Any, *further: Any) -> tuple[Array | None, ...]:
        """Return the gradient of each input (None where there is none), and add those of the
        parameters to `call`'s.

        There is one dy per output, None for an output that nobody used if there are several. `dy`
        must not be written to.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward(call, dy)")

    def flops(self, y: Any, *inputs: Any) -> int:
        """Return the floating-point operations of the products in the forward that gave y, or a
        tuple of outputs, for the input arrays: 2 for each multiplication and addition. 0 unless
        defined.

        Those of matrix products, convolutions and attention are meant, as in PyTorch's
        `FlopCounterMode`, not what is done element by element. See `layers.summary`.
        """
        return 0

    def __call__(self, *inputs: Any) -> Any:
        for x in inputs:
            if isinstance(x, Recorded):
                return x.tape.record(self, inputs)
            if isinstance(x, ndarray):
                require_numbers(self, x, or_complex=self.analytic and x is inputs[0])
                if isinstance(x, MaskedArray):
                    require_unmasked(self, "x", x)
        mode = underflow.flush()
        try:
            return self.answer(INFERENCE, *inputs)
        finally:
            underflow.restore(mode)
