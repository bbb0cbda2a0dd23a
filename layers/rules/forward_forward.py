"""Forward-forward: two forward passes, and a loss of each layer's own."""

from typing import Any

import numpy as np

from layers.activation import Softplus
from layers.checks import positive
from layers.engine.module import Module
from layers.engine.value import Value
from layers.errors import message
from layers.kernels import random
from layers.types import Array

from .base import STREAM, LearningRule
from .predictor import Predictor, mean_square, normalised


class ForwardForward(LearningRule):
    """The forward-forward algorithm (Hinton 2022, "The forward-forward algorithm: some preliminary
    investigations", arXiv 2212.13345): the label takes the place of the first C numbers of an
    input. Each layer learns by itself to tell samples with their label from samples with a wrong
    one, by its goodness G, the mean square of its outputs: softplus(θ - G) + softplus(G - θ), the
    latter of the wrong label. Nothing is propagated from layer to layer; each gets its input with a
    mean square of 1, so that only directions tell the next one anything.

    The last layer is the classifier: it learns by the trainer's loss what the layer before makes of
    the sample with 1 / C in the place of its label, and that is what `predictor` predicts by, so
    what the trainer evaluates. Defined for a Sequential of dense and convolutional layers,
    activations, pooling and dropout, with labels.

    Parameters
    ----------
    threshold
        θ.
    seed
        Of the wrong labels, a function of it, of the step and of the sample.
    """

    def __init__(self, threshold: float = 1.0, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        fix = "threshold=1.0 is usual."
        self.threshold = positive("ForwardForward", "threshold", threshold, fix)
        self._softplus = Softplus()

    def __repr__(self) -> str:
        return f"ForwardForward({self.threshold}, seed={self.seed})"

    def bind(self, model: Module) -> Module | None:
        super().bind(model)
        self._predictor = Predictor(model)
        return None

    def predictor(self, model: Module) -> Module:
        return self._predictor

    def begin(self, value: Value, gradient: Any) -> None:
        self.require_started(value)

    def losses(self, model: Any, loss: Any, x: Any, *targets: Any) -> tuple[Value, Value]:
        x = self.one_array(x)
        labels, predictor = np.asarray(targets[0]), self._predictor
        classes = predictor.classes
        if labels.dtype.kind not in "iu" or labels.shape != x.shape[:1]:
            must, got = "targets must be labels (N,)", f"{labels.shape} {labels.dtype}"
            fix = "Take another rule for numbers."
            raise ValueError(message("ForwardForward", must, got, fix))
        value = total = loss(predictor(x), *targets)
        self.require_equal_samples(value, *targets[1:])
        right = np.eye(classes, dtype=x.dtype)[labels]
        wrong = np.eye(classes, dtype=x.dtype)[self._wrong(x, labels, classes)]
        streams = [(predictor.labelled(x, right), 1), (predictor.labelled(x, wrong), -1)]
        for h, sign in streams:
            for block in predictor.blocks:
                h = block(normalised(h.detach()))
                goodness = mean_square(h)
                total = total + self._softplus(sign * (self.threshold - goodness)).mean()
        return self.started(value, total)

    def _wrong(self, x: Value, labels: Array, classes: int) -> Array:
        """Return a label for each sample (N,) that is not its own, each as likely."""
        numbers = np.empty((len(labels), classes - 1), np.float32)
        tape, draw, seed = x.tape, len(self._names), np.uint64(self.seed ^ STREAM)
        random.standard_normal(numbers, tape.first_sample, tape.step, draw, seed)
        wrong: Array = (labels + 1 + numbers.argmax(axis=1)) % classes
        return wrong
