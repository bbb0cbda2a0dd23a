"""Checkpoints on disk: what is written is read, and nothing else is believed."""

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ddbp.checkpoint import folder, part
from ddbp.checkpoint.folder import Checkpoint, DamagedError
from ddbp.checkpoint.writer import Writer
from ddbp.comm.serial import SerialCommunicator
from ddbp.snapshot import Pieces, Snapshot
from ddbp.training.checkpoints import to_resume

RNG = np.random.default_rng(0)
ARRAYS = {
    "model.weight": RNG.standard_normal((7, 5)).astype(np.float32),
    "optimizer.square.weight": RNG.standard_normal((7, 5)),
    "counts": np.arange(4),
    "flags": np.array([True, False]),
    "one": np.float64(3).reshape(()),
    "none": np.zeros((0, 3), np.float32),
}
VALUES = {"fit.total": 1.5, "stream.epoch": 3, "history": [{"loss": None, "name": "…"}]}


def written(path, step=5, arrays=ARRAYS):
    """Write a checkpoint; return its folder."""
    published = []

    def publish(new, name):
        published.append(name)
        folder.replace(new, name)

    writer = Writer(path, SerialCommunicator(), 1, publish)
    pieces = {name: Pieces.share(array, 0, 1) for name, array in arrays.items()}
    snapshot = Snapshot({**arrays, "model.weight": pieces["model.weight"]}, VALUES)
    facts = {"epoch": 2, "best": None, "ranks": 1, "time": "now"}
    assert writer.write(step, facts, snapshot, background=True)
    writer.wait()
    assert published == [path / folder.step_name(step)]
    return path / folder.step_name(step)


def test_what_is_written_is_read(tmp_path):
    checkpoint = Checkpoint(written(tmp_path))
    found = checkpoint.snapshot()
    assert found.values == VALUES
    assert checkpoint.step == 5
    assert checkpoint.damages() == []
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        read = np.asarray(found.arrays[name])
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert read.tobytes() == array.tobytes()


def test_files_are_read_by_the_library_of_their_format(tmp_path):
    path = written(tmp_path)
    arrays = safetensors.numpy.load_file(path / "part-0000-of-0001.safetensors")
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        f"{name}:0": array.tobytes() for name, array in ARRAYS.items() if array.size
    }


def test_part_of_an_array_needs_no_reading_of_the_rest(tmp_path):
    path = written(tmp_path)
    checkpoint = Checkpoint(path)
    piece = checkpoint.arrays["model.weight"].pieces[0]
    with (path / piece.file).open("r+b") as file:
        # Whatever stands there is not looked at.
        file.truncate(piece.offset + 12 * 4)
    found = checkpoint.read("model.weight", 3, 12)
    assert found.tobytes() == ARRAYS["model.weight"].reshape(-1)[3:12].tobytes()
    with pytest.raises(ValueError, match="cut off"):
        checkpoint.read("model.weight", 3, 13)


def test_arrays_in_pieces_of_several_files_are_put_together(tmp_path):
    whole = RNG.standard_normal(100)
    cuts = [0, 30, 31, 100]
    places = [
        part.Image([("x", a, whole[a:b])]).write(tmp_path / f"part-{n}-of-3.safetensors")
        for n, (a, b) in enumerate(pairwise(cuts))
    ]
    pieces = [piece for each in places for _, piece in each]
    entry = {"shape": [10, 10], "dtype": "<f8", "spread": True, "pieces": pieces}
    facts = {"format": folder.FORMAT, "step": 1, "values": {}, "arrays": {"x": entry}}
    folder.write_text(tmp_path / folder.STATE, folder.manifest_text(facts))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.damages() == []
    assert np.asarray(checkpoint.snapshot().arrays["x"]).tobytes() == whole.tobytes()
    for start, stop in [(0, 100), (29, 32), (30, 31), (50, 50), (0, 1), (99, 100)]:
        assert checkpoint.read("x", start, stop).tobytes() == whole[start:stop].tobytes()


@pytest.mark.parametrize("at", [0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_anywhere_is_found(tmp_path, at):
    path = written(tmp_path)
    for file in path.iterdir():
        damaged = tmp_path / "damaged"
        shutil.copytree(path, damaged)
        raw = bytearray((damaged / file.name).read_bytes())
        # The header of a safetensors file is for other readers.
        begin = 0 if file.suffix == ".json" else min(p.offset for p in pieces(path))
        raw[begin + int(at * (len(raw) - begin))] ^= 4
        (damaged / file.name).write_bytes(raw)
        with pytest.raises(DamagedError):
            Checkpoint(damaged).require_whole()
        shutil.rmtree(damaged)


def pieces(path):
    """Return all pieces of a checkpoint."""
    return [piece for entry in Checkpoint(path).arrays.values() for piece in entry.pieces]


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", [folder.STATE, "part-0000-of-0001.safetensors"])
def test_a_file_that_was_cut_off_is_found(tmp_path, name, keep):
    path = written(tmp_path)
    os.truncate(path / name, int(keep * (path / name).stat().st_size))
    with pytest.raises(DamagedError, match=str(path)):
        Checkpoint(path).require_whole()


def test_a_missing_file_is_named(tmp_path):
    path = written(tmp_path)
    (path / "part-0000-of-0001.safetensors").unlink()
    with pytest.raises(DamagedError, match=r"part-0000-of-0001\.safetensors: No such file"):
        Checkpoint(path).require_whole()


def test_emptied_folder_and_links_are_told_in_words(tmp_path):
    path = written(tmp_path)
    file = path / "part-0000-of-0001.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match=r"A link, which is not followed \(5 damaged"):
        Checkpoint(path).require_whole()
    for each in path.iterdir():
        each.unlink()
    said = r"state\.json must be there; got No such file or directory\. It was cut off or changed"
    with pytest.raises(DamagedError, match=said):
        Checkpoint(path)


def test_number_of_damaged_pieces_is_told_apart_from_what_is_wrong_with_the_first(tmp_path):
    path = written(tmp_path)
    with (path / "part-0000-of-0001.safetensors").open("r+b") as file:
        file.seek(min(piece.offset for piece in pieces(path)))
        file.write(b"x" * 10_000)
    said = r": other bytes than were written \(\d damaged pieces in all\)\. It was cut off"
    with pytest.raises(DamagedError, match=said):
        Checkpoint(path).require_whole()


def forged(tmp_path, change):
    """Write a checkpoint whose state.json is changed, with the digest that it should have."""
    path = written(tmp_path)
    facts = json.loads((path / folder.STATE).read_text())
    del facts["sha256"]
    facts = change(facts) or facts
    (path / folder.STATE).write_text(folder.manifest_text(facts))
    return path


def piece_of(facts):
    return facts["arrays"]["model.weight"]["pieces"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: piece_of(facts).__setitem__(2, "../../secret"),
        lambda facts: piece_of(facts).__setitem__(2, "/etc/passwd"),
        lambda facts: piece_of(facts).__setitem__(3, -8),
        lambda facts: piece_of(facts).__setitem__(0, 1),
        lambda facts: piece_of(facts).__setitem__(1, 10**15),
        lambda facts: piece_of(facts).append(1),
        lambda facts: facts["arrays"]["model.weight"].update(shape=[10**9, 10**9]),
        lambda facts: facts["arrays"]["model.weight"].update(shape="x"),
        lambda facts: facts["arrays"]["model.weight"].update(dtype="O"),
        lambda facts: facts["arrays"]["model.weight"].update(dtype="nonsense"),
        lambda facts: facts["arrays"].update(x=3),
        lambda facts: facts.update(arrays=[1]),
        lambda facts: facts.update(values=7),
        lambda facts: facts.update(step="many"),
        lambda facts: facts.update(step=None),
        lambda facts: {"format": folder.FORMAT},
    ],
)
def test_a_state_json_of_somebody_elses_making_is_refused(tmp_path, change):
    with pytest.raises(DamagedError):
        Checkpoint(forged(tmp_path, change))


def test_a_later_format_is_refused_by_its_number(tmp_path):
    path = forged(tmp_path, lambda facts: facts.update(format=99))
    with pytest.raises(DamagedError, match="must be of format 1; got 99"):
        Checkpoint(path)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"format": 1}', "\x00"])
def test_what_is_no_state_json_is_refused(tmp_path, text):
    (tmp_path / folder.STATE).write_text(text)
    with pytest.raises(DamagedError):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("name", [folder.STATE, "part-0000-of-0001.safetensors"])
def test_links_are_not_followed(tmp_path, name):
    path = written(tmp_path)
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError):
        Checkpoint(path).require_whole()


def test_checkpoints_are_found_by_their_names_in_the_order_of_steps(tmp_path):
    for step in (20, 3, 1000000000):
        written(tmp_path, step)
    (tmp_path / "step-x").mkdir()
    (tmp_path / "step-000000007").write_text("a file")
    (tmp_path / "step-000000008").symlink_to(tmp_path / "step-000000003")
    (tmp_path / ".step-000000009.new").mkdir()
    steps = [Checkpoint(path).step for path in folder.found(tmp_path)]
    assert steps == [3, 20, 1000000000]


def test_the_newest_whole_one_is_taken_and_damaged_ones_are_told(tmp_path):
    paths = [written(tmp_path, step) for step in (1, 2, 3, 4)]
    os.truncate(paths[3] / folder.STATE, 10)
    (paths[2] / "part-0000-of-0001.safetensors").unlink()
    *damages, taken = folder.newest_whole(tmp_path)
    assert [type(each) for each in damages] == [DamagedError] * 2
    assert str(paths[3]) in str(damages[0])
    assert str(paths[2]) in str(damages[1])
    assert taken.step == 2


def test_one_of_the_same_step_takes_the_place_of_an_older_one(tmp_path):
    written(tmp_path)
    changed = {**ARRAYS, "counts": np.arange(4) * 2}
    checkpoint = Checkpoint(written(tmp_path, arrays=changed))
    assert np.asarray(checkpoint.snapshot().arrays["counts"]).tolist() == [0, 2, 4, 6]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005"]


def test_one_that_made_way_comes_back_where_the_new_one_did_not_come(tmp_path):
    path = written(tmp_path)
    old = path.rename(tmp_path / f".{path.name}.old")
    assert folder.found(tmp_path) == [old]
    folder.recover(tmp_path)
    assert folder.found(tmp_path) == [path]
    assert Checkpoint(path).damages() == []


def test_reader_leaves_a_run_alone_that_writes_one_of_the_same_step(tmp_path, monkeypatch):
    """Between the two renames of the writer another run looks for a checkpoint to go on from."""
    path, taken = written(tmp_path), []
    rename = Path.rename

    def meanwhile(self, target):
        result = rename(self, target)
        if self == path:
            taken.append(to_resume(tmp_path, None, SerialCommunicator()).step)
        return result

    monkeypatch.setattr(Path, "rename", meanwhile)
    changed = {**ARRAYS, "counts": np.arange(4) * 2}
    checkpoint = Checkpoint(written(tmp_path, arrays=changed))
    assert taken == [5]
    assert np.asarray(checkpoint.snapshot().arrays["counts"]).tolist() == [0, 2, 4, 6]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_one_that_is_being_removed_is_never_taken(tmp_path, monkeypatch):
    paths = [written(tmp_path, step) for step in (3, 5)]
    found, rmtree = [], shutil.rmtree

    def meanwhile(path, **options):
        if path.exists():
            (path / folder.STATE).unlink()
            folder.recover(tmp_path)
            found.extend(folder.found(tmp_path))
        rmtree(path, **options)

    monkeypatch.setattr(folder.shutil, "rmtree", meanwhile)
    folder.remove(paths[1])
    assert found == [paths[0]]
    assert [*tmp_path.iterdir()] == [paths[0]]


def test_one_that_goes_while_it_is_looked_for_is_not_called_damaged(tmp_path, monkeypatch):
    written(tmp_path, 3)
    opened = folder.opened

    def meanwhile(path):
        monkeypatch.setattr(folder, "opened", opened)
        written(tmp_path, 7)
        folder.remove(tmp_path / folder.step_name(3))
        return opened(path)

    monkeypatch.setattr(folder, "opened", meanwhile)
    assert [each.step for each in folder.newest_whole(tmp_path)] == [7]


def test_types_that_the_format_does_not_know_are_refused(tmp_path):
    writer = Writer(tmp_path, SerialCommunicator(), 1)
    snapshot = Snapshot({"x": np.zeros(3, np.complex128)}, {})
    with pytest.raises(TypeError, match=r"such as x; got complex128"):
        writer.write(1, {}, snapshot, background=False)
    assert folder.found(tmp_path) == []


def test_folders_that_are_made_are_kept_by_the_disk_in_those_that_they_lie_in(
    tmp_path, monkeypatch
):
    settled, fsync = [], os.fsync

    def noted(descriptor):
        settled.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(folder.os, "fsync", noted)
    folder.make(tmp_path / "runs" / "run" / "checkpoints")
    made = [tmp_path / "runs" / "run", tmp_path / "runs", tmp_path]
    assert settled[:3] == [str(path.resolve()) for path in made]


def test_what_killed_runs_have_left_is_removed_but_for_the_only_one_of_a_step(tmp_path):
    names = ("step-000000003", ".step-000000003.old", ".step-000000006.old", ".step-000000001.gone")
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ".step-000000009.new").mkdir()
    (tmp_path / ".step-000000009.new" / "part").touch()
    folder.tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".step-000000006.old",
        "step-000000003",
    ]
    folder.recover(tmp_path)
    assert [path.name for path in folder.found(tmp_path)] == ["step-000000003", "step-000000006"]


def test_checkpoint_is_removed_beside_what_a_killed_run_has_left_of_it(tmp_path):
    for name in ("step-000000003", ".step-000000003.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").touch()
    folder.remove(tmp_path / "step-000000003")
    assert [*tmp_path.iterdir()] == []
