"""One step on ranks with different initial parameters and uneven parts of the batch."""

import numpy as np
import pytest

KINDS = [
    f"{shards}, {dtype}"
    for shards in ("one shard per rank", "eight shards", "unasked")
    for dtype in ("float32", "float64")
]
# 50 samples, 2600 parameters: a few roundings of the largest terms.
ROUNDINGS = 16


@pytest.fixture(scope="module", params=[3, 4])
def results(request, run_ranks):
    """Return what the ranks wrote."""
    return run_ranks(request.param, "one_step.py")


def error(gradient, exact):
    """Return the largest difference, relative to the largest element."""
    return np.abs(gradient - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize("kind", KINDS)
def test_initial_parameters_of_rank_0_overwrite_those_of_the_others(kind, results):
    for result in results[1:]:
        assert result[f"start, {kind}"].tobytes() == results[0][f"start, {kind}"].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_one_process_to_rounding(kind, results):
    exact = results[0]["gradient of whole mean"]
    tolerance = ROUNDINGS * np.finfo(kind.rsplit(", ")[-1]).eps
    for result in results:
        # The difference of parameters before and after the step rounds once more, relative to the
        # parameters.
        rounding = np.abs(result[f"start, {kind}"]).max() / np.abs(exact).max()
        assert error(result[f"gradient, {kind}"], exact) < tolerance * max(1, rounding)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_same_on_all_ranks(kind, results):
    assert len({float(result[f"loss, {kind}"]) for result in results}) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unasked_there_are_the_bits_of_eight_shards(dtype, results):
    for what in ("gradient", "loss"):
        found, expected = (results[0][f"{what}, {k}, {dtype}"] for k in ("unasked", "eight shards"))
        assert found.tobytes() == expected.tobytes()


def test_parts_are_uneven_and_their_plain_average_would_not_pass(results):
    sizes = [int(result["own samples"]) for result in results]
    assert max(sizes) == min(sizes) + 1
    exact = results[0]["gradient of whole mean"]
    plain = np.mean([result["gradient of own mean"] for result in results], axis=0)
    weighted = np.average(
        [result["gradient of own mean"] for result in results], axis=0, weights=sizes
    )
    assert error(plain, exact) > 1e-3
    assert error(weighted, exact) < 1e-14
