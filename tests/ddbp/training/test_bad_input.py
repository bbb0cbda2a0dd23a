"""Bad input is refused at once, with who refuses, what must hold, what was got and what would mend
it.
"""

import math
import re
from contextlib import contextmanager

import numpy as np
import pytest

import ddbp
from layers import (
    BinaryCrossEntropy,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)

NAN, INF = math.nan, math.inf
X = np.random.default_rng(0).standard_normal((30, 5))
LABELS = np.arange(30) % 3
DATA = ddbp.ArrayDataset(X, LABELS)


@contextmanager
def refused(kind, owner, must, got):
    """Expect an error `<owner>: …<must>…; got …<got>…. <fix>`."""
    with pytest.raises(kind) as caught:
        yield
    said = re.fullmatch(
        r"(?P<owner>[^:]+): (?P<must>.+?); got (?P<got>.+?)\. (?P<fix>\w.+)",
        str(caught.value),
        re.DOTALL,
    )
    assert said, caught.value
    assert owner in said["owner"]
    assert must in said["must"]
    assert got in said["got"]


def make(model=None, **options):
    """Return a quiet trainer of a small network."""
    model = model or Linear(5, 3, rng=np.random.default_rng(0))
    return ddbp.Trainer(
        model,
        **(
            {
                "loss": SoftmaxCrossEntropy(),
                "optimizer": ddbp.SGD(0.1),
                "batch_size": 10,
                "quiet": True,
            }
            | options
        ),
    )


# Data


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_first_value_that_is_not_finite_is_named_with_its_place(value):
    x = X.copy()
    x[4, 2] = x[7, 0] = value
    with refused(
        ValueError, "ArrayDataset", "x must be finite", f"{value} at x[4, 2], 2 such values in all"
    ):
        ddbp.ArrayDataset(x, LABELS)


def test_target_that_is_not_finite_is_named_with_its_place():
    y = np.zeros(30)
    y[29] = NAN
    with refused(
        ValueError, "ArrayDataset", "y must be finite", "nan at y[29], 1 such values in all"
    ):
        ddbp.ArrayDataset(X, y)


@pytest.mark.parametrize(
    ("x", "y", "name"), [(np.zeros((0, 5)), [], "x"), ([], [], "x"), (X, 3.0, "y")]
)
def test_data_without_samples_are_refused(x, y, name):
    with refused(ValueError, "ArrayDataset", f"{name} must hold one sample or more", "shape ("):
        ddbp.ArrayDataset(x, y)


def test_unequal_lengths_are_refused():
    with refused(ValueError, "ArrayDataset", "x and y must have the same length", "(30, 29)"):
        ddbp.ArrayDataset(X, LABELS[:-1])


@pytest.mark.parametrize(
    "values", [["cat", "dog"], [None, 1], np.array(["2020-01-01", "2020-01-02"], "datetime64[D]")]
)
def test_what_is_not_numeric_is_refused(values):
    with refused(TypeError, "ArrayDataset", "y must be numeric", str(np.asarray(values).dtype)):
        ddbp.ArrayDataset(X[:2], values)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, NAN])
def test_split_fraction_outside_of_0_to_1_is_refused(fraction):
    with refused(ValueError, "ArrayDataset.split", "the fraction must be in (0, 1)", str(fraction)):
        DATA.split(fraction)


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_label_out_of_range_is_named_with_its_row_and_the_number_of_classes(label):
    labels = LABELS.copy()
    labels[:10] = label
    with refused(
        ValueError,
        "SoftmaxCrossEntropy",
        "labels must be in 0..2 for 3 logits",
        f"{label} in row 0",
    ):
        make().train_step(X[:10].astype(np.float32), labels[:10])


def test_label_out_of_range_is_refused_in_a_fit_and_in_an_evaluation():
    data = ddbp.ArrayDataset(X, np.where(np.arange(30) == 11, 7, LABELS))
    for run in (lambda: make().fit(data, epochs=1), lambda: make().evaluate(data)):
        with refused(
            ValueError, "SoftmaxCrossEntropy", "labels must be in 0..2 for 3 logits", "7 in row"
        ):
            run()


def test_labels_that_are_not_integers_are_refused():
    with refused(TypeError, "SoftmaxCrossEntropy", "labels must be integers", "float32"):
        make().fit(ddbp.ArrayDataset(X, LABELS.astype(float)), epochs=1)


def test_labels_in_a_column_are_refused():
    with refused(
        ValueError,
        "SoftmaxCrossEntropy",
        "targets must be labels (10,) or probabilities (10, 3)",
        "(10, 1)",
    ):
        make().fit(ddbp.ArrayDataset(X, LABELS[:, np.newaxis]), epochs=1)


def test_regression_targets_without_their_axis_are_refused():
    model = Linear(5, 1, rng=np.random.default_rng(0))
    with refused(ValueError, "MeanSquaredError", "the shape of the predictions, (10, 1)", "(10,)"):
        make(model, loss=MeanSquaredError()).fit(ddbp.ArrayDataset(X, X[:, 0]), epochs=1)


def test_binary_targets_outside_of_0_to_1_are_refused():
    with refused(ValueError, "BinaryCrossEntropy", "targets must be in [0, 1]", "-1"):
        make(Linear(5, 1, rng=np.random.default_rng(0)), loss=BinaryCrossEntropy()).fit(
            ddbp.ArrayDataset(X, np.sign(X[:, :1])), epochs=1
        )


def test_features_that_do_not_fit_the_model_are_refused():
    with refused(ValueError, "Linear(5, 3)", "the input must have shape (N, ..., 5)", "(10, 4)"):
        make().fit(ddbp.ArrayDataset(X[:, :4], LABELS), epochs=1)


def test_integer_features_are_refused_by_a_layer_with_weights():
    with refused(TypeError, "Linear(5, 3)", "the dtype of the weights, float32", "int64"):
        make().fit(ddbp.ArrayDataset(np.ones((30, 5), np.int64), LABELS), epochs=1)


# The trainer


def test_batch_larger_than_the_data_is_refused():
    with refused(ValueError, "Trainer.fit", "the data set must hold a batch of 31", "30 samples"):
        make(batch_size=31).fit(DATA, epochs=1)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, NAN, "8", True, None])
def test_batch_size_that_is_no_positive_integer_is_refused(batch_size):
    with refused(ValueError, "Trainer", "batch_size must be a positive integer", repr(batch_size)):
        make(batch_size=batch_size)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, NAN])
def test_number_of_epochs_that_is_no_positive_integer_is_refused(epochs):
    with refused(ValueError, "Trainer", "epochs must be a positive integer", repr(epochs)):
        make().fit(DATA, epochs=epochs)


@pytest.mark.parametrize("shards", [0, -1, 1.5])
def test_number_of_shards_that_is_no_positive_integer_is_refused(shards):
    with refused(ValueError, "Trainer", "shards must be a positive integer", repr(shards)):
        make(shards=shards)


@pytest.mark.parametrize("name", ["clip_norm", "clip_value"])
@pytest.mark.parametrize("limit", [0, -1.0, NAN])
def test_clipping_limit_that_is_not_positive_is_refused(name, limit):
    with refused(ValueError, "Trainer", f"{name} must be positive", str(limit)):
        make(**{name: limit})


@pytest.mark.parametrize("name", ["l1", "l2"])
@pytest.mark.parametrize("factor", [-1e-9, NAN])
def test_negative_penalty_is_refused(name, factor):
    with refused(ValueError, "Trainer", f"{name} must not be negative", str(factor)):
        make(**{name: factor})


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None])
def test_seed_that_is_no_natural_number_is_refused(seed):
    with refused(ValueError, "Trainer", "seed must be an integer from 0", repr(seed)):
        make(seed=seed)


def test_model_without_parameters_is_refused():
    with refused(ValueError, "FlatParameters", "the model must have parameters", "ReLU()"):
        make(Sequential(ReLU()))


def test_model_of_two_types_is_refused():
    rng = np.random.default_rng(0)
    model = Sequential(Linear(5, 5, rng=rng), Linear(5, 3, rng=rng, dtype=np.float64))
    with refused(
        ValueError, "FlatParameters", "all parameters must have one dtype", "['float32', 'float64']"
    ):
        make(model)


@pytest.mark.parametrize("call", ["fit", "evaluate", "validation", "batches"])
def test_data_that_are_no_data_set_are_refused(call):
    trainer, pair = make(), (X, LABELS)
    with refused(TypeError, "Trainer", "data must be an ArrayDataset", "tuple"):
        if call == "fit":
            trainer.fit(pair, epochs=1)
        elif call == "validation":
            trainer.fit(DATA, epochs=1, validation=pair)
        elif call == "evaluate":
            trainer.evaluate(pair)
        else:
            next(trainer.batches(pair))


@pytest.mark.parametrize("call", ["fit", "evaluate"])
def test_missing_loss_is_refused(call):
    trainer = make(loss=None)
    with refused(ValueError, "Trainer", "the trainer must have a loss", "None"):
        _ = trainer.fit(DATA, epochs=1) if call == "fit" else trainer.evaluate(DATA)


def test_own_loss_on_several_shards_is_refused():
    trainer = make(loss=None, shards=2)
    batch = trainer.batch(X[:10].astype(np.float32), LABELS[:10])
    must = "on several shards a loss must be that of a loss layer, a mean or sum over the axis of"
    with refused(ValueError, "Trainer", must, "Power()"):
        trainer.step((trainer.model(batch.x) ** 2).mean() ** 0.5)


REFUSED = {
    "a root of a mean": lambda y: (y * y).mean() ** 0.5,
    "a mean taken from samples": lambda y: (y - y.mean(axis=0)).mean(),
    "the largest of the batch": lambda y: y.max(),
    "products of samples": lambda y: (y @ y.T).mean(),
}


@pytest.mark.parametrize("loss", REFUSED.values(), ids=REFUSED.keys())
def test_loss_that_mixes_samples_is_refused_unasked_by_its_remedy_which_helps(loss):
    x = X[:10].astype(np.float32)

    def step(trainer):
        batch = trainer.batch(x, LABELS[:10])
        trainer.step(loss(trainer.model(batch.x)))

    with pytest.raises(ValueError, match=r"use shards=1 on one rank|one process with shards=1"):
        step(make(loss=None))
    step(make(loss=None, shards=1))


def test_refused_loss_leaves_nothing_behind():
    x, results = X[:10].astype(np.float32), []
    for refuses in (False, True):
        trainer = make(batch_size=10)
        if refuses:
            batch = trainer.batch(x, LABELS[:10])
            with pytest.raises(ValueError, match="on several shards a loss must be"):
                trainer.step((trainer.model(batch.x) ** 2).mean() ** 0.5)
        trainer.train_step(x, LABELS[:10])
        results.append(trainer.parameters_sha256())
    assert results[0] == results[1]


def test_run_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with refused(
        OSError, "Trainer", "the run folder must be writable", str(tmp_path / "file" / "run")
    ):
        make(run_dir=tmp_path / "file" / "run")


def test_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with refused(OSError, "Trainer", "the run folder must be writable", str(tmp_path / "file")):
        make(run_dir=tmp_path / "file")


def test_run_that_diverges_ends_with_the_step_and_the_first_layer():
    # The second layer overflows first: its weights are larger.
    rng = np.random.default_rng(0)
    model = Sequential(Linear(5, 4, rng=rng), Linear(4, 3, rng=rng), Linear(3, 3, rng=rng))
    trainer = make(model, loss=MeanSquaredError())
    x, y = X[:10].astype(np.float32), X[:10, :3].astype(np.float32)
    trainer.train_step(x, y)
    model[1].weight.value = np.full((3, 4), 3e38)
    before = trainer.parameters_sha256()
    with (
        refused(FloatingPointError, "Trainer", "the loss must be finite", "in step 1; "),
        np.errstate(all="ignore"),
    ):
        trainer.train_step(x, y)
    with (
        refused(
            FloatingPointError,
            "Trainer",
            "the loss must be finite",
            "not finite is layers.1: Linear(4, 3), in samples 1, 2, 4, 5, 6, 7, 8, 9 of the batch",
        ),
        np.errstate(all="ignore"),
    ):
        trainer.train_step(x, y)
    assert trainer.parameters_sha256() == before


# Optimizers and schedules

OPTIMIZERS = {
    "SGD": {"weight_decay", "momentum"},
    "RMSProp": {"weight_decay", "momentum", "alpha", "epsilon"},
    "Adam": {"weight_decay", "betas", "epsilon"},
    "AdamW": {"weight_decay", "betas", "epsilon"},
    "Adafactor": {"weight_decay", "epsilons", "clip_threshold"},
    "LARS": {"weight_decay", "momentum", "coefficient"},
    "LAMB": {"weight_decay", "betas", "epsilon"},
}


@pytest.mark.parametrize("value", [-0.5, NAN])
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in OPTIMIZERS.items() for name in sorted(names)]
)
def test_negative_option_of_an_optimizer_is_refused(kind, name, value):
    with refused(ValueError, kind, f"{name} must", str(value)):
        pair = name in ("betas", "epsilons")
        getattr(ddbp, kind)(0.1, **{name: (0.9, value) if pair else value})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("SGD", "momentum"),
        ("RMSProp", "alpha"),
        ("Adam", "betas"),
        ("LARS", "momentum"),
        ("LAMB", "betas"),
    ],
)
def test_fraction_of_1_or_more_is_refused(kind, name):
    with refused(ValueError, kind, f"{name} must be in [0, 1)", "1.0"):
        getattr(ddbp, kind)(0.1, **{name: (1.0, 0.9) if name == "betas" else 1.0})


@pytest.mark.parametrize("rate", [-0.1, NAN, INF])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_learning_rate_that_is_negative_or_not_finite_is_refused(kind, rate):
    with refused(ValueError, kind, "the learning rate must be finite and not negative", str(rate)):
        getattr(ddbp, kind)(rate)


@pytest.mark.parametrize(
    ("options", "must"),
    [
        ({"beta2_decay": 0.8}, "beta2_decay must be at most 0"),
        ({"beta2_decay": NAN}, "beta2_decay must be a number"),
        ({"epsilons": 1e-3}, "epsilons must be a pair of numbers"),
        ({"clip_threshold": INF}, "clip_threshold must be positive and finite"),
    ],
)
def test_option_of_adafactor_that_makes_no_sense_is_refused(options, must):
    with refused(ValueError, "Adafactor", must, str(*options.values())):
        ddbp.Adafactor(**options)


def test_nesterov_without_momentum_is_refused():
    with refused(ValueError, "SGD", "nesterov needs a momentum above 0", "0.0"):
        ddbp.SGD(0.1, nesterov=True)


SCHEDULES = {
    "StepDecay": ({"every": 5}, {"rate", "factor"}),
    "Exponential": ({"factor": 0.5}, {"rate", "factor", "steps"}),
    "Cosine": ({"steps": 5}, {"rate", "steps"}),
    "OneCycle": ({"steps": 5}, {"rate", "steps", "rise", "start_factor", "final_factor"}),
    "Plateau": ({}, {"rate", "factor"}),
}


@pytest.mark.parametrize("value", [0, -1, NAN, INF])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, (_, names) in SCHEDULES.items() for name in sorted(names)],
)
def test_option_of_a_schedule_that_is_not_positive_and_finite_is_refused(kind, name, value):
    with refused(ValueError, kind, f"{name} must be positive and finite", str(value)):
        getattr(ddbp, kind)(**({"rate": 0.1} | SCHEDULES[kind][0] | {name: value}))


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("Cosine", {"steps": 5}, "final"),
        ("WarmUp", {"steps": 5}, "start"),
        ("Plateau", {}, "threshold"),
        ("Plateau", {}, "patience"),
        ("Plateau", {}, "minimum"),
    ],
)
@pytest.mark.parametrize("value", [-1, NAN])
def test_option_of_a_schedule_that_is_negative_is_refused(kind, options, name, value):
    with refused(ValueError, kind, f"{name} must", str(value)):
        getattr(ddbp, kind)(0.1, **options, **{name: value})


@pytest.mark.parametrize("options", [{}, {"every": 0}, {"every": 5, "at": (3,)}])
def test_step_decay_needs_one_of_its_two_forms(options):
    with refused(
        ValueError, "StepDecay", "exactly one of every (at least 1) and at must be given", ""
    ):
        ddbp.StepDecay(0.1, **options)


def test_rise_that_leaves_no_fall_is_refused():
    with refused(ValueError, "OneCycle", "rise must be a fraction below 1", "1.0"):
        ddbp.OneCycle(0.1, steps=10, rise=1.0)


@pytest.mark.parametrize("steps", [0, -3, NAN])
def test_warm_up_without_steps_is_refused(steps):
    with refused(ValueError, "WarmUp", "steps must be positive and finite", str(steps)):
        ddbp.WarmUp(0.1, steps=steps)


@pytest.mark.parametrize("arguments", [(-0.1, 64), (0.1, 0), (NAN, 64)])
def test_linear_scaling_of_what_is_not_positive_is_refused(arguments):
    with refused(ValueError, "linear_scaling", "must be positive and finite", ""):
        ddbp.linear_scaling(*arguments)


@pytest.mark.parametrize(
    ("name", "value"), [("patience", 0), ("patience", -1), ("delta", -0.5), ("delta", NAN)]
)
def test_option_of_early_stopping_that_makes_no_sense_is_refused(name, value):
    with refused(ValueError, "EarlyStopping", f"{name} must", str(value)):
        ddbp.EarlyStopping(**{name: value})


def test_early_stopping_on_what_is_not_measured_is_refused():
    trainer = make(callbacks=[ddbp.EarlyStopping(monitor="validation_acuracy", mode="max")])
    with refused(
        ValueError,
        "EarlyStopping",
        "monitor must be a number of the record",
        "'validation_acuracy'",
    ):
        trainer.fit(DATA, epochs=1, validation=DATA)


# Old names


@pytest.mark.parametrize("name", ["batch_size", "shards", "truncate", "l2"])
def test_options_that_are_asked_for_at_their_old_place_are_refused(name):
    must = f"the attribute `{name}` is now called `options.{name}`"
    with refused(AttributeError, "Trainer", must, f".{name}"):
        getattr(make(), name)


def test_changing_is_another_name_of_modify_parameters():
    assert ddbp.changing is ddbp.modify_parameters
