"""Embedding, attention with dropout and a loss that ignores labels give the same bits on any number
of ranks.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from .ranks import differences

PROGRAM = "gpt_ignoring.py"


@pytest.mark.parametrize("ranks", [2, 3])
def test_losses_and_parameters_are_the_same_bits(alone, run_ranks, ranks):
    assert [differences(result, alone) for result in run_ranks(ranks, PROGRAM)] == [[]] * ranks


def test_evaluation_is_the_mean_over_positions_that_count(alone, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "programs"))
    import gpt_ignoring as program

    from layers.models import gpt

    sys.modules.pop("gpt_ignoring")
    model = gpt(np.random.default_rng(1), 9, context=6, features=8, depth=1, heads=2, tied=True)
    x = model(program.IDS).astype(np.float64)
    log_p = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    counted = [-log_p[(*i, label)] for i, label in np.ndenumerate(program.LABELS) if label >= 0]
    assert abs(alone["losses"][0] - np.mean(counted)) < 1e-6
    assert alone["losses"][-1] < alone["losses"][0]
