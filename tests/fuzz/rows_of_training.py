"""Rows of the table of public calls: trainers, optimizers, callbacks, metrics and scripts."""

import numpy as np
from valid import (
    DATA,
    LABELS,
    ROWS,
    Row,
    X,
    Y,
    common,
    flags,
    method,
    network,
    rates,
    row,
    trainer,
    value,
    with_callback,
    with_doctor,
)

import ddbp
import layers


def compressed(made):
    """Take a step whose gradients are compressed."""
    trainer(compression=made).train_step(X[:4], Y[:4])


SCORES = np.random.default_rng(2).standard_normal((4, 3))
HITS = np.array([0.0, 1, 1, 0])

TRAINING = [
    *common(),
    row("ddbp.Optimizer", learning_rate=0.1),
    row("ddbp.Constant", rate=0.1, then=rates),
    row("ddbp.StepDecay", rate=0.1, every=3, then=rates),
    row("ddbp.StepDecay", rate=0.1, at=(3, 5), then=rates),
    row("ddbp.Exponential", rate=0.1, factor=0.9, then=rates),
    *(row(f"ddbp.{name}", rate=0.1, steps=9, then=rates) for name in ("Cosine", "CosineRestarts")),
    *(row(f"ddbp.{name}", rate=0.1, steps=9, then=rates) for name in ("Polynomial", "OneCycle")),
    row("ddbp.WarmUp", schedule=0.1, steps=3, then=rates),
    row("ddbp.ByEpoch", schedule=0.1, then=rates),
    row("ddbp.Plateau", rate=0.1, then=rates),
    row("ddbp.linear_scaling", rate=0.1, batch_size=64),
    row(
        "ddbp.ClipParameterNorms",
        limit=1.0,
        then=lambda made: trainer(transforms=[made]).train_step(X[:4], Y[:4]),
    ),
    *(
        row(f"ddbp.{name}", **constants, then=compressed)
        for name, constants in (("TopK", {"ratio": 0.1}), ("PowerSGD", {"rank": 1}), ("Sign", {}))
    ),
    Row(
        "ddbp.Trainer",
        lambda **options: trainer(**options),
        {"metrics": ["accuracy"]},
        lambda made: made.fit(DATA, epochs=1),
        of=ddbp.Trainer,
    ),
    method(trainer, "ddbp.Trainer", "fit", dataset=DATA, epochs=1, endless=("epochs",)),
    method(trainer, "ddbp.Trainer", "evaluate", dataset=DATA),
    method(trainer, "ddbp.Trainer", "predict", x=X),
    method(trainer, "ddbp.Trainer", "train_step", x=X[:4], y=Y[:4]),
    method(trainer, "ddbp.Trainer", "batch", x=X[:4], y=Y[:4]),
    method(
        trainer, "ddbp.Trainer", "batches", dataset=DATA, epochs=1, then=list, endless=("epochs",)
    ),
    method(
        trainer,
        "ddbp.Trainer",
        "fork",
        steps=2,
        data=DATA,
        samples=3,
        learning_rate=0.1,
        clip_norm=1.0,
        dropout=0.1,
        endless=("steps",),
    ),
    method(trainer, "ddbp.Trainer", "step", loss=value().sum()),
    method(trainer, "ddbp.Trainer", "update", loss=1.0),
    method(trainer, "ddbp.Trainer", "load_state", snapshot=trainer().state()),
    row("ddbp.TrainerOptions", batch_size=4),
    row(
        "ddbp.LossScale",
        initial=2.0**10,
        interval=3,
        then=lambda made: trainer(loss_scale=made).train_step(X[:4], Y[:4]),
    ),
    row(
        "ddbp.Rollback",
        factor=0.5,
        most=3,
        then=lambda made: ddbp.TrainerOptions(batch_size=4, on_nonfinite=made),
    ),
    row(
        "ddbp.LocalSGD",
        workers=2,
        every=2,
        after=1,
        then=lambda made: trainer(exchange=made).train_step(X[:4], Y[:4]),
    ),
    row(
        "ddbp.DiLoCo",
        workers=2,
        every=2,
        outer_rate=0.5,
        outer_momentum=0.8,
        fragments=2,
        bits=8,
        then=lambda made: trainer(exchange=made).train_step(X[:4], Y[:4]),
    ),
    row("ddbp.Snapshot", arrays={}, values={}, then=lambda made: trainer().load_state(made)),
    row("ddbp.ArrayDataset", x=X, y=Y, then=lambda made: trainer().fit(made, epochs=1)),
    method(lambda: DATA, "ddbp.ArrayDataset", "split", fraction=0.5),
    method(lambda: DATA, "ddbp.ArrayDataset", "astype", dtype=np.float64),
    row("ddbp.Ragged", sequences=[[1.0, 2.0], [3.0]]),
    row("ddbp.Callback", then=with_callback),
    row("ddbp.Checkpoints", path="checkpoints"),
    row("ddbp.EarlyStopping", then=with_callback),
    row("ddbp.Doctor", then=with_doctor),
    row("ddbp.Instruments", every=1, then=with_callback),
    row("ddbp.BestWeights", then=with_callback),
    row("ddbp.TextSamples", vocabulary="abc", write=str, then=with_callback),
    row("ddbp.ExponentialMovingAverage", then=with_callback),
    row(
        "ddbp.Trace",
        path="trace.json",
        first_step=0,
        steps=3,
        most_events=2000,
        then=with_callback,
    ),
    row("ddbp.StepDigests"),
    row("ddbp.Logger", every_steps=3),
    row("ddbp.TensorBoard", path="events", every_steps=3),
    row("ddbp.WeightsAndBiases", project="ddbp", mode="offline", every_steps=3),
    row("ddbp.MLflow", uri="file:mlruns", experiment="ddbp", every_steps=3),
    row("ddbp.Trackio", project="ddbp", every_steps=3),
    row("ddbp.History", [{"epoch": 1, "loss": 0.5}], then=lambda made: made._repr_html_()),
    row("ddbp.lr_find", trainer=trainer(), data=DATA, steps=10, endless=("steps",)),
    row("ddbp.RateRange", rates=[0.1, 0.2], losses=[1.0, 0.5], then=repr),
    row("ddbp.figure", thing=layers.summary(network(), (4, 6))),
    *(
        row(f"ddbp.{name}", prediction=SCORES, target=LABELS)
        for name in ("accuracy", "bits_per_character")
    ),
    row("ddbp.top_k_accuracy", k=2, then=lambda made: made(SCORES, LABELS), **{}),
    *(
        row(f"ddbp.{name}", prediction=SCORES[:, 0], target=HITS)
        for name in ("binary_accuracy", "precision", "recall", "f1_score")
    ),
    *(
        row(f"ddbp.{name}", prediction=SCORES, target=SCORES)
        for name in ("mean_absolute_error", "mean_squared_error")
    ),
    row("ddbp.save_parameters", model=network(), path="model.safetensors"),
    row("ddbp.load_parameters", model=network(), path="good.safetensors"),
    row("ddbp.communicator"),
    *(
        row(f"ddbp.{name}", trainer=trainer(), then=lambda context: context.__enter__())
        for name in ("modify_parameters", "changing")
    ),
    row(
        "script.Flags",
        description="About.",
        epochs=1,
        batch_size=4,
        learning_rate=0.1,
    ),
    row("script.cosine", options=flags(), training=DATA),
    row("script.positive_int", text="3"),
    row("script.positive_float", text="3.5"),
    row("script.root_mean_square", error=ROWS),
    row("script.root_mean_square_errors", predictions={"rmse": ROWS}, target=ROWS, scale=2.0),
    row("script.linear_fit", training=DATA, test=DATA),
    row("script.run_folder"),
    row("script.use_one_thread"),
    row("data.digits", 8, 8),
]
