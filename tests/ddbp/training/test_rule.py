"""`Trainer(rule=…)`: how rules are named, what they are part of, and what they change."""

import re

import numpy as np
import pytest

import ddbp
from ddbp import export
from ddbp.commands import checkpoint as commands
from ddbp.training import learning
from layers import GRU, Linear, ReLU, Rule, Sequential, SoftmaxCrossEntropy
from layers.rules import DirectFeedbackAlignment, FeedbackAlignment, SignSymmetry

RNG = np.random.default_rng(2)
DATA = ddbp.ArrayDataset(RNG.standard_normal((24, 6)), RNG.integers(0, 3, 24))


def model():
    rng = np.random.default_rng(1)
    return Sequential(Linear(6, 8, rng=rng), ReLU(), Linear(8, 3, rng=rng))


def deep():
    """Return a network with two hidden layers."""
    rng = np.random.default_rng(1)
    parts = Linear(6, 8, rng=rng), ReLU(), Linear(8, 8, rng=rng), ReLU(), Linear(8, 3, rng=rng)
    return Sequential(*parts)


def trainer(rule, network=None, **options):
    usual = {"batch_size": 8, "shards": 2, "seed": 5, "quiet": True, "optimizer": ddbp.SGD(0.1)}
    return ddbp.Trainer(
        network or model(), loss=SoftmaxCrossEntropy(), rule=rule, **{**usual, **options}
    )


def test_a_rule_is_named_in_words_or_given_and_has_the_seed_of_the_trainer():
    for given in (
        "feedback_alignment",
        "FeedbackAlignment(seed=5)",
        FeedbackAlignment(seed=5),
    ):
        found = trainer(given)
        assert repr(found.options.rule) == "FeedbackAlignment(seed=5)"
    words = "SignSymmetry('fixed', seed=2)"
    assert repr(trainer(words).options.rule) == words
    assert trainer(None).options.rule is None


@pytest.mark.parametrize(
    "given", ["feedback", "Feedback()", "print(1)", "FeedbackAlignment(x)", 3, FeedbackAlignment]
)
def test_what_is_no_rule_is_refused_with_what_to_write(given):
    with pytest.raises((TypeError, ValueError), match="Trainer: rule must be a"):
        trainer(given)


def test_the_exact_rule_has_the_bits_of_none():
    ours, plain = trainer(Rule()), trainer(None)
    for each in (ours, plain):
        each.fit(DATA, epochs=3)
    assert ours.parameters_sha256() == plain.parameters_sha256()


@pytest.mark.parametrize("rule", [FeedbackAlignment, SignSymmetry, DirectFeedbackAlignment])
def test_fit_single_steps_and_loops_learn_by_the_rule_alike(rule):
    fitted, stepped, looped = (trainer(rule(seed=1)) for _ in range(3))
    fitted.fit(DATA, epochs=2)
    for batch in looped.batches(DATA, epochs=2):
        looped.step(SoftmaxCrossEntropy()(looped.model(batch.x), batch.y))
    assert fitted.parameters_sha256() == looped.parameters_sha256()
    plain = trainer(None)
    for each in (stepped, plain):
        each.train_step(DATA.x[:8], DATA.y[:8])
    first, exact = (each.model[0].weight.value for each in (stepped, plain))
    last, same = (each.model[2].weight.value for each in (stepped, plain))
    assert not np.array_equal(first, exact)
    assert np.array_equal(last, same)


@pytest.mark.parametrize(
    "rule", ["forward_forward", "target_propagation", "difference_target_propagation"]
)
def test_a_loop_on_another_loss_than_the_rules_own_is_refused_and_train_step_is_not(rule):
    looped, stepped = trainer(rule, deep()), trainer(rule, deep())
    before = looped.parameters_sha256()
    for batch in looped.batches(DATA):
        with pytest.raises(ValueError, match=r"own; got .*Train by Trainer\.fit or train_step"):
            looped.step(SoftmaxCrossEntropy()(looped.model(batch.x), batch.y))
        break
    assert looped.parameters_sha256() == before
    for each in (looped, stepped):
        each.train_step(DATA.x[:8], DATA.y[:8])
    assert looped.parameters_sha256() == stepped.parameters_sha256() != before


@pytest.mark.parametrize("rule", ["forward_forward", "feedback_alignment"])
def test_an_update_by_another_gradient_than_the_rules_is_refused(rule):
    ours, other = trainer(rule, deep()), trainer(rule, deep())
    own, criterion = ours.options.rule, SoftmaxCrossEntropy()
    x, y, *_ = ours.batch(DATA.x[:8], DATA.y[:8])
    loss = criterion(ours.model(x), y)
    loss.backward()
    with pytest.raises(ValueError, match=r"by the trainer's rule, .*; got exact backpropagation"):
        ours.update(loss)
    loss, start = own.losses(ours.model, criterion, x, y) or (criterion(ours.model(x), y),) * 2
    start.backward(rule=own)
    ours.update(loss)
    other.train_step(DATA.x[:8], DATA.y[:8])
    assert ours.parameters_sha256() == other.parameters_sha256()


def test_what_was_drawn_is_in_the_state_and_is_used_where_it_is_loaded():
    ours, other = trainer(FeedbackAlignment(seed=1)), trainer(FeedbackAlignment(seed=1))
    ours.fit(DATA, epochs=1)
    state = ours.state()
    names = [name for name in state.arrays if name.startswith("rule.")]
    assert names == ["rule.layers.2.weight"]
    state.arrays["rule.layers.2.weight"] = state.arrays["rule.layers.2.weight"] + 1
    other.load_state(state)
    feedback = other.options.rule.feedback(other.model[2].weight)
    assert np.array_equal(feedback, state.arrays["rule.layers.2.weight"])


def test_what_is_learned_beside_the_model_goes_on_from_a_state_and_is_not_the_models():
    def make():
        return trainer("difference_target_propagation", deep(), optimizer="adam")

    whole, first, second = make(), make(), make()
    whole.fit(DATA, epochs=2)
    first.fit(DATA, epochs=1)
    state = first.state()
    learned = [name for name in state.arrays if name.startswith("learned.")]
    assert learned == [f"learned.inverses.0.layers.0.{part}" for part in ("weight", "bias")]
    second.load_state(state)
    second.fit(DATA, epochs=1)
    assert second.parameters_sha256() == whole.parameters_sha256()
    ours, theirs = (each.state().arrays for each in (whole, second))
    assert all(np.array_equal(ours[name], theirs[name]) for name in learned)
    assert not np.array_equal(ours[learned[0]], state.arrays[learned[0]])
    # The file of a model has its own parameters alone.
    assert [name for name in state.arrays if name.startswith("model.rule")] == []


def test_only_the_first_rank_warns_of_a_rule_that_is_backpropagation():
    rule = learning.checked("difference_target_propagation", 0)
    assert learning.learner(network := model(), rule, warn=False) is network
    with pytest.warns(RuntimeWarning, match="two hidden layers; got one. With one this is backpr"):
        trainer(rule)


def test_forward_forward_is_evaluated_by_what_it_predicts_with():
    network = Sequential(Linear(6, 16, rng=np.random.default_rng(1)), ReLU())
    network = Sequential(network, Linear(16, 3, rng=np.random.default_rng(2)))
    ours = trainer("forward_forward", network, optimizer=ddbp.Adam(0.01))
    ours.fit(DATA, epochs=1)
    predictor = ours.options.rule.predictor(network)
    assert np.allclose(ours.predict(DATA.x), predictor(DATA.x.astype(np.float32)))
    hits = (ours.predict(DATA.x).argmax(axis=1) == DATA.y).mean()
    assert np.isclose(ours.evaluate(DATA)["accuracy"], hits)


class Halved(Rule):
    """A rule of somebody's own that says nothing of its model."""

    def bind(self, model):
        return None

    def error(self, call, dy):
        return dy / 2


@pytest.mark.parametrize(
    "kind", [*learning.names().values(), Halved], ids=lambda kind: kind.__name__
)
def test_a_rule_that_another_trainer_has_got_is_refused_by_the_first(kind):
    rule = kind()
    first, second = trainer(rule, deep()), trainer(rule, deep())
    uses = [
        lambda: first.fit(DATA, epochs=1),
        lambda: first.train_step(DATA.x, DATA.y),
        first.state,
    ]
    if rule.predictor(first.model) is not first.model:
        uses += [lambda: first.predict(DATA.x), lambda: first.evaluate(DATA)]
    second.fit(DATA, epochs=1)
    for use in uses:
        with pytest.raises(RuntimeError, match=r"rule must belong to this trainer; got .* since"):
            use()


def written(rule, folder):
    """Return a checkpoint of a run by a rule, in this folder."""
    checkpoints = ddbp.Checkpoints(every_steps=1)
    trainer(rule, deep(), run_dir=folder, callbacks=[checkpoints]).fit(DATA, epochs=1)
    return sorted(folder.rglob("step-*"))[-1]


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("FeedbackAlignment(seed=0)", "FeedbackAlignment(seed=5)"),
        ("feedback_alignment", "direct_feedback_alignment"),
        ("direct_feedback_alignment", "SignSymmetry('fixed')"),
        (None, "feedback_alignment"),
        ("feedback_alignment", "feedback_alignment"),
    ],
)
def test_a_run_that_goes_on_by_another_rule_draws_as_that_one_does(there, here, tmp_path):
    ours = trainer(here, deep(), resume=written(there, tmp_path), resume_options=["rule"])
    fresh = trainer(here, deep())
    for each in (ours, fresh):
        each.train_step(DATA.x[:8], DATA.y[:8])
    drawn, expected = (each.options.rule.state() for each in (ours, fresh))
    assert drawn.keys() == expected.keys()
    assert drawn
    assert all(np.array_equal(drawn[name], expected[name]) for name in drawn)


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (None, "target_propagation"),
        ("feedback_alignment", "target_propagation"),
        ("target_propagation", "feedback_alignment"),
    ],
)
def test_a_run_cannot_go_on_by_a_rule_with_other_parameters(there, here, tmp_path):
    checkpoint = written(there, tmp_path)
    said = r"(rule|learned)\.\S+ must be .* cannot go on after this change of rule\. .*`ddbp check"
    with pytest.raises(ValueError, match=said):
        trainer(here, deep(), resume=checkpoint, resume_options=["rule"])
    # Nor is an option advised that would be refused then.
    with pytest.raises(ValueError, match=r"same rule; got .* cannot go on after this change of ru"):
        trainer(here, deep(), resume=checkpoint)
    # What it says to do instead.
    network, path = deep(), tmp_path / "exported"
    assert commands.run(["export", str(checkpoint), "-o", str(path)]) == 0
    ddbp.load_parameters(network, path)
    trainer(here, network).fit(DATA, epochs=1)


def test_what_a_run_leaves_predicts_as_its_trainer_does(tmp_path):
    network = Sequential(Linear(6, 16, rng=np.random.default_rng(1)), ReLU())
    network = Sequential(*network, Linear(16, 3, rng=np.random.default_rng(2)))
    callbacks = [ddbp.Checkpoints(every_epochs=1)]
    ours = trainer("forward_forward", network, run_dir=tmp_path, callbacks=callbacks)
    ours.fit(DATA, epochs=2)
    x = DATA.x.astype(np.float32)
    logits = ours.predict(x)
    # Not as the network does by itself.
    assert (logits.argmax(axis=1) != network(x).argmax(axis=1)).any()
    assert np.array_equal(export.load_run(tmp_path).predict(x), logits)
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as found:
        pairs = found["pairs"]
    confusion = np.zeros((3, 3), int)
    confusion[pairs[:, 0], pairs[:, 1]] = pairs[:, 2]
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (DATA.y, logits.argmax(axis=1)), 1)
    assert np.array_equal(confusion, expected)
    # The file of parameters is still that of the network.
    parameters = tmp_path / "model.safetensors"
    ddbp.load_parameters(Sequential(*network), parameters)
    parameters.unlink()
    assert np.array_equal(export.load_run(tmp_path).predict(x), logits)


def test_a_state_of_another_rule_is_refused_by_name():
    state = trainer("feedback_alignment").state()
    with pytest.raises(ValueError, match=r"same rule; got FeedbackAlignment\(seed=5\) in"):
        trainer(None).load_state(state)


def test_a_state_from_before_there_were_rules_is_one_without():
    ours, other = trainer(None), trainer(None)
    ours.fit(DATA, epochs=1)
    state = ours.state()
    del state.values["facts.rule"]
    other.load_state(state)
    assert other.parameters_sha256() == ours.parameters_sha256()


def test_a_layer_that_the_rule_does_not_define_is_refused_when_the_trainer_is_made():
    network = Sequential(GRU(6, 4, last=True, rng=RNG), Linear(4, 3, rng=RNG))
    with pytest.raises(ValueError, match="DirectFeedbackAlignment: layers with weights must be"):
        trainer("direct_feedback_alignment", network)


def test_the_options_of_a_run_folder_name_the_rule(tmp_path):
    trainer(SignSymmetry("fixed", seed=3), run_dir=tmp_path).fit(DATA, epochs=1)
    options = ddbp.TrainerOptions.read(tmp_path)
    assert repr(options.rule) == "SignSymmetry('fixed', seed=3)"


def test_the_flag_of_scripts_names_the_rules():
    flags = ddbp.script.Flags("Learn.", epochs=1, batch_size=8, learning_rate=0.1)
    assert flags.parse_args([]).rule is None
    for words in ("sign_symmetry", "FeedbackAlignment(seed=3)"):
        assert flags.parse_args(["--rule", words]).rule == words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("backwards", "rule must be a .*; got 'backwards'. Names are "),
        ("FeedbackAlignment(often=3)", "rule must be a .*; got 'FeedbackAlignment"),
        ("FeedbackAlignment(seed=-1)", "FeedbackAlignment: seed must "),
        ("SignSymmetry(3)", "SignSymmetry: magnitudes must "),
        ("MeProp(", "rule must be a "),
        ("", "rule must be a "),
    ],
)
def test_the_flag_of_scripts_refuses_what_is_no_rule_in_one_line(words, said, capsys):
    flags = ddbp.script.Flags("Learn.", epochs=1, batch_size=8, learning_rate=0.1)
    with pytest.raises(SystemExit, match="2"):
        flags.parse_args(["--rule", words])
    first, *others = capsys.readouterr().err.splitlines()
    assert re.search(f"error: argument --rule: .*{said}", first)
    assert len(others) == 1


@pytest.mark.parametrize(
    "words", ["backwards", "SignSymmetry(fixed)", "SignSymmetry('fixed', often=3)", "SignSymmetry("]
)
def test_words_that_are_no_rule_are_refused_with_the_names_of_all(words):
    with pytest.raises(ValueError, match=r"rule must be a layers\.Rule.*Names are .*, meprop"):
        trainer(words)
