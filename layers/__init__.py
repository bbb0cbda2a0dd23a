"""Neural-network layers in one process: forward and backward in NumPy and Numba on a layer-granular
tape.
"""

from . import init, models, rules
from .activation import (
    CELU,
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Identity,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .attention import Attention, MultiHeadAttention
from .batch_norm import BatchNorm, BatchNorm2d
from .coefficients import Coefficients
from .containers import Sequential
from .conv.conv import Conv1d, Conv2d, Conv3d
from .conv.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .dropout import Dropout, Dropout2d
from .embedding import Embedding
from .engine.call import Call
from .engine.flat_parameters import FlatParameters
from .engine.forward_call import ForwardCall
from .engine.hooks import TapeHook
from .engine.layer import Layer
from .engine.merge import Add, Concatenate, Multiply
from .engine.module import Composite, Module
from .engine.operators import (
    absolute,
    broadcast_to,
    clip,
    concatenate,
    cos,
    cumsum,
    einsum,
    erf,
    exp,
    expand_dims,
    expm1,
    flip,
    log,
    log1p,
    logsumexp,
    maximum,
    minimum,
    moveaxis,
    norm,
    pad,
    prod,
    repeat,
    roll,
    sin,
    sort,
    split,
    sqrt,
    squeeze,
    stack,
    std,
    swapaxes,
    take_along_axis,
    tanh,
    tile,
    top_k,
    var,
    where,
)
from .engine.parameter import Parameter
from .engine.rules import KeptGradients, Rule
from .engine.state import State
from .engine.tape import Tape
from .engine.value import Value
from .engine.workspace import Workspace
from .gradient_check.check import gradcheck
from .gradient_check.report import BlockReport, GradientReport, WrongGradientError
from .group_norm import GroupNorm, InstanceNorm, InstanceNorm1d, InstanceNorm2d
from .layer_norm import LayerNorm, RMSNorm
from .linear import Linear
from .loss.base import Loss
from .loss.classification import KLDivergence, MultiClassHinge, SoftmaxCrossEntropy
from .loss.ctc import CTC
from .loss.regression import (
    BinaryCrossEntropy,
    GaussianNLL,
    Hinge,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    PoissonNLL,
    SmoothL1,
)
from .loss.similarity import CosineDistance, CosineEmbedding
from .model_summary import LayerSummary, Summary, summary
from .pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    GlobalAveragePool,
    MaxPool1d,
    MaxPool2d,
)
from .pool_volume import AvgPool3d, MaxPool3d
from .positional import LearnedPositions, SinusoidalPositions
from .precision import set_precision
from .recompute import Recompute
from .recurrent.cells import GRUCell, LSTMCell, RNNCell
from .recurrent.layers import GRU, LSTM, RNN
from .residual import Residual
from .shape import ChannelsFirst, ChannelsLast, Flatten, Reshape
from .shortcut import PaddedShortcut
from .time_pool import PoolOverTime
from .transformer import DecoderBlock, EncoderBlock
from .tree.batch import TreeBatch
from .tree.cells import TreeLSTM, TreeRNN
from .upsample import Upsample

__all__ = [
    "CELU",
    "CTC",
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "Add",
    "Attention",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm",
    "BatchNorm2d",
    "BinaryCrossEntropy",
    "BlockReport",
    "Call",
    "ChannelsFirst",
    "ChannelsLast",
    "Coefficients",
    "Composite",
    "Concatenate",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CosineDistance",
    "CosineEmbedding",
    "DecoderBlock",
    "Dropout",
    "Dropout2d",
    "Embedding",
    "EncoderBlock",
    "FlatParameters",
    "Flatten",
    "ForwardCall",
    "GRUCell",
    "GaussianNLL",
    "GlobalAveragePool",
    "GradientReport",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Hinge",
    "Huber",
    "Identity",
    "InstanceNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "KLDivergence",
    "KeptGradients",
    "LSTMCell",
    "Layer",
    "LayerNorm",
    "LayerSummary",
    "LeakyReLU",
    "LearnedPositions",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Mish",
    "Module",
    "MultiClassHinge",
    "MultiHeadAttention",
    "Multiply",
    "PReLU",
    "PaddedShortcut",
    "Parameter",
    "PoissonNLL",
    "PoolOverTime",
    "RMSNorm",
    "RNNCell",
    "ReLU",
    "ReLU6",
    "Recompute",
    "Reshape",
    "Residual",
    "Rule",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositions",
    "SmoothL1",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "State",
    "Summary",
    "Tanh",
    "Tape",
    "TapeHook",
    "TreeBatch",
    "TreeLSTM",
    "TreeRNN",
    "Upsample",
    "Value",
    "Workspace",
    "WrongGradientError",
    "absolute",
    "broadcast_to",
    "clip",
    "concatenate",
    "cos",
    "cumsum",
    "einsum",
    "erf",
    "exp",
    "expand_dims",
    "expm1",
    "flip",
    "gradcheck",
    "init",
    "log",
    "log1p",
    "logsumexp",
    "maximum",
    "minimum",
    "models",
    "moveaxis",
    "norm",
    "pad",
    "prod",
    "repeat",
    "roll",
    "rules",
    "set_precision",
    "sin",
    "sort",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "std",
    "summary",
    "swapaxes",
    "take_along_axis",
    "tanh",
    "tile",
    "top_k",
    "var",
    "where",
]
