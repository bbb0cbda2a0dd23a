"""Numbers that are not finite on one rank: all ranks say the same of them, and do the same, to the
same bits for any number of ranks.
"""

import numpy as np
import pytest

from .ranks import BUCKETS, HALVES, PLAIN, differences

PROGRAM = "nonfinite.py"
ENVIRONMENTS = [(2, {}), (3, PLAIN | BUCKETS), (3, {}), (4, HALVES)]


@pytest.mark.parametrize(("ranks", "environment"), ENVIRONMENTS)
def test_ranks_say_and_do_the_same(ranks, environment, alone, run_ranks):
    results = run_ranks(ranks, PROGRAM, **environment)
    said = [name for name in alone if name.startswith("said")]
    for name in said:
        (text,) = {result.pop(name).item() for result in results}
        assert numbered(text) == numbered(alone[name].item()), text
        assert ("on rank" in text) == bool(numbered(text))
    expected = {name: result for name, result in alone.items() if name not in said}
    assert [differences(result, expected) for result in results] == [[]] * ranks


def numbered(text):
    """Return which samples an error names."""
    _, found, rest = text.partition(", in sample")
    return rest.partition(".")[0].removeprefix("s") if found else ""


def test_layers_and_samples_are_named_alone(alone):
    names = {
        "gradient": "layers.1: Faulty",
        "loss": "layers.1: FaultyForward",
        "single": "in sample 5 of the batch. ",
        "statistics": "layers.1: FaultyForward",
        "transform": "in layers.3.bias after transformed.<locals>.spoil in step 0. ",
        "sums": 'Trainer: compression="float16" needs sums of gradients of at most 65504; got ',
    }
    for name, part in names.items():
        assert part in alone[f"said: {name}"].item()
    assert " of the data. " in alone["said: group"].item()
    for name in ("gradient", "loss", "group", "windows", "sums"):
        assert alone[f"{name}: numbers"][-2] > 0
    assert alone["rollback: numbers"][-3:].tolist() == [15, 0, 1]
    assert np.isfinite(alone["rollback: numbers"]).all()
