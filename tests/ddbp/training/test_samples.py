"""Samples of several inputs and targets, and how they reach the model."""

import numpy as np
import pytest

import ddbp
from layers import Composite, Linear, MeanSquaredError, SoftmaxCrossEntropy, Value, tanh

from .sentences import FIRST, RNG, WORDS, A, B
from .small import LABELS, X, make


class Two(Composite):
    """Two inputs and two outputs."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.of_a, self.of_b = Linear(4, 5, rng=rng), Linear(3, 5, rng=rng)
        self.head = Linear(5, 2, rng=rng)

    def __call__(self, a, b):
        assert type(a) is type(b)
        h = tanh(self.of_a(a) + self.of_b(b))
        return {"both": self.head(h), "sum": h.sum(axis=1)}


def both_losses(prediction, y):
    """Return the sum of two losses."""
    assert y.keys() == {"label", "number"}
    error = MeanSquaredError()(prediction["both"], y["number"])
    return error + 0.5 * SoftmaxCrossEntropy()(prediction["both"], y["label"])


@pytest.mark.parametrize(
    ("x", "call"),
    [
        ((A, B), lambda model, x: model(*x)),
        ({"b": B, "a": A}, lambda model, x: model(**x)),
    ],
    ids=["tuple", "dict"],
)
def test_several_inputs_and_targets_reach_model_and_loss_in_every_way(x, call):
    y = {"label": FIRST % 2, "number": RNG.standard_normal((45, 2))}
    data = ddbp.ArrayDataset(x, y)
    fitted, looped, stepped = (
        make(Two(), loss=both_losses, batch_size=9, shards=3) for _ in range(3)
    )
    fitted.fit(data, epochs=2, validation=data)
    for batch in looped.batches(data, epochs=2):
        looped.step(both_losses(call(looped.model, batch.x), batch.y))
    assert looped.parameters_sha256() == fitted.parameters_sha256()
    stepped.train_step(x, y)
    batch = fitted.batch(x, y)
    assert batch.samples == 45
    prediction = fitted.predict(x)
    direct = fitted.model(A.astype(np.float32), B.astype(np.float32))
    assert prediction["both"].tobytes() == direct["both"].tobytes()
    assert prediction["sum"].shape == (45,)
    error = np.mean((direct["both"] - y["number"]) ** 2)
    error += 0.5 * float(SoftmaxCrossEntropy()(direct["both"], y["label"]))
    assert fitted.evaluate(data)["loss"] == pytest.approx(error, rel=1e-5)


def test_inputs_may_be_nested():
    data = ddbp.ArrayDataset({"pair": (A, WORDS), "mask": A > 0}, FIRST)
    (batch,) = make(batch_size=45).batches(data)
    values, tokens, lengths = batch.x["pair"]
    assert [type(part) for part in (values, tokens, lengths)] == [Value, Value, np.ndarray]
    assert batch.x["mask"].dtype == np.bool_
    assert type(batch.x["mask"]) is np.ndarray
    assert values.dtype == np.float32


def test_metrics_get_arrays_of_the_structure():
    def largest(prediction, y):
        assert type(prediction["both"]) is np.ndarray
        return np.abs(prediction["sum"] - y["label"])

    y = {"label": FIRST % 2, "number": RNG.standard_normal((45, 2))}
    trainer = make(Two(), loss=both_losses, batch_size=9, metrics={"largest": largest})
    found = trainer.evaluate(ddbp.ArrayDataset((A, B), y))["largest"]
    assert found == pytest.approx(
        np.abs(trainer.predict((A, B))["sum"] - y["label"]).mean(), rel=1e-6
    )


def test_split_keeps_all_parts_of_a_sample_together():
    number = np.arange(45)
    data = ddbp.ArrayDataset(
        {"a": number, "words": [np.full(1 + n % 5, n) for n in number]},
        (number, -number),
        weights=number + 1.0,
    )
    for part in data.split(0.3):
        assert (
            part.x["words"].values.tolist() == np.repeat(part.x["a"], 1 + part.x["a"] % 5).tolist()
        )
        assert (part.y[0] == part.x["a"]).all()
        assert (part.y[1] == -part.x["a"]).all()
        assert (part.weights == part.x["a"] + 1).all()


def test_digest_tells_every_part_of_data_apart():
    other, words = A.copy(), [word.copy() for word in WORDS]
    other[3, 1] += 1
    words[7][0] += 1
    data = [
        ((A, B), FIRST, None),
        ((other, B), FIRST, None),
        ((B, A), FIRST, None),
        ({"a": A, "b": B}, FIRST, None),
        ((A, B), (FIRST,), None),
        ((A, B), FIRST, A[:, 0] ** 2),
        (WORDS, FIRST, None),
        (words, FIRST, None),
        (ddbp.Ragged(WORDS, padding=1), FIRST, None),
    ]
    digests = {ddbp.ArrayDataset(x, y, weights=w).digest() for x, y, w in data}
    assert len(digests) == len(data)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ((A, B[:-1]), FIRST, r"x\[0\], x\[1\] and y must have the same length; got \(45, 44, 45\)"),
        ({"a": A}, FIRST[1:], r"x\['a'\] and y must have the same length; got \(45, 44\)"),
        (WORDS[1:], FIRST, r"x and y must have the same length; got \(44, 45\)"),
        ((), FIRST, r"x must hold an array; got \(\)"),
        (
            {"a": WORDS, "a_lengths": FIRST},
            FIRST,
            r"x must leave the name a_lengths to the lengths of 'a'; got \['a', 'a_lengths'\]",
        ),
        (A, (0, 1), r"y\[0\] must hold one sample or more; got shape \(\)\. .* a tuple several"),
        ((A, [["cat"]] * 45), FIRST, r"x\[1\] must be numeric; got <U3"),
        ((A, np.where(A > 9, A, np.nan)), FIRST, r"x\[1\] must be finite; got nan at x\[1\]\[0, 0"),
        ([[[1], [1, 2]], [[1], [2, 3]]], [0, 1], r"x must be an array, or a list of arrays that"),
        (np.array(WORDS, object), FIRST, r"x must be numeric; got object\. Pass sequences of diff"),
        ((row for row in A), FIRST, r"x must be an array; got a generator. Collect it: x=np.stack"),
    ],
)  # fmt: skip
def test_wrong_structures_are_refused_by_the_name_of_the_part(x, y, said):
    with pytest.raises((ValueError, TypeError), match=f"^ArrayDataset: {said}"):
        ddbp.ArrayDataset(x, y)


def test_tensors_are_arrays_or_told_how_to_become_one():
    torch = pytest.importorskip("torch")
    data = ddbp.ArrayDataset(torch.zeros(3, 2), torch.arange(3))
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int64)
    with pytest.raises(TypeError, match=r"x must be an array; got Tensor: .* Of a tensor pass"):
        ddbp.ArrayDataset(torch.zeros(3, 2, requires_grad=True), torch.arange(3))


@pytest.mark.parametrize(
    ("x", "inputs", "got"),
    [
        ((A, B), "input 0, input 1", "too many positional arguments"),
        ({"a": A, "c": B}, "a, c", "missing a required argument: 'x'"),
        (WORDS, "input 0, input 1", "too many positional arguments"),
    ],
)
def test_model_that_takes_other_inputs_is_refused_with_those_that_there_are(x, inputs, got):
    class One(Composite):
        def __init__(self):
            self.layer = Linear(4, 3, rng=np.random.default_rng(0))

        def __call__(self, x):
            return self.layer(x)

    trainer = make(One(), batch_size=9)
    said = f"^Trainer: the model must take what the data hold: {inputs}; got {got}"
    for run in (
        lambda: trainer.fit(ddbp.ArrayDataset(x, FIRST), epochs=1),
        lambda: trainer.evaluate(ddbp.ArrayDataset(x, FIRST)),
        lambda: trainer.predict(x),
    ):
        with pytest.raises(TypeError, match=said):
            run()


@pytest.mark.parametrize(
    ("data", "fix"),
    [
        ((X, LABELS), r"got tuple\. Write ArrayDataset\(\*data\)"),
        (zip(X, LABELS, strict=True), r"got zip\. Write ddbp\.data\.GeneratorSource\(lambda"),
        (X, r"got ndarray\. Write ArrayDataset\(x, y\), with"),
        ([(X[0], 1)], r"got list\. Write ddbp\.data\.ItemSource\(data\)"),
        (None, r"got NoneType\. Use ArrayDataset\(x, y\)"),
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_refused_with_what_to_write(data, fix):
    with pytest.raises(
        TypeError, match=f"^Trainer: data must be an ArrayDataset or a Source; {fix}"
    ):
        make().fit(data, epochs=1)
