"""Compare ddbp's estimators with scikit-learn's MLPClassifier and MLPRegressor, on its data sets.

    python scripts/bench/estimators.py [--rounds R] [--seeds K] [--json FILE]

Both get the same network, epochs, batches and rate of Adam, and standardised samples in float32;
neither stops early. Times are those of the processor in one thread, for a fit on all samples.
Scores, accuracy or R², are means over folds and seeds, for each seed on the same folds.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import mean, median, stdev
from typing import Any

from lib import harness

import numpy as np
import threadpoolctl
from sklearn import datasets
from sklearn.base import is_classifier
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from ddbp.sklearn import DDBPClassifier, DDBPRegressor

SETS: dict[str, tuple[Callable[..., Any], int]] = {
    "digits": (datasets.load_digits, 50),
    "breast_cancer": (datasets.load_breast_cancer, 100),
    "wine": (datasets.load_wine, 200),
    "iris": (datasets.load_iris, 200),
    "diabetes": (datasets.load_diabetes, 200),
}
"""What is learned, and for how many epochs."""
HIDDEN = (100,)
FOLDS = 5


def estimators(name: str, epochs: int, seed: int) -> dict[str, Any]:
    """Return an estimator of ours and the one of scikit-learn."""
    kinds = (DDBPRegressor, MLPRegressor) if name == "diabetes" else (DDBPClassifier, MLPClassifier)
    options = {"max_iter": epochs, "n_iter_no_change": epochs, "tol": 0.0, "random_state": seed}
    made = (kind(hidden_layer_sizes=HIDDEN, learning_rate_init=0.003, **options) for kind in kinds)
    return dict(zip(("ours", "theirs"), made, strict=True))


def data(name: str) -> tuple[Any, Any]:
    """Return standardised samples, and targets: numbers with a mean of 0 and a deviation of 1."""
    x, y = SETS[name][0](return_X_y=True)
    y = (y - y.mean()) / y.std() if name == "diabetes" else y
    return StandardScaler().fit_transform(x).astype(np.float32), y


def row(name: str, rounds: int, seeds: int) -> dict[str, Any]:
    """Return times and scores of one data set."""
    x, y = data(name)
    epochs = SETS[name][1]
    contestants = {
        key: lambda estimator=estimator: estimator.fit(x, y)
        for key, estimator in estimators(name, epochs, 0).items()
    }
    times = harness.interleaved(contestants, rounds, 0.0, now=time.process_time)
    short = {
        key: lambda estimator=estimator: estimator.fit(x, y)
        for key, estimator in estimators(name, 1, 0).items()
    }
    first = harness.interleaved(short, rounds, 0.0, now=time.process_time)
    scores: dict[str, list[float]] = {key: [] for key in contestants}
    for seed in range(seeds):
        for key, estimator in estimators(name, epochs, seed).items():
            kind = StratifiedKFold if is_classifier(estimator) else KFold
            folds = kind(FOLDS, shuffle=True, random_state=seed)
            scores[key].append(mean(cross_val_score(estimator, x, y, cv=folds)))
    return {
        "name": name,
        "samples": len(x),
        "features": x.shape[1],
        "epochs": epochs,
        **{f"{key}_ms": harness.spread(each) for key, each in times.items()},
        "theirs / ours": harness.ratio(times["theirs"], times["ours"]),
        **{f"{key}_one_epoch_ms": round(1e3 * median(each), 2) for key, each in first.items()},
        **{f"{key}_score": round(mean(each), 4) for key, each in scores.items()},
        **{f"{key}_deviation": round(stdev(each), 4) for key, each in scores.items()},
    }


def main() -> None:
    """Measure, print a line for each data set, and write the result."""
    parser: argparse.ArgumentParser = harness.arguments(str(__doc__).splitlines()[0], 9)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of scores (%(default)s)")
    options = parser.parse_args()
    harness.pin_to_one_core()
    # That nothing has converged is meant.
    warnings.simplefilter("ignore")
    facts = harness.machine()
    rows = []
    with threadpoolctl.threadpool_limits(1):
        for name in SETS:
            rows.append(row(name, options.rounds, options.seeds))
            last = rows[-1]
            print(
                f"{name:14} {last['ours_ms']['median']:8.1f} {last['theirs_ms']['median']:8.1f} ms"
                f" {last['theirs / ours']['ratio']:5.2f}   {last['ours_score']:.4f}"
                f" {last['theirs_score']:.4f}   one epoch {last['ours_one_epoch_ms']:.1f}"
                f" {last['theirs_one_epoch_ms']:.1f} ms",
                flush=True,
            )
    harness.write(options.json, facts, rows, hidden=list(HIDDEN), folds=FOLDS, seeds=options.seeds)


if __name__ == "__main__":
    main()
