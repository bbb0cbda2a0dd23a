"""Data-parallel training of neural networks on CPUs, alone or over MPI, with the same bits for any
number of workers.
"""

import layers as _layers

if not hasattr(_layers, "Tape"):
    raise ImportError(
        "ddbp: the package `layers` of ddbp must be importable; got"
        f" {getattr(_layers, '__file__', _layers)}, which shadows it. Rename your own layers module"
        " or take its folder off sys.path."
    )

from . import attribution, data, export
from .comm.base import CommunicationError
from .comm.current import communicator
from .compression import PowerSGD, Sign, TopK
from .data.array_dataset import ArrayDataset
from .data.samples import Ragged
from .doctor.doctor import Doctor, DoctorError
from .figures import figure
from .instruments.instruments import Instruments
from .instruments.recording import Recording
from .job.ranks import RankError
from .loggers.logger import Logger
from .loggers.mlflow import MLflow
from .loggers.tensorboard import TensorBoard
from .loggers.trackio import Trackio
from .loggers.weights_and_biases import WeightsAndBiases
from .observers.observer import StepPhase, TrainingOver
from .optim.adafactor import Adafactor
from .optim.adagrad import AdaGrad
from .optim.adam import Adam, AdamW, RAdam
from .optim.large_batch import LAMB, LARS
from .optim.lion import Lion
from .optim.muon import Muon
from .optim.optimizer import Optimizer
from .optim.rate_range import RateRange
from .optim.rmsprop import RMSProp
from .optim.schedule import (
    ByEpoch,
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    StepDecay,
    WarmUp,
    linear_scaling,
)
from .optim.sgd import SGD
from .optim.transform import ClipParameterNorms, GlobalGradient
from .reduction.corruption import MemoryCorruptionError
from .seldom.exchange import DiLoCo, LocalSGD
from .snapshot import Snapshot
from .training import script
from .training.batch import Batch
from .training.callbacks import Callback
from .training.checkpoints import Checkpoints
from .training.history import History
from .training.loss_scale import LossScale
from .training.metrics import (
    accuracy,
    binary_accuracy,
    bits_per_character,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    precision,
    recall,
    top_k_accuracy,
)
from .training.modify import changing, modify_parameters
from .training.monitors import BestWeights, EarlyStopping
from .training.moving_average import ExponentialMovingAverage
from .training.nonfinite import Rollback
from .training.options import TrainerOptions
from .training.rate_search import lr_find
from .training.replay import StepDigests
from .training.run_folder import load_parameters, save_parameters
from .training.text_samples import TextSamples
from .training.trace import Trace
from .training.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "AdaGrad",
    "Adafactor",
    "Adam",
    "AdamW",
    "ArrayDataset",
    "Batch",
    "BestWeights",
    "ByEpoch",
    "Callback",
    "Checkpoints",
    "ClipParameterNorms",
    "CommunicationError",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "DiLoCo",
    "Doctor",
    "DoctorError",
    "EarlyStopping",
    "Exponential",
    "ExponentialMovingAverage",
    "GlobalGradient",
    "History",
    "Instruments",
    "Lion",
    "LocalSGD",
    "Logger",
    "LossScale",
    "MLflow",
    "MemoryCorruptionError",
    "Muon",
    "OneCycle",
    "Optimizer",
    "Plateau",
    "Polynomial",
    "PowerSGD",
    "RAdam",
    "RMSProp",
    "Ragged",
    "RankError",
    "RateRange",
    "Recording",
    "Rollback",
    "Schedule",
    "Sign",
    "Snapshot",
    "StepDecay",
    "StepDigests",
    "StepPhase",
    "TensorBoard",
    "TextSamples",
    "TopK",
    "Trace",
    "Trackio",
    "Trainer",
    "TrainerOptions",
    "TrainingOver",
    "WarmUp",
    "WeightsAndBiases",
    "accuracy",
    "attribution",
    "binary_accuracy",
    "bits_per_character",
    "changing",
    "communicator",
    "data",
    "export",
    "f1_score",
    "figure",
    "linear_scaling",
    "load_parameters",
    "lr_find",
    "mean_absolute_error",
    "mean_squared_error",
    "modify_parameters",
    "precision",
    "recall",
    "save_parameters",
    "script",
    "top_k_accuracy",
]
