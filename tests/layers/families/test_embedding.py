"""Embeddings, against PyTorch and at their edges."""

import numpy as np
import pytest

import layers
from layers.gradient_check.mutants import embedding as mutants

from ..spy import Ready
from .oracle import F, torch


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", [(6,), (4, 5), (3, 2, 9)], ids=str)
def test_output_and_gradient_equal_those_of_pytorch(shape, dtype):
    rng = np.random.default_rng(0)
    table = layers.Embedding(11, 37, rng=rng, dtype=dtype)
    ids = rng.integers(0, 11, shape)
    weight = torch.tensor(table.weight.value, requires_grad=True)
    theirs = F.embedding(torch.tensor(ids), weight)
    y = table(layers.Tape().input(ids))
    assert y.array.tobytes() == theirs.detach().numpy().tobytes()
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    theirs.backward(torch.tensor(dy))
    np.testing.assert_allclose(
        table.weight.gradient, weight.grad.numpy(), rtol=0, atol=8 * np.finfo(dtype).eps
    )


def test_weight_shared_with_the_output_gets_both_gradients_as_in_pytorch():
    rng = np.random.default_rng(1)
    table, head = layers.Embedding(7, 5, rng=rng), layers.Linear(5, 7, bias=False, rng=rng)
    head.weight = table.weight
    model = layers.Sequential(table, layers.Tanh(), head)
    assert len(model.parameters()) == 1
    ids, labels = rng.integers(0, 7, (4, 3)), rng.integers(0, 7, (4, 3))
    ready = []
    tape = layers.Tape(hooks=[Ready(ready.append)])
    layers.SoftmaxCrossEntropy()(model(tape.input(ids)), labels).backward()
    weight = torch.tensor(table.weight.value, requires_grad=True)
    logits = F.linear(torch.tanh(F.embedding(torch.tensor(ids), weight)), weight)
    F.cross_entropy(logits.reshape(-1, 7), torch.tensor(labels.reshape(-1))).backward()
    np.testing.assert_allclose(table.weight.gradient, weight.grad.numpy(), rtol=0, atol=1e-6)
    assert ready == [table.weight], "told once, after both uses"


def test_padding_is_zero_whatever_its_row_holds_and_learns_nothing():
    table = layers.Embedding(4, 3, padding=2, rng=np.random.default_rng(0))
    y = table(layers.Tape().input(np.array([[0, 2], [2, 3]])))
    assert not y.array[0, 1].any()
    assert y.array[0, 0].any()
    y.backward(np.ones(y.shape, np.float32))
    assert table.weight.gradient.sum(axis=1).tolist() == [3, 0, 0, 3]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_integer_type_will_do(dtype):
    table = layers.Embedding(4, 3, rng=np.random.default_rng(0))
    ids = np.array([3, 0, 1])
    assert table(ids.astype(dtype)).tobytes() == table.weight.value[ids].tobytes()


def test_ids_without_adjacent_memory():
    table = layers.Embedding(9, 3, rng=np.random.default_rng(0))
    ids = np.arange(9).reshape(3, 3)
    assert table(ids.T).tobytes() == table.weight.value[ids.T].tobytes()


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        (
            np.array([[0, 1], [5, 2]]),
            ValueError,
            ["Embedding(5, 3)", "0..4", "5 at (1, 0)", "from 0"],
        ),
        (np.array([0, -1]), ValueError, ["0..4", "-1 at (1,)"]),
        (np.array([2**40]), ValueError, ["1099511627776 at (0,)"]),
        (np.array([0.0]), TypeError, ["integers", "float64", "astype"]),
        (np.array(3), ValueError, ["(N, ...)", "()", "np.newaxis"]),
    ],
)
def test_wrong_ids_are_refused(ids, error, words):
    with pytest.raises(error) as caught:
        layers.Embedding(5, 3, rng=np.random.default_rng(0))(ids)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    "options", [{"tokens": 0}, {"features": 2.5}, {"padding": 5}, {"padding": -1}]
)
def test_wrong_options_are_refused(options):
    arguments = {"tokens": 5, "features": 3, **options}
    with pytest.raises(ValueError, match=f"Embedding: {next(iter(options))} must be .*; got "):
        layers.Embedding(**arguments, rng=np.random.default_rng(0))


@pytest.mark.parametrize("right", mutants.RIGHT)
def test_what_the_mutants_are_made_from_is_right(right):
    rng = np.random.default_rng(0)
    assert layers.gradcheck(right(rng), *mutants.MUTANTS[0].inputs(rng))
