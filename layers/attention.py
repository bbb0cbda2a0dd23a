"""Attention. Sequences are (N, T, C): samples, positions, features."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import array, boolean, fraction, positive_int
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous, empty
from .engine.module import Composite
from .engine.value import Value
from .errors import message
from .init import Initializer, xavier_uniform
from .kernels import attention
from .linear import Linear
from .types import Array, Integers

if TYPE_CHECKING:
    from .engine.call import Call

_EVERYWHERE = np.empty((0, 0, 0, 0), np.bool_)
# By the number of inputs: which of them holds queries, keys and values.
_OWNERS = {1: (0, 0, 0), 2: (0, 1, 1), 3: (0, 1, 2)}
_DROPPING_NOTHING = {
    np.dtype(dtype): (np.uint32(0), dtype(1), 0, 0, 0, np.uint64(0))
    for dtype in (np.float32, np.float64)
}


class Attention(Layer):
    """Scaled dot-product attention of several heads, y = softmax(q kᵀ / √D) v per head (Vaswani et
    al. 2017, eq. 1).

    Backward, with p = softmax(…) and dp = dy vᵀ: dv = pᵀ dy, ds = p (dp - Σ dp p), dq = ds k / √D,
    dk = dsᵀ q / √D. The T x U matrix p is never held: it is computed block by block, and again in
    backward (Dao et al. 2022; Rabe and Staats 2021).

    Parameters
    ----------
    heads
        H. The C features of a position are H groups of D = C / H, side by side.
    causal
        Whether query i sees keys 0..i only; there must then be as many keys as queries.
    dropout
        Probability with which, in training, a probability is set to 0; the others are divided by 1
        - dropout.

    Notes
    -----
    Called with q (N, T, C), k and v (N, U, C); with q and (k, v) side by side in (N, U, 2 C); or
    with all three in (N, T, 3 C). After these may come a boolean mask, that broadcasts to (N, H, T,
    U) and is True where a query sees a key, and `lengths` (N,), integers: sample n has keys
    0..lengths[n] - 1. The output is (N, T, C). A query that sees no key gets 0, and passes no
    gradient on.
    """

    replayable = True

    def __init__(self, heads: int, *, causal: bool = False, dropout: float = 0.0) -> None:
        self.heads = positive_int("Attention", "heads", heads, "8 heads of 64 features are usual.")
        self.causal = boolean(type(self).__name__, "causal", causal)
        self.dropout = fraction("Attention", "dropout", dropout, "Leave it out for none.")

    def __repr__(self) -> str:
        options = [
            str(self.heads),
            *["causal=True"] * self.causal,
            *([f"dropout={self.dropout}"] if self.dropout else []),
        ]
        return f"Attention({', '.join(options)})"

    def flops(self, y: Array, *inputs: Array) -> int:
        # Those of both products, as if every query saw every key.
        holders = [x for x in inputs if x.dtype.kind == "f"]
        keys = holders[min(1, len(holders) - 1)].shape[1]
        return 4 * y.size * int(keys)

    def forward(self, call: ForwardCall, *inputs: Any) -> Array:
        arrays = [contiguous(x) for x in inputs if x.dtype.kind == "f"]
        columns, features = _columns(self.heads, self.causal, *((x.shape, x.dtype) for x in arrays))
        owners = _OWNERS[len(arrays)]
        parts = q, k, _ = [arrays[owner] for owner in owners]
        n, queries, keys = len(q), q.shape[1], k.shape[1]
        mask, lengths = _EVERYWHERE, None
        for x in inputs[len(arrays) :]:
            if x.dtype == np.bool_:
                mask = self._mask(call, x, (n, self.heads, queries, keys))
            else:
                lengths = self._lengths(call, x, n, keys)
        if lengths is None:
            lengths = _all_keys(n, keys)
        y = call.output_buffer("y", (n, queries, features), q.dtype)
        saved = call.buffer("saved", (2, n, self.heads, queries), q.dtype)
        width = features // self.heads
        options = (lengths, mask, 1 / width**0.5, self.causal, self._dropping(call, q.dtype))
        precision = self.precision.elsewhere
        halved, order = precision.words is not None, precision.like(empty(y, 2))
        bits = call.buffer("bits", (attention.scores(halved),), np.uint32)
        sizes = attention.forward_work(keys, width, q.itemsize, halved)
        work = tuple(call.scratch(q.dtype, *sizes))
        call.run(attention.forward, y, saved, work, bits, order, *parts, *columns, *options)
        kept = [precision.keep(call, x, i) for i, x in enumerate(arrays)]
        call.save(precision.keep(call, y), saved, kept, columns, owners, options, bits)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        y, saved, arrays, columns, owners, options, bits = call.saved
        y, arrays = call.kept("y", y), [call.kept(f"x{i}", x) for i, x in enumerate(arrays)]
        parts = [arrays[owner] for owner in owners]
        # One gradient for each input, of all the parts that it holds; one array may be several
        # inputs.
        found = [call.pooled(f"dx{i}", x.shape, y.dtype) for i, x in enumerate(arrays)]
        precision = self.precision.elsewhere
        halved, order = precision.words is not None, precision.like(empty(y, 2))
        sizes = attention.backward_work(y.shape[1], y.shape[2] // self.heads, y.itemsize, halved)
        work = tuple(call.scratch(y.dtype, *sizes))
        call.run(
            attention.backward,
            *(found[owner] for owner in owners),
            work,
            bits,
            order,
            contiguous(dy),
            y,
            saved,
            *parts,
            *columns,
            *options,
        )
        return (
            *(dx if call.wants(i) else None for i, dx in enumerate(found)),
            *[None] * (len(call.inputs) - len(found)),
        )

    def _mask(self, call: ForwardCall, mask: Array, shape: tuple[int, ...]) -> Array:
        """Return a mask (N or 1, H or 1, T or 1, U)."""
        whole = (1,) * (4 - mask.ndim) + mask.shape
        if len(whole) != 4 or any(
            size not in (1, full) for size, full in zip(whole, shape, strict=True)
        ):
            fix = "A mask of keys is mask[:, np.newaxis, np.newaxis]."
            raise ValueError(
                message(
                    self, f"the mask must broadcast to (N, heads, T, U) = {shape}", mask.shape, fix
                )
            )
        if whole[3] == shape[3] and mask.flags.carray:
            return mask.reshape(whole)
        of_all = call.buffer("mask", (*whole[:3], shape[3]), np.bool_)
        call.run(np.copyto, of_all, mask.reshape(whole))
        return of_all

    def _lengths(self, call: ForwardCall, lengths: Array, n: int, keys: int) -> Integers:
        if (
            lengths.dtype.kind not in "iu"
            or lengths.shape != (n,)
            or not call.returns(True, _are_lengths, lengths, keys)
        ):
            got = f"{lengths.dtype}{list(lengths.shape)} {lengths.tolist()}"
            fix = "Further inputs are a boolean mask, or one integer per sample."
            raise ValueError(message(self, f"lengths must be {n} integers in 0..{keys}", got, fix))
        result = call.buffer("lengths", (n,), np.int64)
        call.run(np.copyto, result, lengths)
        return result

    def _dropping(self, call: ForwardCall, dtype: Any) -> tuple[Any, ...]:
        """Return what the kernels are told of dropout."""
        if not (call.training and self.dropout):
            return _DROPPING_NOTHING[dtype]
        threshold, scale = round(self.dropout * 2**32), 1 / (1 - self.dropout)
        return np.uint32(threshold), dtype.type(scale), *call.random_key()


def _are_lengths(lengths: Integers, keys: int) -> bool:
    """Return whether all lengths are in 0..keys."""
    return not lengths.size or bool(0 <= lengths.min() <= lengths.max() <= keys)


@lru_cache
def _columns(
    heads: int, causal: bool, *inputs: tuple[tuple[int, ...], Any]
) -> tuple[tuple[int, ...], int]:
    """Return where queries, keys and values begin in inputs of these shapes and dtypes, and the
    number of features C.
    """
    layer = Attention(heads, causal=causal)
    shapes, dtypes = [shape for shape, _ in inputs], {dtype for _, dtype in inputs}
    fix = "Pass q, k, v of shape (N, T, C), q and (N, U, 2 C), or (N, T, 3 C)."
    if not 1 <= len(inputs) <= 3 or any(len(shape) != 3 for shape in shapes) or len(dtypes) != 1:
        got = [f"{dtype}{list(shape)}" for shape, dtype in inputs]
        raise ValueError(
            message(
                layer, "there must be one to three inputs (N, T, …) of one floating type", got, fix
            )
        )
    features = shapes[0][2] // 3 if len(inputs) == 1 else shapes[0][2]
    widths = {1: (3,), 2: (1, 2), 3: (1, 1, 1)}[len(inputs)]
    same = all(
        shape[0] == shapes[0][0] and shape[2] == features * width
        for shape, width in zip(shapes, widths, strict=True)
    )
    if not same or shapes[-1][1] != shapes[len(shapes) // 2][1] or features < 1:
        raise ValueError(
            message(layer, "samples, keys and features of the inputs must agree", shapes, fix)
        )
    if features % heads:
        choose = "Choose heads that divide the features."
        raise ValueError(
            message(
                layer, f"the features must be a multiple of the {heads} heads", features, choose
            )
        )
    if causal and shapes[0][1] != shapes[-1][1]:
        must = "causal attention needs as many keys as queries"
        raise ValueError(
            message(layer, must, (shapes[0][1], shapes[-1][1]), "Pass a mask, or causal=False.")
        )
    return tuple(part * features for width in widths for part in range(width)), features


@lru_cache
def _all_keys(samples: int, keys: int) -> Integers:
    """Return the lengths (N,) of samples that have all keys."""
    return np.full(samples, keys, np.int64)


class MultiHeadAttention(Composite):
    """Attention with projections: y = A(x Wqᵀ, z Wkᵀ, z Wvᵀ) Woᵀ, each with a bias (Vaswani et al.
    2017, section 3.2.2).

    Parameters
    ----------
    features, heads
        C and H; C is a multiple of H.
    causal
        Whether position i sees positions 0..i only.
    cross
        Whether keys and values come from another sequence z, the second argument of a call; else z
        is x. Wq, Wk, Wv are then one weight, and one product.
    bias
        Whether the projections have biases.
    dropout
        Of the attention's probabilities.
    rng, weight_init
        Draw the weights.

    Notes
    -----
    Called with x (N, T, C) and, if `cross`, z (N, U, C). `lengths` (N,) says how many positions of
    z a sample has; `keys` (N, U) is True where z has something; `mask` broadcasts to (N, H, T, U)
    and is True where a query sees a key. All may be given at once.
    """

    takes_lengths = True
    replayable = True

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        rng: np.random.Generator,
        causal: bool = False,
        cross: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        weight_init: Initializer = xavier_uniform,
        dtype: Any = np.float32,
    ) -> None:
        name = "MultiHeadAttention"
        features = positive_int(name, "features", features)
        heads = positive_int(name, "heads", heads)
        if features % heads:
            fix = "Choose heads that divide the features."
            raise ValueError(
                message(name, f"features must be a multiple of the {heads} heads", features, fix)
            )
        self.features = features
        self.cross = boolean(type(self).__name__, "cross", cross)

        def linear(outputs: int) -> Linear:
            return Linear(
                features, outputs, rng=rng, bias=bias, weight_init=weight_init, dtype=dtype
            )

        if cross:
            self.query = linear(features)
            self.memory = linear(2 * features)
        else:
            self.projection = linear(3 * features)
        self.attention = Attention(heads, causal=causal, dropout=dropout)
        self.output = linear(features)

    def __repr__(self) -> str:
        cross = ", cross=True" if self.cross else ""
        return (
            f"MultiHeadAttention({self.features},"
            f" {self.attention.heads}{', causal=True' if self.attention.causal else ''}{cross})"
        )

    def __call__(
        self, *inputs: Any, lengths: Any = None, keys: Any = None, mask: Any = None
    ) -> Any:
        if len(inputs) != 1 + self.cross:
            fix = (
                "Make the layer with cross=True to attend to another sequence, and pass that as the"
                " second argument."
            )
            raise ValueError(
                message(self, f"there must be {1 + self.cross} sequences", len(inputs), fix)
            )
        projected = (
            (self.query(inputs[0]), self.memory(inputs[1]))
            if self.cross
            else (self.projection(inputs[0]),)
        )
        further = []
        if mask is not None:
            mask = _array(self, "mask", mask)
            if mask.dtype != np.bool_:
                raise ValueError(
                    message(
                        self,
                        "the mask must be boolean",
                        mask.dtype,
                        "True is where a query sees a key.",
                    )
                )
        if keys is not None:
            keys = _array(self, "keys", keys)
            if keys.dtype != np.bool_ or keys.ndim != 2:
                fix = "keys is True where there is a key."
                raise ValueError(
                    message(
                        self, "keys must be booleans (N, U)", f"{keys.dtype}{list(keys.shape)}", fix
                    )
                )
            keys = keys[:, np.newaxis, np.newaxis]
            try:
                mask = keys if mask is None else keys & mask
            except ValueError as error:
                must, fix = "keys and mask must broadcast", "A mask is (N, H, T, U), or less."
                got = f"{list(keys.shape)} and {list(mask.shape)}"
                raise ValueError(message(self, must, got, fix)) from error
        if mask is not None:
            further.append(mask)
        if lengths is not None:
            further.append(_array(self, "lengths", lengths))
        return self.output(self.attention(*projected, *further))


def _array(owner: Any, name: str, given: Any) -> Array:
    """Return lengths or a mask as an array, though a model may get them as values."""
    result: Array = given.array if isinstance(given, Value) else array(owner, name, given)
    return result
