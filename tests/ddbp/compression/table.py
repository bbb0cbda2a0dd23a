"""All compressors, for tests of what they have in common."""

import ddbp

FEEDBACK = {
    "top-k": ddbp.TopK(0.1),
    "top-k, a count": ddbp.TopK(count=7),
    "power-sgd": ddbp.PowerSGD(1),
    "power-sgd, rank 3": ddbp.PowerSGD(3),
    "sign": ddbp.Sign(),
}
"""Those that keep back what they do not send."""
ROUNDED = ("float16", "bfloat16", "int8")
"""Those that round every sum, by name."""
ALL = {**FEEDBACK, **{name: name for name in ROUNDED}}
