"""The recording of instruments: rows, files, thinning, going on, and what is not readable."""

import dataclasses
import json

import numpy as np
import pytest

from ddbp.instruments.recording import CHUNK, QUANTITIES, Recorder, Recording

BINS = np.array([0.0, 0.5, 1.0, 3e38])
EMPTY = Recording(["a", "b"], ["a.weight"], BINS, np.zeros(0, np.int64), {}, QUANTITIES)


def row(step, ranks=2):
    share = np.full((2, 3), step, np.float32)
    return {
        "activation_norm": np.array([step, np.nan]),
        "activation_histogram": share,
        "gradient_norm": np.array([step / 2]),
        "seconds_forward": np.full(ranks, 0.25),
    }


def recorder(folder=None, *, every=1, most=64, row_bytes=100):
    return Recorder(
        EMPTY, every=every, row_bytes=row_bytes, most_bytes=most * row_bytes, run_folder=folder
    )


def equal(a, b):
    np.testing.assert_array_equal(a.steps, b.steps)
    assert a.values.keys() == b.values.keys()
    for name in a.values:
        np.testing.assert_array_equal(a.values[name], b.values[name], err_msg=name)


def test_what_is_written_is_read_again(tmp_path):
    kept = recorder(tmp_path)
    for step in range(CHUNK // 2 + 3):
        kept.add(step, row(step))
        if step % 10 == 0:
            kept.flush()
    kept.flush()
    read = Recording.read(tmp_path)
    equal(read, kept.recording)
    assert [*read.layers] == ["a", "b"]
    assert [*read.parameters] == ["a.weight"]
    np.testing.assert_array_equal(read.bins, BINS)
    assert read.quantities == dict(QUANTITIES)
    assert read.values["activation_histogram"].shape == (CHUNK // 2 + 3, 2, 3)
    assert np.isnan(read.values["update_norm"]).all(), "what nobody measured is not there"


def test_files_are_the_chunks_that_others_read(tmp_path):
    kept = recorder(tmp_path, every=5, most=1024)
    for step in range(0, 5 * (CHUNK + 2), 5):
        kept.add(step, row(step))
    kept.flush()
    names = sorted(path.name for path in (tmp_path / "instruments").iterdir())
    assert names == ["00000000.npz", f"{5 * CHUNK:08d}.npz", "layers.json"]
    heading = json.loads((tmp_path / "instruments" / "layers.json").read_text())
    assert heading["quantities"]["seconds_data"]["of"] == "ranks"
    with np.load(tmp_path / "instruments" / names[1]) as arrays:
        assert arrays["steps"].dtype == np.int64
        assert arrays["activation_norm"].dtype == np.float32


@pytest.mark.parametrize("every", [1, 3])
def test_a_long_run_is_thinned_by_halves_in_memory_and_in_files(tmp_path, every):
    kept = recorder(tmp_path, every=every, most=64)
    steps = 1000
    for step in range(steps):
        if step % kept.stride(step) == 0:
            kept.add(step, row(step))
            if step % 7 == 0:
                kept.flush()
    kept.flush()
    found = kept.recording.steps
    assert 32 <= len(found) <= 64
    stride = kept.stride(steps - 1)
    np.testing.assert_array_equal(found, np.arange(0, steps, stride))
    equal(Recording.read(tmp_path), kept.recording)


def test_rows_may_become_ever_rarer_and_stay(tmp_path):
    kept = recorder(tmp_path, every=None)
    for step in range(10_000):
        if step % kept.stride(step) == 0:
            kept.add(step, row(step))
            kept.flush()
    first = [*range(8), *range(8, 16, 2), *range(16, 32, 4)]
    steps = kept.recording.steps
    np.testing.assert_array_equal(steps[: len(first)], first)
    np.testing.assert_array_equal(np.diff(steps[8:]), [2 ** (1 + i // 4) for i in range(40)])
    equal(Recording.read(tmp_path), kept.recording)


def test_large_rows_are_fewer():
    assert recorder(most=10**6, row_bytes=1).stride(1023) == 1
    assert recorder(most=10**6, row_bytes=1).stride(1024) == 2
    assert recorder(most=100).stride(64) == 2
    assert recorder(most=1).stride(63) == 1, "some are kept whatever their size"


def test_a_run_that_goes_on_has_the_rows_of_one_that_was_not_cut(tmp_path):
    whole = recorder()
    for step in range(0, 300):
        if step % whole.stride(step) == 0:
            whole.add(step, row(step))
    first = recorder(tmp_path)
    for step in range(0, 150):
        if step % first.stride(step) == 0:
            first.add(step, row(step))
    first.flush()
    second = recorder(tmp_path)
    second.go_on(130)
    for step in range(130, 300):
        if step % second.stride(step) == 0:
            second.add(step, row(step))
    second.flush()
    equal(second.recording, whole.recording)
    equal(Recording.read(tmp_path), whole.recording)


def test_a_run_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path):
    for steps in (200, 3):
        kept = recorder(tmp_path, most=1024)
        for step in range(steps):
            kept.add(step, row(step))
        kept.flush()
    assert len(Recording.read(tmp_path).steps) == 3


def test_another_models_recording_is_not_taken_up(tmp_path):
    kept = recorder(tmp_path)
    kept.add(0, row(0))
    kept.flush()
    other = Recorder(
        dataclasses.replace(EMPTY, layers=["c", "d"]),
        every=1,
        row_bytes=1,
        most_bytes=100,
        run_folder=tmp_path,
    )
    other.go_on(5)
    assert not len(other.recording.steps)


def test_steps_that_come_again_replace_those_of_before():
    kept = recorder()
    for step in (0, 1, 2, 3):
        kept.add(step, row(step))
    kept.add(2, row(20))
    assert kept.recording.steps.tolist() == [0, 1, 2]
    assert kept.recording.values["gradient_norm"][2, 0] == 10


def test_numbers_of_ranks_may_become_more_and_fewer(tmp_path):
    kept = recorder(tmp_path)
    for step, ranks in enumerate((2, 4, 1)):
        kept.add(step, row(step, ranks))
    kept.flush()
    seconds = Recording.read(tmp_path).values["seconds_forward"]
    assert np.isfinite(seconds).sum(axis=1).tolist() == [2, 4, 1]


def test_quantiles_are_upper_edges_of_bins():
    kept = recorder()
    histogram = np.array([[0.25, 0.5, 0.25], [np.nan] * 3])
    kept.add(0, {"activation_histogram": histogram})
    found = kept.recording
    assert found.quantile("activation_histogram", 0.25)[0, 0] == 0.5
    assert found.quantile("activation_histogram", 0.5)[0, 0] == 1.0
    assert np.isnan(found.quantile("activation_histogram", 0.5)[0, 1])


def test_a_folder_without_a_recording_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Instruments\(\)"):
        Recording.read(tmp_path)


def _damage(folder, name, content):
    (folder / "instruments" / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("00000000.npz", b""),
        ("00000000.npz", b"PK\x03\x04 no archive"),
        ("layers.json", b"{"),
        ("layers.json", b"[]"),
        ("layers.json", b'{"format": 99}'),
    ],
)
def test_a_damaged_recording_is_refused_by_the_name_of_the_file(tmp_path, name, content):
    kept = recorder(tmp_path)
    kept.add(0, row(0))
    kept.flush()
    _damage(tmp_path, name, content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        Recording.read(tmp_path)


def test_what_cannot_be_written_is_said_once_and_written_later(tmp_path):
    place = tmp_path / "run"
    place.write_text("no folder")
    kept = recorder(place)
    kept.add(0, row(0))
    with pytest.warns(RuntimeWarning, match="Training goes on"):
        kept.flush()
    kept.add(1, row(1))
    kept.flush()
    place.unlink()
    kept.flush()
    assert Recording.read(place).steps.tolist() == [0, 1]


def test_who_has_nothing_new_writes_nothing(tmp_path):
    first, second = recorder(tmp_path), recorder(tmp_path)
    first.add(0, row(0))
    first.flush()
    second.add(0, row(0))
    second.add(1, row(1))
    second.flush()
    first.flush()
    assert Recording.read(tmp_path).steps.tolist() == [0, 1]
