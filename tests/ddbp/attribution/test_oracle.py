"""The methods written once more with PyTorch's gradients."""

import numpy as np
import pytest

from ddbp import attribution
from layers import Embedding, Linear, Sequential, Tanh

from .networks import CLASSES, channels_first, channels_last, cnn, images, torch_cnn

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'ddbp[oracle]'")
LABELS = np.array([0, 2, 1, 1, 0])


def gradient(module, x):
    """Return the gradient of the chosen logits with respect to x."""
    import torch

    x = x.detach().requires_grad_()
    chosen = module(x).gather(1, torch.from_numpy(LABELS)[:, None]).sum()
    return torch.autograd.grad(chosen, x)[0]


def test_saliency_and_gradient_times_input_are_those_of_autograd():
    x = channels_first(images())
    theirs = gradient(torch_cnn(cnn()), x)
    ours = attribution.saliency(cnn(), images(), LABELS)
    np.testing.assert_allclose(ours.values, channels_last(theirs.abs()), rtol=1e-9, atol=1e-12)
    ours = attribution.gradient_times_input(cnn(), images(), LABELS)
    np.testing.assert_allclose(ours.values, channels_last(theirs * x), rtol=1e-9, atol=1e-12)


def test_integrated_gradients_are_the_sum_over_the_middles_of_pieces():
    module, x = torch_cnn(cnn()), channels_first(images())
    shares = [(step + 0.5) / 7 for step in range(7)]
    mean = sum(gradient(module, 0.5 + share * (x - 0.5)) for share in shares) / 7
    ours = attribution.integrated_gradients(cnn(), images(), LABELS, steps=7, baseline=0.5)
    np.testing.assert_allclose(ours.values, channels_last((x - 0.5) * mean), rtol=1e-9, atol=1e-12)


def test_grad_cam_is_the_weighted_sum_of_channels():
    import torch

    module, x = torch_cnn(cnn()), channels_first(images())
    at = module[:5](x).detach().requires_grad_()
    chosen = module[5:](at).gather(1, torch.from_numpy(LABELS)[:, None]).sum()
    (found,) = torch.autograd.grad(chosen, at)
    maps = (at * found.mean(dim=(2, 3), keepdim=True)).sum(dim=1).relu()
    theirs = torch.nn.functional.interpolate(maps[:, None], (8, 8), mode="bilinear")[:, 0]
    for layer in ("layers.4", (model := cnn()).layers[4]):
        ours = attribution.grad_cam(model, images(), layer, LABELS)
        np.testing.assert_allclose(ours.values, theirs.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_tokens_get_the_gradients_of_their_vectors():
    import torch

    rng = np.random.default_rng(4)
    table, head = Embedding(7, 4, rng=rng), Linear(4, CLASSES, rng=rng)

    def summed(x):
        return head(np.tanh(table(x)).sum(axis=1))

    tokens = rng.integers(0, 7, (5, 6))
    vectors = torch.from_numpy(table.weight.value[tokens]).requires_grad_()
    weight, bias = (torch.from_numpy(p.value.copy()) for p in head.parameters())
    logits = vectors.tanh().sum(dim=1) @ weight.T + bias
    chosen = logits.gather(1, torch.from_numpy(LABELS)[:, None]).sum()
    (found,) = torch.autograd.grad(chosen, vectors)
    theirs = (found * vectors).sum(dim=2).detach().numpy()
    ours = attribution.gradient_times_input(summed, tokens, LABELS)
    np.testing.assert_allclose(ours.values, theirs, rtol=1e-5, atol=1e-6)


def test_deep_lift_is_the_slope_between_sample_and_baseline():
    rng = np.random.default_rng(5)
    first, second = Linear(4, 6, rng=rng), Linear(6, CLASSES, rng=rng)
    model = Sequential(first, Tanh(), second).astype(np.float64)
    x, b = rng.standard_normal((5, 4)), rng.standard_normal(4)
    (w, c), v = (p.value for p in model.layers[0].parameters()), model.layers[2].weight.value
    z, z0 = x @ w.T + c, b @ w.T + c
    slopes = (np.tanh(z) - np.tanh(z0)) / (z - z0)
    ours = attribution.deep_lift(model, x, LABELS, baseline=b)
    np.testing.assert_allclose(ours.values, ((v[LABELS] * slopes) @ w) * (x - b), rtol=1e-9)
