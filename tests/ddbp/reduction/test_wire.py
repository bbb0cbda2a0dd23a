"""Formats of gradients between hosts."""

import numpy as np
import pytest

from ddbp.reduction import wire

SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.5, 3.0e38, 1e-40, 65504.0], np.float32
)


def there_and_back(name, x):
    format_ = wire.chosen(name)
    sent = format_.buffer(x.shape, x.dtype)
    assert sent.nbytes == 2 * x.size
    format_.encode(sent, x)
    y = np.empty_like(x)
    format_.decode(y, sent)
    return y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "unit"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_numbers_are_rounded_to_the_nearest(name, unit, dtype):
    x = np.random.default_rng(0).standard_normal((3, 1000)).astype(dtype)
    error = np.abs(there_and_back(name, x) - x)
    assert (error <= unit * np.abs(x) + 2.0**-25).all()
    assert error.max() > unit / 4


def test_bfloat16_has_the_bits_that_pytorch_has():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    bits = np.random.default_rng(1).integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32)
    # Ties, too: the dropped half is exactly half a unit.
    bits[:1000] = (bits[:1000] & 0xFFFF0000) | 0x8000
    x = np.concatenate([bits.view(np.float32), SPECIAL])
    expected = torch.from_numpy(x).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(there_and_back("bfloat16", x), expected)


def test_float16_overflows_to_infinity_without_a_warning():
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(
            there_and_back("float16", np.array([1e6, -1e6], np.float32)), [np.inf, -np.inf]
        )


def test_unknown_format_is_refused():
    with pytest.raises(ValueError, match="wire must be one of float16, bfloat16; got 'int8'"):
        wire.chosen("int8")
