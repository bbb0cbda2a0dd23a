"""Time convolutions against PyTorch's, one thread, float32: forward, gradient of the input,
gradient of the weight.

    python scripts/bench/conv.py [--json FILE] [--rounds R] [--shapes NAME ...] [--methods default
    fastest direct]
    python scripts/bench/conv.py --shapes volumes [--json FILE] …

PyTorch (oneDNN) is tried with both memory formats, the better counts. Each shape is computed with
every method that differs there from the default. `roofline` is the useful work, counted as direct
convolution does it, over the machine's peak, measured in the same run as that of our packed matrix
product and OpenBLAS's, whichever is faster: a transform may exceed 1.
"""

import argparse
import math
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from lib import harness

import numpy as np

import layers
from layers.conv.algorithms import ALGORITHMS
from layers.kernels import gemm

OPERATIONS = ("forward", "grad-input", "grad-weight")


class Shape(NamedTuple):
    """Images (N, H, W, C) to K channels, window of size x size, in groups; volumes (N, D, H, W, C)
    if there is a depth.
    """

    n: int
    h: int
    w: int
    c: int
    k: int
    size: int
    stride: int
    padding: int
    groups: int = 1
    d: int = 0
    mode: str = "zeros"

    @property
    def image(self) -> tuple[int, ...]:
        return (self.d, self.h, self.w) if self.d else (self.h, self.w)

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(
            (length + 2 * self.padding - self.size) // self.stride + 1 for length in self.image
        )

    @property
    def weight(self) -> tuple[int, ...]:
        return (*[self.size] * len(self.image), self.c // self.groups, self.k)

    @property
    def work(self) -> float:
        """Operations of a direct convolution, in 1e9."""
        return 2e-9 * self.n * math.prod(self.outputs) * math.prod(self.weight)


SHAPES = {
    "3-16@32": Shape(64, 32, 32, 3, 16, 3, 1, 1),
    "16-16@32": Shape(64, 32, 32, 16, 16, 3, 1, 1),
    "16-32/2@32": Shape(64, 32, 32, 16, 32, 3, 2, 1),
    "32-32@16": Shape(64, 16, 16, 32, 32, 3, 1, 1),
    "32-64/2@16": Shape(64, 16, 16, 32, 64, 3, 2, 1),
    "64-64@8": Shape(64, 8, 8, 64, 64, 3, 1, 1),
    "16-32/2 1x1@32": Shape(64, 32, 32, 16, 32, 1, 2, 0),
    "32-64/2 1x1@16": Shape(64, 16, 16, 32, 64, 1, 2, 0),
    "1-6 5x5@28": Shape(128, 28, 28, 1, 6, 5, 1, 2),
    "6-16 5x5@14": Shape(128, 14, 14, 6, 16, 5, 1, 0),
    "1-32@28": Shape(128, 28, 28, 1, 32, 3, 1, 1),
    "32-64@14": Shape(128, 14, 14, 32, 64, 3, 1, 1),
    "64-64@56": Shape(16, 56, 56, 64, 64, 3, 1, 1),
    "128-128@28": Shape(16, 28, 28, 128, 128, 3, 1, 1),
    "32 depthwise@32": Shape(64, 32, 32, 32, 32, 3, 1, 1, 32),
    "64 depthwise/2@32": Shape(64, 32, 32, 64, 64, 3, 2, 1, 64),
    "32 depthwise 5x5@32": Shape(64, 32, 32, 32, 32, 5, 1, 2, 32),
}

# Volumes, and borders that are made from the image.
VOLUMES = {
    "16-16@16x32x32": Shape(8, 32, 32, 16, 16, 3, 1, 1, d=16),
    "1-16@16x32x32": Shape(8, 32, 32, 1, 16, 3, 1, 1, d=16),
    "16-32/2@16x32x32": Shape(8, 32, 32, 16, 32, 3, 2, 1, d=16),
    "32-32@8x16x16": Shape(8, 16, 16, 32, 32, 3, 1, 1, d=8),
    "64-64@4x8x8": Shape(8, 8, 8, 64, 64, 3, 1, 1, d=4),
    "32 depthwise@8x16x16": Shape(8, 16, 16, 32, 32, 3, 1, 1, 32, d=8),
    "16-16@32 reflect": Shape(64, 32, 32, 16, 16, 3, 1, 1, mode="reflect"),
    "3-16@32 circular": Shape(64, 32, 32, 3, 16, 3, 1, 1, mode="circular"),
}

Contestants = dict[str, Callable[[], Any]]


def ours(
    shape: Shape, method: str, x: Any, weight: Any, dy: Any
) -> tuple[Contestants, dict[str, Any], str]:
    """Return our three operations, the arrays that they write to, and the name of the method that
    computes them.
    """
    kind = layers.Conv3d if shape.d else layers.Conv2d
    layer = kind(
        shape.c,
        shape.k,
        shape.size,
        stride=shape.stride,
        padding=shape.padding,
        padding_mode=shape.mode,
        groups=shape.groups,
        bias=False,
        algorithm=method,
        rng=np.random.default_rng(0),
    )
    chosen = layer.algorithm_for(x)
    tape = layers.Tape()
    call = tape.record(layer, (tape.input(x),)).call
    results = {
        "forward": np.empty_like(dy),
        "grad-input": np.empty_like(x),
        "grad-weight": np.empty((1, *weight.shape), x.dtype),
    }
    none, bounds = np.empty(0, x.dtype), np.array((0, len(x)))
    operations = {
        "forward": lambda: chosen.apply(call, results["forward"], x, weight, none, False),
        "grad-input": lambda: chosen.adjoint(call, results["grad-input"], dy, weight, none, False),
        "grad-weight": lambda: chosen.gradient(call, results["grad-weight"], dy, x, bounds, False),
    }
    return operations, results, repr(chosen)


def theirs(shape: Shape, x: Any, weight: Any, dy: Any, layout: str) -> Contestants:
    """Return PyTorch's operations with a memory format."""
    import torch

    ndim = len(shape.image)
    last = torch.channels_last_3d if shape.d else torch.channels_last
    form = last if layout == "NHWC" else torch.contiguous_format
    x, dy = (
        torch.from_numpy(array).movedim(-1, 1).contiguous(memory_format=form) for array in (x, dy)
    )
    w = torch.from_numpy(weight).movedim((-1, -2), (0, 1)).contiguous(memory_format=form)
    framed = shape.mode != "zeros"
    around, inside = ([shape.padding] * 2 * ndim, 0) if framed else ([], shape.padding)
    options = ([shape.stride] * ndim, [inside] * ndim, [1] * ndim, False, [0] * ndim, shape.groups)

    def padded() -> Any:
        return torch.nn.functional.pad(x, around, mode=shape.mode) if framed else x

    def gradients(mask: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(dy, padded(), w, None, *options, mask)

    def of_input() -> Any:
        if not framed:
            return gradients([True, False, False])[0]
        # What PyTorch's backward does with the gradient of the padded images.
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            frame = torch.nn.functional.pad(leaf, around, mode=shape.mode)
        of_frame = torch.ops.aten.convolution_backward(
            dy, frame.detach(), w, None, *options, [True, False, False]
        )[0]
        return torch.autograd.grad(frame, leaf, of_frame)[0]

    return {
        "forward": lambda: torch.ops.aten.convolution(padded(), w, None, *options),
        "grad-input": of_input,
        "grad-weight": lambda: gradients([False, True, False])[1],
    }


def error(value: Any, exact: Any) -> float:
    """Return the largest error relative to the largest element."""
    return float(np.abs(value - exact).max() / np.abs(exact).max())


def measure(name: str, methods: list[str], rounds: int, peak: float) -> list[dict[str, Any]]:
    """Return the rows of a shape."""
    import torch

    shape = (SHAPES | VOLUMES)[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((shape.n, *shape.image, shape.c), np.float32)
    weight = rng.standard_normal(shape.weight, np.float32)
    dy = rng.standard_normal((shape.n, *shape.outputs, shape.k), np.float32)
    variants: dict[str, tuple[str, Contestants, dict[str, Any]]] = {}
    for method in methods:
        operations, results, chosen = ours(shape, method, x, weight, dy)
        variants.setdefault(chosen, (method, operations, results))
    exact = theirs(
        shape, x.astype(np.float64), weight.astype(np.float64), dy.astype(np.float64), "NCHW"
    )
    peers = {layout: theirs(shape, x, weight, dy, layout) for layout in ("NCHW", "NHWC")}
    rows = []
    with torch.no_grad():
        for operation in OPERATIONS:
            moved = ((0, 1), (-1, -2)) if operation == "grad-weight" else (1, -1)
            truth = np.moveaxis(exact[operation]().numpy(), *moved)
            contestants = {
                chosen: operations[operation] for chosen, (_, operations, _) in variants.items()
            }
            contestants |= {layout: peer[operation] for layout, peer in peers.items()}
            times = harness.interleaved(contestants, rounds, 0.03)
            best = min(peers, key=lambda layout: median(times[layout]))
            for chosen, (method, _, results) in variants.items():
                result = results[operation][0] if operation == "grad-weight" else results[operation]
                rows.append(
                    {
                        "shape": name,
                        "operation": operation,
                        "method": method,
                        "computed_by": chosen,
                        "ours_ms": harness.spread(times[chosen])["median"],
                        "torch_ms": harness.spread(times[best])["median"],
                        "torch_format": best,
                        "ratio": harness.ratio(times[best], times[chosen])["ratio"],
                        "roofline": round(shape.work / median(times[chosen]) / peak, 3),
                        "error": error(result, truth),
                        "torch_error": error(
                            np.moveaxis(peers[best][operation]().numpy(), *moved), truth
                        ),
                    }
                )
    return rows


def matrix_peak() -> float:
    """Return the peak of a matrix product on this core in GFLOP/s."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((1024, 1024), np.float32) for _ in range(2))
    c, packed = np.empty_like(a), np.empty(gemm.packed_size(1024, 1024, 4), np.float32)
    gemm.pack(packed, b, False)
    none = np.empty(0, np.float32)
    contestants = {
        "ours": lambda: gemm.multiply_packed(c, a, packed, none, False),
        "openblas": lambda: np.matmul(a, b, out=c),
    }
    times = harness.interleaved(contestants, 9, 0.1)
    return max(2e-9 * 1024**3 / median(seconds) for seconds in times.values())


def main() -> None:
    """Measure, print a table and write the file."""
    import torch

    parser = harness.arguments(str(__doc__).splitlines()[0], 9)
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=[*SHAPES, *VOLUMES, "volumes"],
        default=list(SHAPES),
        metavar="NAME",
        help=f"of {', '.join(SHAPES)}; or volumes for {', '.join(VOLUMES)}",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    torch.set_num_threads(1)
    peak = matrix_peak()
    print(f"matrix product peak {peak:.1f} GFLOP/s")
    columns = "".join(
        f"{title:>10}"
        for title in ("ours ms", "torch ms", "ratio", "roofline", "error", "of torch")
    )
    print(f"{'shape':20}{'operation':13}{'method':10}{columns}")
    rows = []
    for name in list(VOLUMES) if options.shapes == ["volumes"] else options.shapes:
        measured = measure(name, options.methods, options.rounds, peak)
        rows += measured
        for r in measured:
            errors = f"{r['error']:10.1e}{r['torch_error']:10.1e}"
            times = (
                f"{r['ours_ms']:10.3f}{r['torch_ms']:10.3f}{r['ratio']:10.2f}{r['roofline']:10.2f}"
            )
            print(f"{name:20}{r['operation']:13}{r['method']:10}{times}{errors}", flush=True)
    harness.write(options.json, facts, rows, matrix_peak_gflops=round(peak, 2))


if __name__ == "__main__":
    main()
