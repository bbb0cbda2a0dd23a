"""Rows of the table of public calls: sources, and files of images, tables, texts and series."""

import numpy as np
from valid import DATA, LABELS, ROWS, X, Y, method, row

import ddbp

ITEMS = [(row, int(label)) for row, label in zip(ROWS, LABELS, strict=True)]


def read(source):
    """Read all of a source as a trainer does."""
    source.astype(np.float32).take(np.arange(len(source)))


PIXELS = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4, 1)
TABLE = {"x": [1.0, 2.0, 3.0, 4.0], "k": ["a", "b", "a", "b"], "y": [0, 1, 0, 1]}


def reader(**options):
    return ddbp.data.ImageReader((4, 4), 1, **options)


def encoder(**options):
    return ddbp.data.TableEncoder.fit(TABLE, target="y", **options)


def text_encoder():
    return ddbp.data.TextEncoder.characters("abc de", classes=("a", "b"))


def series_reader():
    return ddbp.data.SeriesReader([0.0, 1.0], [1.0, 2.0], classes=("up", "down"))


FILES_OF_DATA = [
    row(
        "data.ImageReader",
        (4, 4),
        1,
        mean=[0.5],
        std=[0.25],
        classes=("cat", "dog"),
        endless=(0,),
        then=lambda made: made.transform([PIXELS[0]]),
    ),
    method(reader, "ddbp.data.ImageReader", "transform", raw=PIXELS),
    method(reader, "ddbp.data.ImageReader", "pixels", image="images/dog/1.png"),
    method(
        lambda: reader(classes=("cat", "dog")),
        "ddbp.data.ImageReader",
        "predictions",
        outputs=np.eye(2, dtype=np.float32),
    ),
    method(reader, "ddbp.data.ImageReader", "from_state", state=reader().state()),
    row("data.ImageArrays", pixels=PIXELS, labels=LABELS, reader=reader(), then=read),
    row(
        "data.ImageFolder",
        path="images",
        reader=None,
        size=(4, 4),
        channels=1,
        standardize=True,
        in_memory=True,
        skip_bad=False,
        endless=("size",),
        then=read,
    ),
    row("data.read_idx", path="good.idx"),
    row("data.read_cifar", path="good.bin", part="test", kind="cifar10"),
    row("data.read_table", path="good.csv", delimiter=",", skip_bad=False),
    row("data.Table", columns=TABLE, then=lambda made: made.place(0)),
    method(lambda: ddbp.data.Table(TABLE), "ddbp.data.Table", "of", given=TABLE),
    row("data.TableEncoder", state=encoder().state(), then=lambda made: made.transform(TABLE)),
    method(
        encoder,
        "ddbp.data.TableEncoder",
        "fit",
        table=TABLE,
        target="y",
        roles={"k": "category"},
        task="classification",
        missing="mean",
        unknown="zero",
        encoding="index",
        skip_bad=False,
        then=lambda made: made.encode(TABLE),
    ),
    method(encoder, "ddbp.data.TableEncoder", "encode", table=TABLE, targets=True, skip_bad=False),
    method(encoder, "ddbp.data.TableEncoder", "transform", raw=TABLE),
    method(
        lambda: encoder(task="regression"),
        "ddbp.data.TableEncoder",
        "predictions",
        outputs=ROWS[:, :1],
    ),
    row("data.PreparedDataset", x=X, y=Y, preprocessing=encoder(), weights=None),
    row("data.TextEncoder", text_encoder()._vocabulary, unknown=False, classes=("a", "b")),
    method(text_encoder, "ddbp.data.TextEncoder", "characters", texts=["abc"], unknown=False),
    method(text_encoder, "ddbp.data.TextEncoder", "words", texts="a b a", size=9, unknown=True),
    method(text_encoder, "ddbp.data.TextEncoder", "bpe", texts="a rose is a rose", size=260),
    method(text_encoder, "ddbp.data.TextEncoder", "bytes", classes=("a", "b")),
    method(text_encoder, "ddbp.data.TextEncoder", "encode", text="abc"),
    method(text_encoder, "ddbp.data.TextEncoder", "strange", text="abc"),
    method(text_encoder, "ddbp.data.TextEncoder", "decode", tokens=np.arange(3)),
    method(text_encoder, "ddbp.data.TextEncoder", "transform", raw=["abc", "de"]),
    method(
        text_encoder,
        "ddbp.data.TextEncoder",
        "encode_file",
        path="words.txt",
        tokens_path="words.npy",
    ),
    method(
        lambda: ddbp.data.TextEncoder.bytes(classes=("a", "b")),
        "ddbp.data.TextEncoder",
        "dataset",
        lines=ddbp.data.LabelledLines(("one", "two"), ("a", "b"), ("a", "b"), ()),
    ),
    row("data.TextWindows", tokens="tokens.npy", length=4, stride=2, encoder=None, then=read),
    row("data.read_text", path="good.txt"),
    row("data.read_lines", path="good.txt", separator="\t", skip_bad=False),
    row("data.read_ts", path="good.ts", skip_bad=False),
    row(
        "data.read_series_table",
        path="long.csv",
        series="s",
        label="l",
        time="t",
        values=["x"],
        skip_bad=False,
    ),
    row("data.read_series_folder", path="series", skip_bad=False),
    row(
        "data.SeriesReader",
        [0.0, 1.0],
        [1.0, 2.0],
        classes=("up", "down"),
        target=None,
        names=("a", "b"),
    ),
    method(series_reader, "ddbp.data.SeriesReader", "fit", series=None, names=None),
    method(series_reader, "ddbp.data.SeriesReader", "dataset", series=None),
    method(series_reader, "ddbp.data.SeriesReader", "transform", raw=[ROWS[:, :2]]),
    row("data.preprocessing", state=reader().state()),
    row("data.load", "digits", folder="folder", window=16),
    row("data.named_sets"),
]

DATA_ROWS = [
    row("data.ArraySource", x=ROWS, y=LABELS, weights=np.ones(4), then=read),
    row("data.ArraySource", x=ddbp.Ragged([[1.0], [2.0, 3.0], [4.0], [5.0]]), y=LABELS, then=read),
    row("data.ItemSource", items=ITEMS, lengths=None, then=read),
    row(
        "data.ItemSource",
        items=[{"a": row, "b": label} for row, label in ITEMS],
        x="a",
        y="b",
        weights=None,
        then=read,
    ),
    row(
        "data.GeneratorSource", make=lambda: iter(ITEMS), samples=4, endless=("samples",), then=read
    ),
    row(
        "data.ArrowSource",
        path="good.parquet",
        x="x",
        y="y",
        weights=None,
        cache="cache",
        then=read,
    ),
    row("data.open_arrays", path="good.npz"),
    row("data.Rows", x=ROWS, y=LABELS, weights=None),
    row("data.split", data=DATA, fractions=(0.5, 0.5), seed=0, stratified=False),
    method(
        lambda: ddbp.data.ArraySource(ROWS, LABELS), "ddbp.data.Source", "subset", numbers=[0, 1]
    ),
    method(
        lambda: ddbp.data.ArraySource(ROWS, LABELS),
        "ddbp.data.Source",
        "map",
        function=lambda x, y: (x, y),
        then=read,
    ),
    method(
        lambda: ddbp.Ragged([[1.0]]),
        "ddbp.Ragged",
        "joined",
        values=ROWS,
        lengths=[1, 3],
        padding=0.0,
    ),
    *FILES_OF_DATA,
]
