"""The twins of `layers.gradient_check.cases.loss`."""

import itertools
import math

import numpy as np

from .activation import sigmoid


def cross_entropy(smoothing, ignore=None, of_classes=None):
    def twin(_, logits, targets, weights=None):
        classes = logits.shape[-1]
        total, count = 0.0, 0.0
        c = [1.0] * classes if of_classes is None else of_classes
        for i in np.ndindex(logits.shape[:-1]):
            weight = 1.0 if weights is None else weights[i]
            if ignore is not None and targets[i] == ignore:
                continue
            count += weight * (1 if targets.shape == logits.shape else c[targets[i]])
            log_total = math.log(sum(math.exp(v) for v in logits[i]))
            for j in range(classes):
                t = targets[(*i, j)] if targets.shape == logits.shape else float(targets[i] == j)
                t = (1 - smoothing) * t + smoothing / classes
                total -= weight * c[j] * t * (logits[(*i, j)] - log_total)
        return np.array(total / count)

    return twin


def divergence(_, logits, targets):
    total = 0.0
    for i in np.ndindex(logits.shape[:-1]):
        log_total = math.log(sum(math.exp(v) for v in logits[i]))
        for x, t in zip(logits[i], targets[i], strict=True):
            total += t * (math.log(t) - (x - log_total))
    return np.array(total / math.prod(logits.shape[:-1]))


def multi_class_hinge(_, logits, labels):
    total = 0.0
    for i in np.ndindex(labels.shape):
        for j, x in enumerate(logits[i]):
            total += max(0.0, 0.7 - logits[i][labels[i]] + x) if j != labels[i] else 0.0
    return np.array(total / logits.size)


def positives(_, x, t):
    p = (0.5, 2, 3, 1, 4)
    total = sum(
        -p[j] * t[i, j] * math.log(sigmoid(x[i, j]))
        - (1 - t[i, j]) * math.log(1 - sigmoid(x[i, j]))
        for i, j in np.ndindex(x.shape)
    )
    return np.array(total / x.size)


def gaussian(_, x, v, t):
    total = sum(
        (math.log(b) + (a - c) ** 2 / b) / 2 for a, b, c in zip(x.flat, v.flat, t.flat, strict=True)
    )
    return np.array(total / x.size)


def cosine(a, b):
    dot, norms = sum(a * b), math.sqrt(sum(a * a)) * math.sqrt(sum(b * b))
    return dot / norms


def cosine_distance(_, x, t):
    rows = zip(x.reshape(-1, x.shape[-1]), t.reshape(-1, t.shape[-1]), strict=True)
    return np.array(np.mean([1 - cosine(a, b) for a, b in rows]))


def cosine_embedding(_, x, t, labels):
    rows = zip(x, t, labels, strict=True)
    return np.array(
        np.mean([1 - cosine(a, b) if y == 1 else max(0.0, cosine(a, b) - 0.1) for a, b, y in rows])
    )


def weighted(function):
    def twin(_, x, t, weights):
        total = count = 0.0
        for i in np.ndindex(weights.shape):
            pairs = zip(x[i].flat, t[i].flat, strict=True)
            total += weights[i] * np.mean([function(float(a), float(b)) for a, b in pairs])
            count += weights[i]
        return np.array(total / count)

    return twin


def huber(x, t):
    size = abs(x - t)
    return size**2 / 2 if size <= 0.7 else 0.7 * (size - 0.35)


def ctc(blank, per_label):
    """Sum over all paths."""

    def twin(_, logits, labels):
        losses = []
        for x, row in zip(logits, labels, strict=True):
            wanted = [label for label in row if label >= 0]
            p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
            total = 0.0
            for path in itertools.product(range(x.shape[1]), repeat=len(x)):
                said = [label for label, _ in itertools.groupby(path) if label != blank]
                if said == wanted:
                    total += math.prod(p[t, label] for t, label in enumerate(path))
            losses.append(-math.log(total) / (max(1, len(wanted)) if per_label else 1))
        return np.array(np.mean(losses))

    return twin


def mean_of(function):
    def twin(_, x, t):
        return np.array(
            sum(function(float(a), float(b)) for a, b in zip(x.flat, t.flat, strict=True)) / x.size
        )

    return twin


def binary_cross_entropy(x, t):
    return -t * math.log(sigmoid(x)) - (1 - t) * math.log(1 - sigmoid(x))


TWINS = {
    "SoftmaxCrossEntropy": cross_entropy(0),
    "SoftmaxCrossEntropy smoothed": cross_entropy(0.1),
    "SoftmaxCrossEntropy of positions": cross_entropy(0),
    "SoftmaxCrossEntropy smoothed, positions": cross_entropy(0.2),
    "SoftmaxCrossEntropy soft": cross_entropy(0),
    "SoftmaxCrossEntropy soft smoothed": cross_entropy(0.1),
    "SoftmaxCrossEntropy ignoring": cross_entropy(0.1, ignore=2),
    "SoftmaxCrossEntropy weighted": cross_entropy(0),
    "SoftmaxCrossEntropy soft, weighted": cross_entropy(0),
    "BinaryCrossEntropy": mean_of(binary_cross_entropy),
    "BinaryCrossEntropy of vectors": mean_of(binary_cross_entropy),
    "SoftmaxCrossEntropy of classes": cross_entropy(0, of_classes=(1, 3, 0.5, 2)),
    "SoftmaxCrossEntropy of classes, smoothed": cross_entropy(0.2, of_classes=(1, 3, 0.5, 2)),
    "SoftmaxCrossEntropy of classes, soft": cross_entropy(0, of_classes=(1, 3, 0.5, 2)),
    "KLDivergence": divergence,
    "CTC": ctc(0, False),
    "CTC of labels": ctc(2, True),
    "MultiClassHinge": multi_class_hinge,
    "BinaryCrossEntropy of positives": positives,
    "Hinge": mean_of(lambda x, t: max(0, 1 - x * t)),
    "Hinge squared": mean_of(lambda x, t: max(0, 1 - x * t) ** 2),
    "PoissonNLL": mean_of(lambda x, t: math.exp(x) - t * x),
    "PoissonNLL of rates": mean_of(lambda x, t: x - t * math.log(x)),
    "GaussianNLL": gaussian,
    "CosineDistance": cosine_distance,
    "CosineEmbedding": cosine_embedding,
    "MeanAbsoluteError": mean_of(lambda x, t: abs(x - t)),
    "Huber": mean_of(huber),
    "SmoothL1": mean_of(lambda x, t: huber(x, t) / 0.7),
    "MeanSquaredError weighted": weighted(lambda x, t: (x - t) ** 2),
    "BinaryCrossEntropy weighted": weighted(binary_cross_entropy),
    "MeanSquaredError": mean_of(lambda x, t: (x - t) ** 2),
    "MeanSquaredError of 3-D inputs": mean_of(lambda x, t: (x - t) ** 2),
}
