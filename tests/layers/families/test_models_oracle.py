"""Networks of the literature against PyTorch: outputs, gradients of every parameter and running
statistics, as in training.
"""

import numpy as np
import pytest

import layers
from layers import Tape, models
from layers.engine.state import unique_states

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install 'ddbp[oracle]'"
)
from . import torch_models  # noqa: E402 - needs PyTorch

# In roundings of double precision, relative to the largest element: what rounds differently in one
# layer passes through all others.
ROUNDINGS = 4096

NETWORKS = {
    "lenet5": (models.lenet5, torch_models.lenet5, (28, 28, 1), (5, 5, 16)),
    "small_cnn": (
        lambda rng: models.small_cnn(rng, image=(12, 12, 1)),
        lambda: torch_models.small_cnn(12),
        (12, 12, 1),
        (3, 3, 64),
    ),
    "resnet20": (models.resnet20, torch_models.resnet20, (16, 16, 3), None),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_close(ours, theirs, what):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    scale = float(np.abs(theirs).max())
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=ROUNDINGS * np.finfo(np.float64).eps * scale, err_msg=what
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_network_its_gradients_and_its_running_statistics_equal_those_of_pytorch(name):
    ours, theirs, image, flattened = NETWORKS[name]
    rng = np.random.default_rng(5)
    model, module = ours(rng).astype(np.float64), theirs().double().train()
    # Biases and shifts that are not zero.
    for parameter in model.parameters():
        parameter.value[...] += 0.1 * rng.standard_normal(parameter.shape)
    torch_models.load(
        module,
        torch_models.in_their_order(
            [parameter.value for parameter in model.parameters()], flattened
        ),
    )
    x, labels = rng.standard_normal((5, *image)), rng.integers(0, 10, 5)

    tape = Tape(training=True)
    value = tape.input(x)
    y = model(value)
    loss = layers.SoftmaxCrossEntropy()(y, labels)
    loss.backward()
    image_there = torch.tensor(x, requires_grad=True)
    y_there = module(torch_models.channels_first(image_there))
    loss_there = torch.nn.functional.cross_entropy(y_there, torch.tensor(labels))
    loss_there.backward()

    assert_close(y.array, y_there, "output")
    assert_close(np.asarray(loss.item()), loss_there, "loss")
    assert_close(value.grad, image_there.grad, "gradient of the images")
    gradients = torch_models.in_their_order(
        [parameter.gradient for parameter in model.parameters()], flattened
    )
    names = [name for name, _ in model.named_parameters()]
    for parameter, gradient, twin in zip(names, gradients, module.parameters(), strict=True):
        assert_close(gradient, twin.grad, f"gradient of {parameter}")
    running = [buffer for label, buffer in module.named_buffers() if "running" in label]
    for (state, mine), twin in zip(unique_states(model), running, strict=True):
        assert_close(mine.value, twin, state)
