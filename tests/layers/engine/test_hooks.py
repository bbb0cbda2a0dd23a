"""Hooks of a tape: who is told of what, when, and in which order."""

import numpy as np
import pytest

import layers
from layers import MaxPool2d, ReLU, Sequential, Tape, TapeHook
from layers.engine.hooks import TapeHooks

from ..spy import Ready, Spy, linear

EVENTS = [name for name in vars(TapeHook) if name.startswith("on_")]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


class Diary(TapeHook):
    """Writes down every event with the layer of its call; of parameters, their shapes."""

    def __init__(self):
        self.lines = []

    def on_forward_begin(self, call):
        assert not hasattr(call, "output")
        self.lines.append(("forward", call.layer))

    def on_forward_end(self, call):
        self.lines.append(("end of forward", call.layer, *(y.shape for y in call.output.arrays)))

    def on_backward_pass_begin(self, tape):
        self.lines.append(("pass", len(tape.calls)))

    def on_backward_begin(self, call):
        self.lines.append(("backward", call.layer))

    def on_backward_end(self, call):
        self.lines.append(("end of backward", call.layer))

    def on_parameter_ready(self, parameter):
        self.lines.append(("ready", parameter))

    def on_backward_pass_end(self, tape):
        self.lines.append(("end of pass", len(tape.calls)))


class Halves(layers.Layer):
    """Two outputs: the first column, and the others."""

    def forward(self, call, x):
        return x[:, :1], x[:, 1:]

    def backward(self, call, da, db):
        return (np.concatenate([da, np.zeros((len(da), 2)) if db is None else db], axis=1),)


def test_hook_is_told_of_all_events_in_order(rng):
    diary, first, halves = Diary(), linear(rng, 4, 3), Halves()
    unreached = ReLU()
    a, b = halves(first(Tape(hooks=[diary]).input(rng.standard_normal((2, 4)))))
    unreached(b)
    a.backward(np.ones((2, 1)))
    assert diary.lines == [
        ("forward", first),
        ("end of forward", first, (2, 3)),
        ("forward", halves),
        ("end of forward", halves, (2, 1), (2, 2)),
        ("forward", unreached),
        ("end of forward", unreached, (2, 2)),
        ("pass", 3),
        ("backward", halves),
        ("end of backward", halves),
        ("backward", first),
        ("end of backward", first),
        ("ready", first.weight),
        ("ready", first.bias),
        ("end of pass", 3),
    ]


def test_hooks_are_told_in_their_order_and_those_of_a_context_last(rng):
    told = []
    first, second, further = (
        Ready(lambda p, name=name: told.append(name)) for name in ("first", "second", "further")
    )
    tape = Tape(hooks=[first, second])
    y = layers.Linear(3, 2, bias=False, rng=rng)(tape.input(np.ones((1, 3), np.float32)))
    with tape.observed(further):
        y.backward(np.ones((1, 2), np.float32))
    y.backward(np.ones((1, 2), np.float32))
    assert told == ["first", "second", "further", "first", "second"]


def test_context_tells_where_there_is_no_other_hook_and_ends_with_an_error(rng):
    told, tape = [], Tape()
    y = linear(rng, 3, 2)(tape.input(np.ones((1, 3))))

    def watched():
        with tape.observed(Ready(told.append)):
            y.backward(np.ones((1, 2)))
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        watched()
    y.backward(np.ones((1, 2)))
    assert len(told) == 2


def test_methods_that_are_not_overridden_are_not_bound():
    assert TapeHooks.of([]) is None
    assert TapeHooks.of([TapeHook(), TapeHook(), object()]) is None
    ready = Ready(print)
    assert TapeHooks.of([TapeHook(), ready]) == TapeHooks(
        parameter_ready=(ready.on_parameter_ready,)
    )


@pytest.mark.parametrize("event", EVENTS)
def test_every_method_is_an_event(event):
    told = []
    hook = type("One", (TapeHook,), {event: lambda self, about: told.append(about)})()
    model = Sequential(linear(np.random.default_rng(0), 3, 2), layers.Softmax())
    y = model(Tape(hooks=TapeHooks.of([hook])).input(np.ones((1, 3))))
    y.backward(np.ones((1, 2)))
    assert len(told) == (1 if "pass" in event else 2)


def test_error_of_a_hook_in_forward_leaves_no_call_behind(rng):
    class Refuses(TapeHook):
        def on_forward_begin(self, call):
            if call.index == 1:
                raise RuntimeError("refused")

    tape = Tape(hooks=[Refuses()])
    h = linear(rng, 3, 2)(tape.input(np.ones((1, 3))))
    with pytest.raises(RuntimeError, match="refused"):
        ReLU()(h)
    assert len(tape.calls) == 1
    h.backward(np.ones((1, 2)))


def test_pass_that_fails_has_no_end(rng):
    class Fails(Spy):
        def backward(self, call, dy):
            raise RuntimeError("broken")

    diary = Diary()
    y = Fails()(linear(rng, 3, 2)(Tape(hooks=[diary]).input(np.ones((1, 3)))))
    with pytest.raises(RuntimeError, match="broken"):
        y.backward(np.ones((1, 2)))
    assert diary.lines[-1][0] == "backward"


@pytest.mark.parametrize(
    ("hooks", "fix"),
    [
        ([object()], r"Derive from layers\.TapeHook\."),
        ([Diary(), Diary], r"Make one: Diary\(\.\.\.\)\."),
        (Diary(), r"Pass a list: hooks=\[\.\.\.\]\."),
    ],
)
def test_what_cannot_be_told_of_anything_is_refused(hooks, fix):
    with pytest.raises(TypeError, match=rf"^Tape: hooks must be TapeHook objects; got .*{fix}"):
        Tape(hooks=hooks)


def test_what_cannot_be_told_of_anything_cannot_observe():
    with (
        pytest.raises(TypeError, match=r"^Tape\.observed: hooks must be TapeHook objects"),
        Tape().observed(print),
    ):
        pass


def test_former_name_of_hooks_is_refused():
    with pytest.raises(TypeError, match=r"hooks; got observer=.*\. Pass hooks="):
        Tape(observer=print)


# ---- parameters that are ready


class Recorder(TapeHook):
    """Keeps the parameters that it is told of, and what their gradients were at that moment."""

    def __init__(self):
        self.told, self.gradients = [], []

    def on_parameter_ready(self, parameter):
        self.told.append(parameter)
        self.gradients.append(parameter.gradient.copy())


def test_every_parameter_is_ready_once_when_its_gradient_is_complete(rng):
    shared, head = linear(rng, 3, 3), linear(rng, 3, 2)
    recorder = Recorder()
    h = Tape(hooks=[recorder]).input(rng.standard_normal((4, 3)))
    for _ in range(3):
        h = ReLU()(shared(h))
    head(h).backward(rng.standard_normal((4, 2)))
    assert recorder.told == [head.weight, head.bias, shared.weight, shared.bias]
    for parameter, gradient in zip(recorder.told, recorder.gradients, strict=True):
        assert (parameter.gradient == gradient).all(), "told before the last use had contributed"


def test_last_layers_are_ready_first_and_before_earlier_layers_run(rng):
    events = []

    class Loud(Spy):
        def backward(self, call, dy):
            events.append("backward")
            return (dy,)

    layer = linear(rng, 3, 2)
    x = Tape(hooks=[Ready(events.append)]).input(np.ones((1, 3)))
    layer(Loud()(x)).backward(np.ones((1, 2)))
    assert events == [layer.weight, layer.bias, "backward"]


def test_parameters_that_backward_does_not_reach_are_ready_too(rng):
    used, unused, detached = linear(rng, 3, 2), linear(rng, 3, 2), linear(rng, 3, 3)
    recorder = Recorder()
    x = Tape(hooks=[recorder]).input(np.ones((1, 3)))
    y = used(detached(x).detach())
    unused(x)
    y.backward(np.ones((1, 2)))
    assert {id(p) for p in recorder.told} == {
        id(p) for layer in (used, unused, detached) for p in layer.parameters()
    }
    assert len(recorder.told) == 6
    assert [p.store.stale for p in (*unused.parameters(), *detached.parameters())] == [True] * 4
    assert not used.weight.store.stale


def test_parameters_are_ready_again_in_the_next_backward(rng):
    layer = linear(rng, 3, 2)
    recorder = Recorder()
    y = layer(Tape(hooks=[recorder]).input(np.ones((1, 3))))
    for _ in range(2):
        y.backward(np.ones((1, 2)))
    assert recorder.told == [layer.weight, layer.bias] * 2
    assert (recorder.gradients[2] == 2 * recorder.gradients[0]).all()


# ---- names


def test_layers_are_named_once_by_public_attributes_first(rng):
    inner = linear(rng, 2, 2)
    model = Sequential(inner, layers.Residual(Sequential(ReLU(), inner)))
    assert [name for name, _ in model.named_layers()][:6] == [
        "",
        "layers.0",
        "layers.1",
        "layers.1.body",
        "layers.1.body.layers.0",
        "layers.1.add",
    ]
    assert len({id(layer) for _, layer in model.named_layers()}) == len(list(model.named_layers()))


def test_layer_that_does_the_work_of_two_is_named_after_the_first(rng):
    model = Sequential(layers.Dropout(0.5), linear(rng, 5, 4), ReLU(), ReLU(), MaxPool2d(2))
    assert [(name, repr(layer)) for name, layer in model.named_layers()][1:] == [
        ("layers.0", "Dropout(0.5)"),
        ("layers.1", "Linear(5, 4)"),
        ("layers.2", "ReLU()"),
        ("layers.3", "ReLU()"),
        ("layers.4", "MaxPool2d(2)"),
        ("layers.1", "Linear(5, 4) + ReLU()"),
        ("layers.3", "ReLU() + MaxPool2d(2)"),
    ]
