"""What steps, predictions and options are given becomes what a fit is given, or is refused."""

import json
import re

import numpy as np
import pytest

import ddbp
from layers import MeanSquaredError, Tape

from .small import DATA, LABELS, X, make, parameters


class Frame:
    """What NumPy reads as an array, like a data frame."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


@pytest.mark.parametrize(
    "of", [np.asarray, np.ndarray.tolist, Frame, lambda a: a.astype(np.float16)]
)
def test_steps_and_predictions_convert_as_a_fit_does(of):
    x = X[:20].astype(np.float16)
    plain, converted = make(), make()
    losses = [
        trainer.train_step(f(x.astype(float)), labels)
        for trainer, f, labels in (
            (plain, lambda a: a.astype(np.float32), LABELS[:20]),
            (converted, of, LABELS[:20].tolist()),
        )
    ]
    assert losses[0] == losses[1]
    assert converted.parameters_sha256() == plain.parameters_sha256()
    assert converted.predict(of(x.astype(float))).tobytes() == plain.predict(x).tobytes()
    assert converted.batch(of(x.astype(float)), LABELS[:20]).x.dtype == np.float32


def test_data_in_the_other_byte_order_are_the_same_data():
    swapped = [a.astype(a.dtype.newbyteorder()) for a in (X[:20].astype(np.float32), LABELS[:20])]
    plain, converted = make(), make()
    losses = plain.train_step(X[:20], LABELS[:20]), converted.train_step(*swapped)
    assert losses[0] == losses[1]
    assert converted.predict(swapped[0]).tobytes() == plain.predict(X[:20]).tobytes()


@pytest.mark.parametrize("method", ["train_step", "batch"])
@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (X[:20], LABELS[:19], r"x and y must have the same length; got \(20, 19\)"),
        (X[:20].astype(np.float32), LABELS[:19], r"x and y must have the same length; got \(20, "),
        (X[:0], LABELS[:0], r"x must hold one sample or more; got shape \(0, 6\)"),
        (np.where(X > 1, np.nan, X)[:20], LABELS[:20], "x must be finite; got nan at x"),
        (["a", "b"], [0, 1], "x must be numeric; got <U1"),
        (1.0, 0, r"x must hold one sample or more; got shape \(\)"),
        (iter(X), LABELS, "x must be an array; got a .*iterator"),
    ],
)  # fmt: skip
def test_steps_refuse_what_a_fit_refuses(method, x, y, said):
    with pytest.raises((ValueError, TypeError), match=f"^Trainer.{method}: {said}"):
        getattr(make(), method)(x, y)


@pytest.mark.parametrize("part", ["x", "y"])
def test_step_on_data_that_are_not_finite_blames_the_data(part):
    x, y = X[:20].astype(np.float32), X[:20, :3].astype(np.float32)
    (x if part == "x" else y)[7, 2] = np.nan
    trainer = make(loss=MeanSquaredError(), metrics={})
    where = r"layers\.0: Linear\(6, 16\).*" if part == "x" else r"the loss, MeanSquaredError\(\)"
    with pytest.raises(
        FloatingPointError,
        match=rf"{where} was given nan, in sample 7 of the batch\. Drop or impute",
    ):
        trainer.train_step(x, y)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (X[:, :4], r"Linear\(6, 16\): the input must have shape \(N, \.\.\., 6\); got \(20, 4\)"),
        (X[0], r"Linear\(6, 16\): the input must have shape \(N, \.\.\., 6\); got \(6,\)"),
        (np.ones((3, 6), int), r"Linear\(6, 16\): the input must have the dtype of the weights"),
        (["a"], "Trainer.predict: x must be numeric; got <U1"),
        (None, "Trainer.predict: x must be numeric; got object"),
        (3.0, r"Trainer.predict: x must hold one sample or more; got shape \(\)"),
        (np.full((3, 6), np.inf), r"Trainer.predict: x must be finite; got inf at x\[0, 0\]"),
        (DATA, "Trainer.predict: x must be the inputs alone; got an ArrayDataset. Pass dataset.x"),
        ((X, X[:3]), r"Trainer.predict: x\[0\] and x\[1\] must have the same length"),
    ],
)
def test_prediction_for_wrong_values_is_refused(x, said):
    with pytest.raises((ValueError, TypeError), match=f"^{said}"):
        make().predict(x)


def test_options_of_numpy_become_those_of_python(tmp_path):
    options = {"clip_norm": np.float32(1), "clip_value": np.float64(0.5), "l1": np.float32(0.25)}
    trainer = make(**options, drop_last=np.bool_(True), run_dir=tmp_path)
    trainer.fit(DATA, epochs=1)
    assert ddbp.TrainerOptions.read(tmp_path) == trainer.options
    kinds = {type(value) for value in trainer.options.as_dict().values()}
    # Those of augmentations are in a tuple.
    assert kinds == {int, float, bool, str, type(None), tuple}
    with pytest.raises(ValueError, match=r"^Trainer: drop_last must be True or False; got 'no'"):
        make(drop_last="no")


def test_numbers_of_numpy_in_a_schedule_do_not_spoil_the_state():
    schedule = ddbp.Plateau(np.float32(0.1), patience=np.int64(0), factor=np.float32(0.5))
    trainer = make(optimizer=ddbp.SGD(schedule, momentum=np.float32(0.9)))
    trainer.fit(DATA, epochs=3)
    json.dumps(trainer.state().values)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16])
def test_all_integer_options_take_numbers_of_numpy(kind):
    options = {"batch_size": 20, "shards": 2, "accumulate": 2, "seed": 3}
    plain, numbers = make(**options), make(**{name: kind(n) for name, n in options.items()})
    assert numbers.options == plain.options
    assert type(ddbp.TrainerOptions(batch_size=kind(20), truncate=kind(3)).truncate) is int
    json.dumps(numbers.options.as_dict())
    numbers.fit(DATA, epochs=kind(2))
    plain.fit(DATA, epochs=2)
    assert numbers.parameters_sha256() == plain.parameters_sha256()
    assert parameters(numbers).tobytes() == parameters(plain).tobytes()
    assert re.fullmatch("[0-9a-f]+", numbers.parameters_sha256())


def test_value_is_refused_where_an_array_is_meant():
    value = Tape().input(X)
    said = (
        r"^Trainer\.predict: x must be an array; got a Value \(83, 6\)\. Of a value pass \.array\.$"
    )
    with pytest.raises(TypeError, match=said):
        make().predict(value)
