"""Print the digests of outputs and gradients of every layer of the table of cases, in float32 and
float64, as JSON.

Usage: digest_cases.py [--covering | CASE …]; with --covering only of those that are the first to
call kernels of a file, in float32.
"""

import hashlib
import json
import sys

import numpy as np

from layers.gradient_check.cases import CASES
from layers.gradient_check.subject import Subject
from layers.kernels import cache, underflow


def digest(case, dtype: type) -> str:
    """Return that of a case."""
    rng = np.random.default_rng(3)
    layer = case.make(rng)
    # NumPy's normal numbers may be others in their last bits.
    inputs = [x.astype(np.float32) if x.dtype == np.float64 else x for x in case.inputs(rng)]
    subject = Subject(layer, tuple(inputs), case.constant, case.training, seed=5)
    found = hashlib.sha256()
    with subject.cast(dtype):
        arguments, y = subject.record()
        dy = np.random.default_rng(4).uniform(0.5, 1.5, y.shape).astype(y.dtype)
        for name, array in sorted(subject.backward(arguments, y, dy).items()):
            found.update(name.encode() + array.tobytes())
        found.update(y.array.tobytes())
    return found.hexdigest()[:12]


def covering() -> dict[str, str]:
    """Return the digests of the cases that are the first to call kernels of a file."""
    digests: dict[str, str] = {}
    loaded: set[str] = set()
    load = cache.KernelCache.load_overload

    def noted(kept, *arguments):
        loaded.add(kept._name.split(".")[0])
        return load(kept, *arguments)

    cache.KernelCache.load_overload = noted
    for case in CASES:
        before = len(loaded)
        found = digest(case, np.float32)
        if len(loaded) > before:
            digests[f"{case.name} float32"] = found
    return digests


def main() -> None:
    """Print all, or the chosen ones."""
    mode, chosen = underflow.flush(), sys.argv[1:]
    if chosen == ["--covering"]:
        digests = covering()
    else:
        digests = {
            name: digest(case, dtype)
            for dtype in (np.float32, np.float64)
            for case in CASES
            if (name := f"{case.name} {np.dtype(dtype)}") in chosen or not chosen
        }
    underflow.restore(mode)
    print(json.dumps(digests))


if __name__ == "__main__":
    main()
