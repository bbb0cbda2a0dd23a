"""What PyTorch says of convolutions, and how far ours are from it."""

import numpy as np
from hypothesis import strategies as st

import layers
from layers import Conv1d, ConvTranspose1d, Tape
from layers.conv.rounding import OPERATIONS, expected_error

from .oracle import torch

# Of the largest element, what an output or a gradient may be off, in roundings of its type. The
# longest sums here, gradients of weights over 1600 pixels, are off by 6 roundings in the mean if
# they are one chain (`layers.conv.rounding`), at most a few times that, and so is PyTorch's own in
# double precision. F(4 x 4), algorithm "fastest", multiplies by numbers up to 8 before sums in
# which most of that cancels: four times as much.
ROUNDINGS, ROUNDINGS_OF_F4 = 32, 120


def ours(layer, x, dy):
    """Return output and gradients (input, weight, bias), channels first and the weight in PyTorch's
    order.
    """
    tape = Tape()
    value = tape.input(x)
    y = layer(value)
    y.backward(dy(y.shape).astype(x.dtype))
    images = [np.moveaxis(a, -1, 1) for a in (y.array, value.grad)]
    return [
        *images,
        in_their_order(layer, layer.weight.gradient),
        *([] if layer.bias is None else [layer.bias.gradient]),
    ]


def in_their_order(layer, weight):
    weight = np.moveaxis(weight, (-1, -2), (0, 1))
    of_sequence = isinstance(layer, Conv1d | ConvTranspose1d)
    return np.ascontiguousarray(weight[:, :, 0] if of_sequence else weight)


def theirs(function, layer, x, dy, of=lambda array: array):
    """Return the same of PyTorch in double precision, of a function of all arrays."""
    arrays = [np.moveaxis(x, -1, 1), in_their_order(layer, layer.weight.value)]
    if layer.bias is not None:
        arrays.append(layer.bias.value)

    def tensor(array):
        return torch.tensor(of(np.ascontiguousarray(array).astype(np.float64)))

    tensors = [tensor(array).requires_grad_() for array in arrays]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        y = function(*tensors)
        shape = np.moveaxis(np.empty(y.shape), 1, -1).shape
        y.backward(tensor(np.moveaxis(dy(shape).astype(x.dtype), -1, 1)))
    finally:
        torch.set_num_threads(threads)
    return [y.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors)]


def errors(results, exact, squares):
    """Return the largest error of each array in roundings of its type, relative to its largest
    element; where all are sums that cancel, to the root of the sum of their terms' squares.
    """
    found = []
    for a, e, s in zip(results, exact, squares, strict=True):
        assert a.shape == e.shape
        # Where there is no term, nothing is there to be off.
        size = max(np.abs(e).max(), np.sqrt(s.max())) or 1
        found.append(np.abs(a - e).max() / size / np.finfo(a.dtype).eps)
    return np.array(found)


def assert_equal_to_pytorch(layer, x, seed, function, **options):
    def dy(shape):
        return np.random.default_rng(seed + 1).standard_normal(shape)

    if layer.bias is None:
        function_of = lambda x, w: function(x, w, None, **options)  # noqa: E731
    else:
        function_of = lambda x, w, b: function(x, w, b, **options)  # noqa: E731
    exact, squares = (theirs(function_of, layer, x, dy, of) for of in (np.array, np.square))
    found = errors(ours(layer, x, dy), exact, squares)
    assert found.max() <= (ROUNDINGS_OF_F4 if layer.algorithm == "fastest" else ROUNDINGS), found


def usual(bias, algorithm, dtype):
    return {
        "bias": bias,
        "bias_init": layers.init.normal(1),
        "algorithm": algorithm,
        "dtype": dtype,
    }


def drawn(least, most):
    return st.tuples(st.integers(least, most), st.integers(least, most))


common = {
    "dtype": st.sampled_from([np.float32, np.float64]),
    "algorithm": st.sampled_from(["default", "fastest", "direct"]),
    "samples": st.integers(1, 4),
    "image": drawn(1, 12),
    "size": drawn(1, 5),
    "stride": st.one_of(st.just((1, 1)), drawn(1, 3)),
    "padding": drawn(0, 3),
    "dilation": st.one_of(st.just((1, 1)), drawn(1, 3)),
    "groups": st.sampled_from([1, 1, 1, 2, 3]),
    # Of a group. Few channels, those of a vector or two, and one more and fewer.
    "inner": st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 20]),
    "outer": st.sampled_from([1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33]),
    "bias": st.booleans(),
    "seed": st.integers(0, 99),
}


def relative_errors(results, exact):
    """Return the root mean square error of each array over that of the array, in units of single
    precision's unit roundoff.
    """
    return [
        float(np.sqrt(np.square(a - e).mean() / np.square(e).mean())) * 2**24
        for a, e in zip(results, exact, strict=True)
    ]


def assert_as_exact_as_expected(layer, x, function):
    def dy(shape):
        return np.random.default_rng(1).standard_normal(shape)

    found = relative_errors(ours(layer, x, dy), theirs(function, layer, x, dy))
    expected = [
        expected_error(layer.algorithm_for(x), operation, len(x)) for operation in OPERATIONS
    ]
    for operation, error, most in zip(OPERATIONS, found, expected, strict=True):
        assert most / 3 < error <= most, (operation, found, expected)
