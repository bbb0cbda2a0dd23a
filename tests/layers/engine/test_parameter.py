"""Parameters and their flat memory."""

import numpy as np
import pytest

import layers
from layers import FlatParameters, Linear, Parameter, Sequential, Tape

from ..fixed_tree import tree


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def model(rng, dtype=np.float32):
    return Sequential(
        Linear(5, 7, rng=rng, dtype=dtype), layers.ReLU(), Linear(7, 3, rng=rng, dtype=dtype)
    )


class Shared(layers.Composite):
    """One layer under two names."""

    def __init__(self, layer):
        self.encoder, self.decoder = layer, [layer]

    def __call__(self, x):
        return self.decoder[0](self.encoder(x))


# ---- Parameter


def test_initial_value_is_copied():
    array = np.ones(3)
    parameter = Parameter(array)
    array[...] = 7
    assert (parameter.value == 1).all()


@pytest.mark.parametrize("value", [[1, 2], np.array([True]), ["a"]], ids=str)
def test_value_that_is_not_floating_is_refused(value):
    with pytest.raises(TypeError, match=r"must be of float32 or float64; got .* np.float32"):
        Parameter(value)


def test_assigning_a_value_copies_into_flat_memory(rng):
    net = model(rng)
    flat = FlatParameters(net)
    net[0].bias.value = np.arange(7)
    start = flat.starts[flat.names.index("layers.0.bias")]
    assert flat.values[start : start + 7].tolist() == list(range(7))
    assert net[0].bias.dtype == np.float32


def test_assigning_a_value_of_another_shape_is_refused(rng):
    layer = Linear(5, 7, rng=rng)
    for new in (np.zeros((5, 7)), np.zeros(7), 0.0):
        with pytest.raises(ValueError, match=r"must have shape \(7, 5\)"):
            layer.weight.value = new


def test_gradient_before_any_contribution_is_zero(rng):
    parameter = Parameter(rng.standard_normal((2, 3)))
    assert (parameter.gradient == np.zeros((2, 3))).all()
    assert parameter.gradients is None


def test_zeroing_hides_the_old_gradient_and_the_next_contribution_overwrites_it(rng):
    layer = Linear(5, 7, rng=rng)
    layer(Tape().input(np.ones((2, 5), np.float32))).backward(np.full((2, 7), np.nan))
    assert np.isnan(layer.weight.gradient).all()
    layer.weight.zero_gradient()
    layer.bias.zero_gradient()
    assert (layer.weight.gradient == 0).all()
    layer(Tape().input(np.ones((2, 5), np.float32))).backward(np.ones((2, 7)))
    assert (layer.weight.gradient == 2).all()
    assert (layer.bias.gradient == 2).all()


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 7, 8, 13])
def test_gradient_of_the_batch_is_the_sum_of_its_shards_by_the_fixed_tree(shards, rng):
    layer = Linear(5, 7, rng=rng)
    x, dy = (rng.standard_normal((2 * shards, n)).astype(np.float32) for n in (5, 7))
    layer(Tape(shards=range(0, 2 * shards + 1, 2)).input(x)).backward(dy)
    for parameter in layer.parameters():
        assert len(parameter.gradients) == shards
        assert (parameter.gradient == tree(list(parameter.gradients))).all()
        assert parameter.gradient.shape == parameter.shape


def test_tape_with_other_shards_than_the_parameters_hold_is_refused(rng):
    net = model(rng)
    FlatParameters(net, shards=2)
    y = net(Tape().input(np.ones((2, 5), np.float32)))
    with pytest.raises(
        ValueError,
        match=r"must hold 1 shard gradients; got 2\. Lay the parameters out with FlatParameters",
    ):
        y.backward(np.ones((2, 3)))


# ---- FlatParameters


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shards", [1, 3])
def test_values_and_gradients_are_views_into_two_flat_arrays(dtype, shards, rng):
    net = model(rng, dtype)
    before = [p.value.copy() for p in net.parameters()]
    flat = FlatParameters(net, shards)
    assert flat.gradients.shape == (shards, flat.values.size)
    for parameter, value, (_, same, start, stop) in zip(
        net.parameters(), before, flat.segments(), strict=True
    ):
        assert parameter is same
        assert (parameter.value == value).all()
        assert np.shares_memory(parameter.value, flat.values)
        flat.values[start:stop] = 3
        assert (parameter.value == 3).all()
        assert parameter.gradients.shape == (shards, *parameter.shape)
        flat.gradients[shards - 1, start:stop] = 5
        assert (parameter.gradients[shards - 1] == 5).all()


def test_names_are_dotted_paths_in_the_order_of_attributes(rng):
    flat = FlatParameters(model(rng))
    assert flat.names == ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_begin_at_multiples_of_64_bytes_and_gaps_hold_zeros(dtype, rng):
    flat = FlatParameters(model(rng, dtype))
    gaps = np.ones(flat.values.size, bool)
    for _, parameter, start, stop in flat.segments():
        assert start * flat.dtype.itemsize % 64 == 0
        assert stop - start == parameter.size
        gaps[start:stop] = False
    assert flat.values.size * flat.dtype.itemsize % 64 == 0
    assert (flat.values[gaps] == 0).all()
    assert (flat.gradients[:, gaps] == 0).all()
    assert gaps.sum() > 0


def test_backward_leaves_the_gaps_alone(rng):
    net = model(rng)
    flat = FlatParameters(net)
    flat.gradients[...] = np.nan
    net(Tape().input(np.ones((4, 5), np.float32))).backward(np.ones((4, 3)))
    written = np.isfinite(flat.gradients[0])
    assert written.sum() == sum(p.size for p in net.parameters())


def test_memory_comes_from_the_allocator_of_the_caller(rng):
    asked = []
    pool = np.zeros(1 << 12, np.uint8)

    def allocate(shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start = sum(asked)
        asked.append(size)
        return pool[start : start + size].view(dtype).reshape(shape)

    net = model(rng)
    flat = FlatParameters(net, 2, allocate)
    assert asked == [flat.values.nbytes, flat.gradients.nbytes]
    for parameter in net.parameters():
        assert np.shares_memory(parameter.value, pool)
        assert np.shares_memory(parameter.gradients, pool)


def test_shared_parameters_come_once_under_their_first_name(rng):
    net = Shared(Linear(4, 4, rng=rng))
    flat = FlatParameters(net)
    assert flat.names == ["encoder.weight", "encoder.bias"]
    assert [name for name, _ in net.named_parameters()] == [
        "encoder.weight",
        "encoder.bias",
        "decoder.0.weight",
        "decoder.0.bias",
    ]
    net(Tape().input(np.ones((1, 4), np.float32))).backward(np.ones((1, 4)))
    assert np.count_nonzero(flat.gradients) > 0


def test_copy_in_another_type_keeps_sharing_and_leaves_the_original_alone(rng):
    net = Shared(Linear(4, 4, rng=rng))
    flat = FlatParameters(net)
    double = net.astype(np.float64)
    assert double.encoder is double.decoder[0]
    assert double.encoder.weight.dtype == np.float64
    double.encoder.weight.value = np.zeros((4, 4))
    assert flat.values.dtype == np.float32
    assert net.encoder.weight.value.any()


def test_mixture_of_types_is_refused(rng):
    net = Sequential(Linear(2, 3, rng=rng), Linear(3, 2, rng=rng, dtype=np.float64))
    with pytest.raises(ValueError, match=r"must have one dtype; got \['float32', 'float64'\]"):
        FlatParameters(net)


def test_model_without_parameters_is_refused():
    with pytest.raises(
        ValueError, match=r"the model must have parameters; got Sequential\(ReLU\(\)\)"
    ):
        FlatParameters(Sequential(layers.ReLU()))


def test_zeroing_touches_no_memory_and_the_next_backward_overwrites(rng):
    net = model(rng)
    flat = FlatParameters(net)
    x = np.ones((4, 5), np.float32)
    net(Tape().input(x)).backward(np.ones((4, 3)))
    once = flat.gradients.copy()
    flat.zero_gradients()
    assert (flat.gradients == once).all()
    assert all((p.gradient == 0).all() for p in net.parameters())
    net(Tape().input(x)).backward(np.ones((4, 3)))
    assert (flat.gradients == once).all()


def test_parameters_without_a_contribution_are_filled_with_zeros_and_named(rng):
    net = model(rng)
    flat = FlatParameters(net, shards=2)
    flat.gradients[...] = 9
    net[2](Tape(shards=(0, 1, 4)).input(np.ones((4, 7), np.float32))).backward(np.ones((4, 3)))
    assert flat.complete() == ["layers.0.weight", "layers.0.bias"]
    for parameter in net[0].parameters():
        assert (parameter.gradients == 0).all()
    assert net[2].bias.gradients.tolist() == [[1] * 3, [3] * 3]
    assert flat.complete() == []


def test_value_in_another_layout_is_kept_as_kernels_take_it():
    drawn = np.random.default_rng(0).standard_normal((4, 3))
    for value in (np.asfortranarray(drawn), np.flip(np.flip(drawn).copy())):
        parameter = layers.Parameter(value)
        assert parameter.value.flags.carray
        assert (parameter.value == drawn).all()
        assert layers.State(value).value.flags.carray
