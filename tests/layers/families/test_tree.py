"""Trees: batches of them, the cells against PyTorch and against one node after the other on a tape,
bits, depth, refusals.
"""

import numpy as np
import pytest

import layers
from layers import Tape, TreeBatch, TreeLSTM, TreeRNN, Workspace
from layers.gradient_check.cases.tree import BINARY, WIDE

from . import node_by_node
from .node_by_node import random_trees
from .oracle import torch

CELLS = pytest.mark.parametrize("cell", [TreeRNN, TreeLSTM], ids=["TreeRNN", "TreeLSTM"])


@pytest.fixture
def rng():
    return np.random.default_rng(6)


def passed(cell, x, trees, dy, **options):
    """Return output, gradient of x and gradients of the shards."""
    for parameter in cell.parameters():
        parameter.forget_gradients()
    tape = Tape(**options)
    value = tape.input(x)
    y = cell(value, trees)
    y.backward(dy)
    return (
        y.array.copy(),
        value.grad.copy(),
        *(parameter.gradients.copy() for parameter in cell.parameters()),
    )


# ---- batches of trees


def test_nested_tuples_are_numbered_from_the_root_a_subtree_at_a_time():
    batch, tokens = TreeBatch.from_nested([(7, 1, (8, 2)), 5, (1, (2, (3, 4)), 6)])
    assert batch.parents.tolist() == [[-1, 0, 0, 2, -2], [-1, -2, -2, -2, -2], [-1, 0, 1, 2, 0]]
    assert tokens.tolist() == [[7, 1, 8, 2, 0], [5, 0, 0, 0, 0], [1, 2, 3, 4, 6]]
    assert repr(batch) == "TreeBatch(3 trees, 10 nodes, 4 levels)"


def test_children_have_lower_levels_than_their_parents_and_every_node_is_visited_once(rng):
    for parents in (BINARY, WIDE, random_trees(rng, 5, 9)):
        batch = TreeBatch(parents)
        level = np.empty(len(batch.order), int)
        for number, (start, stop) in enumerate(
            zip(batch.level_starts, batch.level_starts[1:], strict=False)
        ):
            level[batch.order[start:stop]] = number
        assert sorted(batch.order) == list(range((parents != -2).sum()))
        width = parents.shape[1]
        for r, slot in enumerate(batch.slots):
            below = batch.children[batch.child_starts[r] : batch.child_starts[r + 1]]
            n, node = divmod(int(slot), width)
            assert [int(batch.slots[q]) - n * width for q in below] == np.flatnonzero(
                parents[n] == node
            ).tolist()
            assert level[r] == (max(level[q] for q in below) + 1 if len(below) else 0)


@pytest.mark.parametrize(
    ("parents", "words"),
    [
        ([[-1, 0], [1, 0]], ["root", "cycle", "tree 1", "-1"]),
        ([[-1, -1]], ["one root", "tree 0, node 1", "forest"]),
        ([[-1, 0], [-2, -2]], ["a tree must have a node", "tree 1", "Leave"]),
        ([[-1, 2, 1]], ["descend from the root", "tree 0, node 1", "cycle"]),
        ([[-1, 0, 2]], ["descend from the root", "tree 0, node 2", "cycle"]),
        ([[-1, 5]], ["a parent must be a node", "tree 0, node 1", "[-1, 5]"]),
        ([[-1, -3]], ["a parent must be a node", "tree 0, node 1"]),
        ([[-1, 2, -2]], ["a node's parent must exist", "tree 0, node 1", "-2"]),
        ([-1, 0], ["(N, nodes)", "(2,)", "from_nested"]),
    ],
)
def test_what_is_no_batch_of_trees_is_refused_by_tree_and_node(parents, words):
    with pytest.raises(ValueError, match="TreeBatch: ") as caught:
        TreeBatch(parents)
    assert all(word in str(caught.value) for word in [*words, "; got "]), str(caught.value)


def test_parents_and_tokens_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="parents must be integers; got float64"):
        TreeBatch([[-1.0, 0.0]])
    with pytest.raises(TypeError, match="tokens of tree 1 must be integers; got 'and'"):
        TreeBatch.from_nested([1, ("and", 1, 0)])
    with pytest.raises(TypeError, match=r"tokens of tree 0 must be integers; got \(\)"):
        TreeBatch.from_nested([()])
    with pytest.raises(ValueError, match="at most 2 nodes; got 3"):
        TreeBatch.from_nested([(1, 2, 3)], nodes=2)


# ---- cells


@CELLS
def test_gradients_equal_those_of_one_node_after_the_other_on_a_tape(rng, cell):
    layer = cell(3, 6, rng=rng, dtype=np.float64)
    x, dy = rng.standard_normal((*BINARY.shape, 3)), rng.standard_normal((len(BINARY), 6))
    y, dx, *gradients = passed(layer, x, BINARY, dy)
    for parameter in layer.parameters():
        parameter.forget_gradients()
    tape = Tape()
    value = tape.input(x)
    states = node_by_node.on_a_tape(layer, tape, lambda n, node: value[n : n + 1, node], BINARY)
    loss = sum((state * d).sum() for state, d in zip(states, dy, strict=True))
    loss.backward()
    np.testing.assert_allclose(
        y, np.concatenate([state.array for state in states]), rtol=0, atol=1e-14
    )
    np.testing.assert_allclose(dx, value.grad, rtol=0, atol=1e-13)
    for found, parameter in zip(gradients, layer.parameters(), strict=True):
        np.testing.assert_allclose(found[0], parameter.gradient, rtol=0, atol=1e-12)


@CELLS
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_output_and_gradients_equal_those_of_pytorch(rng, cell, dtype):
    parents = random_trees(rng, 4, 6)
    layer = cell(5, 17, rng=rng, bias_init=layers.init.normal(1), dtype=dtype)
    x = rng.standard_normal((*parents.shape, 5)).astype(dtype)
    dy = rng.standard_normal((4, 17)).astype(dtype)
    y, dx, *gradients = passed(layer, x, parents, dy)
    tensors = [
        torch.tensor(parameter.value, requires_grad=True) for parameter in layer.parameters()
    ]
    there = torch.tensor(x, requires_grad=True)
    expected = torch.stack(
        node_by_node.in_pytorch(torch, layer, tensors, lambda n, node: there[n, node], parents)
    )
    expected.backward(torch.tensor(dy))
    pairs = [(y, expected.detach()), (dx, there.grad)]
    pairs += [(found[0], tensor.grad) for found, tensor in zip(gradients, tensors, strict=True)]
    for found, truth in pairs:
        scale = float(np.abs(truth.numpy()).max())
        np.testing.assert_allclose(
            found, truth.numpy(), rtol=0, atol=64 * np.finfo(dtype).eps * scale
        )


@CELLS
def test_tree_has_the_same_bits_alone_among_others_and_with_more_room(rng, cell):
    layer = cell(8, 16, rng=rng)
    parents = random_trees(rng, 9, 12)
    x = rng.standard_normal((*parents.shape, 8)).astype(np.float32)
    dy = rng.standard_normal((9, 16)).astype(np.float32)
    y, dx, *gradients = passed(layer, x, parents, dy, shards=(0, 4, 5, 9))
    n, s = 4, 1
    room = np.full((1, 40), -2)
    room[0, : parents.shape[1]] = parents[n]
    padded = np.full((1, 40, 8), np.nan, np.float32)
    padded[0, : parents.shape[1]] = x[n]
    alone, dx_alone, *gradients_alone = passed(layer, padded, room, dy[n : n + 1])
    assert alone[0].tobytes() == y[n].tobytes()
    assert dx_alone[0, : parents.shape[1]].tobytes() == dx[n].tobytes()
    assert not dx_alone[0, parents.shape[1] :].any()
    assert all(
        a[0].tobytes() == b[s].tobytes() for a, b in zip(gradients_alone, gradients, strict=True)
    )


@CELLS
def test_batch_that_is_built_once_gives_the_bits_of_its_parents(rng, cell):
    layer = cell(3, 4, rng=rng)
    x = rng.standard_normal((*BINARY.shape, 3)).astype(np.float32)
    dy = rng.standard_normal((len(BINARY), 4)).astype(np.float32)
    pairs = zip(passed(layer, x, TreeBatch(BINARY), dy), passed(layer, x, BINARY, dy), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_order_of_children_does_not_matter_to_the_sum_but_to_the_places(rng):
    parents, turned = np.array([[-1, 0, 0]]), [0, 2, 1]
    x = rng.standard_normal((1, 3, 4)).astype(np.float32)
    lstm, rnn = TreeLSTM(4, 5, rng=rng), TreeRNN(4, 5, rng=rng)
    np.testing.assert_allclose(lstm(x, parents), lstm(x[:, turned], parents), rtol=1e-6)
    assert np.abs(rnn(x, parents) - rnn(x[:, turned], parents)).max() > 1e-3


@CELLS
def test_chain_of_ten_thousand_nodes_is_no_deeper_than_any_other_tree(rng, cell):
    layer = cell(2, 4, rng=rng)
    count = 10_000
    batch, _ = TreeBatch.from_nested([nested_chain(count)])
    x = rng.standard_normal((1, count, 2)).astype(np.float32)
    y, dx, *_ = passed(layer, x, batch, np.ones((1, 4), np.float32))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert dx[0, 0].any()


def nested_chain(count):
    tree = 1
    for _ in range(count - 1):
        tree = (1, tree)
    return tree


@CELLS
def test_smaller_trees_take_no_new_memory(rng, cell):
    layer, workspace, allocations = cell(3, 8, rng=rng), Workspace(), []
    for leaves in (16, 9, 12, 16):
        parents = random_trees(rng, 6, leaves)
        x = rng.standard_normal((*parents.shape, 3)).astype(np.float32)
        passed(layer, x, parents, np.ones((6, 8), np.float32), workspace=workspace)
        allocations.append(workspace.allocations)
    # Levels may be wider in a smaller tree.
    assert allocations[-1] - allocations[0] <= 6, allocations


# ---- refusals

x32 = np.ones((1, 3, 4), np.float32)
STAR = np.array([[-1, 0, 0]])


@pytest.mark.parametrize(
    ("cell", "x", "trees", "error", "words"),
    [
        (TreeRNN, x32[0], STAR, ValueError, ["TreeRNN(4, 5)", "(1, 3, 4)", "(3, 4)"]),
        (TreeLSTM, x32[:, :2], STAR, ValueError, ["TreeLSTM(4, 5)", "(1, 3, 4)", "(1, 2, 4)"]),
        (TreeLSTM, x32[:, :, :2], STAR, ValueError, ["TreeLSTM(4, 5)", "(1, 3, 4)", "(1, 3, 2)"]),
        (
            TreeLSTM,
            x32.astype(float),
            STAR,
            TypeError,
            ["TreeLSTM(4, 5)", "float32", "float64", "astype"],
        ),
        (
            TreeRNN,
            np.ones((1, 4, 4), np.float32),
            np.array([[-1, 0, 0, 0]]),
            ValueError,
            ["at most 2 children", "3", "children=3"],
        ),
        (TreeLSTM, x32, np.array([[-1, 0, -1]]), ValueError, ["one root", "tree 0, node 2"]),
        (TreeLSTM, x32, STAR + 0.0, TypeError, ["parents must be integers", "float64"]),
    ],
)
def test_wrong_inputs_are_refused_by_name_shape_and_fix(rng, cell, x, trees, error, words):
    with pytest.raises(error) as caught:
        cell(4, 5, rng=rng)(x, trees)
    assert all(word in str(caught.value) for word in [*words, "; got "]), str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rng: TreeLSTM(0, 5, rng=rng), ["TreeLSTM", "input_size", "got 0"]),
        (lambda rng: TreeRNN(4, 2.5, rng=rng), ["TreeRNN", "hidden_size", "got 2.5"]),
        (lambda rng: TreeRNN(4, 5, children=0, rng=rng), ["TreeRNN", "children", "got 0"]),
    ],
)
def test_wrong_sizes_are_refused(rng, make, words):
    with pytest.raises(ValueError, match="must be a positive integer") as caught:
        make(rng)
    assert all(word in str(caught.value) for word in words), str(caught.value)
