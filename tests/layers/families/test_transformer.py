"""Blocks of transformers, against PyTorch."""

import numpy as np
import pytest

import layers

from .oracle import torch


def theirs_of(block, theirs):
    """Give PyTorch's layer our weights; theirs, ours as pairs."""
    pairs = [
        (theirs.self_attn.in_proj_weight, block.attention.projection.weight),
        (theirs.self_attn.in_proj_bias, block.attention.projection.bias),
        (theirs.self_attn.out_proj.weight, block.attention.output.weight),
        (theirs.self_attn.out_proj.bias, block.attention.output.bias),
        (theirs.linear1.weight, block.dense[0].weight),
        (theirs.linear1.bias, block.dense[0].bias),
        (theirs.linear2.weight, block.dense[2].weight),
        (theirs.linear2.bias, block.dense[2].bias),
        (theirs.norm1.weight, block.norm_attention.weight),
        (theirs.norm1.bias, block.norm_attention.bias),
    ]
    last = theirs.norm3 if isinstance(block, layers.DecoderBlock) else theirs.norm2
    pairs += [(last.weight, block.norm_dense.weight), (last.bias, block.norm_dense.bias)]
    if isinstance(block, layers.DecoderBlock):
        pairs += [
            (theirs.norm2.weight, block.norm_cross.weight),
            (theirs.norm2.bias, block.norm_cross.bias),
            (theirs.multihead_attn.out_proj.weight, block.cross.output.weight),
            (theirs.multihead_attn.out_proj.bias, block.cross.output.bias),
        ]
    with torch.no_grad():
        for their, ours in pairs:
            their.copy_(torch.tensor(ours.value))
    return pairs


def spread(block, rng):
    for p in block.parameters():
        p.value = rng.standard_normal(p.shape) * 0.4


@pytest.mark.parametrize("causal", [False, True])
def test_encoder_block_equals_that_of_pytorch(causal):
    rng = np.random.default_rng(0)
    block = layers.EncoderBlock(12, 3, 20, rng=rng, causal=causal).astype(np.float64)
    spread(block, rng)
    theirs = torch.nn.TransformerEncoderLayer(
        12, 3, 20, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    pairs = theirs_of(block, theirs)
    x, dy = rng.standard_normal((2, 2, 7, 12))
    value, tensor = layers.Tape().input(x), torch.tensor(x, requires_grad=True)
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    y, expected = block(value), theirs(tensor, src_mask=hidden)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.array, expected.detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(value.grad, tensor.grad.numpy(), rtol=0, atol=1e-12)
    for their, ours in pairs:
        np.testing.assert_allclose(ours.gradient, their.grad.numpy(), rtol=0, atol=1e-11)


def test_decoder_block_equals_that_of_pytorch():
    rng = np.random.default_rng(1)
    block = layers.DecoderBlock(12, 3, 20, rng=rng).astype(np.float64)
    spread(block, rng)
    theirs = torch.nn.TransformerDecoderLayer(
        12, 3, 20, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    pairs = theirs_of(block, theirs)
    with torch.no_grad():
        for name, kind in (("in_proj_weight", "weight"), ("in_proj_bias", "bias")):
            joined = np.concatenate(
                [getattr(block.cross.query, kind).value, getattr(block.cross.memory, kind).value]
            )
            getattr(theirs.multihead_attn, name).copy_(torch.tensor(joined))
    x, dy, z = (
        rng.standard_normal((2, 7, 12)),
        rng.standard_normal((2, 7, 12)),
        rng.standard_normal((2, 5, 12)),
    )
    lengths = np.array([5, 3])
    tape = layers.Tape()
    values = tape.input(x), tape.input(z)
    tensors = torch.tensor(x, requires_grad=True), torch.tensor(z, requires_grad=True)
    y = block(*values, lengths=lengths)
    padding = torch.tensor(np.arange(5) >= lengths[:, np.newaxis])
    expected = theirs(
        *tensors,
        tgt_mask=torch.ones(7, 7, dtype=torch.bool).triu(1),
        memory_key_padding_mask=padding,
    )
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.array, expected.detach().numpy(), rtol=0, atol=1e-12)
    for value, tensor in zip(values, tensors, strict=True):
        np.testing.assert_allclose(value.grad, tensor.grad.numpy(), rtol=0, atol=1e-11)
    for their, ours in pairs:
        np.testing.assert_allclose(ours.gradient, their.grad.numpy(), rtol=0, atol=1e-11)


def test_gpt_sees_no_later_token():
    rng = np.random.default_rng(2)
    model = layers.models.gpt(rng, 11, context=8, features=8, depth=2, heads=2)
    ids = rng.integers(0, 11, (1, 8))
    other = ids.copy()
    other[0, 5:] = (other[0, 5:] + 1) % 11
    a, b = model(ids), model(other)
    assert a[0, :5].tobytes() == b[0, :5].tobytes()
    assert (a[0, 5:] != b[0, 5:]).all()
    assert model(ids[:, :3]).tobytes() == a[:, :3].tobytes(), "nor does its length matter"


def test_parameters_of_gpt():
    def count(**options):
        return sum(
            p.size for p in layers.models.gpt(np.random.default_rng(0), 96, **options).parameters()
        )

    without_head = 96 * 128 + 64 * 128 + 4 * (12 * 128**2 + 13 * 128) + 2 * 128
    assert count(tied=True, dropout=0.1) == without_head
    assert count() == without_head + 128 * 96 + 96
