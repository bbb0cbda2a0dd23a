"""Trainers whose steps are replayed: the bits of those whose steps are not, whatever is done to
gradients, and whoever looks at some of the steps.
"""

import numpy as np
import pytest

import ddbp
from ddbp.instruments.instruments import Instruments
from layers import (
    GELU,
    GRU,
    LSTM,
    RNN,
    AvgPool3d,
    BatchNorm2d,
    Conv2d,
    Conv3d,
    ConvTranspose2d,
    ConvTranspose3d,
    Dropout,
    Dropout2d,
    Embedding,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool3d,
    MeanSquaredError,
    ReLU,
    Reshape,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Upsample,
    models,
)

CLASSES = 3
OPTIONS = {
    "alone": {},
    "shards": {"shards": 4},
    "accumulated": {"accumulate": 3, "shards": "ranks"},
    "clipped": {"clip_norm": 0.5},
    "clipped by value": {"clip_value": 0.01, "shards": 2},
    "penalties": {"l1": 1e-3, "l2": 1e-3},
    "schedule": {"optimizer": ddbp.SGD(ddbp.Cosine(0.1, steps=30), momentum=0.9)},
    "groups": {"optimizer": ddbp.Adam(1e-2, groups={"layers.1.*": {"learning_rate": 1e-4}})},
    "memory checked": {"optimizer": ddbp.AdamW(1e-2)},
    "skipping": {"on_nonfinite": "skip"},
    "bf16": {"precision": "bf16"},
    "float16": {"precision": "float16"},
    # A step is learned anew for each scale, and this one is doubled twice.
    "scaled": {"loss_scale": ddbp.LossScale(2.0**10, 12)},
}


def data(rows=83):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, 2, 4)).astype(np.float32)
    return ddbp.ArrayDataset(x, (x.sum(axis=(1, 2)) > 0).astype(np.int64) + (x[:, 0, 0] > 1))


def network():
    rng = np.random.default_rng(3)
    return Sequential(
        Flatten(),
        Linear(8, 16, rng=rng),
        ReLU(),
        Residual(Sequential(Linear(16, 16, rng=rng), GELU())),
        Tanh(),
        Linear(16, CLASSES, rng=rng),
    )


def trained(epochs=6, callbacks=(), **options):
    """Return the trainer after some epochs of batches of 20, the last one of 3 samples."""
    options = {"optimizer": ddbp.Adam(1e-2), "loss": "cross_entropy", **options}
    trainer = ddbp.Trainer(network(), batch_size=20, callbacks=callbacks, quiet=True, **options)
    trainer.fit(data(), epochs=epochs)
    return trainer


def results(trainer):
    losses = [record["loss"] for record in trainer.history if "loss" in record]
    return losses, trainer.parameters_sha256(), trainer._workspace.replay.steps


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_a_trainer_keep_their_meaning(name, monkeypatch):
    if name == "memory checked":
        monkeypatch.setenv("DDBP_CHECK_MEMORY", "1")
    losses, parameters, replayed = results(trained(**OPTIONS[name]))
    assert replayed >= 3
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert results(trained(**OPTIONS[name])) == (losses, parameters, 0)


def test_regression_is_replayed(monkeypatch):
    rows = data()
    rows = ddbp.ArrayDataset(rows.x, np.eye(CLASSES, dtype=np.float32)[rows.y])

    def run():
        options = {"optimizer": "adam", "loss": MeanSquaredError(), "batch_size": 20}
        trainer = ddbp.Trainer(network(), quiet=True, **options)
        trainer.fit(rows, epochs=3)
        return results(trainer)

    losses, parameters, replayed = run()
    assert replayed > 5
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert run() == (losses, parameters, 0)


def test_steps_that_instruments_measure_are_ordinary_and_the_others_replayed(monkeypatch):
    def run(every):
        instruments = Instruments(every=every)
        trainer = trained(6, [instruments])
        return instruments, *results(trainer)

    instruments, losses, parameters, replayed = run(4)
    assert 8 <= replayed < 24
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    others, *rest = run(4)
    assert rest == [losses, parameters, 0]
    mine, theirs = (each.recording.values for each in (instruments, others))
    assert len(mine["gradient_norm"]) > 3
    for name in ("gradient_norm", "activation_norm"):
        assert mine[name].tobytes() == theirs[name].tobytes()


def test_loss_that_is_not_finite_is_explained_as_in_an_ordinary_step(monkeypatch):
    def said():
        trainer = ddbp.Trainer(
            network(), loss="cross_entropy", optimizer=ddbp.SGD(0.1), batch_size=20, quiet=True
        )
        x, y = data().x[:20], data().y[:20]
        for _ in range(5):
            trainer.train_step(x, y)
        x = x.copy()
        x[3] = np.nan
        with pytest.raises(FloatingPointError) as raised:
            trainer.train_step(x, y)
        return str(raised.value), trainer._workspace.replay.steps

    text, replayed = said()
    assert replayed == 3
    assert "was given nan" in text
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert said() == (text, 0)


def test_loop_of_a_script_is_replayed(monkeypatch):
    def run():
        trainer = ddbp.Trainer(
            network(), loss="cross_entropy", optimizer="adam", batch_size=20, quiet=True
        )
        losses = []
        for batch in trainer.batches(data(), epochs=3):
            loss = trainer.loss(trainer.model(batch.x), batch.y)
            losses.append((loss, trainer.step(loss)))
        values = [loss.item() for loss, _ in losses]
        assert values == pytest.approx([value for _, value in losses])
        sums = [loss.shard_sums is not None for loss, _ in losses]
        assert all(sums)
        return values, trainer.parameters_sha256(), trainer._workspace.replay.steps

    values, parameters, replayed = run()
    assert replayed > 5
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert run() == (values, parameters, 0)


def asked(monkeypatch, model, loss="cross_entropy"):
    """Return in how many of 8 steps the model was called."""
    calls = []
    call = Sequential.__call__
    with monkeypatch.context() as context:
        # That calls the model, too, once.
        context.setattr("ddbp.training.trainer.compile_step", lambda *_: None)
        context.setattr(
            Sequential,
            "__call__",
            lambda self, x: calls.append(self is model) or call(self, x),
        )
        trainer = ddbp.Trainer(model, loss=loss, optimizer="adam", batch_size=20, quiet=True)
        for _ in range(8):
            trainer.train_step(data().x[:20], data().y[:20])
        assert trainer._workspace.replay.steps == 6
    return sum(calls)


def test_model_without_code_of_a_user_is_not_asked_again(monkeypatch):
    assert asked(monkeypatch, network()) == 2


class Named(Sequential):
    """A model of a user."""


def test_model_or_loss_of_a_user_is_asked_in_every_step(monkeypatch):
    loss = SoftmaxCrossEntropy()
    assert asked(monkeypatch, Named(*network().layers)) == 8
    assert asked(monkeypatch, network(), lambda z, y: loss(z, y)) == 8
    inner = Sequential(Named(*network().layers[:4]), *network().layers[4:])
    assert asked(monkeypatch, inner) == 8


@pytest.mark.parametrize("change", ["attribute", "frozen", "other loss", "weights", "labels"])
def test_model_that_was_changed_is_asked_again(change, monkeypatch):
    def run():
        model = network()
        trainer = ddbp.Trainer(
            model, loss="cross_entropy", optimizer="adam", batch_size=20, quiet=True
        )
        x, y, found = data().x[:20], data().y[:20], []
        for step in range(12):
            if step == 6 and change == "attribute":
                model._steps = model._steps[:-2] + model._steps[-1:]
            if step == 6 and change == "frozen":
                model.layers[1].freeze()
            if step == 6 and change == "other loss":
                trainer.loss = SoftmaxCrossEntropy(label_smoothing=0.5)
            weights = np.linspace(0, 1, 20) if step == 6 and change == "weights" else None
            labels = (2 - y).astype(np.int32) if step == 6 and change == "labels" else y
            found.append(trainer.train_step(x, labels, weights))
        return found, trainer.parameters_sha256(), trainer._workspace.replay.steps

    found, parameters, replayed = run()
    assert replayed >= 4
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert run() == (found, parameters, 0)


def test_calls_of_a_step_that_was_taken_at_once_are_those_of_an_ordinary_one():
    trainer = trained()
    batch = trainer.batch(data().x[:20], data().y[:20])
    loss = batch.tape.repeat(trainer.model, trainer.loss, batch.x, (batch.y,))
    calls = loss.tape.calls
    assert [call.layer for call in calls[:-1]] != []
    assert calls[0].inputs == (batch.x,)
    assert calls[-1].output is loss
    for call in calls[1:]:
        assert all(x.call in calls or x is batch.x for x in call.inputs if hasattr(x, "call"))
    assert calls[-1].inputs[1] is batch.y
    again = trainer.loss(trainer.model(batch.x), batch.y)
    assert again.item() == loss.item()


def of_images(rng):
    return models.small_cnn(rng, (8, 8, 2), CLASSES, (4, 8), 16)


def with_norms(rng):
    body = Sequential(Conv2d(4, 4, 3, padding=1, rng=rng), BatchNorm2d(4))
    return Sequential(
        *(Conv2d(2, 4, 3, padding=1, rng=rng), BatchNorm2d(4), ReLU(), Residual(body), ReLU()),
        *(Dropout2d(0.2), GlobalAveragePool(), Dropout(0.3), Linear(4, CLASSES, rng=rng)),
    )


def of_words(rng):
    return Sequential(
        Embedding(11, 8, rng=rng),
        GRU(8, 12, rng=rng, layers=2, dropout=0.2),
        LSTM(12, 8, rng=rng, bidirectional=True),
        RNN(16, 8, rng=rng, last=True),
        Linear(8, CLASSES, rng=rng),
    )


def of_tokens(rng):
    return models.gpt(rng, 11, 6, 8, depth=2, heads=2, dropout=0.1)


def of_volumes(rng):
    return Sequential(
        Reshape(4, 4, 4, 2),
        Conv3d(2, 4, 3, padding=1, rng=rng),
        ReLU(),
        MaxPool3d(2),
        Conv3d(4, 4, 2, padding=1, padding_mode="replicate", rng=rng),
        AvgPool3d(2, stride=1),
        ConvTranspose3d(4, 3, 2, stride=2, rng=rng),
        Flatten(),
        Linear(4 * 4 * 4 * 3, CLASSES, rng=rng),
    )


def enlarged(rng):
    return Sequential(
        Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="reflect", rng=rng),
        ConvTranspose2d(4, 4, 2, stride=2, rng=rng),
        Tanh(),
        Upsample(2),
        Conv2d(4, 4, 3, stride=2, padding=1, padding_mode="circular", groups=4, rng=rng),
        Upsample(size=5, mode="bilinear"),
        GlobalAveragePool(),
        Linear(4, CLASSES, rng=rng),
    )


KINDS = {
    "cnn": of_images,
    "volumes": of_volumes,
    "enlarged": enlarged,
    "norms": with_norms,
    "recurrent": of_words,
    "gpt": of_tokens,
}


def of_kind(kind, epochs=4, shards=2, **options):
    """Return the results of a network of some kind, with random masks and running statistics."""
    rng, of_data = np.random.default_rng(5), np.random.default_rng(6)
    if kind in ("cnn", "norms", "volumes", "enlarged"):
        x = of_data.standard_normal((83, 8, 8, 2)).astype(np.float32)
    else:
        x = of_data.integers(0, 11, (83, 6))
    y = of_data.integers(0, 11, (83, 6)) if kind == "gpt" else of_data.integers(0, CLASSES, 83)
    trainer = ddbp.Trainer(
        KINDS[kind](rng),
        loss="cross_entropy",
        optimizer="adam",
        batch_size=20,
        shards=shards,
        quiet=True,
        **options,
    )
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=epochs)
    return results(trainer)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_layers_are_replayed_with_their_masks_and_statistics(kind, precision, monkeypatch):
    losses, parameters, replayed = of_kind(kind, precision=precision)
    # Of each epoch the last batch is smaller.
    assert replayed >= 7
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert of_kind(kind, precision=precision) == (losses, parameters, 0)


def test_weights_whose_sum_is_another_one_are_no_repetition(monkeypatch):
    def run():
        trainer = ddbp.Trainer(
            network(), loss="cross_entropy", optimizer="adam", batch_size=20, quiet=True
        )
        x, y, found = data().x[:20], data().y[:20], []
        for step in range(6):
            weights = np.ones(20, np.float32) * (1 if step < 4 else step)
            weights[0] = step
            found.append(trainer.train_step(x, y, weights if step > 3 else np.ones_like(weights)))
        return found, trainer.parameters_sha256(), trainer._workspace.replay.steps

    found, parameters, _ = run()
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    assert run() == (found, parameters, 0)


def test_token_without_a_row_is_named_in_a_replayed_step():
    model = Sequential(Embedding(11, 8, rng=np.random.default_rng(0)), Flatten())
    model = Sequential(*model.layers, Linear(48, CLASSES, rng=np.random.default_rng(0)))
    trainer = ddbp.Trainer(model, loss="cross_entropy", optimizer="adam", batch_size=5, quiet=True)
    x, y = np.arange(30).reshape(5, 6) % 11, np.zeros(5, np.int64)
    for _ in range(6):
        trainer.train_step(x, y)
    assert trainer._workspace.replay.steps == 4
    x[3, 2] = 11
    with pytest.raises(ValueError, match=r"ids must be in 0..10; got 11 at \(3, 2\)"):
        trainer.train_step(x, y)
