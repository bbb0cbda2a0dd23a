"""Computes the outputs of a ddbp bundle with NumPy alone. Copy this file to where ddbp is not:

    predict = numpy_reader.load("model.ddbp")
    y = predict(x)  # or predict(x, lengths), for padded sequences (N, T, …)

or run it: python numpy_reader.py model.ddbp x.npy y.npy [lengths.npy]

Nothing of the bundle is executed, and a layer or an option that is not known here is refused.
"""

import hashlib
import json
import math
import sys
import zipfile

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "BOOL": "?"}
LAYERS = {}
PARAMETERS = "parameters.safetensors"


def load(path):
    """Return the function (x, lengths=None) -> y of a bundle."""
    try:
        root, arrays = read(path)
    except (zipfile.BadZipFile, EOFError, LookupError, NotImplementedError, TypeError) as error:
        require(False, f"{path}, which is cut off or no bundle: {error}")
    dtype = next((array.dtype for array in arrays.values() if array.dtype.kind == "f"), "<f4")
    seen = {}

    def call(node, path, x, lengths):
        if "again" in node:
            node, path = seen[node["again"]]
        elif "number" in node:
            seen[node["number"]] = node, path
        require(node["kind"] in LAYERS, f"the layer {node['kind']}")
        w = lambda name: arrays.get(path + name)  # noqa: E731
        w.call = lambda part, name, x: call(part, path + name, x, lengths)
        return LAYERS[node["kind"]](node["arguments"], w, x, lengths)

    def predict(x, lengths=None):
        x = np.asarray(x)
        if lengths is not None:
            lengths = np.asarray(lengths)
            whole = x.ndim > 1 and lengths.dtype.kind in "iu" and lengths.shape == x.shape[:1]
            if not (whole and np.all((lengths >= 1) & (lengths <= x.shape[1]))):
                raise ValueError("numpy_reader: lengths must be integers (N,) from 1 to T of x.")
        x = x.astype(dtype) if x.dtype.kind == "f" else x
        return call(root, "", x, lengths).astype(dtype)

    return predict


def read(path):
    """Return the architecture of a bundle, and its arrays by name."""
    with zipfile.ZipFile(path) as archive:
        facts, raw = (member(archive, name) for name in ("bundle.json", PARAMETERS))
    facts, arrays = json.loads(facts), {}
    require(facts["format"] == 1, f"format {facts['format']}")
    digest = facts["files"][PARAMETERS]["sha256"]
    require(hashlib.sha256(raw).hexdigest() == digest, "damaged parameters")
    start = 8 + int.from_bytes(raw[:8], "little")
    for name, entry in json.loads(raw[8:start]).items():
        if name != "__metadata__":
            first, stop = (start + place for place in entry["data_offsets"])
            flat = np.frombuffer(raw[first:stop], TYPES[entry["dtype"]])
            arrays[name] = flat.reshape(entry["shape"])
    for first, *others in facts["architecture"]["tied"]:
        arrays.update((name, arrays[first]) for name in others)
    return facts["architecture"]["root"], arrays


def member(archive, name):
    """Return the bytes of a member, which are as many in the file: none is unpacked."""
    entry = archive.getinfo(name)
    stored = entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size
    require(stored, f"{name}, compressed")
    return archive.read(entry)


def require(known, what):
    if not known:
        raise ValueError(f"numpy_reader: it must know what a bundle holds; got {what}. Use ddbp.")


def sequential(a, w, x, lengths):
    for i, layer in enumerate(a["layers"]):
        x = w.call(layer, f"layers.{i}.", x)
    return x


def residual(a, w, x, lengths):
    shortcut = w.call(a["shortcut"], "shortcut.", x) if a["shortcut"] else x
    return w.call(a["body"], "body.", x) + shortcut


def affine(w, y, name="", weight=True):
    """Return y times a gain plus a bias, where there are any."""
    y = y if not weight or w(f"{name}weight") is None else y * w(f"{name}weight")
    return y if w(f"{name}bias") is None else y + w(f"{name}bias")


def linear(w, x, name=""):
    return affine(w, x @ w(f"{name}weight").T, name, weight=False)


def windows(a, x, spans, ends, fill=0):
    x = np.pad(x, [(0, 0), *ends, (0, 0)], constant_values=fill)
    views = sliding_window_view(x, spans, (1, 2))
    return views[:, :: a["stride"][0], :: a["stride"][1]]  # (N, P, Q, C, rows, columns)


def as_image(a):
    """Return the arguments of a layer of sequences as those of an image of one row."""
    sizes = {name: [1, a[name]] for name in ("kernel_size", "stride", "dilation") if name in a}
    return a | sizes | {"padding": "same" if a["padding"] == "same" else [0, a["padding"]]}


def convolution(a, w, x, lengths):
    if x.ndim == 3:
        return convolution(as_image(a), w, x[:, None], lengths)[:, 0]
    require(a["padding_mode"] == "zeros", f"padding_mode {a['padding_mode']}")
    spans = [(k - 1) * d + 1 for k, d in zip(a["kernel_size"], a["dilation"], strict=True)]
    ends = [(p, p) if isinstance(p, int) else p for p in a["padding"]]
    if a["padding"] == "same":
        steps = zip(x.shape[1:3], a["stride"], spans, strict=True)
        totals = [max(0, (-(-n // s) - 1) * s + span - n) for n, s, span in steps]
        ends = [(total // 2, total - total // 2) for total in totals]
    views = windows(a, x, spans, ends)[..., :: a["dilation"][0], :: a["dilation"][1]]
    inputs, weights = (np.split(each, a["groups"], 3) for each in (views, w("weight")))
    over = ([4, 5, 3], [0, 1, 2])
    parts = [np.tensordot(*each, over) for each in zip(inputs, weights, strict=True)]
    return affine(w, np.concatenate(parts, -1), weight=False)


def pool(maximum):
    def run(a, w, x, lengths):
        if x.ndim == 3:
            return run(as_image(a), w, x[:, None], lengths)[:, 0]
        require(not a["ceil_mode"] and a.get("count_padding", True), "an option of pooling")
        ends = [(p, p) for p in a["padding"]]
        views = windows(a, x, a["kernel_size"], ends, -np.inf if maximum else 0)
        return views.max((-1, -2)) if maximum else views.mean((-1, -2))

    return run


def batch_norm(a, w, x, lengths):
    deviation = np.sqrt(w("running_variance") + a["epsilon"])
    return affine(w, (x - w("running_mean")) / deviation)


def layer_norm(w, x, epsilon, name="", axes=1, centred=True):
    axes = (*range(-axes, 0),)
    x = x - x.mean(axes, keepdims=True) if centred else x
    return affine(w, x / np.sqrt((x * x).mean(axes, keepdims=True) + epsilon), name)


def norm_of_last(centred):
    count = lambda sizes: len(sizes) if isinstance(sizes, list) else 1  # noqa: E731
    return lambda a, w, x, lengths: layer_norm(
        w, x, a["epsilon"], axes=count(a["features"]), centred=centred
    )


def lstm(a, from_x, from_h, h, c):
    i, f, g, o = np.split(from_x + from_h, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(a, from_x, from_h, h, c):
    (r, z, n), (hr, hz, hn) = np.split(from_x, 3, -1), np.split(from_h, 3, -1)
    z, n = sigmoid(z + hz), np.tanh(n + sigmoid(r + hr) * hn)
    return (1 - z) * n + z * h, c


def rnn(a, from_x, from_h, h, c):
    z = from_x + from_h
    return (np.maximum(z, 0) if a["nonlinearity"] == "relu" else np.tanh(z)), c


def recurrence(step):
    def one_way(a, w, x, lengths, name, backwards):
        names = [f"{name}{each}" for each in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        wx, wh, bx, bh = (0 if w(each) is None else w(each) for each in names)
        y = np.zeros((*x.shape[:2], a["hidden_size"]), x.dtype)
        h = c = y[:, 0]
        for t in range(x.shape[1])[:: -1 if backwards else 1]:
            there = (t < lengths)[:, None]
            new = step(a, x[:, t] @ wx.T + bx, h @ wh.T + bh, h, c)
            h, c = (np.where(there, *each) for each in zip(new, (h, c), strict=True))
            y[:, t] = np.where(there, h, 0)
        return y, h

    def run(a, w, x, lengths):
        lengths = np.full(len(x), x.shape[1]) if lengths is None else lengths
        ways = 1 + a["bidirectional"]
        for i in range(0, a["layers"] * ways, ways):
            ends = [one_way(a, w, x, lengths, f"cells.{i + j}.", j) for j in range(ways)]
            x, last = (np.concatenate(each, -1) for each in zip(*ends, strict=True))
        return last if a["last"] else x

    return run


def over_time(a, w, x, lengths):
    lengths = np.full(len(x), x.shape[1]) if lengths is None else lengths
    there = (np.arange(x.shape[1]) < lengths[:, None])[..., None]
    if a["kind"] == "last":
        return x[np.arange(len(x)), lengths - 1]
    mean = np.where(there, x, 0).sum(1) / lengths[:, None]
    return mean if a["kind"] == "mean" else np.where(there, x, -np.inf).max(1)


def encoder(a, w, x, lengths):
    (n, t, c), heads = x.shape, a["heads"]
    h = linear(w, layer_norm(w, x, 1e-5, "norm_attention."), "attention.projection.")
    q, k, v = h.reshape(n, t, 3, heads, c // heads).transpose(2, 0, 3, 1, 4)
    seen = np.tri(t, dtype=bool) if a["causal"] else np.ones((t, t), bool)
    if lengths is not None:
        seen = seen & (np.arange(t) < lengths[:, None, None, None])
    scores = np.where(seen, q @ k.swapaxes(-1, -2) / math.sqrt(c / heads), -np.inf)
    h = (softmax(scores) @ v).swapaxes(1, 2).reshape(n, t, c)
    x = x + linear(w, h, "attention.output.")
    h = linear(w, layer_norm(w, x, 1e-5, "norm_dense."), "dense.layers.0.")
    return x + linear(w, w.call(a["activation"], "dense.layers.1.", h), "dense.layers.2.")


def embedding(a, w, x, lengths):
    table = w("weight")
    if x.dtype.kind not in "iu" or (x.size and not 0 <= x.min() <= x.max() < len(table)):
        raise ValueError(f"numpy_reader: tokens must be integers from 0 to {len(table) - 1}.")
    return np.where((x == a["padding"])[..., None], 0, table[x])


def padded_shortcut(a, w, x, lengths):
    x = x[:, :: a["stride"], :: a["stride"]]
    return np.pad(x, [(0, 0)] * 3 + [(0, a["out_channels"] - a["in_channels"])])


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def gelu(x, a):
    if a["approximate"] == "tanh":
        return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return x * (1 + np.vectorize(math.erf, [float])(x / math.sqrt(2))) / 2


def elementwise(function):
    return lambda a, w, x, lengths: function(x, a)


LAYERS |= {
    "Sequential": sequential,
    "Residual": residual,
    "Recompute": lambda a, w, x, lengths: w.call(a["segment"], "segment.", x),
    "Linear": lambda a, w, x, lengths: linear(w, x),
    "Embedding": embedding,
    "LearnedPositions": lambda a, w, x, lengths: x + w("weight")[: x.shape[1]],
    "GlobalAveragePool": elementwise(lambda x, a: x.mean((1, 2))),
    "LayerNorm": norm_of_last(True),
    "RMSNorm": norm_of_last(False),
    "PoolOverTime": over_time,
    "EncoderBlock": encoder,
    "PaddedShortcut": padded_shortcut,
    "PReLU": lambda a, w, x, lengths: np.where(x > 0, x, w("weight") * x),
    **dict.fromkeys(("Conv1d", "Conv2d"), convolution),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d"), pool(True)),
    **dict.fromkeys(("AvgPool1d", "AvgPool2d"), pool(False)),
    **dict.fromkeys(("BatchNorm", "BatchNorm2d"), batch_norm),
    **{"LSTM": recurrence(lstm), "GRU": recurrence(gru), "RNN": recurrence(rnn)},
    **dict.fromkeys(("Identity", "Dropout", "Dropout2d"), elementwise(lambda x, a: x)),
    "Flatten": elementwise(lambda x, a: x.reshape(len(x), -1)),
    "Reshape": elementwise(lambda x, a: x.reshape(len(x), *a["shape"])),
    "ReLU": elementwise(lambda x, a: np.maximum(x, 0)),
    "LeakyReLU": elementwise(lambda x, a: np.where(x > 0, x, a["slope"] * x)),
    "Sigmoid": elementwise(lambda x, a: sigmoid(x)),
    "Tanh": elementwise(lambda x, a: np.tanh(x)),
    "SiLU": elementwise(lambda x, a: x * sigmoid(x)),
    "GELU": elementwise(gelu),
    "Softmax": elementwise(lambda x, a: softmax(x, a["axis"])),
}

if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit("numpy_reader: write python numpy_reader.py model.ddbp x.npy y.npy [lengths.npy]")
    bundle, given, result, *lengths = sys.argv[1:]
    try:
        np.save(result, load(bundle)(np.load(given), *map(np.load, lengths)))
    except (EOFError, LookupError, OSError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        sys.exit(text if text.startswith("numpy_reader: ") else f"numpy_reader: {text}")
