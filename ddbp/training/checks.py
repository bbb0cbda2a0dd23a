"""What options and data must be, and what all ranks must have in common, before training begins."""

import hashlib
import inspect
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from numpy import ndarray

from ddbp import settings
from ddbp.comm.agreement import require_agreement
from ddbp.comm.base import Communicator
from ddbp.compression import Rounded
from ddbp.data.array_dataset import ArrayDataset
from ddbp.data.samples import (
    Samples,
    call,
    cast,
    of_leaves,
    recorded,
    require_equal_lengths,
    require_range,
    samples_of,
)
from ddbp.data.source import Dataset, Reading, Source
from ddbp.optim.checksums import Memory
from ddbp.optim.clipping import NotFiniteError
from ddbp.optim.optimizer import Optimizer
from ddbp.reduction.partition import Partition
from ddbp.reduction.shards import RANKS, ShardPlan
from layers import BatchNorm, FlatParameters, Module, Tape, Value
from layers.batch_norm import SingleValueError
from layers.checks import non_negative, positive
from layers.errors import message
from layers.kernels import cache

from . import frozen
from .batch import LocalBatch, local_batch, sliced
from .callbacks import Callback
from .finite import is_finite

if TYPE_CHECKING:
    from .options import TrainerOptions
    from .trainer import Trainer


def gradient_changes(
    clip_norm: float | None, clip_value: float | None, l1: float, l2: float
) -> dict[str, float]:
    """Return by name limits of clipping that are given, which must be positive, and factors of
    penalties, which must not be negative.
    """
    limits = {"clip_norm": clip_norm, "clip_value": clip_value}
    checked = {
        name: positive("Trainer", name, limit, "Leave it out for no clipping.")
        for name, limit in limits.items()
        if limit is not None
    }
    for name, factor in (("l1", l1), ("l2", l2)):
        checked[name] = non_negative("Trainer", name, factor)
    return checked


def ranks_have_samples(batch_size: int, ranks: int) -> None:
    """Refuse more ranks than samples in a global batch."""
    if batch_size < ranks:
        fix = f"Start at most {batch_size} ranks, or raise batch_size."
        got = f"batch_size {batch_size} on {ranks} ranks"
        raise ValueError(
            message("Trainer", "every rank needs a sample of each global batch", got, fix)
        )


def shards(given: Any, model: Any) -> Any:
    """Return what is asked for as the number of shards: one per rank if nothing is, and the model
    normalises by the statistics of a shard.
    """
    layers = (layer for _, layer in model.named_layers())
    apart = any(isinstance(layer, BatchNorm) and not layer.synchronized for layer in layers)
    return RANKS if given is None and apart else given


def has_loss(owner: str, loss: Any) -> Any:
    """Return the loss of a trainer, which must have one."""
    if loss is None:
        raise ValueError(message(owner, "the trainer must have a loss", None, "Pass loss= to it."))
    return loss


def goes_with_compression(
    compression: Any, model: Module, optimizer: Optimizer, comm: Communicator
) -> None:
    """Refuse a model that is not of float32; and residuals where a rank that is killed would leave
    others with none: on several hosts, or as its update is taken back, and residuals are not.
    """
    if compression is None:
        return
    kinds = {str(parameter.dtype) for parameter in model.parameters()}
    if kinds != {"float32"}:
        must, fix = "compression takes a float32 model", "Convert it with model.astype."
        raise ValueError(message("Trainer", must, ", ".join(sorted(kinds)), fix))
    if isinstance(compression, Rounded) or not comm.survives:
        return
    if len(comm.hosts) > 2:
        must = "compression where ranks survive each other must be on one host"
        fix = "Leave out --survive: with --max-restarts the run goes on from a checkpoint."
        raise ValueError(message("Trainer", must, f"{len(comm.hosts) - 1} hosts", fix))
    if not optimizer.blockwise:
        must = "compression where ranks survive each other needs an optimizer that works by blocks"
        fix = "Use SGD or Adam, or leave out --survive."
        raise ValueError(message("Trainer", must, optimizer, fix))


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


def batch_fits(owner: str, batch_size: int, samples: int) -> None:
    """Refuse a batch larger than the data set."""
    if batch_size > samples:
        must, fix = (
            f"the data set must hold a batch of {batch_size}",
            f"Use a batch_size of at most {samples}.",
        )
        raise ValueError(message(owner, must, f"{samples} samples", fix))


def spoilt_by(part: Partition, transform: Any, step: int) -> str:
    """Return the words that refuse a gradient that a transform has made NaN or infinite on this
    rank, by name; "" if it is finite.
    """
    if is_finite(part.gradient):
        return ""
    name = next(
        part.names[span.parameter]
        for span in part.spans
        if not is_finite(part.gradient[span.start : span.stop])
    )
    must = "the gradient must be finite after a transform"
    got = f"NaN or inf in {name} after {transform_name(transform)} in step {step}"
    fix = "It was finite before: look there for a division by zero."
    return message("Trainer", must, got, fix)


def too_large_for_float16(option: str, step: int) -> NotFiniteError:
    """Return the error of finite gradients of shards whose sums are not finite in float16, which
    this option has them rounded to.
    """
    must = f'{option}="float16" needs sums of gradients of at most 65504'
    got = f"larger ones in step {step}, which are infinite"
    fix = f'Write {option}="bfloat16", or a loss that is smaller.'
    return NotFiniteError(message("Trainer", must, got, fix))


def transform_name(transform: Any) -> str:
    """Return what errors call a transform."""
    return str(getattr(transform, "__qualname__", repr(transform)))


def model_facts(model: Module, loss: Any) -> dict[str, Any]:
    """Return what ranks must have in common of a model and its loss."""
    return {
        "parameters": frozen.described(model),
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
    sources = {"kernel sources and versions": cache.source_digest(), "script": script}
    return cache.VERSIONS | sources


def memory(callbacks: Sequence[object]) -> Memory:
    """Return what is to be done about bits of parameters and moments that change by themselves."""
    if settings.checks_memory():
        return Memory.CHECKED
    watched = any(isinstance(each, Callback) and each.watches_memory for each in callbacks)
    return Memory.WATCHED if watched else Memory.TRUSTED


def between_runs(running: bool) -> None:
    """Refuse to load a state within a fit."""
    if running:
        must, fix = "a state can only be loaded between runs", "Load it before fit."
        raise RuntimeError(message("Trainer.load_state", must, "a call within fit", fix))


def no_workers(owner: str, exchange: Any) -> None:
    """Refuse what has no meaning where workers train apart."""
    if exchange is not None:
        must = "workers that train apart each take their part of every batch"
        fix = "Use train_step, batches or fit."
        raise RuntimeError(message(owner, must, f"a call with exchange={exchange}", fix))


def between_updates(batches: int) -> None:
    """Refuse what is frozen or unfrozen while batches accumulate."""
    if batches:
        must = "parameters can be frozen and unfrozen between two updates"
        fix = "Do it where nothing accumulates, such as in on_step_begin or on_epoch_begin."
        got = f"a change after {batches} batches of a group"
        raise RuntimeError(message("Trainer", must, got, fix))


def is_value(loss: Any) -> None:
    """Refuse a loss that no tape has recorded."""
    if not isinstance(loss, Value):
        fix = "Return the value that a loss layer gives: SoftmaxCrossEntropy()(model(x), y)."
        must = "the loss must be a value"
        raise TypeError(message("Trainer", must, f"a {type(loss).__name__}", fix))


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
        "transforms": [*map(transform_name, trainer.transforms)],
        **trainer.options.as_dict(),
    }


def same_start(trainer: "Trainer", callbacks: Sequence[object]) -> None:
    """Refuse ranks that were started with different models, options, callbacks or code;
    collective.
    """
    watching = {
        "memory": trainer._memory.size,
        "metrics": [
            f"{name}: {getattr(each, '__qualname__', each)}"
            for name, each in trainer.metrics.items()
        ],
        "callbacks": [
            type(each).__qualname__ if type(each).__repr__ is object.__repr__ else repr(each)
            for each in callbacks
        ],
    }
    facts = run_facts(trainer) | watching | settings.of_all_ranks() | code_facts()
    require_agreement(
        trainer.comm, facts, "Start all ranks with the same script, options and installation."
    )


def same_parameters(trainer: "Trainer") -> None:
    """Refuse ranks that do not begin with the same parameters; collective."""
    facts = {"initial parameters": trainer.parameters_sha256()}
    require_agreement(trainer.comm, facts, "The broadcast failed; report this.")


def require_data_set(dataset: Any) -> None:
    """Refuse data of another kind than `ArrayDataset` and `Source`, with what to write for it."""
    if isinstance(dataset, ArrayDataset | Source):
        return
    fix = "Use ArrayDataset(x, y)."
    if isinstance(dataset, tuple | list) and len(dataset) == 2:
        fix = "Write ArrayDataset(*data) for a pair of arrays."
    elif isinstance(dataset, ndarray):
        fix = "Write ArrayDataset(x, y), with the targets beside it."
    elif hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        fix = "Write ddbp.data.ItemSource(data) for what has samples by number."
    elif hasattr(dataset, "__iter__"):
        fix = (
            "Write ddbp.data.GeneratorSource(lambda: iter(…), samples=…) if it yields samples; or"
            " loop over it with trainer.train_step(x, y) if batches."
        )
    got = type(dataset).__name__
    raise TypeError(message("Trainer", "data must be an ArrayDataset or a Source", got, fix))


def _require_targets(dataset: Dataset, name: str) -> None:
    """Refuse a source of inputs alone."""
    if isinstance(dataset, Reading) and not dataset.has_targets:
        fix = "Give it y; predict does without."
        raise ValueError(message("Trainer", f"{name} must have targets", dataset, fix))


def _require_loss_of_weights(loss: Any, name: str) -> None:
    """Refuse a function of (prediction, y) as the loss of data with weights."""
    try:
        inspect.signature(loss).bind(None, None, None)
    except TypeError as error:
        must, fix = (
            f"the loss must take the weights of the {name}",
            "Define loss(prediction, y, weights), and pass them on: criterion(…, y, weights).",
        )
        raise ValueError(message("Trainer.fit", must, error, fix)) from error
    except ValueError:
        # It does not say what it takes.
        return


def samples_to_predict(x: Any, dtype: Any) -> Samples | Source:
    """Return what a prediction is asked for, in the type of the model; there may be no samples."""
    owner = "Trainer.predict"
    if isinstance(x, Source):
        return x.astype(dtype)
    if isinstance(x, ArrayDataset):
        must, fix = "x must be the inputs alone", "Pass dataset.x."
        raise TypeError(message(owner, must, "an ArrayDataset", fix))
    samples = samples_of(owner, "x", x, least=0)
    require_equal_lengths(owner, {"x": samples})
    require_range(owner, "x", samples, dtype)
    return of_leaves(lambda leaf: cast(leaf, dtype), samples)


def batches_have_variance(trainer: "Trainer", data: Dataset, owner: str) -> None:
    """Refuse batches that `owner` is to give in which a BatchNorm would meet a shard with a single
    value per channel.
    """
    if not any(isinstance(layer, BatchNorm) for _, layer in trainer.model.named_layers()):
        return
    options = trainer.options
    assert options.shards is not None
    last = options.samples(len(data)) % options.batch_size
    plan = ShardPlan(options.shards, 1, 0)
    for size in filter(None, (last, options.batch_size)):
        batch = local_batch(data, plan, range(size), sliced)
        if 1 not in np.diff(batch.bounds):
            continue
        refused = False
        # A loop of a script's own may call the model with something else.
        other = nullcontext() if owner == "Trainer.fit" else suppress(Exception)
        with trainer.comm.leader_first(), other:
            refused = _has_single_values(trainer.model, batch)
        if refused:
            must = "BatchNorm needs more than one value per channel in each shard of a batch"
            got = f"a{' last' if size == last else ''} batch of {size} in {plan.shards} shards"
            fix = "Pass drop_last=True, fewer" if size == last else "Use fewer"
            fix += " shards, another batch_size, or BatchNorm(…, synchronized=True)."
            raise ValueError(message(owner, must, got, fix))


def can_be_trained_on(trainer: "Trainer", data: Dataset, owner: str) -> None:
    """Refuse data that `owner` cannot give as batches; compile what augments them; collective."""
    if trainer.options.drop_last:
        batch_fits(owner, trainer.options.batch_size, len(data))
    if trainer.options.augment:
        with trainer.comm.leader_first():
            trainer._stream.loader.augmented(data)
    if trainer._truncation is None:
        batches_have_variance(trainer, data, owner)


def _has_single_values(model: Any, batch: LocalBatch) -> bool:
    """Return whether a BatchNorm refuses a batch for a shard that has one value per channel; no
    state learns from this pass.
    """
    tape = Tape(training=True, shards=batch.bounds, samples=batch.samples, deferred=True)
    try:
        call(model, recorded(tape, batch.x))
    except SingleValueError:
        return True
    finally:
        tape.release()
    return False


class DataSets:
    """The data sets of a trainer, floating arrays in its type. Ranks compare those that several of
    them use.

    Parameters
    ----------
    comm
        The ranks.
    dtype
        The type of the model.
    loss
        Of the trainer, if it has one.
    """

    def __init__(self, comm: Communicator, dtype: Any, loss: Any) -> None:
        self._comm = comm
        self._dtype = dtype
        self._loss = loss
        self._compared: WeakSet[Dataset] = WeakSet()

    def one(self, dataset: Dataset) -> Dataset:
        """Return a data set to use, which ranks compare when it is first used; collective."""
        require_data_set(dataset)
        dataset = self._read(dataset)
        _require_targets(dataset, "data")
        if dataset not in self._compared:
            self._compare({"data": dataset})
        return dataset.astype(self._dtype)

    def of_fit(
        self,
        dataset: Dataset,
        validation: Dataset | None,
        epochs: int,
        options: "TrainerOptions",
    ) -> Dataset:
        """Return the data set to use for training; collective. It must hold a batch; data sets are
        compared however often used.
        """
        named = {"training data": dataset} | (
            {} if validation is None else {"validation data": validation}
        )
        for name, each in named.items():
            require_data_set(each)
            named[name] = each = self._read(each)
            _require_targets(each, name)
            if each.has_weights and self._loss is not None:
                _require_loss_of_weights(self._loss, name)
        batch_fits("Trainer.fit", options.batch_size, len(dataset))
        self._compare(named, epochs=str(epochs))
        result = dataset.astype(self._dtype)
        self._compared.add(result)
        return result

    def batch(self, owner: str, x: Any, y: Any, weights: Any) -> ArrayDataset:
        """Return a global batch that a method was given, checked and converted as a data set is."""
        return ArrayDataset.of(owner, x, y, weights).astype(self._dtype, owner)

    def is_ready(self, x: Any, y: Any) -> bool:
        """Return whether a global batch is two arrays that need no conversion; what is not finite
        in them, the loss finds.
        """
        if x.__class__ is not ndarray or y.__class__ is not ndarray or not (x.ndim and y.ndim):
            return False
        dtype = self._dtype
        return (
            0 < len(x) == len(y)
            and (x.dtype is dtype or x.dtype.kind in "iub")
            and (y.dtype is dtype or y.dtype.kind in "iub")
        )

    def _read(self, dataset: Dataset) -> Dataset:
        """Return a data set as it is, or a source as it is read."""
        return dataset.astype(self._dtype) if isinstance(dataset, Source) else dataset

    def _compare(self, named: dict[str, Dataset], **facts: str) -> None:
        if self._comm.size > 1:
            fix = (
                "Every rank loads the whole data set, in the same order; the trainer takes each"
                " rank's part."
            )
            require_agreement(
                self._comm, facts | {name: dataset.digest() for name, dataset in named.items()}, fix
            )
        self._compared.update(named.values())
