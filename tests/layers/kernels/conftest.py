"""What tests of kernels share."""

import pytest

from layers.kernels import underflow


@pytest.fixture
def subnormals_are_zero():
    """Take subnormal numbers for 0, as a tape does."""
    mode = underflow.flush()
    yield
    underflow.restore(mode)
