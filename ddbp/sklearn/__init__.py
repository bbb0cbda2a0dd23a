"""Estimators of scikit-learn: networks of ddbp with `fit`, `predict` and `score`.

>>> from ddbp.sklearn import DDBPClassifier
>>> classifier = DDBPClassifier((64, 32), random_state=0).fit(x, y)
>>> classifier.predict(x[:5]), classifier.score(x_test, y_test)
"""

import importlib

from layers.errors import message

try:
    # From the top: this package has the name of that one.
    importlib.import_module("sklearn")
except ImportError as error:
    raise ImportError(
        message(
            "ddbp.sklearn",
            "scikit-learn must be installed",
            error,
            "Install it with: pip install 'ddbp[sklearn]'.",
        )
    ) from error

from .classifier import DDBPClassifier
from .regressor import DDBPRegressor

__all__ = ["DDBPClassifier", "DDBPRegressor"]
