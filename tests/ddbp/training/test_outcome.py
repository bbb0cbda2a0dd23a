"""What is kept of samples at the end of a run: labels taken for others, losses, residuals."""

import json
import re

import numpy as np
import pytest

import ddbp
from ddbp.data.prepared import PreparedDataset
from ddbp.data.series import SeriesReader
from ddbp.report.figures import Figure
from ddbp.report.samples import blocks
from layers import (
    LSTM,
    CosineDistance,
    Embedding,
    Hinge,
    KLDivergence,
    Linear,
    PoissonNLL,
    ReLU,
    Reshape,
    Sequential,
    SoftmaxCrossEntropy,
)

from .small import DATA, LABELS, X, make, network

RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _all_batches(monkeypatch):
    """Look at all batches, however busy the machine is."""
    monkeypatch.setattr("ddbp.training.outcome._SECONDS", np.inf)


def outcome(folder):
    """Return the arrays of a run, which a report can show, and what it says of them."""
    with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
        found = dict(arrays)
    assert blocks(found)
    return found, json.loads(str(found["facts"]))


def losses_of(logits, labels):
    """Return -log softmax(logits)[label], the slow way."""
    return np.array(
        [np.log(np.exp(row - row[label]).sum()) for row, label in zip(logits, labels, strict=True)]
    )


def test_labels_and_worst_samples_are_those_of_the_model_at_the_end(tmp_path):
    trainer = make(run_dir=tmp_path)
    trainer.fit(DATA, epochs=2)
    found, facts = outcome(tmp_path)
    logits = trainer.predict(X).astype(np.float64)
    assert facts == {"data": "training", "samples": 83, "seen": 83, "input": "x"}
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (LABELS, logits.argmax(axis=1)), 1)
    counted = np.zeros((3, 3), int)
    counted[found["pairs"][:, 0], found["pairs"][:, 1]] = found["pairs"][:, 2]
    np.testing.assert_array_equal(counted, confusion)
    losses = losses_of(logits, LABELS)
    np.testing.assert_array_equal(found["numbers"], np.argsort(-losses)[:12])
    np.testing.assert_allclose(found["losses"], np.sort(losses)[:-13:-1], rtol=1e-6)
    worst = found["numbers"][0]
    np.testing.assert_array_equal(found["input0"], X[worst].astype(np.float32))
    assert found["targets"][0] == LABELS[worst]
    sure = np.exp(-losses_of(logits[[worst]], logits[[worst]].argmax(axis=1)))
    np.testing.assert_allclose(found["probabilities"][0], sure, rtol=1e-6)


@pytest.mark.parametrize("kind", ["in memory", "weighted", "source"])
def test_report_has_the_names_of_classes(tmp_path, kind):
    names = ("<red>", "blue", "green")
    encoder = SeriesReader([0.0], [1.0], classes=names)
    data = PreparedDataset(X.astype(np.float64), LABELS, encoder)
    training, _ = ddbp.data.split(data, (0.8, 0.2))
    if kind == "source":
        training = ddbp.data.ArraySource(training.x, training.y)
        training.classes = names
        training = training.subset(np.arange(50))
    weights = {0: 2.0} if kind == "weighted" else None
    make(run_dir=tmp_path).fit(training, epochs=1, class_weight=weights)
    assert outcome(tmp_path)[1]["classes"] == [*names]
    page = (tmp_path / "report.html").read_text()
    assert '<th scope="row">&lt;red&gt;</th>' in page
    assert re.search("label (&lt;red&gt;|blue|green), predicted ", page)
    assert "taken for \u201cblue\u201d" in page


def test_validation_data_are_preferred(tmp_path):
    make(run_dir=tmp_path).fit(DATA, epochs=1, validation=ddbp.ArrayDataset(X[:30], LABELS[:30]))
    assert outcome(tmp_path)[1] == {
        "data": "validation",
        "samples": 30,
        "seen": 30,
        "input": "x",
    }


def test_of_many_samples_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("ddbp.training.outcome.MOST_SAMPLES", 50)
    make(run_dir=tmp_path).fit(DATA, epochs=1)
    found, facts = outcome(tmp_path)
    assert facts["seen"] == found["pairs"][:, 2].sum() == 50
    assert len({*found["numbers"].tolist()}) == 12


def test_no_further_batch_is_looked_at_when_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr("ddbp.training.outcome._SECONDS", -1.0)
    make(run_dir=tmp_path).fit(DATA, epochs=1)
    found, facts = outcome(tmp_path)
    assert facts["seen"] == found["pairs"][:, 2].sum() == 20


def test_residuals_are_kept_for_numbers(tmp_path):
    model = Sequential(Linear(6, 8, rng=RNG), ReLU(), Linear(8, 2, rng=RNG))
    data = ddbp.ArrayDataset(X, X[:, :2] ** 2)
    trainer = make(model, loss="mse", run_dir=tmp_path)
    trainer.fit(data, epochs=1)
    found, _ = outcome(tmp_path)
    squares = ((trainer.predict(X) - X[:, :2] ** 2) ** 2).mean(axis=1)
    np.testing.assert_array_equal(found["numbers"], np.argsort(-squares)[:12])
    worst = found["numbers"]
    np.testing.assert_allclose(found["worst_outputs"], trainer.predict(X)[worst], rtol=1e-6)
    np.testing.assert_allclose(found["worst_expected"], X[worst, :2] ** 2, rtol=1e-6)
    order = np.lexsort(found["expected"].T)
    known = np.lexsort((X[:, :2] ** 2).T)
    np.testing.assert_allclose(found["outputs"][order], trainer.predict(X)[known], rtol=1e-6)
    titles = {each.title for each in blocks(found) if isinstance(each, Figure)}
    assert {"Residuals of output 0", "Distribution of the residuals of output 1"} <= titles


def test_two_classes_of_one_output_are_labels(tmp_path):
    model = Sequential(Linear(6, 1, rng=RNG))
    targets = (X[:, :1] > 0).astype(float)
    trainer = make(model, loss="binary_cross_entropy", run_dir=tmp_path)
    trainer.fit(ddbp.ArrayDataset(X, targets), epochs=1)
    found, _ = outcome(tmp_path)
    right = found["pairs"][found["pairs"][:, 0] == found["pairs"][:, 1], 2].sum()
    assert right == ((trainer.predict(X) > 0) == (targets > 0.5)).sum()


def test_positions_that_do_not_count_are_left_out(tmp_path):
    words = [RNG.integers(0, 6, length) for length in RNG.integers(2, 9, 40)]
    tags = [np.where(word == 0, -1, word % 2) for word in words]
    data = ddbp.ArrayDataset(ddbp.Ragged(words), ddbp.Ragged(tags))
    model = Sequential(Embedding(6, 4, rng=RNG), LSTM(4, 8, rng=RNG), Linear(8, 2, rng=RNG))
    make(model, loss=SoftmaxCrossEntropy(ignore=-1), run_dir=tmp_path).fit(data, epochs=1)
    found, _ = outcome(tmp_path)
    assert found["pairs"][:, 2].sum() == sum((tag >= 0).sum() for tag in tags)
    np.testing.assert_array_equal(found["input0"], words[found["numbers"][0]])


def test_numbers_that_do_not_count_are_left_out(tmp_path):
    """Where a target is not known, whatever stands there is no residual."""
    known = RNG.random((len(X), 2)) < 0.7
    targets = np.where(known, X[:, :2], 99)
    model = Sequential(Linear(6, 8, rng=RNG), ReLU(), Linear(8, 2, rng=RNG))
    trainer = make(model, loss="mse", run_dir=tmp_path)
    trainer.fit(ddbp.ArrayDataset(X, targets, weights=known.astype(float)), epochs=1)
    found, _ = outcome(tmp_path)
    assert np.nanmax(found["expected"]) < 99
    assert np.isfinite(found["expected"]).sum() == known.sum()
    squares = np.where(known, (trainer.predict(X) - targets) ** 2, 0)
    means = squares.sum(axis=1) / np.maximum(1, known.sum(axis=1))
    np.testing.assert_array_equal(found["numbers"], np.argsort(-means, kind="stable")[:12])
    cloud = next(e for e in blocks(found) if isinstance(e, Figure) and e.title.endswith("output 0"))
    assert len(cloud.data["series"][0]["x"]) == known[:, 0].sum()
    assert "99" not in str(blocks(found)[-1]).replace("0.99", "")


def test_numbers_of_sequences_of_many_lengths_are_kept_without_their_padding(tmp_path):
    series = [RNG.standard_normal((length, 1)) + 5 for length in RNG.integers(1, 9, 40)]
    data = ddbp.ArrayDataset(ddbp.Ragged(series), ddbp.Ragged(series))
    model = Sequential(LSTM(1, 8, rng=RNG), Linear(8, 1, rng=RNG))
    make(model, loss="mse", run_dir=tmp_path).fit(data, epochs=1)
    found, _ = outcome(tmp_path)
    assert np.isfinite(found["expected"]).sum() == sum(min(4, len(each)) for each in series)
    assert np.nanmin(found["expected"]) > 0


def test_numbers_are_in_the_units_of_the_targets(tmp_path):
    counts = RNG.poisson(3.0, (len(X), 1))
    trainer = make(Sequential(Linear(6, 1, rng=RNG)), loss=PoissonNLL(), run_dir=tmp_path)
    trainer.fit(ddbp.ArrayDataset(X, counts), epochs=1)
    found, _ = outcome(tmp_path)
    np.testing.assert_allclose(
        np.sort(found["outputs"][:, 0]), np.sort(np.exp(trainer.predict(X))[:, 0]), rtol=1e-5
    )


def test_rows_with_a_single_one_are_labels(tmp_path):
    trainer = make(run_dir=tmp_path)
    trainer.fit(ddbp.ArrayDataset(X, np.eye(3)[LABELS]), epochs=1)
    found, _ = outcome(tmp_path)
    right = found["pairs"][found["pairs"][:, 0] == found["pairs"][:, 1], 2].sum()
    assert right == (trainer.predict(X).argmax(axis=1) == LABELS).sum()


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (SoftmaxCrossEntropy(), np.full((83, 3), 1 / 3)),
        (KLDivergence(), np.eye(3)[LABELS]),
        (Hinge(), np.where(X[:, :3] > 0, 1.0, -1.0)),
        (CosineDistance(), X[:, :3]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_logits_and_directions_are_no_numbers(tmp_path, loss, targets):
    make(loss=loss, run_dir=tmp_path).fit(ddbp.ArrayDataset(X, targets), epochs=1)
    assert not (tmp_path / "samples.npz").exists()
    assert "Residuals" not in (tmp_path / "report.html").read_text()


def test_a_cloud_has_all_of_its_points_and_not_their_means():
    """Many samples may have one target."""
    expected = np.repeat(np.arange(5.0), 380)[:, np.newaxis]
    outputs = expected + np.where(np.arange(1900) % 2, 1, -1)[:, np.newaxis]
    facts = json.dumps({"data": "training", "samples": 1900, "seen": 1900})
    arrays = {"outputs": outputs, "expected": expected, "numbers": np.zeros(0, int)}
    found = blocks({**arrays, "facts": np.array(facts), "losses": np.zeros(0)})
    cloud = next(each for each in found if isinstance(each, Figure) and each.title == "Residuals")
    (series,) = cloud.data["series"]
    assert len(series["x"]) == 1200
    assert {*series["y"]} == {-1, 1}
    assert "low" not in series


TEXT = np.array([0, 1, 2, 3, 1, 2, 0, 4, 1, 3] * 40)
TOKENS = ["a", "<b>", "\n", " ", "\x1b"]


def language_model(**options):
    """Return a trainer of one, and its data: what follows each token."""
    rng = np.random.default_rng(1)
    model = Sequential(Embedding(5, 4, rng=rng), LSTM(4, 8, rng=rng), Linear(8, 5, rng=rng))
    noise = rng.integers(0, 5, len(TEXT)) * (rng.random(len(TEXT)) < 0.2)
    x, y = ((TEXT + noise)[shift : shift + 390].reshape(39, 10) % 5 for shift in (0, 1))
    return make(model, **options), x, y


def test_windows_of_text_have_the_probabilities_that_the_model_gives(tmp_path):
    trainer, x, y = language_model(run_dir=tmp_path)
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=3)
    found, facts = outcome(tmp_path)
    logits = trainer.predict(x).astype(np.float64)
    powers = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    own = np.take_along_axis(powers, y[..., np.newaxis], axis=-1)[..., 0]
    losses = -np.log(own).mean(axis=1)
    kinds = {fact["sample"]: fact["kind"] for fact in facts["texts"]}
    worst = {sample for sample, kind in kinds.items() if kind == "worst"}
    assert worst == {*np.argsort(-losses)[:4].tolist()}
    apart = np.abs(losses - np.median(losses))
    usual = [apart[sample] for sample, kind in kinds.items() if kind == "usual"]
    np.testing.assert_allclose(np.sort(usual), np.sort(apart)[:4], atol=1e-6)
    for n, sample in enumerate(kinds):
        np.testing.assert_array_equal(found[f"text{n}.tokens"], [x[sample, 0], *y[sample]])
        np.testing.assert_allclose(found[f"text{n}.chances"], own[sample], rtol=1e-5)
        np.testing.assert_array_equal(found[f"text{n}.guesses"], powers[sample].argmax(axis=-1))
        np.testing.assert_allclose(found[f"text{n}.sure"], powers[sample].max(axis=-1), rtol=1e-5)


def test_of_a_long_text_the_worst_window_is_kept_and_what_is_ignored_has_no_probability(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("ddbp.training.text_samples.WIDTH", 4)
    trainer, x, y = language_model(run_dir=tmp_path, loss=SoftmaxCrossEntropy(ignore=3))
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=1)
    found, facts = outcome(tmp_path)
    for n, fact in enumerate(facts["texts"]):
        first = fact["first"]
        chances = found[f"text{n}.chances"]
        np.testing.assert_array_equal(found[f"text{n}.tokens"][1:], y[fact["sample"]][first:][:4])
        np.testing.assert_array_equal(np.isnan(chances), found[f"text{n}.tokens"][1:] == 3)
    assert any(fact["first"] for fact in facts["texts"])
    assert all(fact["of"] == 10 for fact in facts["texts"])


def test_vocabulary_and_a_text_of_the_model_are_in_the_report_as_text(tmp_path):
    asked = []

    def write(model):
        asked.append(model)
        return "<b>drawn</b>\x1b"

    trainer, x, y = language_model(
        run_dir=tmp_path, callbacks=[ddbp.TextSamples(TOKENS, write)], loss="cross_entropy"
    )
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=1)
    assert asked == [trainer.model]
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;drawn&lt;/b&gt;\ufffd</pre>" in page
    assert ">&lt;b&gt;</i>" in page
    assert ">\u23ce\n</i>" in page
    assert ">\ufffd</i>" in page
    assert "\x1b" not in page
    assert "\u201c&lt;b&gt;\u201d taken for" in page


def test_without_a_vocabulary_the_report_shows_ids(tmp_path):
    trainer, x, y = language_model(run_dir=tmp_path)
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=1)
    assert f">{y[0, 0]} </i>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("result", [3, None, ValueError("no")])
def test_writing_that_fails_is_a_warning_and_the_report_goes_without_it(tmp_path, result):
    def write(model):
        if isinstance(result, Exception):
            raise result
        return result

    callback = ddbp.TextSamples("abcde", write)
    trainer, x, y = language_model(run_dir=tmp_path, callbacks=[callback])
    with pytest.warns(RuntimeWarning, match="TextSamples: write must return a text; got"):
        trainer.fit(ddbp.ArrayDataset(x, y), epochs=1)
    assert "Windows of the greatest loss" in (tmp_path / "report.html").read_text()


def test_tags_of_tokens_are_no_language_and_worst_samples_are_read_by_the_vocabulary(tmp_path):
    trainer, x, _ = language_model(run_dir=tmp_path, callbacks=[ddbp.TextSamples("abcde")])
    trainer.fit(ddbp.ArrayDataset(x, (x > 2).astype(int)), epochs=1)
    found, facts = outcome(tmp_path)
    assert "texts" not in facts
    words = "".join("abcde"[token] for token in found["input0"])
    assert f'<p class="tokens">{words}</p>' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("arguments", [("",), ([],), ([1],), (3,), ({"a": 1},), ("ab", "text")])
def test_texts_that_are_none_are_refused(arguments):
    with pytest.raises(TypeError, match=r"^TextSamples: (vocabulary|write) must be "):
        ddbp.TextSamples(*arguments)


def test_what_is_neither_labels_nor_numbers_is_left_out(tmp_path):
    data = ddbp.ArrayDataset(X, {"a": LABELS})
    trainer = make(loss=lambda p, y: SoftmaxCrossEntropy()(p, y["a"]), run_dir=tmp_path)
    trainer.fit(data, epochs=1)
    assert not (tmp_path / "samples.npz").exists()
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (64,), (100, 80, 1)])
def test_images_are_drawn_as_images(tmp_path, shape):
    x = RNG.uniform(0, 1, (30, *shape))
    size = int(np.prod(shape))
    model = Sequential(Reshape(size), Linear(size, 3, rng=RNG))
    make(model, run_dir=tmp_path).fit(ddbp.ArrayDataset(x, LABELS[:30]), epochs=1)
    found, _ = outcome(tmp_path)
    gallery = next(each for each in blocks(found) if isinstance(each, Figure))
    assert {picture["kind"] for picture in gallery.data["pictures"]} == {"image"}
    assert max(gallery.data["pictures"][0][side] for side in ("height", "width")) <= 64


def test_sequences_of_numbers_are_drawn_as_curves(tmp_path):
    x = RNG.standard_normal((30, 12, 2))
    model = Sequential(LSTM(2, 4, last=True, rng=RNG), Linear(4, 3, rng=RNG))
    make(model, run_dir=tmp_path).fit(ddbp.ArrayDataset(x, LABELS[:30]), epochs=1)
    gallery = next(each for each in blocks(outcome(tmp_path)[0]) if isinstance(each, Figure))
    picture = gallery.data["pictures"][0]
    assert picture["kind"] == "curves"
    assert np.shape(picture["values"]) == (2, 12)


def test_outcome_that_is_not_finite_comes_first(tmp_path):
    from ddbp.training.outcome import _labelled

    logits = np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0]])
    found = _labelled(logits, np.array([1, 0, 0]), None, None)
    assert np.isnan(found.losses[1])
    assert np.isfinite(found.losses[0])


def test_more_classes_than_a_matrix_shows_are_a_list(tmp_path):
    pairs = np.array([[n, (n + 1) % 300, 2] for n in range(300)])
    facts = np.array(json.dumps({"data": "validation", "samples": 9, "seen": 9}))
    empty = np.zeros(0)
    shown = blocks({"facts": facts, "pairs": pairs, "numbers": empty, "losses": empty})
    text = "".join(each for each in shown if isinstance(each, str))
    assert "0 taken for 1" in text
    assert "confusion" not in text


def test_a_model_keeps_its_states(tmp_path):
    trainer = make(network(), run_dir=tmp_path)
    trainer.fit(DATA, epochs=1)
    assert (
        trainer.parameters_sha256()
        == json.loads((tmp_path / "status.json").read_text())["parameters_sha256"]
    )
