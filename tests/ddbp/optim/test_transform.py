"""Transforms: what a script does to gradients before the optimizer sees them."""

import numpy as np
import pytest

import ddbp
from layers import Linear, MeanSquaredError, Sequential, Tanh


def network():
    """Return a small network."""
    rng = np.random.default_rng(0)
    return Sequential(Linear(3, 5, rng=rng), Tanh(), Linear(5, 2, rng=rng))


def trained(transforms, optimizer=None, **options):
    """Return a trainer after three steps."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    trainer = ddbp.Trainer(
        network(),
        loss=MeanSquaredError(),
        optimizer=optimizer or ddbp.SGD(0.5),
        batch_size=8,
        transforms=transforms,
        quiet=True,
        **options,
    )
    for _ in range(3):
        trainer.train_step(x.astype(np.float32), y.astype(np.float32))
    return trainer


def test_transforms_are_applied_in_their_order():
    seen = []
    trained(
        [
            lambda gradient, step: seen.append(("a", step)),
            lambda gradient, step: seen.append(("b", step)),
        ]
    )
    assert seen == [(name, step) for step in range(3) for name in "ab"]


def test_parts_are_views_of_the_gradient_by_name():
    def freeze_first(gradient, step):
        for part in gradient.parts():
            if part.name.startswith("layers.0."):
                part.gradient[:] = 0

    start, model = network(), trained([freeze_first]).model
    assert model[0].weight.value.tobytes() == start[0].weight.value.tobytes()
    assert model[0].bias.value.tobytes() == start[0].bias.value.tobytes()
    assert (model[2].weight.value != start[2].weight.value).all()


def test_parts_may_be_changed_by_operators_and_assigned():
    def doubled(gradient, step):
        for part in gradient.parts():
            part.gradient *= 2

    def assigned(gradient, step):
        for part in gradient.parts():
            part.gradient = 2 * part.gradient

    expected = trained([], ddbp.SGD(0.5)).parameters_sha256()
    for change in (doubled, assigned):
        assert trained([change], ddbp.SGD(0.25)).parameters_sha256() == expected


def test_whole_gradients_that_are_doubled_are_a_doubled_rate():
    def doubled(gradient, step):
        gradient.replace({name: 2 * array for name, array in gradient.whole().items()})

    found = trained([doubled], ddbp.SGD(0.25)).parameters_sha256()
    assert found == trained([], ddbp.SGD(0.5)).parameters_sha256()


def test_values_of_parts_are_those_of_the_parameters():
    found = {}

    def look(gradient, step):
        for part in gradient.parts():
            found[part.name] = part.values.copy()

    start = network()
    trained([look, lambda gradient, step: None], ddbp.SGD(0.0))
    expected = {name: parameter.value.reshape(-1) for name, parameter in start.named_parameters()}
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


def test_norms_of_parameters_are_limited_one_by_one():
    norms = []

    def record(gradient, step):
        norms.append(gradient.norms())

    trained([record, ddbp.ClipParameterNorms(0.5), record], ddbp.SGD(0.0))
    before, after = norms[:2]
    assert min(before.values()) < 0.5 < max(before.values())
    expected = {name: min(norm, 0.5) for name, norm in before.items()}
    assert after == pytest.approx(expected, rel=1e-6)


def test_norms_are_those_of_the_whole_gradient():
    def compare(gradient, step):
        expected = {name: np.linalg.norm(array) for name, array in gradient.whole().items()}
        assert gradient.norms() == pytest.approx(expected, rel=1e-6)

    trainer = trained([compare])
    assert trainer.step_count == 3


def test_limit_of_the_norm_comes_after_the_transforms():
    found = trained(
        [lambda gradient, step: [part.gradient.fill(0) for part in gradient.parts()]], clip_norm=1.0
    )
    assert found.parameters_sha256() == trained([], ddbp.SGD(0.0)).parameters_sha256()


@pytest.mark.parametrize(
    "given",
    [ddbp.ClipParameterNorms(1.0), ddbp.ClipParameterNorms, [ddbp.ClipParameterNorms], ["clip"], 3],
)
def test_what_are_no_functions_in_a_list_are_refused(given):
    with pytest.raises(TypeError, match="Trainer: transforms must be a list of functions"):
        trained(given)


def test_gradients_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="gradients must have the names and shapes"):
        trained([lambda gradient, step: gradient.replace({"layers.0.weight": np.zeros(3)})])
