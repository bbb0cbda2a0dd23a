"""Neural-network layers in one process: forward and backward in NumPy and Numba on a layer-granular tape."""

from . import init
from .activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from .arithmetic import absolute, cos, exp, log, maximum, minimum, sin, sqrt, tanh, where
from .containers import Residual, Sequential
from .dropout import Dropout
from .gradient_check import gradcheck
from .gradient_report import BlockReport, GradientReport, WrongGradientError
from .layer import Composite, Layer
from .linear import Linear
from .loss import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from .merge import Add, Concatenate, Multiply
from .norm import BatchNorm, BatchNorm2d
from .parameter import FlatParameters, Parameter
from .rules import Rule
from .shape import Flatten, Reshape
from .state import State
from .tape import Call, Tape
from .value import Value
from .workspace import Workspace

__all__ = [
    "GELU",
    "Add",
    "BatchNorm",
    "BatchNorm2d",
    "BinaryCrossEntropy",
    "BlockReport",
    "Call",
    "Composite",
    "Concatenate",
    "Dropout",
    "FlatParameters",
    "Flatten",
    "GradientReport",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MeanSquaredError",
    "Multiply",
    "Parameter",
    "ReLU",
    "Reshape",
    "Residual",
    "Rule",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "State",
    "Tanh",
    "Tape",
    "Value",
    "Workspace",
    "WrongGradientError",
    "absolute",
    "cos",
    "exp",
    "gradcheck",
    "init",
    "log",
    "maximum",
    "minimum",
    "sin",
    "sqrt",
    "tanh",
    "where",
]
