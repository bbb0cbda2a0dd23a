"""Several inputs, masks, tokens and sequences of different lengths; and what is explained."""

import numpy as np
import pytest

from ddbp import ArrayDataset, Ragged, attribution
from layers import Composite, Embedding, Linear, Sequential, models

from .networks import Bag, cnn, images, tagger
from .test_gradients import METHODS

RNG = np.random.default_rng(0)
TOKENS, ROW, MASK = (
    RNG.integers(0, 11, (4, 5)),
    RNG.standard_normal((4, 3)),
    RNG.random((4, 5)) < 0.7,
)
MASK[0, :2] = True, False


@pytest.mark.parametrize("method", METHODS)
def test_several_inputs_get_theirs_and_masks_none(method):
    of_tuple = method(Bag(), (TOKENS, ROW, MASK), 1)
    of_dict = method(Bag(), {"mask": MASK, "row": ROW, "tokens": TOKENS}, 1)
    tokens, row, mask = of_tuple.values
    assert (tokens.shape, row.shape, mask) == ((4, 5), (4, 3), None)
    assert (tokens[~MASK] == 0).all()
    assert (tokens[MASK] != 0).any()
    if method is not attribution.smooth_grad:
        # Its noise is keyed by the order of inputs.
        np.testing.assert_array_equal(of_dict.values["tokens"], tokens)
        np.testing.assert_array_equal(of_dict.values["row"], row)
    assert list(of_dict.values) == ["mask", "row", "tokens"]


def test_contributions_of_several_inputs_add_up_together():
    for baseline in (None, (0, ROW[:1], None), (TOKENS[::-1], ROW[::-1], None)):
        for size in (3, 64):
            found = attribution.deep_lift(
                Bag(), (TOKENS, ROW, MASK), 1, baseline=baseline, batch_size=size
            )
            assert np.abs(found.error).max() < 1e-5
            total = found.values[0].sum(axis=1) + found.values[1].sum(axis=1)
            np.testing.assert_allclose(
                total, found.scores - found.baseline_scores, rtol=1e-4, atol=1e-5
            )


def test_the_baseline_of_tokens_is_a_token():
    found = attribution.integrated_gradients(Bag(), (TOKENS, ROW, MASK), 1, baseline=(4, ROW, None))
    theirs = Bag()(np.full_like(TOKENS, 4), ROW.astype(np.float32), MASK)
    np.testing.assert_allclose(found.baseline_scores, theirs[:, 1], rtol=1e-6)
    assert (found.values[0][TOKENS == 4] == 0).all()
    with pytest.raises(TypeError, match=r"the baseline of tokens must be tokens; got 0\.5"):
        attribution.integrated_gradients(Bag(), (TOKENS, ROW, MASK), baseline=(0.5, None, None))
    with pytest.raises(TypeError, match="baseline must be None, a number, or a tuple"):
        attribution.integrated_gradients(Bag(), (TOKENS, ROW, MASK), baseline=(0, None))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "method", [attribution.integrated_gradients, attribution.deep_lift, attribution.occlusion]
)
def test_a_baseline_that_the_type_of_the_model_cannot_hold_is_refused(method):
    with pytest.raises(ValueError, match=r"baseline must be at most 3\.40.*got 1e\+300\. Scale"):
        method(cnn(dtype=np.float32), images(), 1, baseline=1e300)
    with pytest.raises(ValueError, match=r"got -1e\+300 at baseline\[1\]"):
        method(cnn(dtype=np.float32), images(), 1, baseline=[0, -1e300])
    with pytest.raises(TypeError, match=r"the baseline of tokens must be tokens; got 1e\+300"):
        method(tagger(), TOKENS, baseline=1e300)


@pytest.mark.parametrize("method", METHODS[:-2] + METHODS[-1:])
def test_sequences_of_different_lengths_get_attributions_of_their_lengths(method):
    x = [RNG.integers(0, 11, n) for n in (3, 7, 2)]
    found = method(tagger(), x)
    assert isinstance(found.values, Ragged)
    assert found.values.lengths.tolist() == [3, 7, 2]
    if found.error is not None and method is attribution.integrated_gradients:
        assert np.abs(found.error).max() < 1e-3


def test_a_table_looked_up_twice_is_one_input():
    class Twice(Composite):
        def __init__(self):
            self.one, self.two = (Embedding(5, 3, rng=RNG) for _ in range(2))

        def __call__(self, ids):
            return (self.one(ids) * 2 + self.two(ids)).sum(axis=2).sum(axis=1)

    model, ids = Twice(), RNG.integers(0, 5, (4, 6))
    found = attribution.integrated_gradients(model, ids)
    assert found.values.shape == ids.shape
    assert np.abs(found.error).max() < 1e-5
    hidden = attribution.occlusion(model, ids)
    np.testing.assert_allclose(hidden.values, found.values, rtol=1e-4, atol=1e-5)


def test_integers_that_reach_no_embedding_and_what_is_no_model_are_refused():
    with pytest.raises(TypeError, match="inputs of integers must go to an Embedding as they are"):
        attribution.saliency(lambda x: x * 1.0, TOKENS)
    with pytest.raises(TypeError, match="an input must be of numbers or tokens; got booleans"):
        attribution.saliency(lambda mask: images()[:4], MASK)
    with pytest.raises(TypeError, match="model must be a model; got 3"):
        attribution.saliency(3, ROW)
    with pytest.raises(TypeError, match=r"Pass dataset\.x\."):
        attribution.saliency(cnn(), ArrayDataset(images(), np.zeros(5, int)))
    with pytest.raises(ValueError, match="x must be finite"):
        attribution.saliency(cnn(), np.full((1, 8, 8, 2), np.nan))
    with pytest.raises(TypeError, match="the output must be a value of the tape"):
        attribution.saliency(lambda x: x.array, ROW)
    with pytest.raises(TypeError, match=r"outputs must be floating numbers \(N, \.\.\.\)"):
        attribution.saliency(lambda x: x.sum(), ROW)


def test_the_largest_output_is_explained_unless_a_target_is_given():
    logits = cnn()(images())
    found = attribution.saliency(cnn(), images(), batch_size=2)
    np.testing.assert_array_equal(found.indices[:, 0], logits.argmax(axis=1))
    np.testing.assert_array_equal(found.scores, logits.max(axis=1))
    given = attribution.saliency(cnn(), images(), logits.argmax(axis=1))
    assert given.sha256() == found.sha256()


def test_the_choice_at_the_sample_holds_all_the_way_from_the_baseline():
    # At 0 the second output is larger, at x the first one.
    head = Linear(1, 2, rng=RNG, dtype=np.float64)
    head.weight.value, head.bias.value = np.array([[2.0], [0.0]]), np.array([0.0, 1.0])
    found = attribution.integrated_gradients(Sequential(head), np.array([[1.0]]))
    assert (found.values.item(), found.baseline_scores.item()) == (2.0, 0.0)


def test_targets_are_classes_places_or_functions():
    model, x = (
        models.gpt(RNG, 7, context=6, features=8, depth=1, heads=2),
        RNG.integers(0, 7, (3, 6)),
    )
    logits = model(x)
    for target, chosen in (
        ((5, 2), logits[:, 5, 2]),
        ([[5, 2], [1, 0], [3, 6]], logits[[0, 1, 2], [5, 1, 3], [2, 0, 6]]),
        (lambda y: y[:, -1, 3], logits[:, -1, 3]),
        (lambda y: y[:, 2].sum(axis=1), logits[:, 2].sum(axis=1)),
    ):
        found = attribution.gradient_times_input(model, x, target)
        np.testing.assert_allclose(found.scores, chosen, rtol=1e-5, atol=1e-6)
        assert attribution.gradient_times_input(model, x, target, batch_size=1).sha256() == (
            found.sha256()
        )
    # What is later than the explained place has no influence: attention is causal.
    assert (attribution.saliency(model, x, (2, 0)).values[:, 3:] == 0).all()


def test_targets_that_are_none_are_refused_by_name():
    model, x = cnn(), images()
    with pytest.raises(
        ValueError, match=r"target must be in 0\.\.2; got 3 of sample 1\. The output"
    ):
        attribution.saliency(model, x, [0, 3, 0, 0, 0])
    with pytest.raises(ValueError, match=r"target must be in 0\.\.2; got -1 of sample 4"):
        attribution.saliency(model, x, [0, 1, 0, 0, -1], batch_size=2)
    with pytest.raises(TypeError, match=r"target must be an integer, or integers.*got float64"):
        attribution.saliency(model, x, np.ones(5))
    with pytest.raises(ValueError, match=r"of 5 samples; got shape \(4,\)"):
        attribution.saliency(model, x, [0, 1, 2, 0])
    with pytest.raises(ValueError, match="target must have one index for each of the axes"):
        attribution.saliency(model, x, (0, 1))
    with pytest.raises(ValueError, match="target must return one number for each sample"):
        attribution.saliency(model, x, lambda y: y)
    with pytest.raises(TypeError, match="the model must have one output"):
        attribution.saliency(lambda x: (x, x), ROW)
    with pytest.raises(ValueError, match="target must be given where an output has more axes"):
        attribution.saliency(lambda x: x * 2, x)
    assert attribution.saliency(lambda x: x * x, ROW[:, 0]).values.shape == (4,)
