"""What options and data must be, and what all ranks must have in common, before training begins."""

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from ddbp import settings
from ddbp.comm.agreement import require_agreement
from ddbp.comm.base import Communicator
from layers import FlatParameters, Module, Value
from layers.checks import non_negative, positive
from layers.errors import message
from layers.kernels import cache

from .data import ArrayDataset

if TYPE_CHECKING:
    from .trainer import Trainer

_CLIP = "With clip_norm= a gradient that is not finite is refused by name, before the update."


def gradient_changes(
    clip_norm: float | None, clip_value: float | None, l1: float, l2: float
) -> None:
    """Refuse limits of clipping that are not positive, and negative factors of penalties."""
    for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if limit is not None:
            positive("Trainer", name, limit, "Leave it out for no clipping.")
    for name, factor in (("l1", l1), ("l2", l2)):
        non_negative("Trainer", name, factor)


def ranks_have_samples(batch_size: int, ranks: int) -> None:
    """Refuse more ranks than samples in a global batch."""
    if batch_size < ranks:
        fix = f"Start at most {batch_size} ranks, or raise batch_size."
        got = f"batch_size {batch_size} on {ranks} ranks"
        raise ValueError(
            message("Trainer", "every rank needs a sample of each global batch", got, fix)
        )


def no_context(held: bool) -> None:
    """Refuse a fit within no_sync."""
    if held:
        fix = "Call fit outside; Trainer(accumulate=k) accumulates k batches in it."
        raise ValueError(
            message(
                "Trainer.fit", "fit decides itself when to update", "a call within no_sync()", fix
            )
        )


def windows_update(accumulate: int, held: bool) -> None:
    """Refuse a step on a single batch whose windows would have to wait for those of other
    batches.
    """
    if accumulate > 1 or held:
        must, fix = (
            "windows of one batch cannot accumulate, as each is a step",
            "Use fit, where batches take turns.",
        )
        raise ValueError(
            message(
                "Trainer.train_step", must, "no_sync()" if held else f"accumulate={accumulate}", fix
            )
        )


def batch_fits(batch_size: int, samples: int) -> None:
    """Refuse a batch larger than the data set."""
    if batch_size > samples:
        must, fix = (
            f"the data set must hold a batch of {batch_size}",
            f"Use a batch_size of at most {samples}.",
        )
        raise ValueError(message("Trainer.fit", must, f"{samples} samples", fix))


def finite_parameters(flat: FlatParameters, step: int) -> None:
    """Refuse parameters that are not finite after the update of a step, by name."""
    name = _first_not_finite(flat)
    if name is not None:
        got, fix = (
            f"NaN or inf in {name} after step {step}",
            f"A gradient was not finite, or the learning rate too high. {_CLIP}",
        )
        raise FloatingPointError(message("Trainer", "the parameters must be finite", got, fix))


def refuse_loss(flat: FlatParameters, loss: Value, value: float, step: int) -> None:
    """Refuse a loss that is not finite, naming the parameter or the layer that it comes from."""
    name = _first_not_finite(flat)
    first = next(
        (
            call
            for call in loss.tape.calls
            if not all(np.isfinite(y).all() for y in call.output.arrays)
        ),
        None,
    )
    fix = "Lower the learning rate, clip the gradient with clip_norm=1, or check the data."
    if name is not None:
        where = (
            f"{name} is not finite, since the update of step {step - 1} or a change by the script"
        )
        fix = f"A gradient was not finite, or the learning rate too high. {_CLIP}"
    elif first is not None:
        where = f"the first layer whose output is not finite here is {first!r}"
    else:
        where = "it is finite on this rank"
    raise FloatingPointError(
        message("Trainer", "the loss must be finite", f"{value} in step {step}; {where}", fix)
    )


def _first_not_finite(flat: FlatParameters) -> str | None:
    """Return the name of the first parameter that is not finite."""
    if np.isfinite(flat.values).all() and not flat.frozen:
        return None
    named = {**dict(zip(flat.names, flat.parameters, strict=True)), **flat.frozen}
    return next(
        (name for name, parameter in named.items() if not np.isfinite(parameter.value).all()), None
    )


def model_facts(model: Module, loss: Any) -> dict[str, Any]:
    """Return what ranks must have in common of a model and its loss."""
    return {
        "parameters": [
            f"{name} {parameter.shape} {parameter.dtype}{'' if parameter.trainable else ' frozen'}"
            for name, parameter in model.named_parameters()
        ],
        "states": [f"{name} {state.shape} {state.dtype}" for name, state in model.named_states()],
        "model": model,
        "loss": loss if isinstance(loss, Module) else getattr(loss, "__name__", type(loss)),
    }


def code_facts() -> dict[str, Any]:
    """Return what ranks must have in common of the code that they run."""
    main = sys.modules.get("__main__")
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    script = (
        hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
        if path and Path(path).is_file()
        else "interactive"
    )
    if spec is not None:
        # It was started by python -m.
        script = f"{spec.name} {script}"
    return {"kernel sources and versions": cache.source_digest(), "script": script}


def between_updates(batches: int) -> None:
    """Refuse what is frozen or unfrozen while batches accumulate."""
    if batches:
        must = "parameters can be frozen and unfrozen between two updates"
        fix = "Do it where nothing accumulates, such as in on_step_begin or on_epoch_begin."
        got = f"a change after {batches} batches of a group"
        raise RuntimeError(message("Trainer", must, got, fix))


def own_tape(loss: Value, flat: FlatParameters) -> None:
    """Refuse a loss from a tape that is not of a batch of this trainer."""
    if loss.tape.owner is not flat:
        must = "the loss must be computed from a batch of this trainer"
        got = "a tape of its own"
        if loss.tape.owner is not None:
            got = "a batch of another trainer, or from before parameters were frozen or unfrozen"
        fix = "Use trainer.batches(data) or trainer.batch(x, y), and its x."
        raise ValueError(message("Trainer.step", must, got, fix))
    if not flat.is_current():
        must = "parameters can be frozen and unfrozen between two steps"
        got = "a change since the batch was made"
        raise RuntimeError(message("Trainer.step", must, got, "Do it before the batch is made."))


def run_facts(trainer: "Trainer") -> dict[str, Any]:
    """Return what decides the bits of a run, whatever ranks it is on."""
    return {
        **model_facts(trainer.model, trainer.loss),
        "optimizer": trainer.optimizer,
        "transforms": [
            getattr(transform, "__qualname__", repr(transform)) for transform in trainer.transforms
        ],
        **trainer.options.as_dict(),
    }


def same_start(trainer: "Trainer") -> None:
    """Refuse ranks that were started with different models, options or code; collective."""
    facts = run_facts(trainer) | settings.of_all_ranks() | code_facts()
    require_agreement(
        trainer.comm, facts, "Start all ranks with the same script, options and installation."
    )


class DataSets:
    """The data sets of a trainer, floating arrays in its type. Ranks compare those that several of
    them use.

    Parameters
    ----------
    comm
        The ranks.
    dtype
        The type of the model.
    """

    def __init__(self, comm: Communicator, dtype: Any) -> None:
        self._comm = comm
        self._dtype = dtype
        self._compared: WeakSet[ArrayDataset] = WeakSet()

    def one(self, dataset: ArrayDataset) -> ArrayDataset:
        """Return a data set to use, which ranks compare when it is first used; collective."""
        self._require_data_set(dataset)
        if dataset not in self._compared:
            self._compare({"data": dataset})
        return dataset.astype(self._dtype)

    def of_fit(
        self, dataset: ArrayDataset, validation: ArrayDataset | None, epochs: int, batch_size: int
    ) -> ArrayDataset:
        """Return the data set to use for training; collective. It must hold a batch; data sets are
        compared however often used.
        """
        named = {"training data": dataset} | (
            {} if validation is None else {"validation data": validation}
        )
        for each in named.values():
            self._require_data_set(each)
        batch_fits(batch_size, len(dataset))
        self._compare(named, epochs=str(epochs))
        result = dataset.astype(self._dtype)
        self._compared.add(result)
        return result

    def _compare(self, named: dict[str, ArrayDataset], **facts: str) -> None:
        if self._comm.size > 1:
            fix = (
                "Every rank loads the whole data set, in the same order; the trainer takes each"
                " rank's part."
            )
            require_agreement(
                self._comm, facts | {name: dataset.digest() for name, dataset in named.items()}, fix
            )
        self._compared.update(named.values())

    @staticmethod
    def _require_data_set(dataset: Any) -> None:
        if not isinstance(dataset, ArrayDataset):
            raise TypeError(
                message(
                    "Trainer",
                    "data must be an ArrayDataset",
                    type(dataset).__name__,
                    "Use ArrayDataset(x, y).",
                )
            )
