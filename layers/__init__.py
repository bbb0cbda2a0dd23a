"""Neural-network layers in one process: forward and backward in NumPy and Numba on a layer-granular tape."""

from . import init, models
from .activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from .arithmetic import absolute, cos, exp, log, maximum, minimum, sin, sqrt, tanh, where
from .attention import Attention, MultiHeadAttention
from .containers import Residual, Sequential
from .conv import Conv1d, Conv2d
from .conv_transpose import ConvTranspose2d
from .dropout import Dropout, Dropout2d
from .embedding import Embedding
from .gradient_check import gradcheck
from .gradient_report import BlockReport, GradientReport, WrongGradientError
from .layer import Composite, Layer
from .layer_norm import LayerNorm, RMSNorm
from .linear import Linear
from .loss import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from .merge import Add, Concatenate, Multiply
from .norm import BatchNorm, BatchNorm2d
from .parameter import FlatParameters, Parameter
from .pool import AvgPool2d, GlobalAveragePool, MaxPool2d
from .positional import LearnedPositions, SinusoidalPositions
from .recurrent import GRU, LSTM, RNN
from .recurrent_cell import GRUCell, LSTMCell, RNNCell
from .rules import Rule
from .shape import ChannelsFirst, ChannelsLast, Flatten, Reshape
from .shortcut import PaddedShortcut
from .state import State
from .tape import Call, Tape
from .transformer import DecoderBlock, EncoderBlock
from .tree import TreeLSTM, TreeRNN
from .tree_batch import TreeBatch
from .value import Value
from .workspace import Workspace

__all__ = [
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "Add",
    "Attention",
    "AvgPool2d",
    "BatchNorm",
    "BatchNorm2d",
    "BinaryCrossEntropy",
    "BlockReport",
    "Call",
    "ChannelsFirst",
    "ChannelsLast",
    "Composite",
    "Concatenate",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "DecoderBlock",
    "Dropout",
    "Dropout2d",
    "Embedding",
    "EncoderBlock",
    "FlatParameters",
    "Flatten",
    "GRUCell",
    "GlobalAveragePool",
    "GradientReport",
    "LSTMCell",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LearnedPositions",
    "Linear",
    "Loss",
    "MaxPool2d",
    "MeanSquaredError",
    "MultiHeadAttention",
    "Multiply",
    "PaddedShortcut",
    "Parameter",
    "RMSNorm",
    "RNNCell",
    "ReLU",
    "Reshape",
    "Residual",
    "Rule",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositions",
    "Softmax",
    "SoftmaxCrossEntropy",
    "State",
    "Tanh",
    "Tape",
    "TreeBatch",
    "TreeLSTM",
    "TreeRNN",
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
    "models",
    "sin",
    "sqrt",
    "tanh",
    "where",
]
