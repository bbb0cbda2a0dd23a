"""Compare the test accuracy of train_digits.py with that of scikit-learn's MLPClassifier, on the
same split.

The script trains its dense network, of the classifier's size, and its convolutional one, with its
own defaults. The classifier has its default settings but for `max_iter`, which lets it converge.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import sklearn
from llvmlite.binding import get_host_cpu_name
from sklearn.neural_network import MLPClassifier

from ddbp.data import digits

SCRIPTS = Path(__file__).parents[1]


def ours(seed: int, model: str) -> float:
    """Return the test accuracy of the script with one of its models."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--quiet", "--run-dir", folder, "--seed", str(seed), "--model", model]
        command = [sys.executable, str(SCRIPTS / "train_digits.py"), *flags]
        lines = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    return float(json.loads(lines[-1])["metrics"]["accuracy"])


def theirs(seed: int) -> tuple[float, int]:
    """Return the test accuracy of the classifier, and the epochs it took."""
    training, test = digits()
    classifier = MLPClassifier((128,), max_iter=5000, random_state=seed).fit(training.x, training.y)
    return float(classifier.score(test.x, test.y)), int(classifier.n_iter_)


def main() -> None:
    """Measure both for every seed, print a table and write the result."""
    parser = argparse.ArgumentParser(
        description="Compare test accuracy on the digits with scikit-learn's MLPClassifier."
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to SEEDS - 1 (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to a file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("seed    mlp     cnn  scikit-learn (epochs)")
    for seed in range(options.seeds):
        accuracy, epochs = theirs(seed)
        own = {"ours": ours(seed, "mlp"), "cnn": ours(seed, "cnn")}
        rows.append({"seed": seed, **own, "sklearn": accuracy, "sklearn_epochs": epochs})
        print(
            "{seed:4}  {ours:.4f}  {cnn:.4f}  {sklearn:.4f} ({sklearn_epochs})".format(**rows[-1]),
            flush=True,
        )
    summary = {
        f"{name}_mean": round(mean(row[name] for row in rows), 4)
        for name in ("ours", "cnn", "sklearn")
    }
    print("mean  {ours_mean:.4f}  {cnn_mean:.4f}  {sklearn_mean:.4f}".format(**summary))
    if options.json:
        machine = {
            "cpu": get_host_cpu_name(),
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
        }
        options.json.write_text(
            json.dumps({"machine": machine, **summary, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
