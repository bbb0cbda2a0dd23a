"""What every layer must keep, whatever it computes: one suite over the table
`layers.gradient_check.cases.CASES`.
"""

import re
from itertools import pairwise

import numba
import numpy as np
import pytest

import layers
from layers import MeanSquaredError, PReLU, Tape, Workspace
from layers.gradient_check.cases import BATCH, CASES, FAMILY, Apply
from layers.gradient_check.cases.loss import CASES as CASES_OF_LOSSES

from ..twins import TWINS

# Roundings that an output may be off from its twin, relative to the largest element: the longest
# sum has 19 terms, and the kernels' exp, tanh and distribution function are good to a few
# roundings. Convolutions sum up to 216 terms, of random signs, with an error like the root of that;
# Winograd's F(4 x 4) has coefficients up to 8 and 5 and 1/24 in its transforms.
ROUNDINGS = 16
ROUNDINGS_OF_F4 = 64

CUTS = [(0, cut, BATCH) for cut in range(1, BATCH)] + [
    tuple(range(BATCH + 1)),
    (0, 2, 5, 7),
    (0, 1, 1, 7),
]

# Some that must take part in steps that are replayed, one or more of each family that does.
REPLAYED = {
    *("Linear", "Linear without bias", "ReLU", "GELU", "PReLU", "Softmax", "Reshape", "LayerNorm"),
    *("Conv2d", "MaxPool2d", "AvgPool2d", "Add", "SoftmaxCrossEntropy", "MeanSquaredError"),
    *("BinaryCrossEntropy", "Dropout", "Dropout2d", "Embedding", "BatchNorm", "BatchNorm2d"),
    *(
        "Residual with BatchNorm and ReLU",
        "GroupNorm",
        "Attention causal",
        "Attention with dropout",
    ),
    *("MultiHeadAttention", "LearnedPositions", "EncoderBlock causal", "Multiply", "RNN", "GRU"),
    *("Coefficients", "a + b", "a - b", "a b", "a / b", "a ** b", "a ** 3", "2 ** a", "-a", "exp"),
    *("log", "sqrt", "sin", "tanh", "erf", "a[1:4]", "reshape", "stack", "squeeze", "split"),
    *("sum over axes", "mean over an axis"),
    *("LSTM", "LSTM with lengths", "LSTM of two layers both ways, last", "GRU, last"),
}
LAYERS = {case.name: case.make(np.random.default_rng(0)) for case in CASES}
WITH_PARAMETERS = [case for case in CASES if LAYERS[case.name].parameters()]


def of_cases(cases):
    """Return the mark of a test of cases, which are named with their family: by that they are
    spread over processes.
    """
    cases = list(cases)
    names = [f"{FAMILY[case.name]}: {case.name}" for case in cases]
    return pytest.mark.parametrize("case", cases, ids=names)


every, trained = of_cases(CASES), of_cases(WITH_PARAMETERS)
per_sample = of_cases(case for case in CASES if case.per_sample)
joining = of_cases(
    case
    for case in CASES
    if case.name in ("Add", "Multiply", "MeanSquaredError", "maximum", "where")
)


def make(case, dtype=np.float32):
    """Return the layer and its inputs in a dtype, always the same ones."""
    rng = np.random.default_rng(3)
    layer = case.make(rng).astype(dtype)
    return layer, tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in case.inputs(rng))


def gradient_of(case, y, dtype=np.float32):
    """Return the gradient of an output, the same for the same shape."""
    return np.asarray(np.random.default_rng(4).uniform(0.5, 1.5, y.shape), dtype)


def recorded(case, tape, inputs):
    """Return the inputs as a layer gets them: floating arrays as values, or the first array where
    there is none.
    """
    floating = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"] or [0]
    return [
        tape.input(x, gradient=i not in case.constant) if i in floating else x
        for i, x in enumerate(inputs)
    ]


class Run:
    """A forward and a backward pass, with copies of everything that came out."""

    def __init__(self, case, layer, inputs, dy=None, keep=False, **options):
        if not keep:
            for parameter in layer.parameters():
                parameter.forget_gradients()
        tape = Tape(training=case.training, **options)
        values = recorded(case, tape, inputs)
        y = layer(*values)
        self.y = y.array.copy()
        self.dy = gradient_of(case, y, y.dtype) if dy is None else dy
        y.backward(self.dy)
        self.dx = [
            np.array(v.grad) if isinstance(v, layers.Value) and v.wants else None for v in values
        ]
        self.gradients = [np.array(parameter.gradients) for parameter in layer.parameters()]

    def same_bits(self, other):
        pairs = [
            (self.y, other.y),
            *zip(self.dx, other.dx, strict=True),
            *zip(self.gradients, other.gradients, strict=True),
        ]
        return all(a is b or (a.shape == b.shape and a.tobytes() == b.tobytes()) for a, b in pairs)


def rows(inputs, start, stop):
    """Cut the inputs whose axis 0 is the batch."""
    return tuple(x[start:stop] if x.ndim and len(x) == BATCH else x for x in inputs)


def close(a, b, roundings):
    scale = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and bool(np.all(np.abs(a - b) <= roundings * np.finfo(a.dtype).eps * scale))
    )


# ---- the table itself


def test_every_layer_and_loss_has_a_case():
    seen = set()

    def visit(thing):
        seen.add(type(thing))
        for attribute in vars(thing).values():
            for item in attribute if isinstance(attribute, list | tuple) else [attribute]:
                if isinstance(item, layers.Module):
                    visit(item)

    for case in CASES:
        visit(make(case)[0])
    public = {thing for name in layers.__all__ if isinstance(thing := getattr(layers, name), type)}
    missing = {thing.__name__ for thing in public if issubclass(thing, layers.Module)} - {
        thing.__name__ for thing in seen
    }
    # Bases have no function of their own.
    assert missing == {"Module", "Layer", "Composite", "Loss"}


def test_every_function_of_values_has_a_case():
    names = {case.name for case in CASES}
    functions = {
        name for name in layers.__all__ if name.islower() and callable(getattr(layers, name))
    } - {"gradcheck", "set_precision", "summary"}
    assert functions - names <= {"absolute"}, "absolute is tested as abs a"


def test_every_case_has_a_name_of_its_own_and_a_twin():
    assert sorted(case.name for case in CASES) == sorted(TWINS)


# ---- what it computes


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_forward_equals_the_twin(case, dtype):
    layer, inputs = make(case, dtype)
    parameters = {
        name: parameter.value.astype(np.float64) for name, parameter in layer.named_parameters()
    }
    exact = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs]
    expected = np.asarray(TWINS[case.name](parameters, *exact))
    y = Run(case, layer, inputs).y
    assert y.dtype == dtype
    roundings = ROUNDINGS_OF_F4 if "fastest" in case.name else ROUNDINGS
    assert close(y, expected.astype(dtype), roundings), (
        np.abs(y - expected).max() / np.finfo(dtype).eps
    )


@every
def test_gradients_are_right(case):
    layer, inputs = make(case)
    layers.gradcheck(
        layer, *inputs, constant=case.constant, training=case.training
    ).raise_if_wrong()


@of_cases(
    case
    for case in CASES
    if not isinstance(LAYERS[case.name], Apply)
    and not (case.training and re.search("[Dd]ropout|BatchNorm", repr(LAYERS[case.name])))
)
def test_outside_a_tape_the_output_has_the_same_bits(case):
    layer, inputs = make(case)
    assert Run(case, layer, inputs).y.tobytes() == layer(*inputs).tobytes()


# ---- accumulation and sharing


@trained
@pytest.mark.parametrize("shards", [None, (0, 3, BATCH)], ids=["one shard", "two shards"])
def test_freezing_parameters_changes_no_bit_of_what_is_left(case, shards):
    layer, inputs = make(case)
    whole = Run(case, layer, inputs, shards=shards)
    parameters = layer.parameters()
    wanted = any(dx is not None for dx in whole.dx)
    choices = [*([each] for each in parameters), *([parameters] if wanted else [])]
    for frozen in choices if len(parameters) > 1 or wanted else []:
        for parameter in parameters:
            parameter.trainable = not any(parameter is each for each in frozen)
        rest = Run(case, layer, inputs, shards=shards)
        assert rest.y.tobytes() == whole.y.tobytes()
        pairs = [
            *zip(rest.dx, whole.dx, strict=True),
            *zip(rest.gradients, whole.gradients, strict=True),
        ]
        for left, right in pairs[: len(rest.dx)]:
            assert left is right or left.tobytes() == right.tobytes()
        for parameter, (left, right) in zip(parameters, pairs[len(rest.dx) :], strict=True):
            if parameter.trainable:
                assert left.tobytes() == right.tobytes()
            else:
                assert parameter.gradients is None
    layer.unfreeze()
    assert Run(case, layer, inputs, shards=shards).same_bits(whole)


@trained
def test_two_backward_passes_add(case):
    layer, inputs = make(case, np.float64)
    once = Run(case, layer, inputs)
    twice = Run(case, layer, inputs, keep=True)
    assert all(close(b, 2 * a, 4) for a, b in zip(once.gradients, twice.gradients, strict=True))


@trained
def test_what_a_gradient_held_before_is_kept(case):
    layer, inputs = make(case, np.float64)
    once = Run(case, layer, inputs)
    for parameter in layer.parameters():
        parameter.store.buffer(1)[0][...] = 1000
    more = Run(case, layer, inputs, keep=True)
    assert all(close(b, a + 1000, 8) for a, b in zip(once.gradients, more.gradients, strict=True))


@trained
def test_contents_of_a_stale_gradient_count_as_zero(case):
    layer, inputs = make(case)
    once = Run(case, layer, inputs)
    for parameter in layer.parameters():
        parameter.gradients[...] = np.nan
        parameter.zero_gradient()
    assert Run(case, layer, inputs, keep=True).same_bits(once)


@every
def test_layer_used_twice_in_a_graph_is_two_independent_calls(case):
    layer, first = make(case, np.float64)
    second = tuple(x[::-1].copy() if x.dtype.kind == "f" and x.ndim else x for x in first)
    # In evaluation: masks differ from call to call.
    still = type(case)(
        case.name, case.make, case.inputs, case.per_sample, case.constant, training=False
    )
    a, b = Run(still, layer, first), Run(still, layer, second)
    for parameter in layer.parameters():
        parameter.zero_gradient()
    tape = Tape()
    one, two = (recorded(case, tape, inputs) for inputs in (first, second))
    y, z = layer(*one), layer(*two)
    assert (y.array.tobytes(), z.array.tobytes()) == (a.y.tobytes(), b.y.tobytes())
    ((y * a.dy).sum() + (z * b.dy).sum()).backward()
    for values, alone in ((one, a), (two, b)):
        for value, dx in zip(values, alone.dx, strict=True):
            assert dx is None or close(value.grad, dx, 4)
    for parameter, ga, gb in zip(layer.parameters(), a.gradients, b.gradients, strict=True):
        assert close(parameter.gradients, ga + gb, 64)


# ---- types

_SWAPPED = np.dtype(np.float32).newbyteorder()
WRONG_TYPES = (
    *(np.float64, np.float16, np.int64, np.bool_, np.complex64, np.complex128, object),
    _SWAPPED,
)


def wrong_inputs(case, wrong):
    """Yield the inputs with one of them in another type, as values and, where a layer is called,
    as arrays.
    """
    layer, inputs = make(case)
    for i, x in enumerate(inputs):
        # Without zeros and negative numbers: where integers divide, NumPy has its own errors.
        other = np.abs(x) + 1 if x.dtype.kind == "f" and wrong == np.int64 else x
        given = [other.astype(wrong) if i == j else x for j, x in enumerate(inputs)]
        tape = Tape(training=case.training)
        if any(isinstance(x, np.ndarray) and x.dtype.kind in "fcO" for x in given):
            yield layer, lambda tape=tape, given=given: recorded(case, tape, given)
        if not isinstance(layer, Apply):
            yield layer, lambda given=given: given


@every
def test_input_of_another_type_is_refused_by_name_or_keeps_its_type(case):
    for wrong in map(np.dtype, WRONG_TYPES):
        for layer, prepare in wrong_inputs(case, wrong):
            refusal, values = None, []
            try:
                values = prepare()
                y = layer(*values)
                if isinstance(y, layers.Value) and y.wants:
                    y.backward(gradient_of(case, y, y.dtype))
            except (TypeError, ValueError) as error:
                refusal = str(error)
            assert wrong != _SWAPPED or refusal is not None, wrong.str
            in_our_words = refusal is None or re.match(r"(?s)^\S.*: .*; got .*\. .*\.$", refusal)
            assert in_our_words, (wrong.str, refusal)
            for value in values:
                if refusal is None and isinstance(value, layers.Value) and value.wants:
                    assert value.grad is None or value.grad.dtype == value.dtype, wrong.str


# ---- aliasing


@every
def test_inputs_and_dy_are_not_written_to(case):
    layer, inputs = make(case)
    before = [x.copy() for x in inputs]
    run = Run(case, layer, inputs)
    assert all(x.tobytes() == b.tobytes() for x, b in zip(inputs, before, strict=True))
    assert run.dy.tobytes() == gradient_of(case, run.y, run.dy.dtype).tobytes()


@every
def test_gradient_that_two_layers_receive_is_not_written_to_by_either(case):
    # y + y hands the same dy on twice; the gradient of what follows must not see what the layer
    # does with it.
    layer, inputs = make(case)
    alone = Run(case, layer, inputs)
    tape = Tape(training=case.training)
    values = recorded(case, tape, inputs)
    other = tape.input(np.zeros_like(alone.y))
    (layer(*values) + other).backward(alone.dy)
    assert other.grad.tobytes() == alone.dy.tobytes()
    assert all(
        dx is None or value.grad.tobytes() == dx.tobytes()
        for value, dx in zip(values, alone.dx, strict=True)
    )


@every
def test_arrays_may_be_filled_anew_between_forward_and_backward(case):
    layer, inputs = make(case)

    def run(only, *, refilled):
        for parameter in layer.parameters():
            parameter.forget_gradients()
        given = [x.copy() for x in inputs]
        tape = Tape(training=case.training)
        value = tape.input(given[only])
        y = layer(*(value if i == only else x for i, x in enumerate(given)))
        for x in given if refilled else ():
            x[...] = np.nan if x.dtype.kind == "f" else ~x if x.dtype.kind == "b" else 0
        if y.wants:
            y.backward(gradient_of(case, y, y.dtype))
        return value.grad if value.wants else None, [p.gradient for p in layer.parameters()]

    for only, x in enumerate(inputs):
        if only in case.constant or (x.dtype.kind != "f" and only):
            continue
        (dx, gradients), (expected, others) = (run(only, refilled=r) for r in (True, False))
        assert dx is expected or dx.tobytes() == expected.tobytes(), f"input {only}"
        for gradient, other in zip(gradients, others, strict=True):
            assert gradient.tobytes() == other.tobytes(), f"parameters, input {only}"


@joining
def test_same_array_twice_is_like_two_equal_arrays(case):
    layer, inputs = make(case)
    apart, together = (
        Run(case, layer, (inputs[0], inputs[0].copy())),
        Run(case, layer, (inputs[0], inputs[0])),
    )
    assert together.same_bits(apart)


@joining
def test_same_value_twice_gets_the_sum_of_both_gradients(case):
    layer, inputs = make(case, np.float64)
    apart = Run(case, layer, (inputs[0], inputs[0].copy()))
    x = Tape().input(inputs[0])
    layer(x, x).backward(apart.dy)
    assert (
        np.abs(x.grad - apart.dx[0] - apart.dx[1]).max()
        <= 4 * np.finfo(float).eps * np.abs(apart.dx[0]).max()
    )


# ---- batches


@per_sample
def test_empty_batch_and_single_sample(case):
    layer, inputs = make(case)
    for count in (1, 0):
        few = rows(inputs, 0, count)
        run = Run(case, layer, few)
        assert all(
            dx is None or (dx.shape == x.shape and np.isfinite(dx).all())
            for dx, x in zip(run.dx, few, strict=True)
        ), f"{count} samples"
        assert np.isfinite(run.y).all(), f"{count} samples"
        assert run.y.ndim == 0 or len(run.y) == count
    assert not any(gradient.any() for gradient in run.gradients), "of no samples"
    assert not run.y.any(), "the loss of no samples is 0"


@per_sample
def test_batch_cut_in_any_way_gives_the_same_bits_per_sample(case):
    layer, inputs = make(case)
    whole = Run(case, layer, inputs, samples=BATCH)
    # Every part that the cuts have, in their order.
    for start, stop in dict.fromkeys(part for bounds in CUTS for part in pairwise(bounds)):
        dy = whole.dy[start:stop] if whole.dy.ndim else whole.dy
        part = Run(case, layer, rows(inputs, start, stop), dy, samples=BATCH, first_sample=start)
        of_part = f"samples {start} to {stop}"
        if whole.y.ndim:
            assert part.y.tobytes() == whole.y[start:stop].tobytes(), of_part
        for x, a, b in zip(inputs, part.dx, whole.dx, strict=True):
            if b is not None and len(x) == BATCH:
                assert a.tobytes() == b[start:stop].tobytes(), of_part


@of_cases(case for case in WITH_PARAMETERS if case.per_shard)
def test_gradients_of_shards_are_those_of_separate_tapes(case):
    layer, inputs = make(case)
    bounds = (0, 2, 5, 7)
    whole = Run(case, layer, inputs, shards=bounds)
    again = Run(case, layer, inputs, shards=bounds)
    assert whole.same_bits(again)
    for s, (start, stop) in enumerate(pairwise(bounds)):
        part = Run(case, layer, rows(inputs, start, stop), whole.dy[start:stop], first_sample=start)
        for together, alone in zip(whole.gradients, part.gradients, strict=True):
            assert together[s].tobytes() == alone[0].tobytes()


@of_cases(case for case in CASES_OF_LOSSES if case.per_shard)
def test_sums_of_shards_make_up_the_loss(case):
    layer, inputs = make(case)
    tape = Tape(shards=(0, 2, 5, 7))
    loss = layer(*recorded(case, tape, inputs))
    assert np.allclose(loss.shard_sums.sum() / BATCH, loss.item(), rtol=1e-6)
    for s, (start, stop) in enumerate(((0, 2), (2, 5), (5, 7))):
        alone = Tape()
        part = layer(*recorded(case, alone, rows(inputs, start, stop)))
        assert part.shard_sums[0] == loss.shard_sums[s]


# ---- memory layout, repetition, buffers


@every
def test_second_run_and_any_thread_count_give_the_same_bits(case):
    layer, inputs = make(case)
    first = Run(case, layer, inputs)
    before = numba.get_num_threads()
    try:
        for threads in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            assert Run(case, layer, inputs).same_bits(first)
    finally:
        numba.set_num_threads(before)


@every
def test_nothing_is_allocated_in_the_second_and_third_step(case):
    layer, inputs = make(case)
    workspace = Workspace()
    counts = []
    for step in range(3):
        Run(case, layer, inputs, keep=True, workspace=workspace, step=step)
        counts.append(workspace.allocations)
    assert counts[0] == counts[1] == counts[2]


def steps_of(case, dtype=np.float32):
    """Return bits of the losses and gradients of six steps, over rows in another order each, and
    how many of them were replayed.

    The first input passes through a layer with a parameter, so that there is a gradient, and an
    output that is no number becomes one.
    """
    layer, inputs = make(case, dtype)
    first, last, workspace, found = PReLU(dtype=dtype), MeanSquaredError(), Workspace(), []
    parameters = [*layer.parameters(), *first.parameters()]
    for step in range(6):
        for parameter in parameters:
            parameter.zero_gradient()
        tape = Tape(training=True, workspace=workspace, seed=1, step=step)
        given = [np.roll(x, step, 0) if x.ndim and len(x) == BATCH else x for x in inputs]
        values = [
            tape.input(x, gradient=False)
            if not i or (x.dtype == dtype and i not in case.constant)
            else x
            for i, x in enumerate(given)
        ]
        if values[0].dtype == dtype and values[0].ndim > 1:
            values[0] = first(values[0])
        y = layer(*values)
        y = y[0] if isinstance(y, tuple) else y
        if y.ndim:
            y = last(y, np.ones(y.shape, y.dtype))
        if y.wants:
            y.backward()
        found.append([y.array.tobytes(), *(p.gradient.tobytes() for p in parameters)])
    return found, workspace.replay.steps


@every
def test_steps_that_are_replayed_have_the_bits_of_ordinary_ones(case, monkeypatch):
    found, replayed = steps_of(case)
    if case.name in REPLAYED:
        assert replayed >= 3
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert steps_of(case) == (found, 0)


@every
def test_what_a_buffer_held_does_not_matter(case):
    layer, inputs = make(case)
    workspace = Workspace()
    first = Run(case, layer, inputs, workspace=workspace)
    workspace.spoil()
    assert Run(case, layer, inputs, workspace=workspace).same_bits(first)
