"""Grad-CAM, occlusion, pictures, and whether attributions depend on what was learned."""

import sys

import numpy as np
import pytest

from ddbp import Adam, ArrayDataset, Trainer, attribution
from layers import (
    Conv1d,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool2d,
    PoolOverTime,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
)

from .networks import Bag, cnn, images, tagger
from .test_gradients import METHODS
from .test_inputs import MASK, ROW, TOKENS

LABELS = np.array([0, 2, 1, 1, 0])


def test_maps_have_the_size_of_the_images_or_of_the_layer():
    assert attribution.grad_cam(cnn(), images(), "layers.4", LABELS).values.shape == (5, 8, 8)
    rng = np.random.default_rng(0)
    flat = Sequential(Linear(16, 128, rng=rng), lambda x: x.reshape(-1, 8, 8, 2), *cnn().layers[:3])
    model = Sequential(*flat.layers[:2], *cnn(dtype=np.float32).layers)
    x = rng.standard_normal((5, 16)).astype(np.float32)
    assert attribution.grad_cam(model, x, model.layers[4], LABELS).values.shape == (5, 4, 4)


def test_sequences_have_maps_of_their_steps():
    rng = np.random.default_rng(0)
    model = Sequential(
        Conv1d(2, 4, 3, padding="same", rng=rng), ReLU(), PoolOverTime(), Linear(4, 3, rng=rng)
    ).astype(np.float64)
    x = [rng.standard_normal((n, 2)) for n in (5, 3, 8)]
    whole = attribution.grad_cam(model, x, "layers.1", 0)
    assert whole.values.lengths.tolist() == [5, 3, 8]
    alone = attribution.grad_cam(model, x[1][np.newaxis], "layers.1", 0)
    np.testing.assert_array_equal(alone.values[0], whole.values[1:2].values)
    assert attribution.grad_cam(tagger(), TOKENS, "layers.1").values.shape == TOKENS.shape


def test_what_is_made_of_layers_has_the_map_of_its_last():
    rng = np.random.default_rng(0)
    body = Sequential(Conv2d(2, 2, 3, padding=1, rng=rng), ReLU(), Conv2d(2, 2, 1, rng=rng))
    model = Sequential(Residual(body), ReLU(), GlobalAveragePool(), Linear(2, 3, rng=rng))
    x = images(dtype=np.float32)
    of_block = attribution.grad_cam(model, x, "layers.0", LABELS)
    assert of_block.sha256() == attribution.grad_cam(model, x, "layers.0.add", LABELS).sha256()
    assert (attribution.grad_cam(model, x, "layers.1", LABELS).values >= 0).all()


def test_layers_without_axes_of_space_or_that_are_not_in_the_model_are_refused():
    model = cnn()
    with pytest.raises(ValueError, match=r"must have axes of space.*got shape \(5, 10\) of Tanh"):
        attribution.grad_cam(model, images(), "layers.7")
    with pytest.raises(
        ValueError, match=r"must have axes of space.*got shape \(5, 96\) of Flatten"
    ):
        attribution.grad_cam(model, images(), model.layers[5])
    with pytest.raises(ValueError, match=r"layer must be one of the model: layers\.0, layers\.1"):
        attribution.grad_cam(model, images(), ReLU())
    with pytest.raises(ValueError, match="got 'last'"):
        attribution.grad_cam(model, images(), "last")
    model.unused = Flatten()
    with pytest.raises(ValueError, match="the layer must be one that the model calls"):
        attribution.grad_cam(model, images(), "unused")
    with pytest.raises(TypeError, match=r"there must be one input; got x\[0\], x\[1\], x\[2\]"):
        attribution.grad_cam(Bag(), (TOKENS, ROW, MASK), "table")
    with pytest.raises(TypeError, match="model must be a Module"):
        attribution.grad_cam(lambda x: x, images(), "layers.0")


def test_occlusion_is_the_mean_fall_over_the_windows_of_a_number():
    model, x = cnn(), images()
    found = attribution.occlusion(model, x, LABELS, window=(3, 2), stride=2, baseline=0.5)
    total, count = np.zeros(x.shape), np.zeros(x.shape[1:])
    score = model(x)[np.arange(5), LABELS]
    for i in range(0, 7, 2):
        for j in range(0, 7, 2):
            hidden = x.copy()
            hidden[:, i : i + 3, j : j + 2] = 0.5
            fall = score - model(hidden)[np.arange(5), LABELS]
            total[:, i : i + 3, j : j + 2] += fall[:, None, None, None]
            count[i : i + 3, j : j + 2] += 1
    np.testing.assert_allclose(found.values, total / count, rtol=1e-9, atol=1e-12)


def test_windows_beyond_a_sample_hide_all_of_it_and_too_many_axes_are_refused():
    model, x = cnn(), images()
    found = attribution.occlusion(model, x, LABELS, window=(100, 100))
    fall = model(x) - model(np.zeros_like(x))
    np.testing.assert_allclose(found.values[:, 0, 0, 0], fall[np.arange(5), LABELS], rtol=1e-9)
    with pytest.raises(ValueError, match="window must have at most the 3 axes of a sample"):
        attribution.occlusion(model, x, LABELS, window=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="window must be a positive integer; got 0"):
        attribution.occlusion(model, x, LABELS, window=(0, 1))
    with pytest.raises(ValueError, match="stride must be a positive integer; got 0"):
        attribution.occlusion(model, x, LABELS, stride=0)
    with pytest.raises(ValueError, match="at most the window's 3, or numbers are never hidden; go"):
        attribution.occlusion(model, x, LABELS, window=(8, 3), stride=4)
    whole = attribution.occlusion(model, x, LABELS, window=(8, 8), stride=9)
    assert whole.sha256() == found.sha256()


@pytest.fixture(scope="module")
def trained():
    """Return a network that has learned which quarter of an image has a square, with images."""
    rng = np.random.default_rng(0)
    y = np.arange(256) % 4
    x = 0.3 * rng.random((256, 8, 8, 2)).astype(np.float32)
    for image, quarter in zip(x, y, strict=True):
        row, column = 4 * (quarter // 2) + rng.integers(3), 4 * (quarter % 2) + rng.integers(3)
        image[row : row + 2, column : column + 2] += 0.7
    model = Sequential(
        *(Conv2d(2, 8, 3, padding=1, rng=rng), ReLU(), MaxPool2d(2), Flatten()),
        *(Linear(128, 32, rng=rng), ReLU(), Linear(32, 4, rng=rng)),
    )
    trainer = Trainer(
        model, loss=SoftmaxCrossEntropy(), optimizer=Adam(0.01), batch_size=32, quiet=True
    )
    trainer.fit(ArrayDataset(x, y), epochs=20)
    assert trainer.evaluate(ArrayDataset(x, y))["accuracy"] > 0.95
    return model, x[:6], y[:6]


@pytest.mark.parametrize("method", METHODS)
def test_attributions_change_when_the_weights_are_shuffled(trained, method):
    model, x, y = trained
    before = [parameter.value.copy() for parameter in model.parameters()]
    alike = attribution.sanity_check(lambda model: method(model, x, y), model)
    assert list(alike) == ["layers.6", "layers.4", "layers.0"]
    assert alike["layers.0"] < 0.6, alike
    with_signs = attribution.sanity_check(lambda model: method(model, x, y), model, signed=True)
    assert abs(with_signs["layers.0"]) < 0.6, with_signs
    assert 0 not in alike.values(), "the maps are of something"
    for parameter, value in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.value, value)


def test_what_does_not_look_at_the_model_fails_the_sanity_check(trained):
    model, x, y = trained
    edges = attribution.saliency(model, x, y)
    alike = attribution.sanity_check(lambda model: edges, model)
    assert set(alike.values()) == {1.0}
    with pytest.raises(TypeError, match="explain must return an Attribution; got a ndarray"):
        attribution.sanity_check(lambda model: x, model)
    with pytest.raises(ValueError, match=r"model must have parameters; got ReLU\(\)"):
        attribution.sanity_check(lambda model: edges, ReLU())


def test_results_show_themselves_in_words_figures_and_notebooks(monkeypatch):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed: pip install matplotlib")
    found = attribution.integrated_gradients(cnn(), images(), LABELS)
    assert repr(found).startswith(
        "Attribution(integrated_gradients, values (5, 8, 8, 2) float64, e"
    )
    camera = attribution.grad_cam(cnn(), images(), "layers.4", LABELS)
    figure = found.figure(camera, sample=2)
    assert [axes.get_title() for axes in figure.axes] == ["", "integrated gradients", "grad cam"]
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(shown, found.values[2].sum(axis=2))
    assert len(found.figure().axes) == 10
    assert "data:image/png;base64," in found._repr_html_()
    for sample in (5, -1):
        with pytest.raises(ValueError, match=f"sample must be in 0..4; got {sample}. Sam"):
            found.figure(sample=sample)
    for sample in ("a", 1.5):
        with pytest.raises(ValueError, match=f"sample must be an integer.*got {sample!r}"):
            found.figure(sample=sample)
    with pytest.raises(ValueError, match="the others must be attributions of the same 5 samples"):
        found.figure(attribution.saliency(cnn(), images(2)))
    several = attribution.saliency(Bag(), (TOKENS, ROW, MASK), 1)
    assert len(several.figure(sample=0).axes) == 2
    assert "data:image/png;base64," in several._repr_html_()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"matplotlib must be there; got none\. Install it: pip"):
        found.figure()
    assert "img" not in found._repr_html_()


def test_tokens_are_shown_on_the_colour_of_their_attributions():
    found = attribution.occlusion(tagger(), [[3, 1, 4], [1, 5]])
    text = found._repr_html_()
    assert text.count("<span") == 5
    largest = np.abs(found.values[:1].values).argmax()
    assert f'title="{found.values[:1].values[largest]:.3g}">{[3, 1, 4][largest]}</span>' in text
    assert text.count("1.00)") == 2
