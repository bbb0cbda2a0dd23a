"""Feedback alignment: fixed random weights carry the error back."""

from layers.engine.parameter import Parameter
from layers.types import Array

from .base import CARRYING, LearningRule, of_he


class FeedbackAlignment(LearningRule):
    """Feedback alignment (Lillicrap, Cownden, Tweed & Akerman 2016, "Random synaptic feedback
    weights support error backpropagation for deep learning", Nature Communications 7, 13276): the
    error of a layer's output goes to its input by a fixed random matrix B of the weight's shape, dx
    = dy B in place of dy W.

    It is defined for all layers that ask for what carries the error back: dense, convolutional and
    recurrent ones, and cells of trees. B is drawn with the standard deviation √(2 / D) of weights
    with D inputs.

    Parameters
    ----------
    seed
        Of the feedback, which is a function of it and of the number of the weight.
    """

    defined = CARRYING

    def feedback(self, parameter: Parameter) -> Array:
        if not self.carries(parameter):
            return parameter.value
        return self.fixed(parameter, parameter.shape, of_he(parameter.value))
