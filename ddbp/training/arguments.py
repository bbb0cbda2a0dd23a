"""What users pass to `Trainer` by name or in another form than it needs, and what to write instead
where that is not clear.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import layers
from ddbp import settings
from ddbp.doctor.doctor import Doctor
from ddbp.instruments.instruments import Instruments
from ddbp.optim.adafactor import Adafactor
from ddbp.optim.adagrad import AdaGrad
from ddbp.optim.adam import Adam, AdamW, RAdam
from ddbp.optim.large_batch import LAMB, LARS
from ddbp.optim.lion import Lion
from ddbp.optim.muon import Muon
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.rmsprop import RMSProp
from ddbp.optim.sgd import SGD
from layers import Module, TapeHook
from layers.checks import require_hooks
from layers.errors import message

from . import metrics as functions
from .callbacks import Callback
from .metrics import Metric
from .paths import path_of

_OWNER = "Trainer"
_OPTIMIZERS: tuple[type[Any], ...] = (
    Adafactor,
    Adam,
    AdamW,
    AdaGrad,
    LAMB,
    LARS,
    Lion,
    Muon,
    RAdam,
    RMSProp,
    SGD,
)
_OTHER_LOSSES = {
    "mse": "MeanSquaredError",
    "mse_loss": "MeanSquaredError",
    "mae": "MeanAbsoluteError",
    "l1": "MeanAbsoluteError",
    "l1_loss": "MeanAbsoluteError",
    "cross_entropy": "SoftmaxCrossEntropy",
    "bce_with_logits": "BinaryCrossEntropy",
    "binary_cross_entropy_with_logits": "BinaryCrossEntropy",
}
"""Other names of losses, that mean the same elsewhere."""
_LOGITS = {
    "categorical_crossentropy": "SoftmaxCrossEntropy",
    "sparse_categorical_crossentropy": "SoftmaxCrossEntropy",
    "binary_crossentropy": "BinaryCrossEntropy",
    "bce": "BinaryCrossEntropy",
    "nll_loss": "SoftmaxCrossEntropy",
    "kld": "KLDivergence",
    "kl_div": "KLDivergence",
}
"""Names that mean losses of probabilities elsewhere, and the losses of logits to write for them."""
_EXAMPLE = 'Write metrics=["accuracy"], or metrics={"hits": hits}.'
_OTHER_METRICS = {"acc": "accuracy", "mae": "mean_absolute_error", "mse": "mean_squared_error"}

Kind = TypeVar("Kind")


def model(given: Any) -> Module:
    """Return the model, or refuse what is none."""
    must = "model must be a layer or what is made of layers"
    if isinstance(given, type):
        raise _refused(must, given.__name__, f"Make one: {given.__name__}(…).")
    if isinstance(given, list | tuple):
        raise _refused(must, f"a {type(given).__name__}", "Write layers.Sequential(*model).")
    if not isinstance(given, Module):
        raise _refused(must, repr(given), "Derive from layers.Composite.")
    return given


def loss(given: Any) -> Callable[..., Any] | None:
    """Return the loss, which may be given by its name."""
    must = "loss must be a layer, a function, or the name of a loss"
    if isinstance(given, str):
        kinds = {
            name: kind
            for name, kind in vars(layers).items()
            if isinstance(kind, type) and issubclass(kind, layers.Loss) and kind is not layers.Loss
        }
        if given.lower() in _LOGITS:
            fix = (
                f"Write {_LOGITS[given.lower()]}(): it takes logits, so leave out the last Softmax"
                " or Sigmoid."
            )
            raise _refused("loss must say whether it takes probabilities", repr(given), fix)
        found = _named(_OTHER_LOSSES.get(given.lower(), given), kinds)
        if found is None or _required(found):
            raise _refused(
                must,
                repr(given),
                f"Write one of {', '.join(kinds)}, such as loss=MeanSquaredError().",
            )
        result: Callable[..., Any] = found()
        return result
    if isinstance(given, type):
        raise _refused(must, given.__name__, f"Make one: {given.__name__}().")
    if given is not None and not callable(given):
        raise _refused(must, repr(given), "Write loss=MeanSquaredError(), for example.")
    function: Callable[..., Any] | None = given
    return function


def optimizer(given: Any) -> Optimizer:
    """Return the optimizer, which may be given by its name, if it has a usual learning rate."""
    must = "optimizer must be an Optimizer, or the name of one"
    if isinstance(given, str):
        found = optimizer_kind(given)
        if found is None:
            names = ", ".join(kind.__name__ for kind in _OPTIMIZERS)
            raise _refused(
                must, repr(given), f"Write one of {names}, such as optimizer=Adam(1e-3)."
            )
        if _required(found):
            fix = f"Write optimizer={found.__name__}(0.1), with a rate of your own."
            raise _refused(f"{found.__name__} must be given a learning rate", repr(given), fix)
        result: Optimizer = found()
        return result
    if isinstance(given, type):
        raise _refused(must, given.__name__, f"Make one: {given.__name__}(1e-3).")
    if not isinstance(given, Optimizer):
        raise _refused(must, repr(given), "Write optimizer=Adam(1e-3), for example.")
    return given


def optimizer_kind(name: str) -> type[Any] | None:
    """Return the class of an optimizer by its name, if there is one."""
    return _named(name, {kind.__name__: kind for kind in _OPTIMIZERS})


def metrics(given: Any, loss: object) -> dict[str, Metric]:
    """Return metrics by name, which may be given by their names, or as a list of these and of
    functions; those that go with the loss if none are given.
    """
    must = "metrics must be a dictionary of functions by name, or a list of functions and names"
    if isinstance(given, str) or callable(given):
        given = [given]
    usual = functions.default_metrics(loss)
    if given is None:
        return usual
    if isinstance(given, Mapping):
        return functions.checked({name: _metric(each, must, usual) for name, each in given.items()})
    if not isinstance(given, Iterable) or isinstance(given, np.ndarray):
        raise _refused(must, repr(given), _EXAMPLE)
    result: dict[str, Metric] = {}
    for each in given:
        function = _metric(each, must, usual)
        name = each if isinstance(each, str) else getattr(each, "__name__", None)
        if name is None or name == "<lambda>":
            fix = 'Give it a name: metrics={"name": function}.'
            raise _refused("a metric in a list must have a name", repr(each), fix)
        if name in result:
            raise _refused("metrics must have different names", f"{name} twice", _EXAMPLE)
        result[name] = function
    return functions.checked(result)


def _metric(given: Any, must: str, usual: Mapping[str, Metric]) -> Metric:
    """Return a metric, which may be given by its name: of those that are `usual` with the loss, or
    of all.
    """
    if isinstance(given, str):
        name = _OTHER_METRICS.get(given.lower(), given)
        known = {**_metric_functions(), **usual}
        if name not in known:
            raise _refused(must, repr(given), f"Names are {', '.join(known)}.")
        return known[name]
    if isinstance(given, type) or not callable(given):
        raise _refused(must, repr(given), _EXAMPLE)
    result: Metric = given
    return result


def _metric_functions() -> dict[str, Metric]:
    """Return the functions of predictions and targets of `ddbp.training.metrics`."""
    return {
        name: function
        for name, function in vars(functions).items()
        if inspect.isfunction(function)
        and function.__module__ == functions.__name__
        and [*inspect.signature(function).parameters][:2] == ["prediction", "target"]
    }


def path(name: str, given: Any) -> Path | None:
    """Return a path, None for none."""
    return None if given is None else path_of(_OWNER, name, given)


def resume(given: Any, run_dir: Path | None) -> str | Path | None:
    """Return "auto" or a path to go on from, which the environment may ask for; None for none."""
    if given is None:
        return "auto" if run_dir is not None and settings.resumes() else None
    return "auto" if isinstance(given, str) and given == "auto" else path("resume", given)


def callbacks(given: Any, doctor: Any) -> tuple[Callback | TapeHook, ...]:
    """Return what is to be told of events, with a doctor and what it needs if one is asked for, and
    none among them.
    """
    kinds, fix = (Callback, TapeHook), "Derive from ddbp.Callback."
    hooks = require_hooks(_OWNER, "callbacks", given, kinds, fix)
    strict = isinstance(doctor, str) and doctor == "strict"
    if not (strict or isinstance(doctor, bool | np.bool_)):
        must, fix = 'doctor must be True, False or "strict"', "Write doctor=True."
        raise ValueError(message(_OWNER, must, repr(doctor), fix))
    if not doctor or any(isinstance(each, Doctor) for each in hooks):
        return hooks
    measures = any(isinstance(each, Instruments) for each in hooks)
    instruments = [] if measures else [Instruments(every=None)]
    return (*hooks, *instruments, Doctor(strict=strict))


def _named(name: str, kinds: Mapping[str, Kind]) -> Kind | None:
    """Return the class of a name, in whatever case and with or without underscores."""

    def plain(text: str) -> str:
        return text.replace("_", "").replace("-", "").lower()

    return {plain(kind): found for kind, found in kinds.items()}.get(plain(name))


def _required(kind: Any) -> bool:
    """Return whether a class cannot be made without arguments."""
    return any(
        parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(kind).parameters.values()
    )


def _refused(must: str, got: str, fix: str) -> TypeError:
    return TypeError(message(_OWNER, must, got, fix))
