"""Kernels do not read or write outside of their arrays: tests of layers, gradients and optimizers
once more, with Numba's bounds checking.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
FAMILIES = "attention conv ctc dropout embedding layer_norm linear loss norm pool recurrent "
FAMILIES += "recurrent_oracle tree"
PROGRAM = """
import numpy as np
from layers.kernels.jit import kernel

@kernel
def element(x, i):
    "Returns x[i]."
    return x[i]

element(np.zeros(3), 3)
"""


def run_checked(tmp_path, *arguments):
    """Run Python with bounds checking, and with a folder of its own for machine code."""
    environ = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    return subprocess.run(
        [sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False
    )


def test_bounds_checking_is_not_turned_off_by_the_options_of_kernels(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = run_checked(tmp_path, program)
    assert done.stderr.strip().endswith("IndexError: index is out of bounds")


@pytest.mark.full
def test_kernels_stay_within_their_arrays(tmp_path):
    folder = TESTS / "layers" / "families"
    families = [folder / f"test_{name}.py" for name in FAMILIES.split()]
    families.append(f"{folder / 'test_contract.py'}::test_empty_batch_and_single_sample")
    gradients = TESTS / "layers" / "gradcheck" / "test_gradient_check.py"
    optimizers = [TESTS / "ddbp" / "optim" / f"test_{name}.py" for name in ("optim", "slow_twins")]
    done = run_checked(tmp_path, "-m", "pytest", "-q", "-n", "2", gradients, *optimizers, *families)
    assert done.returncode == 0, done.stdout[-5000:]
