"""The timeline: a file that viewers read, with all that a step consists of, within bounds."""

import json
import time

import numpy as np
import pytest

import ddbp
from ddbp.comm import deadlines
from ddbp.observers.timeline import offsets_of
from layers import Linear, ReLU, Sequential

from .small import DATA, make, parameters


def read(path):
    """Return the intervals of a file by rank, in milliseconds, and its other data."""
    found = json.loads(path.read_text())
    ranks = {}
    for event in found["traceEvents"]:
        events = ranks.setdefault(event["pid"], [])
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0
            events.append(event)
        else:
            assert event["ph"] == "M"
    return ranks, found["otherData"]


def ends(event):
    return event["ts"] + event["dur"]


def require_nesting(events):
    """Fail where two intervals of a rank overlap and none is within the other."""
    open_ = []
    for event in events:
        end = ends(event)
        while open_ and open_[-1] <= event["ts"] + 1e-9:
            open_.pop()
        assert not open_ or end <= open_[-1] + 1e-3, event
        open_.append(end)


def named(events, category):
    return [event["name"] for event in events if event["cat"] == category]


def test_a_fit_leaves_a_file_with_all_parts_of_its_steps(tmp_path):
    callbacks = [ddbp.Trace(), ddbp.Checkpoints(every_epochs=1)]
    trainer = make(batch_size=40, callbacks=callbacks, run_dir=tmp_path)
    trainer.fit(DATA, epochs=2, validation=DATA)
    ranks, facts = read(tmp_path / "trace.json")
    (events,) = ranks.values()
    require_nesting(events)
    assert named(events, "step") == [f"step {number}" for number in range(6)]
    step = ["data", "forward", "backward", "reduction", "optimizer", "publication"]
    rest = ["evaluation", "checkpoint"]
    assert named(events, "phase") == [*3 * step, *rest, *3 * step, *rest]
    # Two layers are one call, and there is the loss; in an epoch and its validation.
    calls = ["layers.0: Linear(6, 16) + ReLU()", "layers.2: Linear(16, 3)", "SoftmaxCrossEntropy()"]
    assert named(events, "forward") == 2 * (3 + 3) * calls
    assert named(events, "backward") == 2 * 3 * calls[::-1]
    evaluation = next(event for event in events if event["name"] == "evaluation")
    within = [each for each in events if evaluation["ts"] <= each["ts"] <= ends(evaluation)]
    assert named(within, "forward") == 3 * calls
    assert facts == {"intervals_left_out": [0], "clock_offsets_ns": [0], "clock_error_ns": 0}


def test_a_step_lasts_as_long_as_its_phases(tmp_path):
    make(callbacks=[ddbp.Trace()], run_dir=tmp_path).fit(DATA, epochs=1)
    (events,) = read(tmp_path / "trace.json")[0].values()
    steps = [event for event in events if event["cat"] == "step"]
    for step in steps:
        within = [
            each["dur"]
            for each in events
            if each["cat"] == "phase"
            and step["ts"] - 1e-3 <= each["ts"]
            and ends(each) <= ends(step) + 1e-3
        ]
        assert len(within) == 5
        assert sum(within) <= step["dur"] + 1e-2


def test_steps_and_events_are_bounded(tmp_path):
    trace = ddbp.Trace(tmp_path / "few.json", first_step=2, steps=3, most_events=1)
    make(callbacks=[trace], batch_size=20).fit(DATA, epochs=4)
    (events,) = read(tmp_path / "few.json")[0].values()
    assert named(events, "step") == ["step 2", "step 3", "step 4"]
    trace = ddbp.Trace(tmp_path / "many.json", steps=10**6, most_events=1)
    make(callbacks=[trace], batch_size=1).fit(DATA, epochs=2)
    ranks, facts = read(tmp_path / "many.json")
    assert len(ranks[0]) == 1000
    assert facts["intervals_left_out"][0] > 1000


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loop_of_a_scripts_own_is_traced(tmp_path, accumulate):
    trace = ddbp.Trace(tmp_path / "trace.json")
    trainer = make(callbacks=[trace], accumulate=accumulate)
    for batch in trainer.batches(DATA):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    trace.write(trainer)
    trace.write(trainer)
    (events,) = read(tmp_path / "trace.json")[0].values()
    require_nesting(events)
    assert named(events, "phase").count("backward") == 5
    assert len(named(events, "step")) == -(-5 // accumulate)


def test_a_traced_run_has_the_same_parameters_and_leaves_no_listener(tmp_path):
    plain, traced = make(), make(callbacks=[ddbp.Trace(tmp_path / "trace.json")])
    for trainer in (plain, traced):
        trainer.fit(DATA, epochs=2)
    np.testing.assert_array_equal(parameters(plain), parameters(traced))
    assert deadlines.WAITED == []


def test_waits_are_in_the_file(tmp_path):
    trace = ddbp.Trace(tmp_path / "trace.json")
    trainer = make(callbacks=[trace])

    class Late(ddbp.Callback):
        def on_phase(self, trainer, phase):
            if phase is ddbp.StepPhase.UPDATE:
                began = time.monotonic()
                time.sleep(0.002)
                for tell in deadlines.WAITED:
                    tell((1, 5), began)

    trainer = make(callbacks=[trace, Late()])
    trainer.fit(DATA, epochs=1)
    (events,) = read(tmp_path / "trace.json")[0].values()
    require_nesting(events)
    waits = [event for event in events if event["cat"] == "wait"]
    assert {event["name"] for event in waits} == {"wait: the gradient exchange"}
    assert len(waits) == 5
    assert all(event["dur"] >= 2000 for event in waits)


def test_a_name_with_markup_and_quotes_stays_json(tmp_path):
    class Odd(ReLU):
        def __repr__(self):
            return '"</script>\n'

    rng = np.random.default_rng(0)
    model = Sequential(Linear(6, 4, rng=rng), Odd(), Linear(4, 3, rng=rng))
    make(model, callbacks=[ddbp.Trace()], run_dir=tmp_path).fit(DATA, epochs=1)
    (events,) = read(tmp_path / "trace.json")[0].values()
    assert 'layers.1: "</script>\n' in named(events, "forward")


def test_clocks_of_hosts_are_aligned_by_their_meetings():
    # Ranks 0 and 1 on one host, 2 and 3 on another whose clock is ahead; they come late, and leave
    # late, as they like.
    rng, ahead = np.random.default_rng(0), 5_000_000
    came = 10_000 * np.arange(33) + rng.integers(0, 3000, (4, 33))
    left = came.max(axis=0) + rng.integers(10, 3000, (4, 33))
    looks = np.stack([came, left], axis=1) + np.array([0, 0, ahead, ahead])[:, None, None]
    offsets, error = offsets_of(looks, np.array([0, 2, 4]))
    assert offsets[:2].tolist() == [0, 0]
    assert offsets[2] == offsets[3]
    assert abs(offsets[2] - ahead) <= error < 1000


def test_one_good_meeting_tells_the_offset_of_a_clock():
    came = np.array([[0, 1000], [0, 9000]])
    looks = np.stack([came, np.array([[50, 9950], [40, 9940]])], axis=1)
    offsets, error = offsets_of(looks, np.array([0, 1, 2]))
    assert offsets.tolist() == [0, -5]
    assert error == 45


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be a positive integer"),
        ({"first_step": -1}, "first_step must be"),
        ({"most_events": 10**9}, "most_events must be at most"),
        ({"path": 3}, "path must be a path"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises((TypeError, ValueError), match=f"^Trace: {words}"):
        ddbp.Trace(**options)


def test_a_trace_without_a_place_is_refused():
    with pytest.raises(
        ValueError, match=r"^Trace: the trace must have a file; got None\. Pass run"
    ):
        make(callbacks=[ddbp.Trace()])


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    trainer = make(callbacks=[ddbp.Trace(tmp_path / "file" / "trace.json")])
    with pytest.warns(RuntimeWarning, match=r"^Trace: .*trace\.json should hold the trace; got "):
        trainer.fit(DATA, epochs=1)
