"""Scripts, copied out of the repository, and the flags that they share."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ddbp
import layers
from ddbp import script
from ddbp.commands import checkpoint
from ddbp.optim.clipping import NotFiniteError
from ddbp.seldom.network import Network
from ddbp.training import advice

SCRIPTS = Path(__file__).parents[3] / "scripts"


def flags(**options):
    return script.Flags("Train.", epochs=3, batch_size=32, learning_rate=0.1, **options)


def test_a_copied_script_needs_nothing_of_the_repository_but_its_problem(run_python, tmp_path):
    failed = {}
    for path in sorted(SCRIPTS.glob("train_*.py")):
        folder = tmp_path / path.stem
        folder.mkdir()
        if "from problems." in path.read_text():
            kept = shutil.ignore_patterns("__pycache__")
            shutil.copytree(SCRIPTS / "problems", folder / "problems", ignore=kept)
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
    ("name", "value"), [("--rule", "sign_symmetry"), ("--trace", None), ("--precision", "bf16")]
)
def test_a_flag_that_cannot_work_is_not_shown_and_is_refused_with_the_reason(name, value, capsys):
    parser = flags(without={name: "there are no layers"})
    assert f"{name} " not in parser.format_help() + " "
    options, usual = vars(parser.parse_args([])), vars(flags().parse_args([]))
    assert options == usual
    for given in ([name], [name[:-1]]) if value is None else ([name, value], [f"{name}={value}"]):
        with pytest.raises(SystemExit):
            parser.parse_args(given)
        assert f"error: argument {name}: there are no layers\n" in capsys.readouterr().err


def test_only_flags_that_there_are_can_be_left_out():
    with pytest.raises(ValueError, match="without must name flags of all scripts; got rule"):
        flags(without={"rule": "there are no layers"})


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


def test_linear_fit_predicts_what_is_linear_and_no_more():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3, 2))
    y = 7 + x.reshape(60, 6) @ rng.standard_normal((6, 2))
    y[:, 1] = x[:, 0, 0] ** 2
    data = ddbp.ArrayDataset(x, y)
    training, test = (data.subset(np.arange(first, first + 30)) for first in (0, 30))
    predicted = script.linear_fit(training, test)
    forecasts = {"linear": predicted[:, 0], "none": np.zeros(30)}
    errors = script.root_mean_square_errors(forecasts, test.y[:, 0], 100.0)
    assert errors["linear"] < 1e-9 < 1 < errors["none"]
    assert errors["none"] == pytest.approx(100 * np.sqrt(np.mean(y[30:, 0] ** 2)))
    assert script.root_mean_square(predicted[:, 1] - test.y[:, 1]) > 0.1


def test_cosine_falls_for_the_updates_that_there_are():
    options = flags().parse_args([])
    data = ddbp.ArrayDataset(np.zeros((100, 2)), np.zeros(100))
    for chosen, updates in (({}, 4), ({"drop_last": True}, 3), ({"accumulate": 3}, 2)):
        expected = ddbp.Cosine(0.1, steps=3 * updates)
        assert repr(script.cosine(options, data, **chosen)) == repr(expected)


DATA = ddbp.ArrayDataset(*np.random.default_rng(2).standard_normal((2, 100, 1)))


def fitted(path, *arguments):
    """Return the trainer of a script that was run with arguments."""
    given = ["--run-dir", str(path), "--checkpoint-every", "3", "--shards", "2", "--quiet"]
    options = flags().parse_args([*given, *map(str, arguments)])
    model = layers.Linear(1, 1, rng=np.random.default_rng(0))
    optimizer = ddbp.Adam(script.cosine(options, DATA))
    return script.fit(options, model, layers.MeanSquaredError(), optimizer, DATA, DATA)[0]


@pytest.mark.parametrize("word", ["auto", "data"])
def test_a_script_measures_the_network_if_asked_to(word, tmp_path, monkeypatch):
    monkeypatch.setattr(advice, "measured", lambda comm: Network(2, 0.01, 1e5))
    trainer = fitted(tmp_path, "--network", word, "--epochs", 10)
    assert trainer.advice.way.arguments
    assert (trainer.options.compression is None) == (word == "auto")


LONGER = ("--resume", "--epochs", 5, "--learning-rate", 0.05)


def test_longer_training_at_another_rate_goes_on_if_it_may(tmp_path):
    fitted(tmp_path)
    text = (
        r"same optimizer; got Adam\(Cosine\(0\.1, steps=12.* in the state, Adam\(Cosine\(0\.05,"
        r" steps=20.* \(--resume-options optimizer\)"
    )
    with pytest.raises(ValueError, match=text):
        fitted(tmp_path, *LONGER)
    trainer = fitted(tmp_path, *LONGER, "--resume-options", "optimizer")
    assert [record["epoch"] for record in trainer.history] == [1, 2, 3, 4, 5]
    assert trainer.step_count == trainer.optimizer.steps == 20
    # It is saved with what it has now.
    again = fitted(tmp_path, *LONGER)
    assert again.parameters_sha256() == trainer.parameters_sha256()


def test_what_differs_is_named_at_once(tmp_path):
    fitted(tmp_path)
    other = ("--resume", "--batch-size", 50)
    with pytest.raises(ValueError, match=r"resume_options=\['optimizer', 'batch_size'\]"):
        fitted(tmp_path, *other)
    options = ("--resume-options", "optimizer", "batch_size")
    trainer = fitted(tmp_path, *other, "--epochs", 4, *options)
    assert trainer.step_count == 12 + 2


def test_what_can_not_go_on_is_refused_whatever_may_differ(tmp_path):
    class Stop(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            if step == 6:
                raise InterruptedError

    def trained(**options):
        usual = {"batch_size": 32, "shards": 2, "resume": "auto", "quiet": True}
        callbacks = [Stop(), ddbp.Checkpoints(every_steps=5, background=False)]
        trainer = ddbp.Trainer(
            layers.Linear(1, 1, rng=np.random.default_rng(0)),
            loss="mse",
            optimizer=options.pop("optimizer", None) or ddbp.Adam(0.1),
            run_dir=tmp_path,
            callbacks=callbacks,
            **(usual | options),
        )
        trainer.fit(DATA, epochs=3)

    with pytest.raises(InterruptedError):
        trained()
    refused = {
        "seed": ({"seed": 7}, "the seed of a state from the midst of an epoch must be the same"),
        "batch_size": (
            {"batch_size": 30},
            "a multiple of 30 below 100.* of batch_size needs the state of the end of an epoch",
        ),
        "optimizer": (
            {"optimizer": ddbp.SGD(0.1, momentum=0.9)},
            "momentum.weight must be an array.* cannot go on after this change of optimizer. Make",
        ),
    }
    for name, (options, text) in refused.items():
        with pytest.raises(ValueError, match=text):
            trained(**options, resume_options=name)


def test_resume_without_a_checkpoint_begins_anew_and_says_so(tmp_path, capsys):
    def said(*arguments):
        options = flags().parse_args(["--run-dir", str(tmp_path / "run"), *arguments])
        model = layers.Linear(1, 1, rng=np.random.default_rng(0))
        loss = layers.MeanSquaredError()
        trainer, _ = script.fit(options, model, loss, ddbp.SGD(0.1), DATA, DATA)
        return trainer, capsys.readouterr().err

    begun, words = said()
    assert "no checkpoint" not in words
    # It is finished, and nothing of it may be lost by going on.
    whole = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match="--resume must find a checkpoint; got none in"):
        said("--resume")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == whole
    # One that was killed before its first checkpoint begins again.
    state = tmp_path / "run" / "status.json"
    state.write_text(state.read_text().replace("finished", "running"))
    again, words = said("--resume")
    assert f"{tmp_path / 'run'} has no checkpoint yet: the run begins anew." in words
    assert again.parameters_sha256() == begun.parameters_sha256()
    assert "begins anew" not in said("--resume")[1]


def test_a_run_that_is_replaced_is_named(tmp_path, capsys):
    for count in range(2):
        options = flags().parse_args(["--run-dir", str(tmp_path), "--epochs", "1"])
        model = layers.Linear(1, 1, rng=np.random.default_rng(0))
        script.fit(options, model, layers.MeanSquaredError(), ddbp.SGD(0.1), DATA, DATA)
        words = f"{tmp_path} holds a run, which this one replaces."
        assert (words in capsys.readouterr().err) == bool(count)


def test_a_run_with_checkpoints_is_not_replaced(tmp_path, capsys):
    def run(*arguments):
        options = flags().parse_args(["--run-dir", str(tmp_path), "--epochs", "1", *arguments])
        model = layers.Linear(1, 1, rng=np.random.default_rng(0))
        return script.fit(options, model, layers.MeanSquaredError(), ddbp.SGD(0.1), DATA, DATA)

    run("--checkpoint-every", "1")
    for arguments in ((), ("--checkpoint-every", "1")):
        with pytest.raises(ValueError, match="a new run must have a folder of its own"):
            run(*arguments)
    assert "replaces" not in capsys.readouterr().err
    shutil.rmtree(tmp_path / "checkpoints")
    run()
    assert "replaces" in capsys.readouterr().err


def test_resume_needs_the_folder_of_a_run(capsys):
    with pytest.raises(SystemExit):
        flags().parse_args(["--resume"])
    assert "argument --resume: needs --run-dir" in capsys.readouterr().err


@pytest.mark.parametrize(("rate", "ends"), [(1e-3, True), (1e25, False)])
def test_a_run_whose_last_validation_is_not_finite_is_an_error(tmp_path, capfd, rate, ends):
    rng = np.random.default_rng(0)
    data = ddbp.ArrayDataset(rng.standard_normal((32, 4)), rng.standard_normal((32, 1)))
    options = flags().parse_args(["--epochs", "1", "--quiet", "--run-dir", str(tmp_path / "run")])
    options.json = tmp_path / "line.json"
    model = layers.Sequential(layers.Linear(4, 1, rng=rng))
    trainer, result = script.fit(
        options, model, layers.MeanSquaredError(), ddbp.SGD(rate), data, data
    )
    assert np.isfinite(result["loss"])
    if ends:
        script.finish(options, trainer, result)
    else:
        with pytest.raises(NotFiniteError, match="last validation loss must be finite; got"):
            script.finish(options, trainer, result)
    line = capfd.readouterr().out.splitlines()[-1]
    assert options.json.read_text() == line + "\n"

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    loss = json.loads(line, parse_constant=refuse)["metrics"]["validation_loss"]
    assert (loss is not None) == ends


def test_a_run_that_cannot_go_on_begins_anew_from_its_parameters_as_it_is_told(
    tmp_path, monkeypatch
):
    before = fitted(tmp_path / "old").model
    seldom = ("--exchange", "LocalSGD(2, 4)", "--shards", "2", "--batch-size", "50")
    told = (
        r"`ddbp checkpoint export RUN` writes model\.safetensors.*--parameters model\.safetensors"
    )
    with pytest.raises(ValueError, match=rf"cannot go on after this change.*{told} reads it\."):
        fitted(tmp_path / "old", "--resume", *seldom)
    monkeypatch.chdir(tmp_path)
    assert checkpoint.run(["export", "old"]) == 0
    after = fitted(
        tmp_path / "new", *seldom, "--parameters", "model.safetensors", "--learning-rate", "1e-30"
    ).model
    for name in ("weight", "bias"):
        found, expected = (getattr(each, name).value for each in (after, before))
        np.testing.assert_array_equal(found, expected)
