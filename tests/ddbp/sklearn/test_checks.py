"""scikit-learn's own checks of estimators."""

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'ddbp[sklearn]'")

from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data,
    parametrize_with_checks,
)

from ddbp.sklearn import DDBPClassifier, DDBPRegressor

KINDS = (DDBPClassifier, DDBPRegressor)
OF_FLOAT64 = {
    "check_sample_weight_equivalence_on_dense_data": "It asks for seven digits, which float32 has"
    " not: below it is passed in float64."
}

pytestmark = pytest.mark.filterwarnings("ignore")  # What the checks have estimators warn of.


@parametrize_with_checks(
    [kind() for kind in KINDS], expected_failed_checks=lambda estimator: OF_FLOAT64
)
def test_a_check_of_scikit_learn_passes(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_is_as_good_as_so_many_samples(kind):
    check_sample_weight_equivalence_on_dense_data(kind.__name__, kind(dtype="float64"))


@pytest.mark.full
@parametrize_with_checks([kind(dtype="float64") for kind in KINDS])
def test_all_checks_of_scikit_learn_pass_in_float64(estimator, check):
    check(estimator)
