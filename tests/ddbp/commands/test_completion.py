"""`ddbp completion`: what a shell is told of commands."""

import builtins
import shutil
import subprocess
import sys

import pytest

from ddbp.commands import cli, completion


@pytest.fixture
def script(capsys):
    """Return the function that returns the script for a shell."""
    pytest.importorskip("shtab", reason='needs pip install "ddbp[completion]"')

    def run(shell):
        assert completion.run([shell]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def complete(script):
    """Return the function that returns what bash offers for a line."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    loaded = script("bash")

    def run(*words):
        ask = (
            'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="${COMP_WORDS[*]}"; '
            'name=$(complete -p ddbp | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
            '"$name" ddbp "${COMP_WORDS[COMP_CWORD]}" ""; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        told = " ".join(f"'{word}'" for word in ("ddbp", *words))
        code = f"{loaded}\nCOMP_WORDS=({told})\n{ask}"
        done = subprocess.run([bash, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


def test_all_commands_are_offered(complete):
    assert {*complete("")} >= {*cli.COMMANDS, "version"}


def test_commands_that_begin_so_are_offered(complete):
    assert "launch" in complete("la")
    assert "verify" not in complete("la")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("train", ""), {"images", "series", "table", "text"}),
        (("train", "text", "--la"), {"--labels"}),
        (("lr-find", "table", "--"), {"--target", "--lowest", "--data"}),
        (("launch", "--"), {"--ranks", "--survive", "--max-restarts"}),
        (("replay", "--"), {"--step", "--layer"}),
        (("checkpoint", ""), {"list", "show", "verify", "export"}),
        (("completion", ""), {*completion.SHELLS}),
    ],
)
def test_options_and_words_of_a_command_are_offered(words, offered, complete):
    assert {*complete(*words)} >= offered


def test_files_are_offered_for_what_is_a_file(complete, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    assert "train.py" in complete("launch", "tr")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_script_of_each_shell_names_the_commands(shell, script):
    text = script(shell)
    assert all(name in text for name in cli.COMMANDS)


def test_usage_names_all_commands():
    named = [line.split()[0] for line in cli.USAGE.splitlines() if line.startswith("  ")]
    assert {*named} >= {*cli.COMMANDS}


def test_missing_package_is_named(monkeypatch, capsys):
    find = builtins.__import__

    def without(name, *arguments, **options):
        if name == "shtab":
            raise ImportError(name)
        return find(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "shtab", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    assert completion.run(["bash"]) == 1
    assert 'pip install "ddbp[completion]"' in capsys.readouterr().err
