"""Measure how exact convolutions are in float32, ours and PyTorch's, and what our errors are at
most by the lengths of the sums (`layers.conv.rounding`).

    python scripts/bench/conv_errors.py [--json FILE]

Normal random images and weights, 3 x 3, padding 1. An error is the root mean square of the
difference from PyTorch's convolution in float64 over that of the result, in units of the unit
roundoff, 2^-24. PyTorch (oneDNN) is tried with both memory formats, the more exact counts.
"""

from typing import Any

from lib import harness

import numpy as np

import layers
from layers.conv.algorithms import ALGORITHMS
from layers.conv.rounding import OPERATIONS, expected_error

# Images, rows and columns, channels.
SHAPES = ((64, 32, 16), (64, 16, 32), (64, 8, 64), (16, 28, 128), (64, 8, 256))


def theirs(x: Any, weight: Any, dy: Any, layout: str = "NCHW") -> list[Any]:
    """Return PyTorch's output and gradients (images, weight) of a memory format, with our order of
    axes.
    """
    import torch

    form = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    x, dy = (
        torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=form) for a in (x, dy)
    )
    weight = torch.from_numpy(weight).permute(3, 2, 0, 1).contiguous(memory_format=form)
    options = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    y = torch.ops.aten.convolution(x, weight, None, *options)
    gradients = torch.ops.aten.convolution_backward(
        dy, x, weight, None, *options, [True, True, False]
    )
    of_images = [a.permute(0, 2, 3, 1).numpy() for a in (y, gradients[0])]
    return [*of_images, gradients[1].permute(2, 3, 1, 0).numpy()]


def measure(images: int, side: int, channels: int) -> list[dict[str, Any]]:
    """Return the rows of a shape."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((images, side, side, channels), np.float32) for _ in range(2))
    weight = rng.standard_normal((3, 3, channels, channels), np.float32)
    exact = theirs(*(a.astype(np.float64) for a in (x, weight, dy)))

    def errors(results: list[Any]) -> list[float]:
        return [
            float(np.sqrt(np.square(a - e).mean() / np.square(e).mean())) * 2**24
            for a, e in zip(results, exact, strict=True)
        ]

    rows = []
    shape = f"{channels}-{channels}@{side}"
    formats = [errors(theirs(x, weight, dy, layout)) for layout in ("NCHW", "NHWC")]
    peers = [min(pair) for pair in zip(*formats, strict=True)]
    for algorithm in ALGORITHMS:
        layer = layers.Conv2d(
            channels, channels, 3, padding=1, bias=False, algorithm=algorithm, rng=rng
        )
        layer.weight.value[...] = weight
        value = layers.Tape().input(x)
        y = layer(value)
        y.backward(dy)
        found = errors([y.array, value.grad, layer.weight.gradient])
        chosen = layer.algorithm_for(x)
        for operation, error, peer in zip(OPERATIONS, found, peers, strict=True):
            rows.append(
                {
                    "shape": shape,
                    "operation": operation,
                    "algorithm": algorithm,
                    "computed_by": repr(chosen),
                    "error": round(error, 2),
                    "at_most": round(expected_error(chosen, operation, images), 2),
                    "torch_error": round(peer, 2),
                }
            )
    return rows


def main() -> None:
    """Measure, print a table and write the file."""
    options = harness.arguments(str(__doc__).splitlines()[0], 1).parse_args()
    facts = harness.machine()
    rows = []
    for shape in SHAPES:
        measured = measure(*shape)
        rows += measured
        for row in measured:
            print(
                f"{row['shape']:14}{row['operation']:17}{row['computed_by']:20}"
                f"{row['error']:8.2f} of at most {row['at_most']:6.2f}; torch"
                f" {row['torch_error']:6.2f}",
                flush=True,
            )
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
