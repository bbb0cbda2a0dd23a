"""Small models of all kinds, trainers of them, and data in all forms."""

import numpy as np
from drawn_data import CLASSES, FEATURES, classification, texts

import ddbp
from layers import (
    GRU,
    LSTM,
    AdaptiveAvgPool2d,
    Composite,
    Dropout,
    Embedding,
    Flatten,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    Linear,
    LogSoftmax,
    MaxPool1d,
    MaxPool2d,
    MeanAbsoluteError,
    MeanSquaredError,
    PReLU,
    ReLU,
    Reshape,
    Sequential,
    SoftmaxCrossEntropy,
    Softplus,
    Tanh,
    TreeLSTM,
    Upsample,
    erf,
    logsumexp,
    models,
    top_k,
)

EPOCHS = 5


def errors(prediction, target):
    """Return a loss in Python, of a mean over the batch, a sum, and a loss layer."""
    error = prediction - target
    rest = MeanAbsoluteError()(prediction, target)
    return (error * error).mean() + 0.01 * (error**4).sum() / 50 + rest / 2


# 173 samples in batches of 50 end with one of 23; 151 and 51 end with a single sample, which leaves
# most shards and ranks empty.
TRAINING, VALIDATION, ODD, ODD_VALIDATION = (
    classification(*sizes) for sizes in ((173, 1), (37, 2), (151, 3), (51, 4))
)


def network(*middle: object, dtype: type = np.float32) -> Sequential:
    """Return a network whose parameters fill several blocks of flat memory, so that every rank owns
    some.
    """
    rng = np.random.default_rng(7)
    return Sequential(
        Linear(FEATURES, 64, rng=rng, dtype=dtype),
        ReLU(),
        *middle,
        Linear(64, 64, rng=rng, dtype=dtype),
        Tanh(),
        Linear(64, CLASSES, rng=rng, dtype=dtype),
    )


def reader() -> Sequential:
    """Return a network that reads sentences from both ends."""
    return Sequential(
        Embedding(CLASSES, 8, rng=np.random.default_rng(1)),
        Dropout(0.1),
        LSTM(8, 32, last=True, bidirectional=True, rng=np.random.default_rng(1)),
        Linear(64, CLASSES, rng=np.random.default_rng(2)),
    )


def windowed() -> Sequential:
    """Return a network with images in it, that are normalised, pooled and enlarged."""
    rng = np.random.default_rng(7)
    return Sequential(
        Linear(FEATURES, 64, rng=rng),
        Reshape(4, 4, 4),
        GroupNorm(2, 4),
        PReLU(4),
        Upsample(2, mode="bilinear"),
        MaxPool2d(3, 2, 1, ceil_mode=True),
        InstanceNorm2d(4, affine=True),
        ReLU(),
        AdaptiveAvgPool2d(3),
        LayerNorm((3, 3, 4)),
        Softplus(),
        Reshape(9, 4),
        MaxPool1d(2),
        Flatten(),
        Linear(16, CLASSES, rng=rng),
        LogSoftmax(),
    )


class Alternating(Composite):
    """Two branches that take turns, so that in each step the parameters of one of them are not
    used; and a shared layer.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(8)
        self.first, self.last = Linear(FEATURES, 32, rng=rng), Linear(32, CLASSES, rng=rng)
        self.branches = [Linear(32, 32, rng=rng), Linear(32, 32, rng=rng)]
        self.calls = 0

    def __call__(self, x):
        h = self.first(x)
        branch = self.branches[self.calls % 2]
        self.calls += 1
        return self.last(branch(branch(h)) + h)

    def __repr__(self) -> str:
        return "Alternating()"


class Written(Composite):
    """A network written with NumPy's functions, on each sample by itself."""

    def __init__(self) -> None:
        rng = np.random.default_rng(12)
        self.first, self.last = Linear(FEATURES, 16, rng=rng), Linear(32, CLASSES, rng=rng)

    def __call__(self, x):
        h = self.first(x)
        h = np.concatenate([np.log1p(np.exp(h)), np.sin(h) ** 2, erf(h)], axis=1)
        h = (h - np.mean(h, axis=1, keepdims=True)) / (np.std(h, axis=1, keepdims=True) + 0.1)
        best, _ = top_k(h, 4, axis=1)
        pairs = np.einsum("ni,nj->nij", best, np.cumsum(h[:, 8:16], axis=1))
        y = self.last(np.reshape(np.clip(pairs, -3, 3), (-1, 32)))
        return y - logsumexp(y, axis=1, keepdims=True)

    def __repr__(self) -> str:
        return "Written()"


class Counting(Composite):
    """A Tree-LSTM on trees whose nodes are all alike, and a dense layer on the root."""

    def __init__(self) -> None:
        rng = np.random.default_rng(9)
        self.cell, self.head = TreeLSTM(3, 12, rng=rng), Linear(12, CLASSES, rng=rng)

    def __call__(self, x):
        parents = x.array
        return self.head(
            self.cell(
                x.tape.input(np.ones((*parents.shape, 3), np.float32), gradient=False), parents
            )
        )

    def __repr__(self) -> str:
        return "Counting()"


class Tagging(Composite):
    """Two inputs and two outputs."""

    def __init__(self) -> None:
        rng = np.random.default_rng(9)
        self.dense = Linear(FEATURES, 16, rng=rng)
        self.embedding, self.gru = Embedding(CLASSES, 8, rng=rng), GRU(8, 16, last=True, rng=rng)
        self.label, self.number = Linear(16, CLASSES, rng=rng), Linear(16, 1, rng=rng)

    def __call__(self, point, words, words_lengths):
        h = self.dense(point) * self.gru(self.embedding(words), words_lengths)
        return {"label": self.label(h), "number": self.number(h)}

    def __repr__(self) -> str:
        return "Tagging()"


def of_images(data: ddbp.ArrayDataset) -> ddbp.ArrayDataset:
    """Return data with the features of each sample as an image."""
    return ddbp.ArrayDataset(data.x.reshape(-1, 5, 4, 1), data.y)


def loss_of_both(prediction, y):
    """Return the sum of the losses of two outputs."""
    label = SoftmaxCrossEntropy()(prediction["label"], y["label"])
    return label + 0.1 * MeanSquaredError()(prediction["number"], y["number"])


def language_model(recurrent, width: int) -> Sequential:
    """Return a model of the tokens around a recurrent layer with so many outputs."""
    rng = np.random.default_rng(10)
    return Sequential(Embedding(CLASSES, 8, rng=rng), recurrent, Linear(width, CLASSES, rng=rng))


def fitted(model, optimizer, *, training=TRAINING, validation=VALIDATION, loss=None, **options):
    """Return the trainer and its history after EPOCHS epochs of `fit`."""
    trainer = make(model, optimizer, loss=loss, **options)
    return trainer, trainer.fit(training, epochs=EPOCHS, validation=validation)


def of_rows(data):
    """Return a source that reads the samples of a data set row by row."""
    return ddbp.data.ArraySource(data.x, data.y, weights=data.weights)


def images(samples, seed):
    """Return a source of images in bytes, brighter from class to class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, samples)
    bright = 200 // CLASSES * labels[:, np.newaxis, np.newaxis, np.newaxis]
    pixels = (bright + rng.integers(0, 50, (samples, 8, 8, 1))).astype(np.uint8)
    reader = ddbp.data.ImageReader(8, 1, mean=[0.5], std=[0.25])
    return ddbp.data.ImageArrays(pixels, labels, reader)


def windows_of_text(samples):
    """Return a source of windows that overlap, of tokens that come again."""
    tokens = np.arange(5 * samples + 8, dtype=np.uint8) % CLASSES
    return ddbp.data.TextWindows(tokens, 12, 5)


def transformer(**options):
    """Return what `fitted` does, of a small GPT."""
    model = models.gpt(np.random.default_rng(1), CLASSES, 12, 24, 2, 3, dropout=0.1)
    return fitted(
        model, ddbp.Adam(0.01), training=texts(173, 6), validation=texts(37, 7), **options
    )


def make(model, optimizer, *, loss=None, batch_size=50, **options):
    """Return a quiet trainer."""
    instruments = [] if "exchange" in options else [ddbp.Instruments(3)]
    return ddbp.Trainer(
        model,
        loss=loss or SoftmaxCrossEntropy(),
        optimizer=optimizer,
        batch_size=batch_size,
        seed=11,
        quiet=True,
        callbacks=[*options.pop("callbacks", ()), *instruments],
        **options,
    )


def number(shards, usual: int) -> int:
    """Return a number of workers: that of the shards, or what is usual where there is one per
    rank.
    """
    return shards if isinstance(shards, int) else usual


def centred(gradient: ddbp.GlobalGradient, step: int) -> None:
    """Take the mean of its row from each gradient of a matrix."""
    whole = gradient.whole()
    for array in whole.values():
        if array.ndim == 2:
            array -= array.mean(axis=1, keepdims=True)
    gradient.replace(whole)


class EndsRounds(ddbp.Callback):
    """Has workers exchange what they have trained at the end of each epoch."""

    def on_epoch_end(self, trainer: ddbp.Trainer, record: dict[str, object]) -> None:
        trainer.end_round()
