"""Cells over trees: the state of a node is a function of its features and of its children's
states.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import boolean, number, positive_int, require_input
from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer
from layers.engine.memory import contiguous, empty
from layers.engine.parameter import Parameter
from layers.errors import Renamed, message, renamed
from layers.init import Initializer, lecun_uniform, zeros
from layers.initial import drawn
from layers.kernels import dense, tree, tree_structure
from layers.types import Array, Integers

from .batch import TreeBatch

if TYPE_CHECKING:
    from layers.engine.call import Call


class TreeCell(Layer):
    """What the cells have in common: the nodes of all trees as rows, their own inputs, and which
    states are the output.

    A cell defines `states`, from what the nodes' own inputs contribute, and `states_backward`.
    """

    in_features = Renamed("input_size")
    hidden = Renamed("hidden_size")
    input_weight = Renamed("weight_ih")
    state_weight = Renamed("weight_hh")
    forget_weight = Renamed("weight_hh_forget")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        gates: int,
        *,
        rng: np.random.Generator,
        all_nodes: bool,
        weight_init: Initializer,
        bias_init: Initializer,
        dtype: Any,
    ) -> None:
        owner = type(self).__name__
        self.input_size = positive_int(owner, "input_size", input_size)
        self.hidden_size = positive_int(owner, "hidden_size", hidden_size)
        self.all_nodes = boolean(type(self).__name__, "all_nodes", all_nodes)
        self.weight_ih = Parameter(
            drawn(owner, weight_init, rng, (gates * self.hidden_size, self.input_size), dtype)
        )
        self.bias = Parameter(
            drawn(owner, bias_init, rng, (gates * self.hidden_size,), dtype), regularized=False
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.input_size},"
            f" {self.hidden_size}{', all_nodes=True' if self.all_nodes else ''})"
        )

    def states(self, call: ForwardCall, own: Array, trees: TreeBatch) -> tuple[Array, ...]:
        """Return the states h (R, H) and what else backward needs, given the contributions of the
        nodes' own inputs.
        """
        raise NotImplementedError

    def states_backward(
        self, call: "Call", dh: Array, kept: tuple[Array, ...], trees: TreeBatch, bounds: Integers
    ) -> Array:
        """Return the gradient of those contributions, and add those of the parameters for states;
        dh is overwritten.
        """
        raise NotImplementedError

    def flops(self, y: Array, *inputs: Any) -> int:
        trees = inputs[1] if isinstance(inputs[1], TreeBatch) else TreeBatch(inputs[1])
        return 2 * (len(trees.slots) * self.weight_ih.value.size + self._of_states(trees))

    def _of_states(self, trees: TreeBatch) -> int:
        """Return the multiplications that the states of children take part in."""
        raise NotImplementedError

    def forward(self, call: ForwardCall, x: Array, trees: TreeBatch | Integers) -> Array:
        if not isinstance(trees, TreeBatch):
            trees = TreeBatch(trees)
        count, width = trees.parents.shape
        fix = "Give every node a row of features; rows of nodes that do not exist are not read."
        require_input(self, x, (count, width, self.input_size), self.bias.dtype, fix)
        self.check(trees)
        rows = contiguous(x).reshape(count * width, self.input_size)
        if len(trees.slots) < len(rows):
            present = call.buffer("x", (len(trees.slots), self.input_size), x.dtype)
            tree_structure.pick(present, rows, trees.slots)
            rows = present
        own = call.buffer("own", (len(rows), len(self.bias.value)), x.dtype)
        weight = self.precision.operand(call, "weight", self.weight_ih.value, True)
        dense.forward(own, rows, weight, self.bias.value, dense.IDENTITY)
        h, *kept = self.states(call, own, trees)
        call.save(rows, trees, h, *kept)
        if self.all_nodes:
            y = call.buffer("y", (count * width, self.hidden_size), x.dtype)
            tree_structure.put(y, h, trees.slots)
            return y.reshape(count, width, self.hidden_size)
        y = call.buffer("y", (count, self.hidden_size), x.dtype)
        tree_structure.pick(y, h, trees.roots)
        return y

    def check(self, trees: TreeBatch) -> None:
        """Refuse trees that the cell cannot take."""

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        rows, trees, h, *kept = call.saved
        count, width = trees.parents.shape
        dy = contiguous(dy)
        dh = call.buffer("dh", h.shape, h.dtype)
        if self.all_nodes:
            tree_structure.pick(dh, dy.reshape(count * width, self.hidden_size), trees.slots)
        else:
            tree_structure.put(dh, dy, trees.roots)
        bounds = call.bounds(count)
        down = self.states_backward(call, dh, (h, *kept), trees, bounds)
        nothing = empty(h, 2)
        groups, gradients = call.summed_gradients(nothing, self.weight_ih, self.bias)
        (dw, add_weight), (db, add_bias) = gradients
        drows = call.buffer("drows", rows.shape, rows.dtype) if call.wants(0) else nothing
        weight = self.precision.operand(call, "weight back", call.feedback(self.weight_ih), False)
        dense.backward(
            drows,
            dw,
            db,
            nothing,
            down,
            down,
            rows,
            weight,
            trees.starts[bounds],
            groups,
            add_weight,
            add_bias,
            dense.IDENTITY,
        )
        if not call.wants(0):
            return (None, None)
        dx = drows
        if len(rows) < count * width:
            dx = call.buffer("dx", (count * width, self.input_size), rows.dtype)
            tree_structure.put(dx, drows, trees.slots)
        return (dx.reshape(count, width, self.input_size), None)

    def _add_state_gradient(
        self, call: "Call", parameter: Parameter, dz: Array, states: Array, bounds: Integers
    ) -> None:
        """Add dzᵀ states of each shard to a parameter's gradient; their rows belong together."""
        if not call.trains(parameter):
            return
        dw, add = call.gradient_buffer(parameter)
        nothing = empty(dz, 2)
        dense.backward(
            nothing,
            dw,
            nothing,
            nothing,
            dz,
            dz,
            states,
            self.precision.like(parameter.value),
            bounds,
            call.tape.shard_bounds.single,
            add,
            False,
            dense.IDENTITY,
        )

    def _packed(self, call: ForwardCall, name: str, weight: Array) -> Array:
        """Return room for the panels of a weight, transposed or not."""
        outputs, inputs = weight.shape
        sizes = (
            self.precision.packed_size(*shape, weight.itemsize)
            for shape in ((inputs, outputs), (outputs, inputs))
        )
        room, words = call.buffer(name, (max(sizes),), weight.dtype), self.precision.words
        return room if words is None else room.view(words)


def _tables(trees: TreeBatch) -> tuple[Integers, ...]:
    return trees.order, trees.level_starts, trees.child_starts, trees.children


class TreeRNN(TreeCell):
    """Recursive network over ordered children: h = tanh(W x + Σ_q U_q h_q + b), with a weight U_q
    for the child in place q.

    Backward, with dz = dh (1 - h²): dh_q = dh_q + U_qᵀ dz, dx = Wᵀ dz, dW = Σ dz xᵀ, dU_q = Σ dz
    h_qᵀ, db = Σ dz, over all nodes. (Goller and Küchler 1996; Socher et al. 2011.)

    Parameters
    ----------
    input_size, hidden_size
        Sizes C of a node's features and H of its state.
    rng
        Draws the initial weights.
    children
        The most children a node may have, k; 2 unless said. Missing children count as states of
        zero.
    all_nodes
        Whether the states of all nodes are the output, not only those of the roots.
    weight_init, bias_init
        See `layers.init`. `weight_ih` W has shape (H, C), `weight_hh` [U_1 … U_k] (H, k H),
        `bias` (H,).

    Notes
    -----
    Inputs are the nodes' features (N, M, C) and the trees, a `TreeBatch` or its array of parents
    (N, M). The output is (N, H), or (N, M, H) with zeros where there is no node.
    """

    @renamed(in_features="input_size", hidden="hidden_size")
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator,
        children: int = 2,
        all_nodes: bool = False,
        weight_init: Initializer = lecun_uniform,
        bias_init: Initializer = zeros,
        dtype: Any = np.float32,
    ) -> None:
        self.children = positive_int("TreeRNN", "children", children, "2 for binary trees.")
        options: dict[str, Any] = {
            "weight_init": weight_init,
            "bias_init": bias_init,
            "dtype": dtype,
        }
        super().__init__(input_size, hidden_size, 1, rng=rng, all_nodes=all_nodes, **options)
        self.weight_hh = Parameter(
            drawn(
                "TreeRNN",
                weight_init,
                rng,
                (self.hidden_size, self.children * self.hidden_size),
                dtype,
            )
        )

    def check(self, trees: TreeBatch) -> None:
        if trees.most_children > self.children:
            fix = f"Build the layer with children={trees.most_children}, or take TreeLSTM."
            must = f"nodes must have at most {self.children} children"
            raise ValueError(message(self, must, trees.most_children, fix))

    def _of_states(self, trees: TreeBatch) -> int:
        return len(trees.inner) * self.weight_hh.value.size

    def states(self, call: ForwardCall, own: Array, trees: TreeBatch) -> tuple[Array, ...]:
        weight, dtype = self.weight_hh.value, own.dtype
        h = call.buffer("h", own.shape, dtype)
        z = call.buffer("z", (trees.widest, self.hidden_size), dtype)
        joined = call.buffer("joined", (trees.widest, weight.shape[1]), dtype)
        tree.rnn(h, z, joined, self._packed(call, "packed", weight), own, weight, *_tables(trees))
        return (h,)

    def states_backward(
        self, call: "Call", dh: Array, kept: tuple[Array, ...], trees: TreeBatch, bounds: Integers
    ) -> Array:
        (h,) = kept
        weight, dtype = call.feedback(self.weight_hh), h.dtype
        dp = call.buffer("dp", h.shape, dtype)
        dz = call.buffer("z", (trees.widest, self.hidden_size), dtype)
        joined = call.buffer("joined", (trees.widest, weight.shape[1]), dtype)
        tree.rnn_backward(
            dp, dh, dz, joined, self._packed(call, "packed", weight), h, weight, *_tables(trees)
        )
        inner = len(trees.inner)
        dz = call.buffer("inner dz", (inner, self.hidden_size), dtype)
        states = call.buffer("inner states", (inner, weight.shape[1]), dtype)
        tree_structure.pick(dz, dp, trees.inner)
        tree.join_children(states, h, trees.inner, trees.child_starts, trees.children)
        self._add_state_gradient(call, self.weight_hh, dz, states, trees.inner_starts[bounds])
        return dp


class TreeLSTM(TreeCell):
    """Child-sum LSTM: Tai, Socher and Manning 2015, section 3.1. The order of children does not
    matter; there may be any number.

    i, o, g = σ, σ, tanh of W_iog x + U Σ_q h_q + b_iog; for each child f_q = σ(W_f x + U_f h_q +
    b_f); c = i g + Σ_q f_q c_q; h = o tanh(c). Backward: see `layers.kernels.tree.lstm_backward`.

    Parameters
    ----------
    input_size, hidden_size
        Sizes C of a node's features and H of its state.
    rng
        Draws the initial weights.
    forget_bias
        Added to the initial bias of the forget gate, so that cells remember at first (Jozefowicz et
        al. 2015, section 2.2).
    all_nodes
        Whether the states h of all nodes are the output, not only those of the roots.
    weight_init, bias_init
        See `layers.init`. `weight_ih` has shape (4 H, C) and `bias` (4 H,), for i, o, g, f;
        `weight_hh` U (3 H, H) and `weight_hh_forget` U_f (H, H).

    Notes
    -----
    Inputs are the nodes' features (N, M, C) and the trees, a `TreeBatch` or its array of parents
    (N, M). The output is (N, H), or (N, M, H) with zeros where there is no node.
    """

    @renamed(in_features="input_size", hidden="hidden_size")
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator,
        forget_bias: float = 1.0,
        all_nodes: bool = False,
        weight_init: Initializer = lecun_uniform,
        bias_init: Initializer = zeros,
        dtype: Any = np.float32,
    ) -> None:
        options: dict[str, Any] = {
            "weight_init": weight_init,
            "bias_init": bias_init,
            "dtype": dtype,
        }
        super().__init__(input_size, hidden_size, 4, rng=rng, all_nodes=all_nodes, **options)
        forget_bias = number("TreeLSTM", "forget_bias", forget_bias, "1 is usual.")
        self.bias.value[3 * self.hidden_size :] += forget_bias
        self.weight_hh = Parameter(
            drawn("TreeLSTM", weight_init, rng, (3 * self.hidden_size, self.hidden_size), dtype)
        )
        self.weight_hh_forget = Parameter(
            drawn("TreeLSTM", weight_init, rng, (self.hidden_size, self.hidden_size), dtype)
        )

    def _of_states(self, trees: TreeBatch) -> int:
        forgetting = len(trees.children) * self.weight_hh_forget.value.size
        return len(trees.inner) * self.weight_hh.value.size + forgetting

    def _scratch(self, call: ForwardCall, trees: TreeBatch, dtype: Any) -> list[Array]:
        """Return the rows of a level (m, 3 H) and (m, H), and of its edges, twice (edges, H); then
        the packed weights.
        """
        sizes = {
            "z": (trees.widest, 3),
            "sums": (trees.widest, 1),
            "zf": (trees.most_edges, 1),
            "states": (trees.most_edges, 1),
        }
        rows = [
            call.buffer(name, (count, parts * self.hidden_size), dtype)
            for name, (count, parts) in sizes.items()
        ]
        weights = {"packed": self.weight_hh.value, "packed_f": self.weight_hh_forget.value}
        return [*rows, *(self._packed(call, name, weight) for name, weight in weights.items())]

    def states(self, call: ForwardCall, own: Array, trees: TreeBatch) -> tuple[Array, ...]:
        count, dtype = len(own), own.dtype
        h, c, t, f = (
            call.buffer(name, (count, self.hidden_size), dtype) for name in ("h", "c", "t", "f")
        )
        gates = call.buffer("gates", (count, 3 * self.hidden_size), dtype)
        z, sums, zf, states, *packed = self._scratch(call, trees, dtype)
        weights = (self.weight_hh.value, self.weight_hh_forget.value)
        tree.lstm(h, c, t, gates, f, z, zf, sums, states, *packed, own, *weights, *_tables(trees))
        return h, c, t, gates, f

    def states_backward(
        self, call: "Call", dh: Array, kept: tuple[Array, ...], trees: TreeBatch, bounds: Integers
    ) -> Array:
        h, c, t, gates, f = kept
        dtype = h.dtype
        dp = call.buffer("dp", (len(h), 4 * self.hidden_size), dtype)
        df, dc = (call.buffer(name, h.shape, dtype) for name in ("df", "dc"))
        dz, dsums, dzf, dstates, *packed = self._scratch(call, trees, dtype)
        weights = [
            call.feedback(parameter) for parameter in (self.weight_hh, self.weight_hh_forget)
        ]
        tables = _tables(trees)
        tree.lstm_backward(
            dp, df, dh, dc, dz, dsums, dzf, dstates, *packed, c, t, gates, f, *weights, *tables
        )
        inner = len(trees.inner)
        dz = call.buffer("inner dz", (inner, 3 * self.hidden_size), dtype)
        sums = call.buffer("inner sums", (inner, self.hidden_size), dtype)
        tree_structure.pick(dz, dp, trees.inner)
        tree.sum_children(sums, h, trees.inner, trees.child_starts, trees.children)
        self._add_state_gradient(call, self.weight_hh, dz, sums, trees.inner_starts[bounds])
        self._add_state_gradient(call, self.weight_hh_forget, df, h, trees.starts[bounds])
        return dp
