"""The gradient check: what backward computes against what the function itself does when its inputs are moved."""

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .errors import message
from .gradient_probe import Probe
from .gradient_report import GradientReport
from .gradient_runs import Findings, check_outputs, check_runs, check_shards
from .layer import Layer
from .merge import Concatenate
from .parameter import Parameter
from .state import State
from .tape import Tape
from .types import Array
from .value import Value
from .workspace import Workspace


def gradcheck(
    function: Callable[..., Any],
    *inputs: Any,
    constant: Collection[int] = (),
    training: bool = True,
    seed: int = 0,
    entries: int = 200,
    directions: int = 2,
    shards: bool = True,
) -> GradientReport:
    """Check the gradients of a layer, or of any function of values, with respect to all its inputs and parameters.

    >>> layers.gradcheck(MyLayer(), x).raise_if_wrong()

    Parameters
    ----------
    function
        A layer, or a callable that takes values and returns a value or a tuple of them. A layer is copied, and its parameters are
        checked; so are those of layers that a function refers to (cast to float64 and put back), and so are the states of these.
    *inputs
        Its arguments. Floating arrays are converted to float64 and checked, everything else (labels, indices) is a constant.
        Keep away from corners such as ReLU's at 0, where there is no derivative.
    constant
        Numbers of floating inputs that are constants too, such as soft targets.
    training
        Whether layers behave as in training. Masks of Dropout are the same in every evaluation.
    seed
        Of the cotangent, the directions, the sampled entries and the tape's random masks.
    entries
        Blocks of up to so many entries are checked entry by entry, of larger ones so many entries are sampled.
    directions
        Number of random directions in which every block is checked as a whole, the entries that were not sampled included.
    shards
        Whether to check, too, that the batch (axis 0 of the first floating input) may be cut in shards.

    Returns
    -------
    GradientReport
        True if all is right; printed, it says what is wrong and which mistake fits. `raise_if_wrong()` turns it into an error.

    Notes
    -----
    **Numeric derivatives.** The output is contracted with a fixed random cotangent, so that every element of it counts.
    Each derivative is taken by central differences at the steps h, h/2 and h/4, and extrapolated to h = 0 (Richardson). How much
    the last extrapolation changed, plus rounding at the smallest step, is its uncertainty: the data say it, no tolerance is chosen.
    Where every recorded layer says `analytic` and the function runs on complex numbers, entries are taken by the complex step
    instead, exact to rounding; it must agree with the differences along the random directions, or the differences are used.

    **Verdict.** An entry is right if |analytic - numeric| is at most 10 times the uncertainty (plus 1000 roundings of the largest
    gradient). Where that fails, or where the uncertainty is large, smaller steps are tried: 1e-4, 1e-5, 1e-6 times
    max(1, |x|). If the one-sided differences still disagree, and each is steady, the entry lies on a kink: it is right if the
    analytic gradient is between them. If even the best uncertainty exceeds 1e-4 of the block's largest gradient, the verdict is
    "unclear", and the check fails. So does a NaN anywhere. The order printed is the power of h with which the differences approach
    the analytic gradient from h = 0.01 on: 2 if it is right, 0 if it is wrong by more than the differences are.

    **Besides**, backward is run again with the same bits expected (on buffers filled with NaN), again on the same tape, expecting
    the gradients of parameters to double, once more with another forward pass in between, and with the batch cut in two shards.
    If that changes the output, as statistics of shards do, output and gradients must be those of each shard alone. Of several
    outputs, side by side as rows, each is propagated alone, too: these gradients must add up.
    """
    subject = Subject(function, inputs, constant, training, seed)
    report = GradientReport(_name(function))
    # A step may leave the domain of a logarithm; what is NaN then is left out, and what stays NaN is reported.
    with subject.cast(np.float64), np.errstate(all="ignore"):
        rng = np.random.default_rng(seed)
        y = subject.evaluate()
        if not np.isfinite(y).all():
            report.faults.append(f"the output has {np.count_nonzero(~np.isfinite(y))} entries that are NaN or infinite")
            return report
        # Away from 0 and of both signs: every element counts, and a backward that ignores dy is found out.
        cotangent = rng.uniform(0.5, 1.5, y.shape) * rng.choice((-1.0, 1.0), y.shape)
        gradients, analytic = subject.gradients(cotangent)
        findings = Findings(report)
        check_runs(subject, y, cotangent, gradients, findings)
        if subject.widths:
            check_outputs(subject, cotangent, gradients, findings)
        if shards:
            check_shards(subject, y, cotangent, gradients, findings)
        probe = Probe(subject, y, cotangent, rng, entries, directions, subject.samples, report.notes)
        if analytic:
            probe.try_complex()
        for name, gradient in gradients.items():
            block = probe.check(name, gradient)
            findings.apply(block)
            report.blocks.append(block)
        if not report.blocks:
            report.faults.append("there is nothing to check: no floating input, and no parameter")
    return report


def _name(function: Any) -> str:
    return repr(function) if isinstance(function, Layer) else str(getattr(function, "__name__", function))


class Subject:
    """What is checked: the function, its inputs, its parameters, and how to run it."""

    def __init__(self, function: Any, inputs: tuple[Any, ...], constant: Collection[int], training: bool, seed: int) -> None:
        self.function = copy.deepcopy(function) if isinstance(function, Layer) else function
        self.training, self.seed = training, seed
        self.dy_kept = True
        self.widths: list[int] = []
        """Of several outputs, how many columns of the whole each has."""
        self.only: int | None = None
        """Number of the output to look at, of several; all unless set."""
        self.inputs = [np.array(x, order="C") if isinstance(x, np.ndarray | np.generic | list | float) else x for x in inputs]
        self.free = [
            i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f" and i not in constant
        ]
        self.constant = [i for i in constant if isinstance(self.inputs[i], np.ndarray) and self.inputs[i].dtype.kind == "f"]
        self.parameters: dict[str, Parameter] = {}
        self.states: list[State] = []
        for prefix, layer in _layers_of(self.function):
            self.states += [state for _, state in layer.named_states()]
            for name, parameter in layer.named_parameters(prefix):
                if not any(parameter is known for known in self.parameters.values()):
                    self.parameters[name] = parameter
        self.workspace = Workspace()

    @contextmanager
    def cast(self, dtype: Any) -> Iterator[None]:
        """Convert inputs and parameters, and put the former ones back at the end."""
        inputs = self.inputs
        kept = [(p, p.value, p.gradients, p.stale, p.partial) for p in self.parameters.values()]
        states = [(state, state.value.copy()) for state in self.states]
        real = np.empty(0, dtype).real.dtype
        self.inputs = [
            x.astype(dtype if i in self.free else real) if i in self.free or i in self.constant else x for i, x in enumerate(inputs)
        ]
        for parameter in self.parameters.values():
            parameter.cast(dtype)
        try:
            yield
        finally:
            self.inputs = inputs
            for parameter, value, gradients, stale, partial in kept:
                parameter.rebind(value, gradients, stale, partial)
            for state, value in states:
                state.value = value

    @property
    def samples(self) -> int:
        """The size of axis 0 of the first floating input (of the first array, if none is floating), 0 if there is none."""
        arrays = self.free or [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray)]
        return next((len(self.inputs[i]) for i in arrays if self.inputs[i].ndim), 0)

    def array(self, name: str) -> Array:
        """Return the array of a block, to be moved in place."""
        if name in self.parameters:
            return self.parameters[name].value
        array: Array = self.inputs[int(name.removeprefix("input "))]
        return array

    def record(self, workspace: Workspace | None = None, shards: Any = None, rows: slice | None = None) -> tuple[list[Any], Value]:
        """Run the function on a new tape, on these rows of the batch if given; return its arguments and its result."""
        inputs, place = self.inputs, {}
        if rows is not None:
            inputs = [x[rows] if isinstance(x, np.ndarray) and x.ndim and len(x) == self.samples else x for x in inputs]
            place = {"samples": self.samples, "first_sample": rows.start}
        tape = Tape(training=self.training, seed=self.seed, workspace=workspace, shards=shards, **place)
        # Without any floating input the first array is a value all the same, else nothing would be recorded.
        values = self.free or [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray)][:1]
        arguments = [tape.input(x) if i in values else x for i, x in enumerate(inputs)]
        y = self.function(*arguments)
        if isinstance(y, tuple):
            y = self._joined(list(_flattened(y)))
        if not isinstance(y, Value):
            fix = "Compute with layers and with the operators and functions of values; np.asarray and .array leave the tape."
            raise TypeError(message("gradcheck", "the function must return a value", type(y).__name__, fix))
        return arguments, y

    def _joined(self, outputs: list[Any]) -> Any:
        """Return several outputs as one matrix, a row for each sample if all have their samples on axis 0."""
        outputs = [y for y in outputs if isinstance(y, Value) and y.dtype.kind in "fc"]
        samples = {len(y) if y.ndim else 0 for y in outputs}
        rows = samples.pop() if len(samples) == 1 else 1
        outputs = [y.reshape(rows or 1, -1) for y in outputs]
        self.widths = [y.shape[1] for y in outputs]
        if self.only is not None:
            return outputs[self.only]
        return Concatenate(-1)(*outputs) if outputs else None

    def evaluate(self) -> Array:
        """Return a copy of the output."""
        return self.record(self.workspace)[1].array.copy()

    def zero(self) -> None:
        """Forget the gradients of the parameters."""
        for parameter in self.parameters.values():
            parameter.gradients, parameter.stale = None, True

    def backward(self, arguments: list[Any], y: Value, cotangent: Array) -> dict[str, Array]:
        """Propagate; return copies of the gradients of all blocks."""
        given = cotangent.copy()
        if y.wants and y.call is not None:
            y.backward(given)
        self.dy_kept = self.dy_kept and given.tobytes() == cotangent.tobytes()
        found: dict[str, Array] = {}
        for i in self.free:
            gradient = arguments[i].grad
            found[f"input {i}"] = np.zeros_like(arguments[i].array) if gradient is None else np.array(gradient)
        return found | {name: parameter.gradient.copy() for name, parameter in self.parameters.items()}

    def gradients(self, cotangent: Array) -> tuple[dict[str, Array], bool]:
        """Return the gradients of all blocks, and whether every recorded layer is analytic."""
        self.zero()
        arguments, y = self.record(self.workspace)
        calls = y.tape.calls
        hidden = {
            repr(call.layer)
            for call in calls
            for parameter in call.layer.own_parameters()
            if not any(parameter is known for known in self.parameters.values())
        }
        if hidden:
            fix = "Keep them in attributes without an underscore, in lists or in dicts; or pass a layer instead of a function."
            raise ValueError(message("gradcheck", "all parameters must be found", f"unlisted ones of {sorted(hidden)}", fix))
        return self.backward(arguments, y, cotangent), all(call.layer.analytic for call in calls)


def _flattened(outputs: tuple[Any, ...]) -> Iterator[Any]:
    for y in outputs:
        if isinstance(y, tuple):
            yield from _flattened(y)
        else:
            yield y


def _layers_of(function: Any) -> list[tuple[str, Layer]]:
    """Return the layers that a function refers to, with the prefix of their parameters' names."""
    if isinstance(function, Layer):
        return [("", function)]
    if isinstance(function, functools.partial):
        found = _layers_of(function.func)
        named: dict[str, Any] = {str(i): x for i, x in enumerate(function.args)} | dict(function.keywords)
    elif inspect.isfunction(function) or inspect.ismethod(function):
        outside = inspect.getclosurevars(function)
        named = {**outside.globals, **outside.nonlocals}
        found = _layers_of(function.__self__) if inspect.ismethod(function) else []
    else:
        named, found = dict(getattr(function, "__dict__", {})), []
    for name, thing in named.items():
        if isinstance(thing, Layer):
            found.append((f"{name}.", thing))
        elif inspect.isfunction(thing) and thing.__module__ == getattr(function, "__module__", None) and thing is not function:
            found += [(prefix, layer) for prefix, layer in _layers_of(thing) if not any(layer is known for _, known in found)]
        elif isinstance(thing, list | tuple):
            found += [(f"{name}.{i}.", layer) for i, layer in enumerate(thing) if isinstance(layer, Layer)]
    return found
