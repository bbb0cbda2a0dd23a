"""Scripts, copied out of the repository, and the flags that they share."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import ddbp
from ddbp import script

SCRIPTS = Path(__file__).parents[3] / "scripts"


def flags():
    return script.Flags("Train.", epochs=3, batch_size=32, learning_rate=0.1)


def test_a_copied_script_needs_no_other_file_of_the_repository(run_python, tmp_path):
    failed = {}
    for path in sorted(SCRIPTS.glob("train_*.py")):
        folder = tmp_path / path.stem
        folder.mkdir()
        finished = run_python(shutil.copy(path, folder), "--help", cwd=folder)
        if finished.status:
            failed[path.name] = finished.err
    assert failed == {}


def test_flags_of_ones_own_tell_their_defaults():
    parser = flags()
    parser.add_size("--hidden", 64, "its width")
    parser.add_choice("--model", ("mlp", "cnn"), "which network")
    options = parser.parse_args(["--hidden", "7"])
    assert (options.hidden, options.model, options.epochs, options.shards) == (7, "mlp", 3, None)
    assert "its width (64)" in parser.format_help()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--epochs", "0"), "must be a positive integer; got '0'"),
        (("--learning-rate", "inf"), "must be a positive number; got 'inf'"),
        (("--seed", "-1"), "must be an integer from 0; got '-1'"),
        (("--json", "/no/such/folder/x"), "must be a file in an existing folder"),
    ],
)
def test_flags_refuse_what_no_training_could_do(arguments, told, capsys):
    with pytest.raises(SystemExit):
        flags().parse_args(["=".join(arguments)])
    assert told in capsys.readouterr().err


def test_cosine_falls_for_the_updates_that_there_are():
    options = flags().parse_args([])
    data = ddbp.ArrayDataset(np.zeros((100, 2)), np.zeros(100))
    for chosen, updates in (({}, 4), ({"drop_last": True}, 3), ({"accumulate": 3}, 2)):
        expected = ddbp.Cosine(0.1, steps=3 * updates)
        assert repr(script.cosine(options, data, **chosen)) == repr(expected)
