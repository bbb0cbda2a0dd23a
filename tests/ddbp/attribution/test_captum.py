"""What Captum finds with the same weights: its authors know the papers, too."""

import warnings

import numpy as np
import pytest

from ddbp import attribution

from .networks import channels_first, channels_last, cnn, images, torch_cnn

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'ddbp[oracle]'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    captum = pytest.importorskip(
        "captum.attr", reason="Captum is not installed: pip install captum"
    )

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LABELS = np.array([0, 2, 1, 1, 0])
WINDOWS = [(2, 2), (3, 1)]
"""Of pooling, apart and overlapping."""


def compared(theirs, *arguments, pool=2, stride=2, **options):
    """Return what a method of Captum finds, in our order of axes."""
    import torch

    made = theirs(torch_cnn(cnn(pool, stride), pool, stride))
    found = made.attribute(
        channels_first(images()), *arguments, target=torch.from_numpy(LABELS), **options
    )
    return channels_last(found)


@pytest.mark.parametrize(("pool", "stride"), WINDOWS)
def test_saliency_is_captums(pool, stride):
    ours = attribution.saliency(cnn(pool, stride), images(), LABELS)
    theirs = compared(captum.Saliency, pool=pool, stride=stride)
    np.testing.assert_allclose(ours.values, theirs, rtol=1e-9, atol=1e-12)


def test_gradient_times_input_is_captums():
    ours = attribution.gradient_times_input(cnn(), images(), LABELS)
    np.testing.assert_allclose(ours.values, compared(captum.InputXGradient), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("baseline", [None, 0.25])
def test_integrated_gradients_are_captums(baseline):
    ours = attribution.integrated_gradients(cnn(), images(), LABELS, steps=20, baseline=baseline)
    options = {"n_steps": 20, "method": "riemann_middle", "return_convergence_delta": False}
    theirs = compared(captum.IntegratedGradients, baselines=baseline or 0.0, **options)
    # Captum's steps are of float32.
    np.testing.assert_allclose(ours.values, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("pool", "stride"), WINDOWS)
def test_guided_backpropagation_is_captums(pool, stride):
    ours = attribution.guided_backpropagation(cnn(pool, stride), images(), LABELS)
    theirs = compared(captum.GuidedBackprop, pool=pool, stride=stride)
    np.testing.assert_allclose(ours.values, theirs, rtol=1e-9, atol=1e-12)


# Over maxima and a baseline that is not 0, Captum's contributions do not add up, by its own delta
# of 0.09; ours do.
@pytest.mark.parametrize(("pool", "stride", "baseline"), [(2, 2, 0), (3, 1, 0), (1, 1, 0.25)])
def test_deep_lift_is_captums(pool, stride, baseline):
    ours = attribution.deep_lift(cnn(pool, stride), images(), LABELS, baseline=baseline)
    theirs = compared(captum.DeepLift, pool=pool, stride=stride, baselines=baseline)
    np.testing.assert_allclose(ours.values, theirs, rtol=1e-9, atol=1e-12)


def test_grad_cam_is_captums():
    import torch

    model = cnn()
    theirs = torch_cnn(model)
    found = captum.LayerGradCam(theirs, theirs[4]).attribute(
        channels_first(images()), target=torch.from_numpy(LABELS), relu_attributions=True
    )
    found = captum.LayerAttribution.interpolate(found, (8, 8), "bilinear")
    ours = attribution.grad_cam(model, images(), "layers.4", LABELS)
    np.testing.assert_allclose(ours.values, channels_last(found)[..., 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_occlusion_is_captums(stride):
    ours = attribution.occlusion(cnn(), images(), LABELS, window=(3, 3), stride=stride)
    theirs = compared(captum.Occlusion, (2, 3, 3), strides=(2, stride, stride))
    # Captum's means are of float32.
    np.testing.assert_allclose(ours.values, theirs, rtol=1e-6, atol=1e-7)
