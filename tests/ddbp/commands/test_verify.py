"""`ddbp verify` where its records have no place."""

import pytest

from ddbp.commands import launch, verify
from ddbp.observers import step_log


def test_folder_that_cannot_be_made_is_an_error_with_its_path(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(launch, "find_mpiexec", lambda: "mpiexec")
    (tmp_path / "train.py").touch()
    (tmp_path / "file").touch()
    status = verify.run(["--keep", str(tmp_path / "file"), "-n", "1", str(tmp_path / "train.py")])
    assert status == 1
    said = capsys.readouterr().err
    assert "ddbp verify: " in said
    assert str(tmp_path / "file") in said


def test_record_without_room_is_an_error_with_the_path(tmp_path):
    log = object.__new__(step_log.StepLog)
    log._known, log._file = {}, open("/dev/full", "w", buffering=1)  # noqa: SIM115
    with pytest.raises(OSError, match=r"ddbp verify: the records .*; got /dev/full: No space left"):
        log._write("step 1", {"loss": "0.5"})
    with pytest.raises(OSError, match="No space left"):
        log._file.close()


def test_where_a_loss_differs_numbers_of_a_part_of_the_batch_are_named_as_a_cause():
    one, two = (
        verify.Run(
            ranks,
            0.0,
            {(0, rank): [{"event": "step 1", "values": {"loss": loss}}] for rank in range(ranks)},
        )
        for ranks, loss in ((1, "0x1p+0"), (2, "0x1p+1"))
    )
    advice = verify.differences(one, two)[-1]
    assert "computed from this rank's part of the batch: len(), .array.mean()" in advice
