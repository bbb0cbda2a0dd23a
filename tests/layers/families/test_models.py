"""Networks of the literature: their size as published, the shape of what they give, and that they
learn.
"""

import numpy as np
import pytest

import layers
from layers import SoftmaxCrossEntropy, Tape, Workspace, models

# He et al. 2015, section 4.2 and table 6: 0.27, 0.46 and 0.85 million.
PARAMETERS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet56": 853_018,
    "lenet5": 61_706,
    "small_cnn": 421_642,
}
IMAGES = {"lenet5": (28, 28, 1), "small_cnn": (28, 28, 1)}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("name", PARAMETERS)
def test_network_has_as_many_parameters_as_published(rng, name):
    model = getattr(models, name)(rng)
    assert sum(parameter.size for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_network_gives_a_score_per_class(rng, name):
    model = getattr(models, name)(rng, classes=7)
    x = rng.standard_normal((3, *IMAGES.get(name, (32, 32, 3)))).astype(np.float32)
    y = model(x)
    assert y.shape == (3, 7)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("name", ["lenet5", "small_cnn", "resnet20"])
@pytest.mark.parametrize("algorithm", ["default", "fastest"])
def test_network_learns_a_handful_of_images_by_heart_without_allocating(rng, name, algorithm):
    options = {} if name == "lenet5" else {"algorithm": algorithm}
    model = getattr(models, name)(rng, **options)
    flat = layers.FlatParameters(model)
    x = rng.standard_normal((6, *IMAGES.get(name, (32, 32, 3)))).astype(np.float32)
    labels = rng.integers(0, 10, 6)
    workspace, losses, allocations = Workspace(), [], []
    for _ in range(12):
        flat.zero_gradients()
        tape = Tape(training=True, workspace=workspace)
        loss = SoftmaxCrossEntropy()(model(tape.input(x, gradient=False)), labels)
        loss.backward()
        # A twentieth of the gradient's length: large steps for large gradients do not diverge.
        flat.values -= 0.2 * flat.gradients[0] / (1 + np.linalg.norm(flat.gradients[0]))
        losses.append(loss.item())
        allocations.append(workspace.allocations)
        tape.release()
    assert losses[-1] < 0.7 * losses[0], losses
    assert len(set(allocations[1:])) == 1


def test_methods_give_the_same_network_up_to_rounding(rng):
    x = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
    direct, default, fastest = (
        models.resnet20(np.random.default_rng(1), algorithm=algorithm)(x)
        for algorithm in ("direct", "default", "fastest")
    )
    np.testing.assert_allclose(default, direct, rtol=0, atol=1e-4 * np.abs(direct).max())
    np.testing.assert_allclose(fastest, direct, rtol=0, atol=1e-3 * np.abs(direct).max())
    assert not np.array_equal(default, fastest)
