"""Time our matrix product against NumPy's (OpenBLAS), one thread, float32.

    python scripts/bench/gemm.py [--json FILE] [--rounds R] [--shapes M,N,K ...]

Ours: c = a b ("nn"), a bᵀ ("nt"), aᵀ b ("tn"), each operand as it lies in memory, and with b packed
beforehand, as recurrent layers use it. OpenBLAS gets the same operands as transposed views, and an
array to write to.
"""

import argparse
from statistics import median
from typing import Any

from lib import harness

import numpy as np

from layers.kernels import gemm

Shape = tuple[int, int, int]

# (M, N, K) of c (M, N) = a (M, K) b (K, N), and what it is.
SHAPES: dict[Shape, str] = {
    (1024, 1024, 1024): "square",
    (128, 512, 784): "mlp forward 1",
    (128, 256, 512): "mlp forward 2",
    (128, 10, 256): "mlp forward 3",
    (512, 784, 128): "mlp weights 1",
    (256, 512, 128): "mlp weights 2",
    (10, 256, 128): "mlp weights 3",
    (128, 256, 10): "mlp error 3",
    (32, 128, 64): "mlp-tiny forward 1",
    (32, 10, 128): "mlp-tiny forward 2",
    (32, 128, 512): "recurrent",
    (32, 256, 1024): "recurrent",
    (64, 512, 2048): "recurrent",
    (32, 512, 128): "recurrent",
    (32, 1024, 256): "recurrent",
    (64, 2048, 512): "recurrent",
    (2048, 64, 1024): "recurrent",
}


def measure(shape: Shape, what: str, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of one shape."""
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    a_t, b_t = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    c, none = np.empty((m, n), np.float32), np.empty(0, np.float32)
    packed = np.empty(gemm.packed_size(k, n, 4), np.float32)
    gemm.pack(packed, b, False)
    contestants = {
        "nn": lambda: gemm.multiply(c, a, False, b, False, none, False),
        "nt": lambda: gemm.multiply(c, a, False, b_t, True, none, False),
        "tn": lambda: gemm.multiply(c, a_t, True, b, False, none, False),
        "packed": lambda: gemm.multiply_packed(c, a, packed, none, False),
        "OpenBLAS nn": lambda: np.matmul(a, b, out=c),
        "OpenBLAS nt": lambda: np.matmul(a, b_t.T, out=c),
        "OpenBLAS tn": lambda: np.matmul(a_t.T, b, out=c),
    }
    exact = a.astype(np.float64) @ b
    for name, contestant in contestants.items():
        c[...] = np.nan
        contestant()
        if not np.allclose(c, exact, rtol=0, atol=1e-5 * np.sqrt(k) * 10):
            raise RuntimeError(f"{name} of {shape} gives a wrong product")
    times = harness.interleaved(contestants, rounds, 0.02)
    work = 2 * m * n * k / 1e9
    rows = []
    for kind in ("nn", "nt", "tn", "packed"):
        theirs = times[f"OpenBLAS {'nn' if kind == 'packed' else kind}"]
        rows.append(
            {
                "shape": list(shape),
                "what": what,
                "kind": kind,
                "gflops": round(work / median(times[kind]), 2),
                "openblas_gflops": round(work / median(theirs), 2),
                "ratio": harness.ratio(theirs, times[kind])["ratio"],
                "spread_us": {
                    "ours": harness.spread(times[kind], 1e6),
                    "openblas": harness.spread(theirs, 1e6),
                },
            }
        )
    return rows


def shape_of(text: str) -> Shape:
    """Return the (M, N, K) that an argument gives."""
    m, n, k = (int(part) for part in text.split(","))
    return m, n, k


def main() -> None:
    """Measure every shape, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 11)
    parser.add_argument(
        "--shapes", nargs="+", type=shape_of, metavar="M,N,K", help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    rows = []
    print(
        "GFLOP/s (and ratio to OpenBLAS)                  nn             nt             tn        "
        " packed"
    )
    for shape in options.shapes or SHAPES:
        what = SHAPES.get(shape, "")
        measured = measure(shape, what, options.rounds)
        rows += measured
        columns = "".join(f"{r['gflops']:8.1f} ({r['ratio']:.2f})" for r in measured)
        print(f"{'x'.join(map(str, shape)):16} {what:20}{columns}", flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
