"""The twins of `layers.gradient_check.cases.conv`: sums over output pixels, taps and channels, for
all samples of the batch at once.
"""

import numpy as np


def pair(number):
    return number if isinstance(number, tuple) else (number, number)


def ends(length, size, stride, dilation, padding):
    """Return (padding before, number of outputs) along an axis."""
    span = (size - 1) * dilation + 1
    if padding != "same":
        return padding, (length + 2 * padding - span) // stride + 1
    outputs = -(-length // stride)
    return max(0, (outputs - 1) * stride + span - length) // 2, outputs


def convolved(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Return the convolution of images (N, H, W, C) with a weight (rows, columns, C / groups,
    K).
    """
    rows, columns, inner, outputs = weight.shape
    (s, t), (d, e) = pair(stride), pair(dilation)
    above, left = (padding, padding) if padding == "same" else pair(padding)
    above, height = ends(x.shape[1], rows, s, d, above)
    left, width = ends(x.shape[2], columns, t, e, left)
    y = np.zeros((len(x), height, width, outputs))
    for p, q, k in np.ndindex(height, width, outputs):
        group = k // (outputs // groups)
        for a, b, c in np.ndindex(rows, columns, inner):
            i, j = p * s + a * d - above, q * t + b * e - left
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                y[:, p, q, k] += x[:, i, j, group * inner + c] * weight[a, b, c, k]
        if bias is not None:
            y[:, p, q, k] += bias[k]
    return y


def transposed(x, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Return the transposed convolution of images (N, P, Q, C) with a weight (rows, columns, K /
    groups, C).
    """
    rows, columns, outer, inputs = weight.shape
    (s, t), (d, e), (above, left), more = (
        pair(stride),
        pair(dilation),
        pair(padding),
        pair(output_padding),
    )
    height = (x.shape[1] - 1) * s - 2 * above + (rows - 1) * d + 1 + more[0]
    width = (x.shape[2] - 1) * t - 2 * left + (columns - 1) * e + 1 + more[1]
    y = np.zeros((len(x), height, width, outer * groups))
    if bias is not None:
        y += bias
    for p, q, c in np.ndindex(x.shape[1], x.shape[2], inputs):
        group = c // (inputs // groups)
        for a, b, k in np.ndindex(rows, columns, outer):
            i, j = p * s + a * d - above, q * t + b * e - left
            if 0 <= i < height and 0 <= j < width:
                y[:, i, j, group * outer + k] += x[:, p, q, c] * weight[a, b, k, c]
    return y


def volume_convolved(
    x,
    weight,
    bias=None,
    stride=(1, 1, 1),
    padding=((0, 0),) * 3,
    mode="constant",
    dilation=(1, 1, 1),
    groups=1,
):
    """Return the convolution of volumes (N, D, H, W, C) with a weight (depth, rows, columns, C /
    groups, K), padded by NumPy.
    """
    *size, inner, outputs = weight.shape
    x = np.pad(x, ((0, 0), *padding, (0, 0)), mode)
    places = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:4], size, stride, dilation, strict=True)
    ]
    y = np.zeros((len(x), *places, outputs))
    for o, p, q, k in np.ndindex(*y.shape[1:]):
        group = k // (outputs // groups)
        for t, a, b, c in np.ndindex(*size, inner):
            pixel = [
                n * s + tap * d
                for n, tap, s, d in zip((o, p, q), (t, a, b), stride, dilation, strict=True)
            ]
            y[:, o, p, q, k] += x[:, *pixel, group * inner + c] * weight[t, a, b, c, k]
        if bias is not None:
            y[:, o, p, q, k] += bias[k]
    return y


def volume_transposed(
    x,
    weight,
    bias=None,
    stride=(1, 1, 1),
    padding=(0, 0, 0),
    output_padding=(0, 0, 0),
    dilation=(1, 1, 1),
    groups=1,
):
    """Return the transposed convolution of volumes (N, O, P, Q, C) with a weight (depth, rows,
    columns, K / groups, C): what it gives without padding, cut.
    """
    *size, outer, inputs = weight.shape
    whole = [
        (n - 1) * s + (k - 1) * d + 1 + more
        for n, s, k, d, more in zip(
            x.shape[1:4], stride, size, dilation, output_padding, strict=True
        )
    ]
    y = np.zeros((len(x), *whole, outer * groups))
    for o, p, q, c in np.ndindex(*x.shape[1:]):
        group = c // (inputs // groups)
        for t, a, b, k in np.ndindex(*size, outer):
            pixel = [
                n * s + tap * d
                for n, tap, s, d in zip((o, p, q), (t, a, b), stride, dilation, strict=True)
            ]
            y[:, *pixel, group * outer + k] += x[:, o, p, q, c] * weight[t, a, b, k, c]
    y = y[:, *(slice(p, n - p) for p, n in zip(padding, whole, strict=True))]
    return y if bias is None else y + bias


def transpose3d(**options):
    return lambda p, x: volume_transposed(x, p["weight"], p.get("bias"), **options)


def conv3d(**options):
    return lambda p, x: volume_convolved(x, p["weight"], p.get("bias"), **options)


def bordered(rows, columns, mode, stride=1, dilation=1, groups=1):
    """An image is a volume of one slice; rows and columns are added (before, after)."""
    options = {
        "stride": (1, stride, stride),
        "dilation": (1, dilation, dilation),
        "padding": ((0, 0), rows, columns),
        "mode": mode,
        "groups": groups,
    }
    return lambda p, x: volume_convolved(
        x[:, np.newaxis], p["weight"][np.newaxis], p.get("bias"), **options
    )[:, 0]


def of_sequence(twin):
    """A sequence is an image of one row."""
    return lambda p, x: twin(p, x[:, np.newaxis])[:, 0]


def conv2d(**options):
    return lambda p, x: convolved(x, p["weight"], p.get("bias"), **options)


def conv1d(stride=1, padding=0, dilation=1, groups=1):
    along = padding if padding == "same" else (0, padding)
    options = {"stride": (1, stride), "padding": along, "dilation": (1, dilation), "groups": groups}
    return of_sequence(conv2d(**options))


def transpose2d(**options):
    return lambda p, x: transposed(x, p["weight"], p.get("bias"), **options)


def rectified(twin):
    """Return the twin of a Sequential of a layer and a ReLU."""

    def both(p, x):
        y = twin({name.removeprefix("layers.0."): value for name, value in p.items()}, x)
        return np.where(y > 0, y, 0)

    return both


def pooled(twin):
    """Return the twin of a Sequential of a layer, a ReLU and the maximum of 2 x 2 pixels."""

    def all_three(p, x):
        y = rectified(twin)(p, x)
        corners = [y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return np.maximum(np.maximum(*corners[:2]), np.maximum(*corners[2:]))

    return all_three


def network(p, x):
    for number, options in ((0, {"padding": 1}), (2, {"padding": 1, "stride": 2})):
        x = convolved(x, p[f"layers.{number}.weight"], p[f"layers.{number}.bias"], **options)
        x = np.where(x > 0, x, 0)
    return (
        np.array([[row @ sample.reshape(-1) for row in p["layers.5.weight"]] for sample in x])
        + p["layers.5.bias"]
    )


BOTH = ((1, 1),) * 3

TWINS = {
    "Conv2d": conv2d(),
    "Conv2d without bias": conv2d(),
    "Conv2d of size 1": conv2d(),
    "Conv2d of size 5": conv2d(padding=2),
    "Conv2d of unequal size": conv2d(),
    "Conv2d of the image's size": conv2d(),
    "Conv2d of padding 1": conv2d(padding=1),
    "Conv2d of unequal padding": conv2d(padding=(1, 2)),
    "Conv2d of padding beyond the window": conv2d(padding=(1, 2)),
    "Conv2d of padding beyond the window, many channels": conv2d(padding=(1, 2)),
    "Conv2d of stride 2": conv2d(stride=2),
    "Conv2d of stride 2, padding 1": conv2d(stride=2, padding=1),
    "Conv2d of unequal stride": conv2d(stride=(2, 1), padding=1),
    "Conv2d of stride beyond the window": conv2d(stride=(2, 3)),
    "Conv2d of dilation 2": conv2d(dilation=2),
    "Conv2d of dilation 2, many channels": conv2d(dilation=2, padding=1),
    "Conv2d of unequal everything": conv2d(stride=(1, 2), padding=(2, 1), dilation=(3, 1)),
    "Conv2d of stride 2, dilation 2": conv2d(stride=2, padding=2, dilation=2),
    "Conv2d same": conv2d(padding="same"),
    "Conv2d same of even size": conv2d(padding="same"),
    "Conv2d same of stride 2": conv2d(stride=2, padding="same"),
    "Conv2d same of stride 2, even size": conv2d(stride=2, padding="same"),
    "Conv2d same of dilation 2": conv2d(dilation=2, padding="same"),
    "Conv2d valid": conv2d(),
    "Conv2d of padding on one side": bordered((1, 0), (2, 1), "constant"),
    "Conv2d reflecting": bordered((2, 2), (1, 1), "reflect"),
    "Conv2d reflecting, on one side, in groups of stride 2": bordered(
        (1, 0), (2, 1), "reflect", stride=2, groups=2
    ),
    "Conv2d reflecting same of even size": bordered((0, 1), (1, 2), "reflect"),
    "Conv2d reflecting by Winograd": bordered((1, 1), (1, 1), "reflect"),
    "Conv2d replicating, beyond the image": bordered((1, 1), (5, 5), "edge", dilation=2),
    "Conv2d replicating and ReLU": rectified(bordered((1, 1), (1, 1), "edge")),
    "Conv2d circular": bordered((2, 1), (0, 4), "wrap"),
    "Conv2d circular, depthwise": bordered((1, 1), (1, 1), "wrap", groups=9),
    "Conv2d circular, ReLU and MaxPool2d": pooled(bordered((1, 1), (1, 1), "wrap")),
    "Conv2d in groups": conv2d(groups=2, padding=1),
    "Conv2d in groups of stride 2": conv2d(groups=2, padding=1, stride=2, dilation=(1, 2)),
    "Conv2d in groups of many channels": conv2d(groups=2),
    "Conv2d depthwise": conv2d(groups=3, padding=1),
    "Conv2d depthwise, two outputs each": conv2d(groups=3, stride=2, padding=1),
    "Conv2d depthwise of odd channels": conv2d(groups=11, padding=(0, 2)),
    "Conv2d depthwise of every option": conv2d(groups=9, stride=(2, 3), padding=(1, 3), dilation=2),
    "Conv2d depthwise, three outputs each": conv2d(groups=2, padding=1, dilation=(1, 2)),
    "Conv2d depthwise and ReLU": rectified(conv2d(groups=8, padding=1)),
    "Conv2d of one channel": conv2d(padding=1),
    "Conv2d from one channel": conv2d(padding=1),
    "Conv2d of odd channels": conv2d(padding=1),
    "Conv2d of more channels than a panel": conv2d(),
    "Conv2d by Winograd": conv2d(padding=1),
    "Conv2d by Winograd, odd image": conv2d(padding=1),
    "Conv2d by Winograd, 24 channels": conv2d(),
    "Conv2d by Winograd, padding 2": conv2d(padding=(2, 0)),
    "Conv2d fastest": conv2d(padding=1),
    "Conv2d fastest, 24 channels": conv2d(padding=(1, 2)),
    "Conv2d direct": conv2d(padding=1),
    "Conv2d and ReLU": rectified(conv2d(padding=1)),
    "Conv2d and ReLU without bias": rectified(conv2d(stride=2)),
    "Conv2d and ReLU by Winograd": rectified(conv2d(padding=1)),
    "Conv2d and ReLU fastest": rectified(conv2d(padding=1)),
    "Conv2d, ReLU and MaxPool2d": pooled(conv2d(padding=1)),
    "Conv2d network": network,
    "Conv1d": conv1d(),
    "Conv1d of every option": conv1d(stride=2, padding=2, dilation=2, groups=2),
    "Conv1d same": conv1d(padding="same"),
    "Conv1d and ReLU": rectified(conv1d(padding=1)),
    "Conv1d of padding before": of_sequence(bordered((0, 0), (4, 0), "constant", dilation=2)),
    "Conv1d circular": of_sequence(bordered((0, 0), (2, 2), "wrap")),
    "Conv3d": conv3d(),
    "Conv3d without bias": conv3d(),
    "Conv3d of padding 1": conv3d(padding=BOTH),
    "Conv3d of stride 2": conv3d(stride=(2, 2, 2), padding=BOTH),
    "Conv3d of unequal everything": conv3d(
        stride=(2, 1, 3), padding=((2, 0), (1, 1), (0, 2)), dilation=(2, 1, 1)
    ),
    "Conv3d same": conv3d(padding=((0, 1), (1, 1), (0, 1))),
    "Conv3d of single slices": conv3d(),
    "Conv3d of single pixels": conv3d(padding=((1, 1), (0, 0), (0, 0))),
    "Conv3d of every second slice": conv3d(stride=(2, 1, 1)),
    "Conv3d in groups": conv3d(groups=2, padding=BOTH),
    "Conv3d depthwise": conv3d(groups=3),
    "Conv3d depthwise and ReLU, two outputs each": rectified(
        conv3d(groups=3, padding=BOTH, mode="edge")
    ),
    "Conv3d by Winograd": conv3d(padding=((0, 0), (1, 1), (1, 1))),
    "Conv3d fastest": conv3d(padding=BOTH),
    "Conv3d reflecting": conv3d(padding=((2, 2), (1, 1), (1, 1)), mode="reflect"),
    "Conv3d replicating in groups": conv3d(
        padding=((1, 2), (0, 0), (1, 1)), mode="edge", groups=2, stride=(1, 2, 1)
    ),
    "Conv3d circular": conv3d(padding=((1, 1), (0, 1), (2, 2)), mode="wrap", dilation=(2, 1, 1)),
    "Conv3d and ReLU": rectified(conv3d(padding=BOTH)),
    "ConvTranspose2d": transpose2d(),
    "ConvTranspose2d without bias": transpose2d(),
    "ConvTranspose2d of many channels": transpose2d(padding=1),
    "ConvTranspose2d of stride 2": transpose2d(stride=2, padding=1),
    "ConvTranspose2d of stride beyond the window": transpose2d(stride=(2, 3)),
    "ConvTranspose2d of output padding": transpose2d(stride=2, padding=1, output_padding=1),
    "ConvTranspose2d of unequal output padding": transpose2d(stride=(3, 2), output_padding=(2, 0)),
    "ConvTranspose2d of dilation 2": transpose2d(dilation=2, padding=(1, 0), output_padding=(0, 1)),
    "ConvTranspose2d in groups": transpose2d(stride=(2, 1), padding=1, groups=2),
    "ConvTranspose2d depthwise": transpose2d(groups=3),
    "ConvTranspose2d depthwise, two channels each": transpose2d(
        stride=2, padding=(1, 0), output_padding=1, groups=3
    ),
    "ConvTranspose2d by Winograd": transpose2d(padding=1),
    "ConvTranspose2d fastest": transpose2d(padding=1),
    "ConvTranspose3d": transpose3d(),
    "ConvTranspose3d of every option": transpose3d(
        stride=(3, 2, 1),
        padding=(1, 0, 1),
        output_padding=(2, 1, 0),
        dilation=(1, 1, 2),
        groups=2,
    ),
    "ConvTranspose3d of single slices": transpose3d(stride=(1, 2, 1)),
    "ConvTranspose3d depthwise": transpose3d(
        stride=(2, 2, 2), padding=(1, 1, 1), output_padding=(1, 1, 1), groups=3
    ),
    "ConvTranspose3d by Winograd": transpose3d(padding=(0, 1, 1)),
    "ConvTranspose1d": of_sequence(transpose2d()),
    "ConvTranspose1d of every option": of_sequence(
        transpose2d(stride=(1, 3), padding=(0, 2), output_padding=(0, 2), dilation=(1, 2), groups=2)
    ),
}
