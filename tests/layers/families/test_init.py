"""Initialisers: variances and limits within statistical bounds, orthogonality, refusals."""

import numpy as np
import pytest

from layers import Linear, init

# (O, D) wide, tall, and a convolution's with a 3 x 3 field.
SHAPES = [(200, 500), (600, 150), (64, 48, 3, 3)]

VARIANCES = {
    "xavier": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
}


def fans(shape):
    field = np.prod(shape[2:], dtype=int)
    return shape[1] * field, shape[0] * field


def assert_variance(sample, variance, kurtosis):
    """Check mean and variance within six standard errors; those of the variance follow from the
    kurtosis.
    """
    n = sample.size
    assert abs(sample.mean()) < 6 * np.sqrt(variance / n)
    assert abs(sample.var() / variance - 1) < 6 * np.sqrt((kurtosis - 1) / n)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", VARIANCES)
def test_uniform_initialiser_fills_its_limits_with_the_right_variance(name, shape):
    variance = VARIANCES[name](*fans(shape))
    w = getattr(init, f"{name}_uniform")(np.random.default_rng(1), shape)
    assert w.shape == shape
    assert_variance(w, variance, kurtosis=9 / 5)
    limit = np.sqrt(3 * variance)
    assert 0.99 * limit < np.abs(w).max() <= limit


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", VARIANCES)
def test_normal_initialiser_has_the_right_variance_and_tails(name, shape):
    variance = VARIANCES[name](*fans(shape))
    w = getattr(init, f"{name}_normal")(np.random.default_rng(1), shape)
    assert w.shape == shape
    assert_variance(w, variance, kurtosis=3)
    # 4.55 % of a normal distribution lie beyond two deviations.
    beyond = (np.abs(w) > 2 * np.sqrt(variance)).mean()
    assert abs(beyond - 0.0455) < 6 * np.sqrt(0.0455 / w.size)


def test_he_keeps_the_size_of_a_signal_through_many_layers_of_relu():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((64, 256))
    for _ in range(20):
        x = np.maximum(x @ init.he_normal(rng, (256, 256)).T, 0)
    assert 0.3 < np.sqrt(2 * (x**2).mean()) / np.sqrt(2) < 3


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (30, 30), (20, 50), (50, 20), (12, 5, 3, 3), (100, 5, 3, 3), (300, 300)],
    ids=str,
)
def test_orthogonal_rows_or_columns_are_orthonormal(shape):
    w = init.orthogonal(np.random.default_rng(3), shape).reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-13)


def test_orthogonal_is_the_q_of_a_normal_matrix():
    normal = init.normal(1)(np.random.default_rng(3), (90, 60))
    q, r = np.linalg.qr(normal)
    w = init.orthogonal(np.random.default_rng(3), (90, 60))
    np.testing.assert_allclose(w, q * np.sign(np.diag(r)), atol=1e-13)


def test_normal_numbers_keep_the_bits_that_every_processor_draws():
    drawn = np.random.default_rng(3).normal(0, 0.02, 10_000)
    kept = init.normal(0.02)(np.random.default_rng(3), (10_000,))
    assert (kept == drawn.astype(np.float32)).all()
    # Smaller than any number of single precision.
    tiny = init.normal(1e-60)(np.random.default_rng(3), (100,))
    np.testing.assert_allclose(tiny, np.random.default_rng(3).normal(0, 1e-60, 100), rtol=2**-24)


def test_orthogonal_times_gain():
    w = init.orthogonal(np.random.default_rng(3), (8, 8), gain=3.0)
    np.testing.assert_allclose(w @ w.T, 9 * np.eye(8), atol=1e-12)


def test_orthogonal_prefers_no_direction():
    # Without the correction of signs the diagonal of Q would have a mean of one sign.
    rng = np.random.default_rng(4)
    draws = np.array([init.orthogonal(rng, (4, 4)) for _ in range(2000)])
    assert np.abs(draws.mean(axis=0)).max() < 6 * 0.5 / np.sqrt(2000)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / 4, atol=6 * 0.25 / np.sqrt(2000))


def test_plain_initialisers_do_what_their_names_say():
    rng = np.random.default_rng(5)
    assert (init.zeros(rng, (3,)) == 0).all()
    assert (init.ones(rng, (3,)) == 1).all()
    assert (init.constant(0.25)(rng, (2, 3)) == 0.25).all()
    assert_variance(init.uniform(0.5)(rng, (300, 300)), 0.25 / 3, kurtosis=9 / 5)
    assert np.abs(init.uniform(0.5)(rng, (300, 300))).max() <= 0.5
    assert_variance(init.normal(0.5)(rng, (300, 300)), 0.25, kurtosis=3)


@pytest.mark.parametrize(
    "name",
    [
        "xavier_uniform",
        "xavier_normal",
        "he_uniform",
        "he_normal",
        "lecun_uniform",
        "lecun_normal",
        "orthogonal",
    ],
)
def test_vector_has_no_fans_and_is_refused(name):
    with pytest.raises(ValueError, match=r"two axes or more; got \(5,\)\. Initialise vectors"):
        getattr(init, name)(np.random.default_rng(0), (5,))


def test_same_generator_gives_the_same_weights_and_names_are_those_of_the_module():
    for name in ("xavier_uniform", "he_normal", "orthogonal"):
        initialiser = getattr(init, name)
        assert initialiser.__name__ == name
        assert (
            initialiser(np.random.default_rng(6), (4, 5))
            == initialiser(np.random.default_rng(6), (4, 5))
        ).all()


def test_dense_layer_draws_from_the_initialiser_that_it_is_given():
    layer = Linear(
        7,
        4,
        rng=np.random.default_rng(6),
        weight_init=init.orthogonal,
        bias_init=init.constant(0.5),
        dtype=np.float64,
    )
    assert (layer.weight.value == init.orthogonal(np.random.default_rng(6), (4, 7))).all()
    assert (layer.bias.value == 0.5).all()


@pytest.mark.parametrize("size", [300, 700])
def test_orthogonal_weights_are_the_same_bits_for_any_number_of_threads(size, run_python):
    drawn = f"layers.init.orthogonal(numpy.random.default_rng(0), ({size}, {size}))"
    code = f"import hashlib, numpy, layers; print(hashlib.sha256({drawn}.tobytes()).hexdigest())"
    found = [
        run_python("-c", code, OMP_NUM_THREADS=n, OPENBLAS_NUM_THREADS=n).out for n in ("1", "2")
    ]
    assert len(found[0]) > 60
    assert found[0] == found[1]
