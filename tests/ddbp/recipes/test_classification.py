"""What is told of each class, counted by hand."""

import numpy as np
import pytest

from ddbp import ArrayDataset, Trainer
from ddbp.recipes import classification
from layers import Identity, Linear, Sequential, SoftmaxCrossEntropy

CLASSES = ("cat", "dog", "owl")
TRUE = np.array([0, 0, 0, 1, 1, 1, 1, 1])
FOUND = np.array([0, 0, 1, 1, 1, 1, 0, 0])


def test_recall_and_precision_of_each_class_are_counted():
    rng = np.random.default_rng(0)
    scores = np.eye(3)[FOUND]
    model = Sequential(Identity(), Linear(3, 3, rng=rng))
    model.layers[1].weight.value = np.eye(3, dtype=np.float32)
    trainer = Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer="adam",
        batch_size=3,
        metrics=classification.metrics(CLASSES),
        quiet=True,
    )
    found = trainer.evaluate(ArrayDataset(scores, TRUE))
    told = classification.of_classes(found, CLASSES, len(TRUE))
    assert found.keys() == {"loss", "accuracy"}
    assert found["accuracy"] == pytest.approx(5 / 8)
    assert told["cat"] == {"samples": 3, "recall": pytest.approx(2 / 3), "precision": 0.5}
    assert told["dog"] == {"samples": 5, "recall": pytest.approx(3 / 5), "precision": 0.75}
    assert told["owl"] == {"samples": 0, "recall": None, "precision": None}


def test_of_many_classes_nothing_is_told_one_by_one():
    many = [f"class {number}" for number in range(classification.MOST_CLASSES + 1)]
    assert [*classification.metrics(many)] == ["accuracy"]
    assert classification.of_classes({"loss": 1.0}, many, 10) == {}


def test_scores_become_names_and_probabilities():
    columns = classification.columns(
        np.log(np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])), CLASSES
    )
    assert columns["prediction"] == ["dog", "cat"]
    np.testing.assert_allclose(columns["probability"], [0.5, 0.9])
    np.testing.assert_allclose(columns["p(owl)"], [0.3, 0.05])
