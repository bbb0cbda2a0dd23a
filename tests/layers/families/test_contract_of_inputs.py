"""What every layer must keep of the arrays that it is given: their types, and what is in them."""

import re

import numpy as np

import layers
from layers import Tape
from layers.gradient_check.cases import Apply

from .contract import Run, every, gradient_of, joining, make, recorded

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
