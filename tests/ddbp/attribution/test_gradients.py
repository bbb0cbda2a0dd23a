"""Saliency, SmoothGrad and integrated gradients: what they promise of any model."""

import numpy as np
import pytest

from ddbp import attribution
from ddbp.attribution.gradients import standard_normal
from layers import Linear, Recompute, Sequential, SoftmaxCrossEntropy, Tape

from ...layers.twins.dropout import philox
from .networks import CLASSES, cnn, images, tagger

METHODS = (
    attribution.saliency,
    attribution.gradient_times_input,
    attribution.smooth_grad,
    attribution.integrated_gradients,
    attribution.deep_lift,
    attribution.guided_backpropagation,
    attribution.occlusion,
)
LABELS = np.array([0, 2, 1, 1, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_attributions_are_the_same_bits_whatever_is_explained_beside(method, dtype):
    model, x = cnn(dtype=dtype), images(dtype=dtype)
    whole = method(model, x, LABELS)
    assert whole.values.dtype == dtype
    assert whole.values.shape == x.shape
    assert method(model, x, LABELS, batch_size=2).sha256() == whole.sha256()
    options = {"first_sample": 3} if method is attribution.smooth_grad else {}
    alone = method(model, x[3:], LABELS[3:], **options)
    assert alone.values.tobytes() == whole.values[3:].tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_models_of_segments_that_are_computed_again_get_what_they_get_without(method):
    for model, x in ((cnn(), images()), (tagger(), np.arange(30).reshape(5, 6) % 11)):
        if method is attribution.guided_backpropagation and x.dtype.kind == "i":
            continue
        first, *rest = model.layers
        inner = Recompute(Sequential(*rest[:-1]))
        parts = Sequential(Recompute(Sequential(first, inner)), rest[-1])
        assert method(parts, x, LABELS).sha256() == method(model, x, LABELS).sha256()


def test_a_layer_in_a_segment_has_its_map():
    model, x = cnn(), images()
    parts = Sequential(Recompute(Sequential(*model.layers[:5])), *model.layers[5:])
    whole, part = (attribution.grad_cam(m, x, model.layers[3], LABELS) for m in (model, parts))
    assert whole.sha256() == part.sha256()


def test_sequences_get_the_same_bits_whatever_the_longest_is():
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 11, n) for n in (3, 7, 2, 4, 1)]
    for method in METHODS[:3]:
        options = {"first_sample": 2} if method is attribution.smooth_grad else {}
        whole, part = method(tagger(), x, LABELS), method(tagger(), x[2:], LABELS[2:], **options)
        assert part.values.values.tobytes() == whole.values[2:].values.tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_the_model_changes_and_gradients_that_it_holds_stay(method):
    model = cnn()
    SoftmaxCrossEntropy()(model(Tape().input(images())), LABELS).backward()
    before = [(p.value.copy(), p.gradient.copy()) for p in model.parameters()]
    method(model, images(), LABELS)
    for parameter, (value, gradient) in zip(model.parameters(), before, strict=True):
        assert parameter.value.tobytes() == value.tobytes()
        assert parameter.gradient.tobytes() == gradient.tobytes()


def test_contributions_add_up_to_the_difference_and_the_error_says_how_nearly():
    errors = []
    for steps in (4, 40, 400):
        found = attribution.integrated_gradients(cnn(), images(), LABELS, steps=steps, baseline=0.5)
        total = found.values.reshape(5, -1).sum(axis=1) - (found.scores - found.baseline_scores)
        np.testing.assert_allclose(found.error, total, atol=1e-12)
        errors.append(np.abs(found.error).max())
    assert errors[2] < errors[0] / 10
    assert errors[2] < 5e-3
    logits = cnn()(images())
    np.testing.assert_allclose(found.scores, logits[np.arange(5), LABELS], rtol=1e-12)
    np.testing.assert_allclose(
        found.baseline_scores, cnn()(np.full((5, 8, 8, 2), 0.5))[np.arange(5), LABELS], rtol=1e-12
    )


def test_a_linear_model_is_its_own_attribution():
    head = Linear(4, CLASSES, rng=np.random.default_rng(0), dtype=np.float64)
    x = np.random.default_rng(1).standard_normal((5, 4))
    contributions = head.weight.value[LABELS] * (x - 0.5)
    for method in (attribution.integrated_gradients, attribution.deep_lift, attribution.occlusion):
        found = method(Sequential(head), x, LABELS, baseline=0.5)
        np.testing.assert_allclose(found.values, contributions, rtol=1e-9, atol=1e-12)


def test_smooth_grad_without_noise_is_the_gradient_and_draws_are_keyed():
    model, x = cnn(), images()
    still = attribution.smooth_grad(model, x, LABELS, noise=0, draws=2)
    np.testing.assert_array_equal(
        np.abs(still.values), attribution.saliency(model, x, LABELS).values
    )
    first, again, other = (
        attribution.smooth_grad(model, x, LABELS, draws=2, seed=seed).sha256() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_noise_is_normal_and_has_a_range_of_the_sample():
    z = standard_normal(np.empty((64, 4099)), (0, 1, 2, np.uint64(3)))
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs((z**2).mean() - 1) < 5 * np.sqrt(2 / z.size)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / z.size)
    assert len(np.unique(z)) == z.size
    assert abs(np.corrcoef(z[:, :-1].reshape(-1), z[:, 1:].reshape(-1))[0, 1]) < 0.01
    # A model that is the square has the gradient 2 x, of which the noise is seen.
    x = np.array([[0.0, 10.0], [0.0, 1.0]])
    found = attribution.smooth_grad(lambda x: (x * x).sum(axis=1), x, noise=0.1, draws=1)
    noise = standard_normal(np.empty((2, 2)), (0, 0, 0, np.uint64(0)))
    np.testing.assert_allclose(found.values, 2 * (x + noise * [[1.0], [0.1]]), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_numbers_are_those_of_box_and_muller(dtype):
    seed, sample, step, draw = 2**40 + 5, 9, 3, 2
    z = standard_normal(np.empty((2, 7), dtype), (sample, step, draw, np.uint64(seed)))
    for i, j in np.ndindex(z.shape):
        four = philox((j // 4, sample + i, step, draw), (seed % 2**32, seed >> 32))
        a, b = four[:2] if j % 4 < 2 else four[2:]
        u, v = (a + 0.5) / 2**32, (b + 0.5) / 2**32
        wave = np.sin if j % 2 else np.cos
        expected = np.sqrt(-2 * np.log(u)) * wave(2 * np.pi * v)
        np.testing.assert_allclose(z[i, j], expected, rtol=4 * np.finfo(dtype).eps, atol=1e-15)


def test_what_cannot_be_a_number_of_steps_draws_or_noise_is_refused():
    model, x = cnn(), images()
    with pytest.raises(ValueError, match="steps must be a positive integer; got 0"):
        attribution.integrated_gradients(model, x, steps=0)
    with pytest.raises(ValueError, match="draws must be a positive integer; got 0"):
        attribution.smooth_grad(model, x, draws=0)
    with pytest.raises(ValueError, match="noise must be finite and not negative; got -1"):
        attribution.smooth_grad(model, x, noise=-1)
    with pytest.raises(ValueError, match="batch_size must be a positive integer; got 0"):
        attribution.saliency(model, x, batch_size=0)
    for baseline, must in (
        (np.zeros(3), r"baseline must broadcast to \(5, 8, 8, 2\)"),
        (np.nan, "baseline must be finite"),
        ("white", "baseline must be an array of numbers"),
    ):
        with pytest.raises((TypeError, ValueError), match=must):
            attribution.integrated_gradients(model, x, baseline=baseline)
