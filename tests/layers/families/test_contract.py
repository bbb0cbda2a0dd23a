"""What every layer must keep, whatever it computes: one suite over the table
`layers.gradient_check.cases.CASES`.
"""

import re
from itertools import pairwise

import numpy as np
import pytest

import layers
from layers import Tape
from layers.gradient_check.cases import BATCH, CASES, Apply
from layers.gradient_check.cases.loss import CASES as CASES_OF_LOSSES

from ..twins import TWINS
from .contract import (
    LAYERS,
    WITH_PARAMETERS,
    Run,
    close,
    every,
    make,
    of_cases,
    per_sample,
    recorded,
    rows,
    trained,
)

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
