"""The scripts that train, with arguments that try each of their models and tasks."""

import math
from pathlib import Path

SCRIPTS = Path(__file__).parents[2]
_TEXT = ("--hidden", "16", "--embedding", "8", "--length", "128", "--window", "32")
_SEQUENCES = ("--hidden", "8", "--samples", "500", "--length", "12")
_TREES = ("--trees", "200", "--depth", "3")
_TABLE = "{folder}/table.csv"

# Script, the arguments that choose what it does, and those that make it small.
VERIFIED: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "digits mlp": ("train_digits.py", ("--model", "mlp"), ()),
    "digits cnn": ("train_digits.py", ("--model", "cnn"), ()),
    "surrogate": ("train_surrogate.py", (), ("--samples", "1000")),
    "physics": ("optimise_physics.py", (), ("--experiments", "12")),
    "control": (
        "control_cooling.py",
        (),
        ("--samples", "1000", "--episodes", "4", "--candidates", "4"),
    ),
    "waves": ("image_waves.py", (), ()),
    **{
        f"char_lm {model}": ("train_char_lm.py", ("--model", model), _TEXT)
        for model in ("lstm", "gru", "rnn", "gpt")
    },
    **{
        f"sequence {task}": ("train_sequence.py", ("--task", task), _SEQUENCES)
        for task in ("adding", "copying")
    },
    "sequence digits": ("train_sequence.py", ("--task", "digits"), ("--hidden", "8")),
    **{
        f"forecast {model}": ("train_forecast.py", ("--model", model), ("--csv", _TABLE))
        for model in ("gru", "lstm", "rnn")
    },
    **{f"tree {cell}": ("train_tree.py", ("--cell", cell), _TREES) for cell in ("lstm", "rnn")},
}


def arguments(name: str, folder: Path, *, small: bool) -> list[str]:
    """Return the arguments of a script, whose run folder and data shall be in `folder`."""
    _, chosen, sizes = VERIFIED[name]
    if _TABLE in sizes and small:
        waves = [f"{math.sin(t / 5) + math.sin(t / 3) / 2:.6f}\n" for t in range(600)]
        Path(_TABLE.format(folder=folder)).write_text("".join(["height\n", *waves]))
    return [
        *chosen,
        *(size.format(folder=folder) for size in (sizes if small else ())),
        "--quiet",
        "--run-dir",
        f"{folder}/{name}",
    ]
