"""Rules that networks learn by, beside exact backpropagation: see `docs/learning-rules.md`."""

from .base import LearningRule
from .direct import DirectFeedbackAlignment, DirectRandomTargetProjection
from .feedback_alignment import FeedbackAlignment
from .forward_forward import ForwardForward
from .meprop import MeProp
from .predictive_coding import PredictiveCoding
from .sign_symmetry import SignSymmetry
from .target_propagation import DifferenceTargetPropagation, TargetPropagation

__all__ = [
    "DifferenceTargetPropagation",
    "DirectFeedbackAlignment",
    "DirectRandomTargetProjection",
    "FeedbackAlignment",
    "ForwardForward",
    "LearningRule",
    "MeProp",
    "PredictiveCoding",
    "SignSymmetry",
    "TargetPropagation",
]
