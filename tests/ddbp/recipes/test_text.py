"""The recipe of texts: characters that a model does not know, and bits for those it predicts."""

import math

import pytest

from ddbp.commands import cli
from ddbp.data.text import TextEncoder
from ddbp.recipes.text import _predicted

from . import made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return a bundle of a language model of characters."""
    folder = tmp_path_factory.mktemp("text")
    flags = ("--hidden", "4", "--embedding", "4", "--length", "64", "--epochs", "1", "--quiet")
    data = str(made.text(folder / "text.txt"))
    run = ("--data", data, "--run-dir", str(folder / "run"))
    assert cli.main(["train", "text", *flags, *run]) == 0
    return folder / "run" / "model.ddbp"


def test_unknown_characters_are_named_or_left_out(tmp_path, capsys, bundle):
    path = tmp_path / "strange.txt"
    path.write_text("the cat sat. " * 10 + "a café é ran. " + "the cat. " * 9)
    known = tmp_path / "known.txt"
    known.write_text(path.read_text().replace("é", ""))
    for command in (("predict", bundle, path), ("evaluate", bundle, "--data", path)):
        error = made.refused(capsys, *command)
        assert "strange.txt, line 1: 'f'" in error
        assert "--tokens bytes" in error
        assert "--skip-bad" in error
    assert cli.main(["predict", str(bundle), str(path), "--skip-bad", "--characters", "5"]) == 0
    captured = capsys.readouterr()
    assert "left out: 3 characters of " in captured.err
    assert "strange.txt, line 1: 'f'" in captured.err
    known.write_text(known.read_text().replace("f", ""))
    assert cli.main(["predict", str(bundle), str(known), "--characters", "5"]) == 0
    other = capsys.readouterr().out.splitlines()[-1]
    assert captured.out.splitlines()[-1].partition(",")[2] == other.partition(",")[2]
    evaluate = ("evaluate", bundle, "--quiet", "--data")
    with_them, without = (
        made.run(capsys, *evaluate, file, "--skip-bad")["loss"] for file in (path, known)
    )
    assert with_them == without


def test_bits_are_of_the_characters_that_are_predicted(tmp_path, capsys, bundle):
    path = tmp_path / "short.txt"
    path.write_text("the")
    assert cli.main(["predict", str(bundle), str(path), "--characters", "1"]) == 0
    _, tokens, loss, bits = capsys.readouterr().out.splitlines()[1].split(",")[:4]
    assert tokens == "3"
    # Of characters, each token is one: its loss in bits is what a character costs.
    assert float(bits) == pytest.approx(float(loss) / math.log(2), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "encoder", "count"),
    [
        ("abc", TextEncoder.characters("abc"), 2),
        ("a", TextEncoder.characters("abc"), math.nan),
        ("abc", TextEncoder.bytes(), 2),
        ("one two", TextEncoder.words("one two"), 4),
        (" unheard two", TextEncoder.words("one two"), 4),
    ],
)
def test_how_many_characters_are_predicted(text, encoder, count):
    found = _predicted(encoder, text, encoder.encode(text))
    assert found == count or (math.isnan(found) and math.isnan(count))


def test_an_empty_text_is_named(tmp_path, capsys):
    path = tmp_path / "empty.txt"
    path.write_text("\n")
    assert "empty.txt" in made.refused(capsys, "train", "text", "--data", path)


def test_lines_to_tell_that_cannot_be_read_are_named_or_left_out(tmp_path, capsys):
    data, run = made.lines(tmp_path / "said.txt"), tmp_path / "run"
    flags = ("--labels", "--hidden", "4", "--embedding", "4", "--epochs", "1", "--quiet")
    assert cli.main(["train", "text", "--data", str(data), "--run-dir", str(run), *flags]) == 0
    path, bundle = tmp_path / "new.txt", run / "model.ddbp"
    path.write_bytes(b"it was fine\r\nit was \xe9\r\nit was poor\r\n")
    assert "new.txt, line 2" in made.refused(capsys, "predict", bundle, path)
    assert cli.main(["predict", str(bundle), str(path), "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert "left out: " in captured.err
    assert [line.split(",")[1] for line in captured.out.splitlines()] == ["line", "1", "3"]
