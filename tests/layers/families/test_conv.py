"""Convolutions: the algorithm for each shape, bits, memory, and what is refused. Values:
test_contract and test_conv_oracle.
"""

from itertools import pairwise

import numpy as np
import pytest

import layers
from layers import Conv1d, Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d, Tape, Workspace
from layers.conv.algorithms import Depthwise, Direct, FewChannels, Winograd
from layers.conv.frames import Framed
from layers.kernels.machine import VECTOR_BYTES


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def run(layer, x, dy=None, **options):
    """Return copies of output, input's gradient and the gradients (S, ...) of the parameters, by
    name.
    """
    for parameter in layer.parameters():
        parameter.forget_gradients()
    tape = Tape(training=True, **options)
    value = tape.input(x)
    y = layer(value)
    y.backward(np.ones(y.shape, y.dtype) if dy is None else dy)
    parameters = {name: parameter.gradients.copy() for name, parameter in layer.named_parameters()}
    return {"y": y.array.copy(), "dx": np.array(value.grad), **parameters}


def same_bits(a, b):
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


# ---- which algorithm


# Channels, window, options, image, algorithm, pixels of a tile's side forward.
CHOICES = [
    ((16, 16), 3, {"padding": 1}, (32, 32), Winograd, 2),
    ((64, 64), 3, {"padding": 1}, (8, 8), Winograd, 2),
    ((32, 16), 3, {}, (10, 10), Winograd, 2),
    ((16, 16), 3, {"padding": 2}, (8, 8), Winograd, 2),
    ((16, 16), 3, {"padding": "same"}, (8, 8), Winograd, 2),
    # Whole vectors of 32 bytes, but not of 64: other bits.
    ((24, 48), 3, {"padding": 1}, (8, 8), Direct, 0),
    ((16, 16), 3, {"padding": 1, "algorithm": "fastest"}, (32, 32), Winograd, 4),
    ((16, 16), 3, {"padding": 1, "algorithm": "direct"}, (32, 32), Direct, 0),
    # One axis of tiles half empty, and another too: 2.25 times the work.
    ((16, 16), 3, {"padding": 1}, (3, 3), Direct, 0),
    ((16, 16), 3, {"padding": 1, "algorithm": "fastest"}, (6, 6), Winograd, 2),
    ((16, 16), 3, {"padding": 3}, (8, 8), Direct, 0),
    ((15, 16), 3, {"padding": 1}, (8, 8), Direct, 0),
    ((16, 17), 3, {"padding": 1}, (8, 8), Direct, 0),
    ((8, 16), 3, {"padding": 1}, (8, 8), Direct, 0),
    ((16, 16), 1, {}, (8, 8), Direct, 0),
    ((16, 16), 5, {"padding": 2}, (8, 8), Direct, 0),
    ((16, 16), (3, 1), {}, (8, 8), Direct, 0),
    ((16, 16), 3, {"padding": 1, "stride": 2}, (8, 8), Direct, 0),
    ((16, 16), 3, {"padding": 1, "stride": (1, 2)}, (8, 8), Direct, 0),
    ((16, 16), 3, {"padding": 2, "dilation": 2}, (8, 8), Direct, 0),
    ((32, 32), 3, {"padding": 1, "groups": 2}, (8, 8), Direct, 0),
    ((3, 16), 3, {"padding": 1}, (32, 32), FewChannels, 0),
    ((7, 16), 5, {"dilation": 2}, (32, 32), FewChannels, 0),
    ((3, 16), 3, {"padding": 1, "stride": 2}, (32, 32), Direct, 0),
    ((4, 4), 3, {"padding": 1, "groups": 4}, (32, 32), Depthwise, 0),
    ((4, 12), 3, {"stride": 2, "groups": 4}, (32, 32), Depthwise, 0),
    ((8, 4), 3, {"padding": 1, "groups": 4}, (32, 32), Direct, 0),
]


@pytest.mark.parametrize(
    ("channels", "size", "options", "image", "algorithm", "m"), CHOICES, ids=str
)
def test_method_is_chosen_by_shape(rng, channels, size, options, image, algorithm, m):
    chosen = Conv2d(*channels, size, rng=rng, **options).algorithm_for(
        np.empty((1, *image, channels[0]), np.float32)
    )
    assert type(chosen) is algorithm
    assert getattr(chosen, "sizes", (0,))[0] == m


def test_transposed_convolution_goes_by_the_method_of_the_convolution_back(rng):
    x = np.empty((1, 8, 8, 16), np.float32)
    assert isinstance(ConvTranspose2d(16, 32, 3, rng=rng, padding=1).algorithm_for(x), Winograd)
    assert isinstance(ConvTranspose2d(16, 3, 3, rng=rng, padding=1).algorithm_for(x), FewChannels)
    assert type(ConvTranspose2d(16, 32, 2, rng=rng, stride=2).algorithm_for(x)) is Direct


@pytest.mark.parametrize(
    ("layer", "options", "image", "inner"),
    [
        (Conv3d, {"padding": 1}, (4, 8, 8, 16), Winograd),
        (Conv3d, {"padding": 1, "stride": (2, 1, 1)}, (4, 8, 8, 16), Winograd),
        (Conv3d, {"padding": 1, "stride": (1, 2, 1)}, (4, 8, 8, 16), Direct),
        (Conv3d, {"padding": 1, "algorithm": "direct"}, (4, 8, 8, 16), Direct),
        (Conv2d, {"padding": 1, "padding_mode": "reflect"}, (8, 8, 16), Winograd),
        (Conv2d, {"padding": 1, "padding_mode": "circular", "groups": 16}, (8, 8, 16), Depthwise),
    ],
    ids=str,
)
def test_frames_are_convolved_by_the_algorithm_of_their_shape(rng, layer, options, image, inner):
    chosen = layer(16, 16, 3, rng=rng, **options).algorithm_for(np.empty((1, *image), np.float32))
    assert type(chosen) is Framed
    assert type(chosen.inner) is inner


def test_depthwise_volumes_are_sums_of_depthwise_slices(rng):
    layer = Conv3d(16, 16, 3, rng=rng, groups=16)
    chosen = layer.algorithm_for(np.empty((1, 4, 8, 8, 16), np.float32))
    assert repr(chosen) == "SlicesApart(Depthwise())"


def test_nothing_is_framed_where_no_pixel_is_added(rng):
    layer = Conv2d(16, 16, 3, rng=rng, padding="valid", padding_mode="reflect")
    assert isinstance(layer.algorithm_for(np.empty((1, 8, 8, 16), np.float32)), Winograd)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "groups": 2}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_number_of_frames_at_a_time_does_not_matter(options, dtype, rng):
    # Direct convolution adds up band by band: that the weight's gradient agrees, too, is its doing.
    layer = Conv3d(6, 4, 3, rng=rng, padding=2, padding_mode="replicate", dtype=dtype, **options)
    x = rng.standard_normal((3, 5, 6, 4, 6)).astype(dtype)
    expected = run(layer, x, shards=(0, 2, 3))
    algorithm = layer.algorithm_for(x)
    assert algorithm.together > 3 * 7
    for algorithm.together in (1, 2, 5):
        assert same_bits(run(layer, x, shards=(0, 2, 3)), expected)


def test_one_slice_of_a_volume_is_convolved_as_an_image(rng):
    flat = Conv2d(5, 8, 3, rng=rng, padding=1)
    deep = Conv3d(5, 8, (1, 3, 3), rng=rng, padding=(0, 1, 1))
    deep.weight.value[0] = flat.weight.value
    x = rng.standard_normal((2, 3, 6, 7, 5)).astype(np.float32)
    one, all_of_them = run(flat, x.reshape(6, 6, 7, 5)), run(deep, x)
    for name in ("y", "dx", "weight", "bias"):
        assert one[name].tobytes() == all_of_them[name].tobytes()


def test_shapes_of_images_may_alternate(rng):
    layer = Conv2d(3, 4, 3, rng=rng, padding="same", stride=2)
    images = [
        rng.standard_normal((2, h, w, 3)).astype(np.float32) for h, w in ((5, 6), (8, 3), (5, 6))
    ]
    for x in images:
        fresh = Conv2d(3, 4, 3, rng=rng, padding="same", stride=2)
        fresh.weight, fresh.bias = layer.weight, layer.bias
        assert same_bits(run(layer, x), run(fresh, x))


# ---- bits

REALISTIC = {
    "Winograd": lambda rng: (Conv2d(16, 32, 3, rng=rng, padding=1), (16, 16, 16)),
    "fastest": lambda rng: (
        Conv2d(16, 16, 3, rng=rng, padding=1, algorithm="fastest"),
        (16, 16, 16),
    ),
    "odd tiles": lambda rng: (Conv2d(16, 16, 3, rng=rng, padding=1), (15, 13, 16)),
    "direct": lambda rng: (Conv2d(16, 24, 3, rng=rng, padding=1, stride=2), (16, 15, 16)),
    "few channels": lambda rng: (Conv2d(3, 16, 5, rng=rng, padding=2), (20, 17, 3)),
    "depthwise": lambda rng: (Conv2d(24, 24, 3, rng=rng, padding=1, groups=24), (12, 12, 24)),
    "several bands": lambda rng: (Conv2d(32, 12, 3, rng=rng, padding=1), (40, 36, 32)),
    "transposed": lambda rng: (ConvTranspose2d(16, 9, 4, rng=rng, padding=1, stride=2), (9, 8, 16)),
    "sequence": lambda rng: (Conv1d(5, 16, 3, rng=rng, padding=1), (50, 5)),
    # Frames of 98 kB and 92 kB, of which a few are in memory at a time.
    "volume by Winograd": lambda rng: (Conv3d(32, 16, 3, rng=rng, padding=1), (6, 16, 16, 32)),
    "volume": lambda rng: (
        Conv3d(24, 12, 3, rng=rng, stride=(1, 2, 1), padding=1, padding_mode="circular"),
        (4, 16, 16, 24),
    ),
    "slices of a volume": lambda rng: (
        Conv3d(5, 8, (1, 3, 3), rng=rng, padding=(0, 1, 1)),
        (3, 9, 8, 5),
    ),
    "depthwise volume": lambda rng: (
        Conv3d(24, 24, 3, rng=rng, padding=1, groups=24),
        (6, 16, 16, 24),
    ),
    "transposed volume": lambda rng: (
        ConvTranspose3d(24, 12, 3, rng=rng, padding=1, stride=(2, 1, 2)),
        (5, 16, 8, 24),
    ),
    "reflecting": lambda rng: (
        Conv2d(16, 16, 3, rng=rng, padding=1, padding_mode="reflect"),
        (33, 31, 16),
    ),
}
realistic = pytest.mark.parametrize("name", REALISTIC)


@realistic
@pytest.mark.parametrize(
    "bounds", [(0, 1, 2, 3, 4, 5), (0, 2, 5), (0, 3, 5), (0, 4, 5), (0, 1, 5)], ids=str
)
def test_batch_of_real_images_cut_in_any_way_gives_the_same_bits(name, bounds, rng):
    layer, image = REALISTIC[name](rng)
    x = rng.standard_normal((5, *image)).astype(np.float32)
    whole = run(layer, x, shards=bounds)
    assert all(np.isfinite(part).all() for part in whole.values())
    for s, (start, stop) in enumerate(pairwise(bounds)):
        part = run(layer, x[start:stop])
        assert part["y"].tobytes() == whole["y"][start:stop].tobytes()
        assert part["dx"].tobytes() == whole["dx"][start:stop].tobytes()
        assert part["weight"][0].tobytes() == whole["weight"][s].tobytes()
        assert part["bias"][0].tobytes() == whole["bias"][s].tobytes()


def moved(x, offset):
    """Return x in memory that begins so many bytes after a multiple of 64."""
    room = np.zeros(x.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    to = room[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    to[...] = x
    return to


@realistic
@pytest.mark.parametrize("offset", [0, 4, 20, 32, 60])
def test_alignment_does_not_matter(name, offset, rng):
    layer, image = REALISTIC[name](rng)
    x = rng.standard_normal((2, *image)).astype(np.float32)
    plain = run(layer, x)
    dy = moved(np.ones_like(plain["y"]), offset)
    for parameter in layer.parameters():
        parameter.rebind(moved(parameter.value, offset))
    assert same_bits(run(layer, moved(x, offset), dy), plain)


@realistic
def test_layout_of_input_and_dy_does_not_matter(name, rng):
    layer, image = REALISTIC[name](rng)
    x = rng.standard_normal((2, *image)).astype(np.float32)
    plain = run(layer, x)
    dy = np.broadcast_to(np.float32(1), plain["y"].shape)
    assert same_bits(run(layer, np.asfortranarray(x), dy), plain)
    assert same_bits(run(layer, x[::-1].copy()[::-1], dy), plain)
    assert same_bits(run(layer, np.repeat(x, 2, axis=-1)[..., ::2], dy), plain)


@realistic
def test_fused_relu_has_the_bits_of_a_relu_afterwards(name, rng):
    layer, image = REALISTIC[name](rng)
    x = rng.standard_normal((2, *image)).astype(np.float32)
    dy = rng.standard_normal(run(layer, x)["y"].shape).astype(np.float32)
    fused = run(layers.Sequential(layer, layers.ReLU()), x, dy)

    class Apart(layers.Composite):
        def __init__(self):
            self.layers = (layer, layers.ReLU())

        def __call__(self, x):
            return self.layers[1](self.layers[0](x))

    assert same_bits(run(Apart(), x, dy), fused)


def test_nan_of_one_sample_stays_in_it(rng):
    for name in REALISTIC:
        layer, image = REALISTIC[name](rng)
        x = rng.standard_normal((3, *image)).astype(np.float32)
        clean = run(layer, x)
        x[1] = np.nan
        found = run(layer, x)
        assert np.isnan(found["y"][1]).any()
        for sample in (0, 2):
            assert found["y"][sample].tobytes() == clean["y"][sample].tobytes()


WIDTHS = """
import sys
import numpy as np
import layers
from layers.kernels.machine import VECTOR_BYTES

def loops(x, w, b, stride, padding, groups):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns, inner, outputs = w.shape
    outer = outputs // groups
    height, width = (x.shape[1] - rows) // stride + 1, (x.shape[2] - columns) // stride + 1
    y = np.zeros((len(x), height, width, outputs)) + b
    for p in range(height):
        for q in range(width):
            window = x[:, p * stride : p * stride + rows, q * stride : q * stride + columns]
            for g in range(groups):
                of, to = slice(g * inner, (g + 1) * inner), slice(g * outer, (g + 1) * outer)
                y[:, p, q, to] += np.einsum("nabc,abck->nk", window[..., of], w[..., to])
    return y

rng = np.random.default_rng(1)
for channels, outputs, size, stride, groups, image, algorithm in (
    (3, 7, 3, 1, 1, (6, 5), "default"),
    (9, 19, 2, 2, 1, (6, 5), "default"),
    (34, 38, 3, 1, 2, (5, 4), "default"),
    (16, 16, 3, 1, 1, (6, 6), "default"),
    (48, 32, 3, 1, 1, (5, 6), "default"),
    (16, 32, 3, 1, 1, (8, 7), "fastest"),
):
    how = {"stride": stride, "padding": 1, "groups": groups, "algorithm": algorithm}
    layer = layers.Conv2d(channels, outputs, size, rng=rng, **how)
    x = rng.standard_normal((2, *image, channels)).astype(np.float32)
    tape = layers.Tape()
    value = tape.input(x)
    y = layer(value)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(dy)
    w, b = layer.weight.value.astype(float), layer.bias.value.astype(float)
    options = (stride, 1, groups)
    assert np.abs(y.array - loops(x.astype(float), w, b, *options)).max() < 1e-4, (channels, "y")
    # A bilinear function of x and w: <dy, conv(u, w)> = <dx, u> and <dy, conv(x, v)> = <dw, v> for
    # all u and v.
    for _ in range(3):
        u, v = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
        along_x = np.vdot(dy, loops(u, w, 0, *options))
        along_w = np.vdot(dy, loops(x.astype(float), v, 0, *options))
        found = np.vdot(value.grad, u), np.vdot(layer.weight.gradient, v)
        along = along_x, along_w
        assert np.allclose(found, along, rtol=1e-4, atol=2e-2), (channels, found, along)
    assert np.allclose(layer.bias.gradient, dy.sum(axis=(0, 1, 2)), atol=1e-4)
for channels, outputs in ((5, 7), (16, 16), (34, 19)):
    layer = layers.Conv3d(channels, outputs, (2, 3, 3), rng=rng, padding=(0, 1, 1), bias=False)
    x = rng.standard_normal((2, 3, 5, 4, channels)).astype(np.float32)
    tape = layers.Tape()
    value = tape.input(x)
    y = layer(value)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(dy)

    def of_slices(x, w):
        parts = [[loops(x[:, o + a], w[a], 0, 1, 1, 1) for a in range(2)] for o in range(2)]
        return np.stack([a + b for a, b in parts], axis=1)

    w = layer.weight.value.astype(float)
    assert np.abs(y.array - of_slices(x.astype(float), w)).max() < 1e-4, (channels, "volume")
    u, v = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
    found = np.vdot(value.grad, u), np.vdot(layer.weight.gradient, v)
    along = np.vdot(dy, of_slices(u, w)), np.vdot(dy, of_slices(x.astype(float), v))
    assert np.allclose(found, along, rtol=1e-4, atol=2e-2), (channels, found, along)
print(VECTOR_BYTES, "right")
"""


@pytest.mark.parametrize(
    "width",
    [
        pytest.param(width, marks=[pytest.mark.full] * (int(width) != VECTOR_BYTES))
        for width in ("16", "32", "64")
    ],
)
def test_every_width_of_vectors_gives_right_results(run_python, width):
    if int(width) == VECTOR_BYTES:
        exec(WIDTHS, {})
        return
    done = run_python("-c", WIDTHS, LAYERS_VECTOR_BYTES=width, timeout=280)
    assert done.status == 0, done.err
    assert done.out == f"{width} right\n"


# ---- memory


def test_small_network_allocates_nothing_after_the_second_step(rng):
    model = layers.Sequential(
        Conv2d(3, 16, 3, rng=rng, padding=1),
        layers.ReLU(),
        Conv2d(16, 16, 3, rng=rng, padding=1),
        layers.ReLU(),
        Conv2d(16, 16, 3, rng=rng, padding=1, algorithm="fastest"),
        Conv2d(16, 24, 3, rng=rng, stride=2, groups=2, padding="same"),
        ConvTranspose2d(24, 4, 2, rng=rng, stride=2),
        layers.Reshape(64, 4),
        Conv1d(4, 5, 3, rng=rng, padding=(1, 0), padding_mode="reflect"),
        layers.Reshape(7, 3, 3, 5),
        Conv3d(5, 2, 3, rng=rng, padding=1),
        layers.Flatten(),
        layers.Linear(63 * 2, 3, rng=rng),
    )
    x, labels = rng.standard_normal((6, 8, 8, 3)).astype(np.float32), rng.integers(0, 3, 6)
    workspace, counts, losses = Workspace(), [], []
    for samples in (6, 6, 6, 4, 1, 6):
        for parameter in model.parameters():
            parameter.zero_gradient()
        tape = Tape(training=True, workspace=workspace)
        loss = layers.SoftmaxCrossEntropy()(model(tape.input(x[:samples])), labels[:samples])
        loss.backward()
        counts.append(workspace.allocations)
        losses.append(loss.item())
    assert counts[2:] == counts[1:2] * 4
    assert losses[0] == losses[-1]


@pytest.mark.parametrize("name", REALISTIC)
def test_no_samples_give_an_empty_output_and_gradients_of_zero(name, rng):
    layer, image = REALISTIC[name](rng)
    one = run(layer, np.zeros((1, *image), np.float32))
    found = run(layer, np.empty((0, *image), np.float32))
    assert found["y"].shape == (0, *one["y"].shape[1:])
    assert found["dx"].shape == (0, *image)
    assert not found["weight"].any()
    assert not found["bias"].any()


def test_input_that_needs_no_gradient_gets_none(rng):
    for name in REALISTIC:
        layer, image = REALISTIC[name](rng)
        x = rng.standard_normal((2, *image)).astype(np.float32)
        expected = run(layer, x)
        layer.weight.forget_gradients()
        tape = Tape()
        value = tape.input(x, gradient=False)
        y = layer(value)
        y.backward(np.ones(y.shape, np.float32))
        assert layer.weight.gradient.tobytes() == expected["weight"][0].tobytes()
