"""What kernels assume of the processor."""

import re

import pytest

from layers.kernels import machine


@pytest.mark.parametrize("text", ["24", "x", ""])
def test_width_that_no_vector_has_is_refused(text, monkeypatch):
    monkeypatch.setenv("LAYERS_VECTOR_BYTES", text)
    must = f"LAYERS_VECTOR_BYTES must be 16, 32 or 64; got {text!r}"
    with pytest.raises(ValueError, match=re.escape(must)):
        machine._forced(32)


@pytest.mark.parametrize("width", [16, 32, 64])
def test_width_may_be_forced(width, monkeypatch):
    monkeypatch.setenv("LAYERS_VECTOR_BYTES", str(width))
    assert machine._forced(32) == width
