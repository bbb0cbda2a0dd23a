"""`layers.summary`: work counted by hand and as PyTorch counts it, memory as the workspace has it,
and whatever a model may be made of.
"""

import importlib
import json

import numpy as np
import pytest

import layers
from layers import (
    GRU,
    LSTM,
    Attention,
    BatchNorm,
    Composite,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    EncoderBlock,
    Layer,
    Linear,
    Parameter,
    ReLU,
    Residual,
    Sequential,
    TreeBatch,
    TreeLSTM,
    TreeRNN,
    Upsample,
    summary,
)
from layers.gradient_check.cases import CASES, FAMILY

from .families.oracle import torch


def rng():
    return np.random.default_rng(3)


# Two trees: a root with two leaves, and a chain of three nodes.
TREES = TreeBatch(np.array([(-1, 0, 0), (-1, 0, 1)]))
NODES = np.ones((2, 3, 5), np.float32)
BY_HAND = {
    # 2 for each of 4 · 7 · 3 multiplications.
    "linear": (lambda: Linear(7, 3, rng=rng()), ((4, 7),), 2 * 4 * 7 * 3),
    "rows of rows": (lambda: Linear(7, 3, rng=rng()), ((4, 5, 7),), 2 * 4 * 5 * 7 * 3),
    # 9 windows of 3 x 3 pixels, 2 channels to 5.
    "convolution": (lambda: Conv2d(2, 5, 3, rng=rng()), ((4, 5, 5, 2),), 2 * 4 * 9 * 9 * 2 * 5),
    # Each of 4 outputs sees 2 of 4 channels.
    "groups": (
        lambda: Conv2d(4, 4, 3, rng=rng(), groups=2),
        ((1, 5, 5, 4),),
        2 * 9 * 9 * 2 * 4,
    ),
    "strides": (lambda: Conv1d(3, 2, 3, rng=rng(), stride=2), ((1, 9, 3),), 2 * 4 * 3 * 3 * 2),
    # Each of 25 pixels goes to 9, from 2 channels to 5.
    "transposed": (
        lambda: ConvTranspose2d(2, 5, 3, rng=rng(), stride=2),
        ((4, 5, 5, 2),),
        2 * 4 * 25 * 9 * 2 * 5,
    ),
    # q kᵀ and p v: 5 · 5 pairs of 8 features each.
    "attention": (lambda: Attention(2), ((3, 5, 24),), 2 * 2 * 3 * 5 * 5 * 8),
    "keys of others": (lambda: Attention(2), ((3, 5, 8), (3, 7, 16)), 2 * 2 * 3 * 5 * 7 * 8),
    # Four gates of 6 units from 5 inputs and 6 states, in 3 · 4 steps of time.
    "lstm": (lambda: LSTM(5, 6, rng=rng()), ((3, 4, 5),), 2 * 3 * 4 * 24 * (5 + 6)),
    "gru": (lambda: GRU(5, 6, rng=rng()), ((3, 4, 5),), 2 * 3 * 4 * 18 * (5 + 6)),
    "both ways": (
        lambda: LSTM(5, 6, rng=rng(), bidirectional=True),
        ((3, 4, 5),),
        2 * 2 * 3 * 4 * 24 * (5 + 6),
    ),
    # 6 nodes; 3 of them have children, 4 in all.
    "tree lstm": (
        lambda: TreeLSTM(5, 6, rng=rng()),
        (NODES, TREES),
        2 * (6 * 24 * 5 + 3 * 18 * 6 + 4 * 6 * 6),
    ),
    "tree rnn": (lambda: TreeRNN(5, 6, rng=rng()), (NODES, TREES), 2 * (6 * 6 * 5 + 3 * 6 * 12)),
    "element by element": (
        lambda: Sequential(ReLU(), Dropout(0.5), Upsample(2)),
        ((1, 4, 4, 2),),
        0,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_flops_are_those_counted_by_hand(name):
    make, inputs, flops = BY_HAND[name]
    assert summary(make(), *inputs).flops == flops


def test_flops_of_products_of_values_are_counted():
    class Product(Composite):
        def __call__(self, a, b):
            return (a @ b).sum() + layers.einsum("nij,njk->nik", a, b).sum()

    assert summary(Product(), (3, 4, 5), (3, 5, 6)).flops == 2 * 2 * 3 * 4 * 5 * 6


def of_torch(model, *inputs):
    """Return what PyTorch counts for a forward."""
    torch.set_num_threads(1)
    counter = importlib.import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops()


def test_flops_are_those_of_pytorch():
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=4, dilation=2),
        nn.ConvTranspose2d(8, 6, 4, stride=2),
        nn.Flatten(),
        nn.Linear(6 * 10 * 10, 10),
    )
    ours = Sequential(
        Conv2d(3, 8, 3, rng=rng(), padding=1, stride=2),
        ReLU(),
        Conv2d(8, 8, 3, rng=rng(), groups=4, dilation=2),
        ConvTranspose2d(8, 6, 4, rng=rng(), stride=2),
        layers.Flatten(),
        Linear(6 * 10 * 10, 10, rng=rng()),
    )
    expected = of_torch(theirs, torch.zeros(5, 3, 16, 16))
    assert summary(ours, (5, 16, 16, 3)).flops == expected


def test_flops_of_a_transformer_are_those_of_pytorch():
    nn = torch.nn

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(
                [nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 64), nn.Linear(64, 16)]
            )

        def forward(self, x):
            q, k, v = (
                part.reshape(2, 5, 2, 8).transpose(1, 2) for part in self.parts[0](x).split(16, -1)
            )
            p = (q @ k.transpose(-1, -2)).softmax(-1)
            x = self.parts[1]((p @ v).transpose(1, 2).reshape(2, 5, 16))
            return self.parts[3](self.parts[2](x).relu())

    expected = of_torch(Theirs(), torch.zeros(2, 5, 16))
    assert summary(EncoderBlock(16, 2, rng=rng()), (2, 5, 16)).flops == expected


@pytest.mark.parametrize("case", CASES, ids=[f"{FAMILY[c.name]}: {c.name}" for c in CASES])
def test_every_layer_has_a_summary_that_changes_nothing(case):
    model, inputs = case.make(rng()), case.inputs(rng())
    inputs = [
        x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
        for x in inputs
    ]
    before = [(each, each.value.copy()) for each in model.parameters()]
    before += [(each, each.value.copy()) for _, each in model.named_states()]
    found = summary(model, *inputs)
    assert found.parameters == sum(each.value.size for each in model.parameters())
    assert found.flops >= 0
    assert found.memory >= 0
    json.dumps(found.as_dict())
    assert repr(found)
    assert found._repr_html_()
    for each, value in before:
        np.testing.assert_array_equal(each.value, value)


def test_fused_layers_are_shown_as_those_that_were_written():
    model = Sequential(Linear(6, 5, rng=rng()), ReLU(), Linear(5, 3, rng=rng()))
    rows = summary(model, (4, 6)).rows
    assert [row.name for row in rows] == ["layers.0", "layers.1", "layers.2"]
    assert [row.outputs for row in rows] == [((4, 5),), ((4, 5),), ((4, 3),)]
    assert [row.parameters for row in rows] == [35, 0, 18]


@pytest.mark.parametrize("fuse", [True, False])
def test_a_residual_block_is_shown_part_by_part(fuse):
    body = Sequential(Linear(6, 6, rng=rng()), BatchNorm(6), fuse=fuse)
    found = summary(Sequential(Residual(body), ReLU(), fuse=fuse), (4, 6))
    assert [row.layer.partition("(")[0] for row in found.rows] == [
        "Linear",
        "BatchNorm",
        "Add",
        "ReLU",
    ]
    assert found.flops == 2 * 4 * 6 * 6


def test_memory_is_what_the_workspace_holds():
    model = Sequential(Linear(64, 128, rng=rng()), ReLU(), Linear(128, 10, rng=rng()))
    # The rectified output and the last one: neighbours that run as one call keep one array.
    assert summary(model, (8, 64)).memory == 4 * 8 * (128 + 10)
    apart = Sequential(*model.layers, fuse=False)
    assert summary(apart, (8, 64)).memory == 4 * 8 * (128 + 128 + 10)


class Own(Layer):
    """A layer of a user's, with memory of its own."""

    def __init__(self):
        self.gain = Parameter(np.ones(6, np.float32))

    def flops(self, y, *inputs):
        return 3 * y.size

    def forward(self, call, x):
        call.save(x, np.square(x))
        return x * self.gain.value


def test_a_layer_of_ones_own_counts_its_own():
    (row,) = summary(Own(), (4, 6)).rows
    # The output and the squares; the input is the tape's.
    assert (row.parameters, row.flops, row.memory) == (6, 3 * 24, 2 * 4 * 24)


def test_shared_frozen_and_unused_parameters_count_once():
    class Shared(Composite):
        def __init__(self):
            self.one = Linear(6, 6, rng=rng()).freeze()
            self.other = Linear(6, 2, rng=rng())

        def __call__(self, x):
            return self.one(self.one(x))

    found = summary(Shared(), (4, 6))
    assert (found.parameters, found.trainable) == (42 + 14, 14)
    assert found.rows[0].calls == 2
    assert found.flops == 2 * 2 * 4 * 6 * 6
    assert "not used" in found.rows[1].layer


def test_markup_in_names_is_escaped():
    class Odd(Own):
        def __repr__(self):
            return "<script>alert(1)</script>"

    shown = summary(Odd(), (4, 6))._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_a_thousand_layers_are_summed_up():
    model = Sequential(*(Linear(2, 2, rng=rng()) for _ in range(1000)))
    found = summary(model, (3, 2))
    assert found.parameters == 6000
    assert len(repr(found).splitlines()) == 1005


@pytest.mark.parametrize(
    ("inputs", "kind", "words"),
    [
        ((), ValueError, r"^summary: the model must have an input; got none\. "),
        (((4, 7),), ValueError, r"^Linear\(6, 3\): "),
        (((-4, 6),), ValueError, r"^summary: an input must be a shape"),
        ((("a", 6),), ValueError, r"^summary: an input must be a shape"),
        (
            ((2**40, 2**40),),
            ValueError,
            r"^summary: an input must be a shape of which there is mem",
        ),
    ],
)
def test_what_is_no_input_is_refused(inputs, kind, words):
    with pytest.raises(kind, match=words):
        summary(Linear(6, 3, rng=rng()), *inputs)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"^summary: model must be a layer .* got a list"):
        summary([1], (4, 6))
