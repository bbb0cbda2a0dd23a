"""Direct rules: the error of the output, or the target, goes to every layer at once."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.engine.value import Value
from layers.errors import message
from layers.loss.base import Loss
from layers.types import Array

from .base import LearningRule, carrying_weight, parameters_only, product

if TYPE_CHECKING:
    from layers.engine.call import Call


class DirectFeedbackAlignment(LearningRule):
    """Direct feedback alignment (Nøkland 2016, "Direct feedback alignment provides learning in deep
    neural networks", NeurIPS, arXiv 1609.01596): the input of every layer with weights receives B
    e, the error e of the network's output by a fixed random matrix, in place of what the layers
    after it send back.

    Between two layers with weights, through activations and pooling, errors propagate exactly. The
    output is that of the layer with weights that ran last. Where it has positions that inputs have,
    too, (N, T, C) and (N, T, D), each has the error of its own; else the input (N, …) of a sample
    is taken as one vector of D numbers. B (D, C) is drawn with the standard deviation 1 / √D.

    Parameters
    ----------
    seed
        Of the feedback, which is a function of it and of the number of the weight.
    """

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self._sent: Array | None = None

    def begin(self, value: Value, gradient: Any) -> None:
        self._sent = None

    def sent(self, call: "Call", dy: Array) -> Array:
        """Return what is sent to all layers (N, …, C), given the last layer with weights and the
        error of its output.
        """
        return dy

    def backward(self, call: "Call", *dys: Any) -> tuple[Array | None, ...]:
        weight = carrying_weight(call)
        if weight is None:
            return super().backward(call, *dys)
        (dy,) = dys
        sent = self._sent
        if sent is None:
            # It is read when the layers before run back: they take other memory.
            sent = self._sent = np.ascontiguousarray(self.sent(call, dy))
        parameters_only(call, dy)
        if not call.wants(0):
            return (None,)
        x = call.inputs[0].array
        rows = math.prod(sent.shape[:-1])
        if x.shape[: sent.ndim - 1] != sent.shape[:-1]:
            must = f"inputs of layers with weights must begin with the axes {sent.shape[:-1]}"
            fix = "Direct feedback goes to each sample, or to each of its positions."
            raise ValueError(message(type(self).__name__, must, f"{call.layer!r}, {x.shape}", fix))
        # By its axes, as a rank may have no samples.
        width = math.prod(x.shape[sent.ndim - 1 :])
        shape = (width, sent.shape[-1])
        feedback = self.fixed(weight, shape, 1 / math.sqrt(width or 1))
        dx = product(call, "sent", sent.reshape(rows, sent.shape[-1]), feedback)
        return (dx.reshape(x.shape),)


class DirectRandomTargetProjection(DirectFeedbackAlignment):
    """Direct random target projection (Frenkel, Lefebvre & Bol 2021, "Learning without feedback:
    fixed random learning signals allow for feedforward training of deep neural networks", Frontiers
    in Neuroscience 15, arXiv 1909.01311): as direct feedback alignment, but the input of every
    layer receives -B y*, the target in place of the error, so that it need not wait for the output.

    Labels y* are taken as one-hot vectors, other targets as they are. The target of class c stands
    for the sign of the error there, so that no update needs the output but that of the last layer,
    which learns by its exact gradient.

    Parameters
    ----------
    seed
        Of the feedback, which is a function of it and of the number of the weight.
    """

    def begin(self, value: Value, gradient: Any) -> None:
        super().begin(value, gradient)
        calls = value.tape.calls
        found = next((call for call in reversed(calls) if isinstance(call.layer, Loss)), None)
        if found is None:
            must = "the value must be that of a loss with a target"
            fix = "Take a loss of layers, such as SoftmaxCrossEntropy()."
            raise ValueError(message(type(self).__name__, must, repr(value.call), fix))
        prediction, target, *weights = found.inputs
        self.require_equal_samples(found.output, *weights)
        self._target = target.array if isinstance(target, Value) else target
        # What a loss is divided by: samples, and positions of each.
        rows, samples = math.prod(prediction.shape[:-1]), len(prediction)
        every = value.tape.samples or samples or 1
        self._scale = float(np.asarray(gradient).item()) / every / (rows / (samples or 1) or 1)

    def sent(self, call: "Call", dy: Array) -> Array:
        target = self._target
        result = call.pooled("target", dy.shape, dy.dtype)
        if target.shape == dy.shape:
            result[...] = target
        elif target.dtype.kind in "iu" and target.shape == dy.shape[:-1]:
            result[...] = target[..., np.newaxis] == np.arange(dy.shape[-1])
        else:
            must = f"targets must be labels {dy.shape[:-1]} or numbers {dy.shape}"
            fix = "Take another rule for this loss."
            raise ValueError(message(type(self).__name__, must, target.shape, fix))
        result *= result.dtype.type(-self._scale)
        return result
