"""Attention and positions, against PyTorch and at their edges."""

import numpy as np
import pytest

import layers
from layers.gradient_check.mutants import attention as mutants

from .oracle import F, torch


def heads_of(x, heads):
    n, length, features = x.shape
    return x.reshape(n, length, heads, features // heads).transpose(1, 2)


def their_attention(q, k, v, heads, **options):
    y = F.scaled_dot_product_attention(
        heads_of(q, heads), heads_of(k, heads), heads_of(v, heads), **options
    )
    return y.transpose(1, 2).reshape(q.shape)


def compare(layer, arrays, further, theirs, dtype, factor=64):
    tape = layers.Tape()
    values = [tape.input(x.astype(dtype)) for x in arrays]
    y = layer(*values, *further)
    dy = np.random.default_rng(9).standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    tensors = [torch.tensor(x.astype(dtype), requires_grad=True) for x in arrays]
    expected = theirs(*tensors)
    expected.backward(torch.tensor(dy))
    pairs = [
        (y.array, expected.detach().numpy()),
        *((v.grad, t.grad.numpy()) for v, t in zip(values, tensors, strict=True)),
    ]
    for ours, their in pairs:
        assert ours.dtype == dtype
        np.testing.assert_allclose(
            ours, their, rtol=0, atol=factor * np.finfo(dtype).eps * max(1, np.abs(their).max())
        )


both = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@both
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (3, 1, 2, 4),
        (2, 31, 1, 3),
        (2, 33, 3, 16),
        (1, 97, 2, 5),
        (2, 64, 4, 32),
        (1, 200, 1, 65),
        (1, 5, 1, 300),
    ],
    ids=str,
)
def test_attention_equals_that_of_pytorch(shape, causal, dtype):
    n, length, heads, width = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, length, 3 * heads * width))
    compare(
        layers.Attention(heads, causal=causal),
        [x],
        [],
        lambda x: their_attention(*x.split(heads * width, dim=2), heads, is_causal=causal),
        dtype,
    )


@both
@pytest.mark.parametrize("keys", [1, 7, 96, 97, 193])
def test_attention_to_another_sequence_equals_that_of_pytorch(keys, dtype):
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((2, length, 12)) for length in (40, keys, keys))
    compare(layers.Attention(3), [q, k, v], [], lambda q, k, v: their_attention(q, k, v, 3), dtype)


@pytest.mark.parametrize("roles", [(0, 0, 0), (0, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_one_value_in_several_roles_gets_the_sum_of_their_gradients(roles):
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((2, 5, 8)) for _ in range(2)]

    def gradients(values):
        (layers.Attention(2, causal=True)(*values) ** 2).sum().backward()
        return [value.grad for value in values]

    tape, apart = layers.Tape(), layers.Tape()
    values = [tape.input(array) for array in arrays]
    shared = gradients([values[role] for role in roles])
    alone = gradients([apart.input(arrays[role]) for role in roles])
    for role, gradient in zip(roles, shared, strict=True):
        expected = sum(dx for other, dx in zip(roles, alone, strict=True) if other == role)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-14)


@both
@pytest.mark.parametrize(
    "shape",
    [(3, 2, 5, 110), (3, 1, 1, 110), (1, 2, 5, 110), (5, 110), (1, 110), (2, 1, 1)],
    ids=str,
)
def test_masks_equal_those_of_pytorch(shape, dtype):
    rng = np.random.default_rng(2)
    mask = rng.random(shape) < 0.7
    mask[..., 0] = True
    q, k, v = (rng.standard_normal((3, length, 8)) for length in (5, 110, 110))
    theirs = torch.tensor(np.broadcast_to(mask, (3, 2, 5, 110)).copy())
    compare(
        layers.Attention(2),
        [q, k, v],
        [mask],
        lambda q, k, v: their_attention(q, k, v, 2, attn_mask=theirs),
        dtype,
    )


def test_lengths_are_a_mask_of_keys():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 120, 12)).astype(np.float32)
    lengths = np.array([120, 97, 1, 50])
    mask = (np.arange(120) < lengths[:, np.newaxis])[:, np.newaxis, np.newaxis]
    a, b = layers.Attention(2)(x, lengths), layers.Attention(2)(x, mask)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["lengths", "mask", "both"])
def test_queries_without_keys_give_zeros_and_no_gradient(how):
    x = np.random.default_rng(4).standard_normal((3, 110, 6)).astype(np.float32)
    mask = np.ones((3, 1, 1, 110), bool)
    mask[1] = False
    further = {
        "lengths": [np.array([110, 0, 100])],
        "mask": [mask],
        "both": [mask, np.array([110, 50, 0])],
    }[how]
    value = layers.Tape().input(x)
    y = layers.Attention(1)(value, *further)
    y.backward(np.ones(y.shape, np.float32))
    assert np.isfinite(y.array).all()
    assert np.isfinite(value.grad).all()
    assert not y.array[1].any()
    assert not value.grad[1].any()
    assert y.array[0].any()


def test_hidden_keys_have_no_gradient_at_all():
    x = np.random.default_rng(5).standard_normal((1, 6, 6)).astype(np.float32)
    value = layers.Tape().input(x)
    y = layers.Attention(1)(value, np.array([4]))
    y.backward(np.ones(y.shape, np.float32))
    assert not value.grad[0, 4:, 2:].any(), "keys and values"
    assert value.grad[0, 4:, :2].any(), "their queries see the others"


def test_large_scores_do_not_overflow():
    x = 300 * np.random.default_rng(6).standard_normal((2, 100, 6)).astype(np.float32)
    value = layers.Tape().input(x)
    y = layers.Attention(1)(value)
    y.backward(np.ones(y.shape, np.float32))
    assert np.isfinite(y.array).all()
    assert np.isfinite(value.grad).all()


def test_dropout_keeps_the_mean_and_drops_that_many():
    q, k = np.zeros((2, 200, 4), np.float32), np.zeros((2, 300, 4), np.float32)
    v = np.ones((2, 300, 4), np.float32)
    layer = layers.Attention(1, dropout=0.25)

    def output(**options):
        tape = layers.Tape(training=True, **options)
        return layer(tape.input(q), tape.input(k), tape.input(v)).array.copy()

    y = output()
    assert abs(y.mean() - 1) < 0.01
    assert abs(y.std() - np.sqrt(0.25 / 0.75 / 300)) < 0.01
    assert y.tobytes() == output().tobytes()
    assert y.tobytes() != output(step=1).tobytes()
    assert y.tobytes() != output(seed=1).tobytes()
    assert y[1].tobytes() == output(first_sample=1)[0].tobytes()
    assert np.allclose(layer(q, k, v), 1, atol=1e-6), "nothing is dropped outside training"


@both
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_equals_that_of_pytorch(causal, dtype):
    rng = np.random.default_rng(7)
    layer = layers.MultiHeadAttention(12, 3, rng=rng, causal=causal, dtype=dtype)
    for p in layer.parameters():
        p.value = rng.standard_normal(p.shape) / 3
    theirs = torch.nn.MultiheadAttention(
        12, 3, batch_first=True, dtype=torch.float64 if dtype == np.float64 else torch.float32
    )
    with torch.no_grad():
        for their, p in zip(theirs.parameters(), layer.parameters(), strict=True):
            their.copy_(torch.tensor(p.value))
    hidden = torch.ones(9, 9, dtype=torch.bool).triu(1) if causal else None
    x = rng.standard_normal((2, 9, 12))
    compare(
        layer,
        [x],
        [],
        lambda x: theirs(x, x, x, need_weights=False, attn_mask=hidden)[0],
        dtype,
        128,
    )
    for their, p in zip(theirs.parameters(), layer.parameters(), strict=True):
        np.testing.assert_allclose(
            p.gradient, their.grad.numpy(), rtol=0, atol=512 * np.finfo(dtype).eps
        )


def test_attention_of_two_sequences_with_hidden_keys_equals_that_of_pytorch():
    rng = np.random.default_rng(8)
    layer = layers.MultiHeadAttention(8, 2, rng=rng, cross=True, dtype=np.float64)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(
            torch.tensor(np.concatenate([layer.query.weight.value, layer.memory.weight.value]))
        )
        theirs.out_proj.weight.copy_(torch.tensor(layer.output.weight.value))
    keys = np.array([[True, False, True], [True, True, False]])
    compare(
        lambda x, z: layer(x, z, keys=keys),
        [rng.standard_normal((2, 4, 8)), rng.standard_normal((2, 3, 8))],
        [],
        lambda x, z: theirs(x, z, z, key_padding_mask=torch.tensor(~keys), need_weights=False)[0],
        np.float64,
    )


def test_positions_of_sines_are_those_of_the_paper():
    p = layers.SinusoidalPositions(50, 6)(np.zeros((1, 50, 6)))[0]
    t = 37
    expected = [f(t / 10000 ** (2 * i / 6)) for i in range(3) for f in (np.sin, np.cos)]
    assert np.allclose(p[t], expected, rtol=0, atol=1e-15)


def test_learned_positions_equal_an_embedding_of_pytorch():
    rng = np.random.default_rng(0)
    layer = layers.LearnedPositions(9, 5, rng=rng, dtype=np.float64)
    weight = torch.tensor(layer.weight.value, requires_grad=True)
    compare(
        layer,
        [rng.standard_normal((3, 6, 5))],
        [],
        lambda x: x + F.embedding(torch.arange(6), weight),
        np.float64,
    )
    np.testing.assert_allclose(layer.weight.gradient, weight.grad.numpy(), rtol=0, atol=1e-14)


ones = np.ones((2, 5, 6), np.float32)


@pytest.mark.parametrize(
    ("layer", "inputs", "words"),
    [
        (layers.Attention(2), (ones[0],), ["Attention(2)", "(N, T, ...)", "[5, 6]"]),
        (layers.Attention(2), (ones, ones.astype(float)), ["one floating type", "float64"]),
        (layers.Attention(2), (ones, ones), ["must agree", "(2, 5, 6)"]),
        (layers.Attention(2), (ones, ones, ones[:, :4]), ["must agree", "(2, 4, 6)"]),
        (layers.Attention(2), (ones, ones[:1], ones[:1]), ["must agree", "(1, 5, 6)"]),
        (layers.Attention(4), (ones, ones, ones), ["multiple of the 4 heads", "got 6"]),
        (
            layers.Attention(2, causal=True),
            (ones, ones[:, :4], ones[:, :4]),
            ["as many keys as queries", "(5, 4)"],
        ),
        (
            layers.Attention(1),
            (ones, np.ones((2, 5), bool)),
            ["(2, 1, 5, 5)", "(2, 5)", "np.newaxis"],
        ),
        (
            layers.Attention(1),
            (ones, np.ones((3, 1, 1, 5), bool)),
            ["(2, 1, 5, 5)", "(3, 1, 1, 5)"],
        ),
        (
            layers.Attention(1),
            (ones, np.ones((1, 2, 1, 1, 5), bool)),
            ["broadcast", "(1, 2, 1, 1, 5)"],
        ),
        (layers.Attention(1), (ones, np.array([1, 6])), ["2 integers in 0..5", "6"]),
        (layers.Attention(1), (ones, np.array([1, 2, 3])), ["2 integers", "[3]"]),
        (layers.SinusoidalPositions(4, 6), (ones,), ["(N, T, 6)", "up to 4", "(2, 5, 6)"]),
        (
            layers.LearnedPositions(9, 5, rng=np.random.default_rng(0)),
            (ones,),
            ["(N, T, 5)", "(2, 5, 6)"],
        ),
    ],
)
def test_wrong_inputs_are_refused(layer, inputs, words):
    with pytest.raises(ValueError, match="; got ") as caught:
        layer(*inputs)
    assert all(word in str(caught.value) for word in words), caught.value


def test_wrong_calls_of_multi_head_attention_are_refused():
    rng = np.random.default_rng(0)
    one, two = (
        layers.MultiHeadAttention(6, 2, rng=rng),
        layers.MultiHeadAttention(6, 2, rng=rng, cross=True),
    )
    for layer, inputs in ((one, (ones, ones)), (two, (ones,))):
        with pytest.raises(ValueError, match=r"sequences; got .* cross=True"):
            layer(*inputs)
    with pytest.raises(ValueError, match=r"booleans \(N, U\); got int64"):
        one(ones, keys=np.ones((2, 5), int))
    with pytest.raises(ValueError, match="must be boolean; got float32"):
        one(ones, mask=ones)
    with pytest.raises(ValueError, match="multiple of the 4 heads; got 6"):
        layers.MultiHeadAttention(6, 4, rng=rng)
    with pytest.raises(ValueError, match="heads must be a positive integer; got 0"):
        layers.Attention(0)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\); got 1"):
        layers.Attention(1, dropout=1)


@pytest.mark.parametrize(("right", "inputs"), mutants.RIGHT)
def test_what_the_mutants_are_made_from_is_right(right, inputs):
    rng = np.random.default_rng(0)
    assert layers.gradcheck(right(rng), *inputs(rng))
