"""Every layer and loss against PyTorch: the outputs, and the gradients of inputs and parameters."""

import numpy as np
import pytest

import layers

from .oracle_rows import LARGE, ODD, ROWS, Case, layer, with_zeros

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install 'ddbp[oracle]'"
)
F = torch.nn.functional

# Multiples of the unit roundoff that a compared element may be off, relative to the largest element
# of its array. PyTorch sums in another order; the longest sum here has 300 terms.
ROUNDINGS = 64


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def positive(rng, shape):
    return rng.uniform(0.2, 3, shape)


def labels(classes, *shape):
    return np.random.default_rng(3).integers(0, classes, shape)


def probabilities(*shape):
    p = np.random.default_rng(4).random(shape)
    return p / p.sum(axis=-1, keepdims=True)


class With(layers.Composite):
    """A loss with a constant target, so that every case is a function of floating inputs."""

    def __init__(self, loss, target, prediction=lambda *inputs: inputs):
        self.loss, self.target, self.prediction = loss, target, prediction

    def __call__(self, *inputs):
        return self.loss(*self.prediction(*inputs), self.target)


class Apply(layers.Composite):
    """A function of values as a layer."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *inputs):
        return self.function(*inputs)


def of(array, x):
    """Return an array as a tensor of the type of x."""
    return torch.tensor(array).to(x.dtype)


def their_cosine_embedding(a, b):
    # torch's own adds 1e-12 to the squares of norms.
    cosine, alike = F.cosine_similarity(a, b), torch.tensor(labels(2, 13)) == 1
    return torch.where(alike, 1 - cosine, torch.clamp(cosine - 0.2, min=0)).mean()


WEIGHTS = np.array([1.0, 3.0, 0.5])


def mlp(rng):
    return layers.Sequential(
        layers.Flatten(),
        layers.Linear(12, 20, rng=rng),
        layers.GELU(),
        layers.Residual(layers.Linear(20, 20, rng=rng)),
        layers.Tanh(),
    )


def their_mlp(x, w1, b1, w2, b2):
    h = F.gelu(F.linear(x.flatten(1), w1, b1))
    return torch.tanh(F.linear(h, w2, b2) + h)


def ce(target, **options):
    def theirs(x):
        t = torch.as_tensor(target)
        t = t.to(x.dtype).reshape(-1, x.shape[-1]) if t.is_floating_point() else t.reshape(-1)
        return F.cross_entropy(x.reshape(-1, x.shape[-1]), t, **options)

    return theirs


SMALL = (4, 3)

CASES = [
    Case(
        "linear",
        lambda rng: layers.Linear(300, 37, rng=rng, bias_init=layers.init.normal(1)),
        (LARGE,),
        F.linear,
    ),
    Case("linear one sample", lambda rng: layers.Linear(3, 1, rng=rng), ((1, 3),), F.linear),
    Case(
        "linear without bias",
        lambda rng: layers.Linear(13, 6, rng=rng, bias=False),
        ((9, 13),),
        F.linear,
    ),
    Case(
        "linear with more axes",
        lambda rng: layers.Linear(13, 6, rng=rng, bias_init=layers.init.ones),
        (ODD,),
        F.linear,
    ),
    Case("relu", layer(layers.ReLU), (ODD,), F.relu, with_zeros),
    Case("leaky relu", layer(layers.LeakyReLU), (ODD,), F.leaky_relu, with_zeros),
    Case(
        "leaky relu 0.3",
        layer(lambda: layers.LeakyReLU(0.3)),
        (ODD,),
        lambda x: F.leaky_relu(x, 0.3),
        with_zeros,
    ),
    Case("sigmoid", layer(layers.Sigmoid), (ODD,), torch.sigmoid),
    Case("tanh", layer(layers.Tanh), (ODD,), torch.tanh),
    Case("silu", layer(layers.SiLU), (ODD,), F.silu),
    Case("gelu", layer(layers.GELU), (ODD,), F.gelu),
    Case(
        "gelu tanh",
        layer(lambda: layers.GELU("tanh")),
        (ODD,),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    Case("softmax", layer(layers.Softmax), (ODD,), lambda x: F.softmax(x, dim=-1)),
    Case(
        "softmax of many classes", layer(layers.Softmax), (LARGE,), lambda x: F.softmax(x, dim=-1)
    ),
    *ROWS,
    Case("flatten", layer(layers.Flatten), (ODD,), lambda x: x.flatten(1)),
    Case("reshape", layer(lambda: layers.Reshape(13, -1)), (ODD,), lambda x: x.reshape(7, 13, 5)),
    Case("add", layer(layers.Add), (ODD, ODD, ODD), lambda a, b, c: a + b + c),
    Case("add broadcasting", layer(layers.Add), (ODD, (13,), (7, 1, 1)), lambda a, b, c: a + b + c),
    Case("multiply", layer(layers.Multiply), (ODD, ODD, ODD), lambda a, b, c: a * b * c),
    Case(
        "multiply broadcasting",
        layer(layers.Multiply),
        (ODD, (13,), (7, 1, 1)),
        lambda a, b, c: a * b * c,
    ),
    Case(
        "concatenate",
        layer(layers.Concatenate),
        (SMALL, (4, 1), (4, 5)),
        lambda *x: torch.cat(x, dim=-1),
    ),
    Case(
        "concatenate rows",
        layer(lambda: layers.Concatenate(0)),
        (SMALL, (2, 3)),
        lambda *x: torch.cat(x, dim=0),
    ),
    Case("sequential and residual", mlp, ((6, 4, 3),), their_mlp),
    Case("mean absolute error", layer(layers.MeanAbsoluteError), (ODD, ODD), F.l1_loss),
    Case(
        "Huber",
        layer(lambda: layers.Huber(0.7)),
        (ODD, ODD),
        lambda x, t: F.huber_loss(x, t, delta=0.7),
    ),
    Case(
        "smooth L1",
        layer(lambda: layers.SmoothL1(0.7)),
        (ODD, ODD),
        lambda x, t: F.smooth_l1_loss(x, t, beta=0.7),
    ),
    Case(
        "positives weighted",
        layer(lambda: With(layers.BinaryCrossEntropy((2, 0.5, 3)), labels(2, 9, 3))),
        ((9, 3),),
        lambda x: F.binary_cross_entropy_with_logits(
            x, of(labels(2, 9, 3), x), pos_weight=of(np.array([2, 0.5, 3]), x)
        ),
    ),
    Case(
        "hinge",
        layer(lambda: With(layers.Hinge(), 2 * labels(2, *ODD) - 1)),
        (ODD,),
        lambda x: torch.clamp(1 - x * of(2 * labels(2, *ODD) - 1, x), min=0).mean(),
    ),
    Case(
        "squared hinge",
        layer(lambda: With(layers.Hinge(squared=True), 2 * labels(2, *ODD) - 1)),
        (ODD,),
        lambda x: (torch.clamp(1 - x * of(2 * labels(2, *ODD) - 1, x), min=0) ** 2).mean(),
    ),
    Case(
        "hinge of classes",
        layer(lambda: With(layers.MultiClassHinge(0.8), labels(5, 13))),
        ((13, 5),),
        lambda x: F.multi_margin_loss(x, torch.tensor(labels(5, 13)), margin=0.8),
    ),
    Case(
        "Poisson",
        layer(lambda: With(layers.PoissonNLL(), labels(6, *ODD))),
        (ODD,),
        lambda x: F.poisson_nll_loss(x, of(labels(6, *ODD), x)),
    ),
    Case(
        "Gaussian",
        layer(lambda: With(layers.GaussianNLL(), np.ones(ODD), lambda x, s: (x, s * s + 0.1))),
        (ODD, ODD),
        lambda x, s: F.gaussian_nll_loss(x, torch.ones_like(x), s * s + 0.1, eps=1e-6),
    ),
    Case(
        "Kullback-Leibler divergence",
        layer(lambda: With(layers.KLDivergence(), probabilities(*SMALL))),
        (SMALL,),
        lambda x: F.kl_div(
            F.log_softmax(x, -1).reshape(-1, SMALL[-1]),
            of(probabilities(*SMALL), x).reshape(-1, SMALL[-1]),
            reduction="batchmean",
        ),
    ),
    Case(
        "cosine distance",
        layer(layers.CosineDistance),
        (ODD, ODD),
        lambda x, t: (1 - F.cosine_similarity(x, t, dim=-1)).mean(),
    ),
    Case(
        "cosine embedding",
        layer(lambda: With(layers.CosineEmbedding(0.2), 2 * labels(2, 13) - 1)),
        ((13, 5), (13, 5)),
        their_cosine_embedding,
    ),
    Case(
        "classes weighted",
        layer(lambda: With(layers.SoftmaxCrossEntropy(class_weights=WEIGHTS), labels(3, 13, 7))),
        ((13, 7, 3),),
        lambda x: ce(labels(3, 13, 7), weight=of(WEIGHTS, x))(x),
    ),
    Case(
        "classes weighted, smoothed",
        layer(lambda: With(layers.SoftmaxCrossEntropy(0.2, class_weights=WEIGHTS), labels(3, 13))),
        ((13, 3),),
        lambda x: ce(labels(3, 13), weight=of(WEIGHTS, x), label_smoothing=0.2)(x),
    ),
    Case(
        "classes weighted, probabilities",
        layer(
            lambda: With(layers.SoftmaxCrossEntropy(class_weights=WEIGHTS), probabilities(13, 3))
        ),
        ((13, 3),),
        lambda x: ce(probabilities(13, 3), weight=of(WEIGHTS, x))(x),
    ),
    Case(
        "connectionist temporal classification",
        layer(lambda: With(layers.CTC(), 1 + labels(4, 5, 3))),
        ((5, 9, 6),),
        lambda x: F.ctc_loss(
            F.log_softmax(x, -1).transpose(0, 1),
            torch.tensor(1 + labels(4, 5, 3)),
            torch.full((5,), 9),
            torch.full((5,), 3),
            reduction="none",
        ).mean(),
    ),
    Case("mean squared error", layer(layers.MeanSquaredError), (ODD, ODD), F.mse_loss),
    Case("mean squared error of vectors", layer(layers.MeanSquaredError), ((9,), (9,)), F.mse_loss),
    Case(
        "binary cross-entropy",
        layer(layers.BinaryCrossEntropy),
        (ODD, ODD),
        F.binary_cross_entropy_with_logits,
        lambda rng, shape: rng.random(shape),
    ),
    Case(
        "binary cross-entropy of large logits",
        layer(lambda: With(layers.BinaryCrossEntropy(), labels(2, *ODD))),
        (ODD,),
        lambda x: F.binary_cross_entropy_with_logits(
            x, torch.as_tensor(labels(2, *ODD)).to(x.dtype)
        ),
        lambda rng, shape: rng.standard_normal(shape) * 40,
    ),
    Case(
        "cross-entropy",
        layer(lambda: With(layers.SoftmaxCrossEntropy(), labels(300, 33))),
        (LARGE,),
        ce(labels(300, 33)),
    ),
    Case(
        "cross-entropy smoothed",
        layer(lambda: With(layers.SoftmaxCrossEntropy(0.1), labels(3, 4))),
        (SMALL,),
        ce(labels(3, 4), label_smoothing=0.1),
    ),
    Case(
        "cross-entropy of positions",
        layer(lambda: With(layers.SoftmaxCrossEntropy(), labels(13, 7, 5))),
        (ODD,),
        ce(labels(13, 7, 5)),
    ),
    Case(
        "cross-entropy of positions smoothed",
        layer(lambda: With(layers.SoftmaxCrossEntropy(0.2), labels(13, 7, 5))),
        (ODD,),
        ce(labels(13, 7, 5), label_smoothing=0.2),
    ),
    Case(
        "cross-entropy with probabilities",
        layer(lambda: With(layers.SoftmaxCrossEntropy(), probabilities(*SMALL))),
        (SMALL,),
        ce(probabilities(*SMALL)),
    ),
    Case(
        "cross-entropy with probabilities of positions smoothed",
        layer(lambda: With(layers.SoftmaxCrossEntropy(0.3), probabilities(*ODD))),
        (ODD,),
        ce(probabilities(*ODD), label_smoothing=0.3),
    ),
    Case("exp", layer(lambda: Apply(layers.exp)), (ODD,), torch.exp),
    Case("log", layer(lambda: Apply(layers.log)), (ODD,), torch.log, positive),
    Case("sqrt", layer(lambda: Apply(layers.sqrt)), (ODD,), torch.sqrt, positive),
    Case("sin", layer(lambda: Apply(layers.sin)), (ODD,), torch.sin),
    Case("cos", layer(lambda: Apply(layers.cos)), (ODD,), torch.cos),
    Case("tanh function", layer(lambda: Apply(layers.tanh)), (ODD,), torch.tanh),
    Case("absolute", layer(lambda: Apply(layers.absolute)), (ODD,), torch.abs, with_zeros),
    Case("maximum", layer(lambda: Apply(layers.maximum)), (ODD, (13,)), torch.maximum),
    Case("minimum", layer(lambda: Apply(layers.minimum)), (ODD, (13,)), torch.minimum),
    Case(
        "where",
        layer(lambda: Apply(lambda a, b: layers.where(a > 1, a, b))),
        (ODD, (5, 1)),
        lambda a, b: torch.where(a > 1, a, b),
    ),
    Case("quotient", layer(lambda: Apply(lambda a, b: a / b)), (ODD, (13,)), torch.div, positive),
    Case("power", layer(lambda: Apply(lambda a, b: a**b)), (ODD, (13,)), torch.pow, positive),
    Case(
        "difference", layer(lambda: Apply(lambda a, b: -a - b)), (ODD, (5, 1)), lambda a, b: -a - b
    ),
    Case(
        "matrix product", layer(lambda: Apply(lambda a, b: a @ b)), (LARGE, (300, 21)), torch.matmul
    ),
    Case(
        "matrix product of a transpose",
        layer(lambda: Apply(lambda a, b: a.T @ b)),
        ((12, 5), (12, 7)),
        lambda a, b: a.T @ b,
    ),
    Case(
        "product with a vector",
        layer(lambda: Apply(lambda a, b: a @ b)),
        ((12, 5), (5,)),
        torch.matmul,
    ),
    Case(
        "product of stacks",
        layer(lambda: Apply(lambda a, b: a @ b)),
        ((2, 6, 4), (3, 1, 4, 5)),
        torch.matmul,
    ),
    Case(
        "sum over axes",
        layer(lambda: Apply(lambda a: a.sum(axis=(0, -1)))),
        (ODD,),
        lambda a: a.sum(dim=(0, -1)),
    ),
    Case(
        "mean",
        layer(lambda: Apply(lambda a: a.mean(axis=1, keepdims=True))),
        (ODD,),
        lambda a: a.mean(dim=1, keepdim=True),
    ),
    Case(
        "greatest of an axis",
        layer(lambda: Apply(lambda a: a.max(axis=1))),
        (ODD,),
        lambda a: a.max(dim=1).values,
    ),
    Case("smallest of all", layer(lambda: Apply(lambda a: a.min())), (ODD,), lambda a: a.min()),
    Case(
        "index",
        layer(lambda: Apply(lambda a: a[1:6:2, ..., [3, 3, 0]])),
        (ODD,),
        lambda a: a[1:6:2, ..., [3, 3, 0]],
    ),
    Case(
        "transpose",
        layer(lambda: Apply(lambda a: a.transpose(1, 2, 0))),
        (ODD,),
        lambda a: a.permute(1, 2, 0),
    ),
]


def assert_close(ours, theirs, what):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    scale = max(1e-30, float(np.abs(theirs).max(initial=0)))
    np.testing.assert_allclose(
        ours / scale,
        theirs / scale,
        rtol=0,
        atol=ROUNDINGS * np.finfo(ours.dtype).eps,
        err_msg=what,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_output_and_gradients_equal_those_of_pytorch(case, dtype):
    rng = np.random.default_rng(7)
    model = case.make(rng).astype(dtype)
    inputs = [case.draw(rng, shape).astype(dtype) for shape in case.shapes]
    tape = layers.Tape()
    values = [tape.input(x) for x in inputs]
    y = model(*values)
    # PyTorch in double precision: its own roundings, which depend on the processor, hardly count.
    theirs = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in inputs]
    parameters = [
        torch.tensor(p.value.astype(np.float64), requires_grad=True) for p in model.parameters()
    ]
    expected = case.theirs(*theirs, *parameters)
    assert_close(y.array, expected, "output")
    dy = np.asarray(rng.standard_normal(y.shape), dtype)
    y.backward(dy)
    expected.backward(torch.tensor(dy.astype(np.float64)))
    assert {y.dtype, *(value.grad.dtype for value in values)} == {np.dtype(dtype)}
    for i, (value, x) in enumerate(zip(values, theirs, strict=True)):
        assert_close(value.grad, x.grad, f"gradient of input {i}")
    names = [name for name, _ in model.named_parameters()]
    for name, ours, p in zip(names, model.parameters(), parameters, strict=True):
        assert_close(ours.gradient, p.grad, f"gradient of {name}")


def test_every_layer_and_loss_has_a_case():
    rng = np.random.default_rng(0)
    seen = set()

    def visit(thing):
        seen.add(type(thing).__name__)
        for attribute in vars(thing).values():
            for item in attribute if isinstance(attribute, list) else [attribute]:
                if isinstance(item, layers.Module):
                    visit(item)

    for case in CASES:
        visit(case.make(rng))
    public = {
        name
        for name in layers.__all__
        if isinstance(getattr(layers, name), type)
        and issubclass(getattr(layers, name), layers.Module)
    }
    # Bases have no function of their own; the masks of Dropout are ours, see test_dropout.
    without = {"Module", "Layer", "Composite", "Loss", "Dropout", "Dropout2d", "PaddedShortcut"}
    in_test_pool = {name for name in public if "Pool" in name and "Time" not in name}
    in_test_pool |= {"ChannelsFirst", "ChannelsLast"}
    in_test_conv_oracle = {"Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d"}
    in_test_conv_oracle |= {"ConvTranspose3d"}
    in_test_norm = {"BatchNorm", "BatchNorm2d"}
    as_others = {"InstanceNorm", "InstanceNorm1d"}
    of_sequences = {
        "Recompute",
        "Coefficients",
        "Embedding",
        "RMSNorm",
        "Attention",
        "MultiHeadAttention",
    }
    of_sequences |= {
        "SinusoidalPositions",
        "LearnedPositions",
        "EncoderBlock",
        "DecoderBlock",
        "TreeLSTM",
        "TreeRNN",
    }
    of_sequences |= {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"}
    assert (
        public - seen
        == without | in_test_pool | in_test_conv_oracle | in_test_norm | as_others | of_sequences
    )
