"""Recurrent layers against PyTorch: outputs, last states and all gradients."""

import numpy as np
import pytest

from layers import Tape

from .oracle import torch
from .recurrent_layers import (
    KINDS,
    LENGTHS,
    SHAPES,
    C,
    H,
    T,
    arrays,
    assert_close,
    dtypes,
    kinds,
    made,
    total,
)


def in_pytorch(kind, layer, dtype, **options):
    """Return PyTorch's layer of a kind with the weights of ours."""
    make, given = KINDS[kind]
    named = {"num_layers" if name == "layers" else name: option for name, option in options.items()}
    other = getattr(torch.nn, make.__name__)(
        C,
        H,
        batch_first=True,
        dtype=torch.float32 if dtype is np.float32 else torch.float64,
        **given,
        **named,
    )
    with torch.no_grad():
        for mine, parameter in zip(layer.parameters(), other.parameters(), strict=True):
            parameter.copy_(torch.tensor(mine.value))
    return other


def stacked(state):
    """Return a state as PyTorch has it: (h, c) or h, each (layers, N, H)."""
    parts = [torch.tensor(np.stack(part)) for part in zip(*state, strict=True)]
    return [part.requires_grad_() for part in parts]


@kinds
@dtypes
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_states_and_all_gradients_equal_those_of_pytorch(kind, shape, lengths, dtype):
    ours = made(kind, dtype, **SHAPES[shape])
    theirs = in_pytorch(kind, ours, dtype, **SHAPES[shape])
    x, first, dy, dlast = arrays(ours, dtype)
    tape = Tape()
    value = tape.input(x)
    initial = tuple(tuple(map(tape.input, states)) for states in first)
    y, last = ours.run(value, initial, lengths)

    their_x, their_first = torch.tensor(x, requires_grad=True), stacked(first)
    given = their_x
    if lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            their_x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
    their_y, their_last = theirs(
        given, tuple(their_first) if len(their_first) > 1 else their_first[0]
    )
    if lengths is not None:
        their_y, _ = torch.nn.utils.rnn.pad_packed_sequence(
            their_y, batch_first=True, total_length=T
        )
    their_last = their_last if isinstance(their_last, tuple) else (their_last,)

    assert_close(y.array, their_y, "output")
    for k, expected in enumerate(their_last):
        assert_close(np.stack([states[k].array for states in last]), expected, f"last state {k}")

    total(y, dy, last, dlast).backward()
    loss = (their_y * torch.tensor(dy)).sum()
    for state, gradient in zip(their_last, stacked(dlast), strict=True):
        loss = loss + (state * gradient.detach()).sum()
    loss.backward()
    assert_close(value.grad, their_x.grad, "gradient of x")
    for k, state in enumerate(their_first):
        assert_close(
            np.stack([states[k].grad for states in initial]),
            state.grad,
            f"gradient of initial state {k}",
        )
    for (name, mine), parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(mine.gradient, parameter.grad, f"gradient of {name}")


@kinds
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
@pytest.mark.parametrize("shape", SHAPES)
def test_last_output_is_the_last_state_of_pytorch(kind, shape, lengths):
    ours = made(kind, last=True, **SHAPES[shape])
    theirs = in_pytorch(kind, ours, np.float64, **SHAPES[shape])
    x = arrays(ours)[0]
    given = torch.tensor(x, requires_grad=True)
    packed = given
    if lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            given, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
    _, states = theirs(packed)
    directions = 2 if ours.bidirectional else 1
    last = (states[0] if isinstance(states, tuple) else states)[-directions:]
    expected = torch.cat(tuple(last), axis=-1)
    dy = np.random.default_rng(5).standard_normal(expected.shape)
    (expected * torch.tensor(dy)).sum().backward()
    value = Tape().input(x)
    y = ours(value, lengths)
    (y * dy).sum().backward()
    assert_close(y.array, expected, "output")
    assert_close(value.grad, given.grad, "gradient of x")
    for (name, mine), parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(mine.gradient, parameter.grad, f"gradient of {name}")
