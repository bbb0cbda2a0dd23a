"""Folders of images and what becomes of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ddbp.data.images import ImageArrays, ImageFolder, ImageReader
from ddbp.data.kinds import preprocessing

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: ddbp[images]")
RNG = np.random.default_rng(0)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three images of each of two classes, of several sizes and kinds."""
    for name in ("cat", "dog"):
        for number, suffix in enumerate((".png", ".jpg", ".BMP")):
            pixels = RNG.integers(0, 256, (10 + number, 12, 3), np.uint8)
            save(tmp_path / name / f"{number}{suffix}", pixels)
    (tmp_path / "notes.txt").write_text("no class")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def test_folders_are_classes_in_their_order(folder):
    images = ImageFolder(folder, size=(8, 9))
    assert images.preprocessing.classes == ("cat", "dog")
    assert [file.name for file in images.files] == ["0.png", "1.jpg", "2.BMP"] * 2
    rows = images.take(np.array([5, 0]))
    assert rows.x.shape == (2, 8, 9, 3)
    assert rows.x.dtype == np.float32
    assert rows.y.tolist() == [1, 0]
    assert images.targets(np.array([1, 3])).tolist() == [0, 1]


def test_pixels_without_resizing_are_bytes_by_255(tmp_path):
    pixels = RNG.integers(0, 256, (4, 5, 3), np.uint8)
    save(tmp_path / "a" / "x.png", pixels)
    save(tmp_path / "b" / "y.png", pixels)
    x = ImageFolder(tmp_path, size=(4, 5)).take(np.array([0])).x
    assert np.array_equal(x[0], (pixels / 255).astype(np.float32))


def test_in_memory_and_on_demand_are_the_same(folder):
    numbers = np.array([4, 1, 1, 0])
    for channels in (1, 3):
        one = ImageFolder(folder, channels=channels, standardize=True)
        other = ImageFolder(folder, channels=channels, standardize=True, in_memory=True)
        assert one.preprocessing == other.preprocessing
        assert np.array_equal(one.take(numbers).x, other.take(numbers).x)
        assert one.take(numbers).x.shape[-1] == channels


def test_standardized_images_have_mean_0_and_deviation_1(folder):
    x = ImageFolder(folder, standardize=True).take(np.arange(6)).x.astype(np.float64)
    assert np.abs(x.mean(axis=(0, 1, 2))).max() < 1e-6
    assert np.abs(x.std(axis=(0, 1, 2)) - 1).max() < 1e-6


def test_statistics_are_those_of_exact_sums(folder):
    images = ImageFolder(folder, standardize=True)
    plain = ImageFolder(folder)
    pixels = [plain.preprocessing.pixels(file) for file in plain.files]
    for channel, mean in enumerate(images.preprocessing.mean):
        values = [int(value) for each in pixels for value in each[..., channel].ravel()]
        assert mean == sum(values) / (255 * len(values)) or math.isclose(
            mean, sum(values) / (255 * len(values)), rel_tol=1e-15
        )


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 3), ("LA", 1), ("RGBA", 3), ("P", 3), ("1", 1), ("CMYK", 1)]
)
def test_images_of_all_modes_are_read(tmp_path, mode, channels):
    image = Image.fromarray(RNG.integers(0, 256, (6, 6, 3), np.uint8)).convert(mode)
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(file)
    assert ImageReader(4, channels).pixels(file).shape == (4, 4, channels)


def test_sixteen_bits_become_eight(tmp_path):
    deep = (np.arange(36, dtype=np.uint16) * 1800).reshape(6, 6)
    file = save(tmp_path / "x.png", deep)
    assert np.array_equal(ImageReader(6, 1).pixels(file)[..., 0], deep >> 8)


def test_images_are_turned_as_the_camera_says(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    file = save(tmp_path / "x.png", pixels, exif=exif)
    turned = ImageReader((8, 4)).pixels(file)
    assert (turned[:, -1] == 255).all()
    assert not turned[:, 0].any()


def test_a_reader_comes_back_from_json_and_reads_the_same(folder):
    images = ImageFolder(folder, size=7, channels=1, standardize=True)
    again = preprocessing(json.loads(json.dumps(images.preprocessing.state())))
    assert again == images.preprocessing
    assert np.array_equal(again.transform(images.files), images.take(np.arange(6)).x)
    assert again.predictions([[1.0, 2.0], [3.0, 0.0]]) == ["dog", "cat"]


def test_paths_images_and_arrays_are_the_same_to_a_reader(tmp_path):
    pixels = RNG.integers(0, 256, (5, 6, 3), np.uint8)
    file = save(tmp_path / "x.png", pixels)
    reader = ImageReader((5, 6))
    expected = reader.transform([file])
    for given in ([str(file)], [Image.open(file)], [pixels], pixels[np.newaxis]):
        assert np.array_equal(reader.transform(given), expected)
    assert reader.transform([]).shape == (0, 5, 6, 3)


def damage(folder):
    """Cut an image, and put text in place of another; return both."""
    cut, text = folder / "cat" / "1.jpg", folder / "dog" / "0.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    text.write_text("no image")
    return cut, text


@pytest.mark.parametrize("number", [1, 3])
def test_an_image_that_cannot_be_read_is_named(folder, number):
    damaged = damage(folder)
    images = ImageFolder(folder)
    images.take(np.array([0, 2, 4, 5]))
    with pytest.raises(ValueError, match=r"ImageReader: an image must be readable; got ") as caught:
        images.take(np.array([number]))
    assert str(damaged[number // 2]) in str(caught.value)
    with pytest.raises(ValueError, match=r"1\.jpg: .*skip_bad=True leaves it out"):
        ImageFolder(folder, in_memory=True)


@pytest.mark.parametrize("in_memory", [False, True])
def test_images_that_cannot_be_read_are_left_out_and_listed(folder, in_memory):
    whole = ImageFolder(folder).take(np.array([0, 2, 4, 5]))
    damaged = damage(folder)
    images = ImageFolder(folder, in_memory=in_memory, skip_bad=True)
    assert [each.place for each in images.skipped] == [*map(str, damaged)]
    assert all(each.reason for each in images.skipped)
    rows = images.take(np.arange(4))
    assert len(images) == 4
    assert np.array_equal(rows.x, whole.x)
    assert np.array_equal(rows.y, whole.y)


def test_a_class_that_loses_all_of_its_images_is_refused(folder):
    for file in (folder / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"every class must have an image .* none of dog; 3 are bad"
    ):
        ImageFolder(folder, skip_bad=True)


def test_the_file_of_a_sample_can_be_asked_for(folder):
    assert ImageFolder(folder).where("x", 3) == str(folder / "dog" / "0.png")


def make(folder, *names):
    for name in names:
        save(folder / name, np.zeros((2, 2, 3), np.uint8))


def refusals():
    yield "no folder", (), {}, NotADirectoryError, "which is not there"
    yield "nothing in it", (), {}, ValueError, "0 images and no sub-folder"
    yield "no classes", ("x.png", "y.png"), {}, ValueError, "2 images and no sub-folder"
    yield "one class", ("a/x.png",), {}, ValueError, "whose only sub-folder is a"
    yield "empty class", ("a/x.png", "b/x.txt"), {}, ValueError, "where b has none"
    two = ("a/x.png", "b/x.png")
    known = {"reader": ImageReader(2, classes=("a", "c"))}
    yield "unknown class", two, known, ValueError, "with b.*these classes, and no others"
    known = {"reader": ImageReader(2, classes=("a", "b", "c"))}
    yield "missing class", two, known, ValueError, "without c"
    yield "no reader", two, {"reader": 3}, TypeError, "must be an ImageReader"
    yield "size", two, {"size": 0}, ValueError, "size must be"
    yield "channels", two, {"channels": 2}, ValueError, "channels must be 1 or 3"
    yield "skip_bad", two, {"skip_bad": "yes"}, TypeError, "skip_bad must be True or False"


@pytest.mark.parametrize(
    ("files", "options", "error", "said"),
    [pytest.param(*each[1:], id=each[0]) for each in refusals()],
)
def test_folders_that_are_none_are_refused(tmp_path, request, files, options, error, said):
    for name in files:
        if name.endswith(".txt"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("")
        else:
            make(tmp_path, name)
    place = tmp_path / "gone" if "no folder" in request.node.name else tmp_path
    with pytest.raises(error, match=said):
        ImageFolder(place, **options)


def test_arrays_of_images_are_checked():
    reader = ImageReader(4, 1)
    pixels, labels = np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 0])
    images = ImageArrays(pixels, labels, reader)
    assert images.take(np.array([1])).y.tolist() == [1]
    for wrong in ((pixels[..., 0], labels), (pixels / 1.0, labels), (pixels, labels[:2])):
        with pytest.raises(ValueError, match="must be"):
            ImageArrays(*wrong, reader)


@pytest.mark.parametrize("cut", [0, 1, 7, 20, 33, 60, 200])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp"])
def test_a_file_that_is_cut_anywhere_is_refused_by_name(tmp_path, suffix, cut):
    file = save(tmp_path / f"x{suffix}", RNG.integers(0, 256, (16, 16, 3), np.uint8))
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"ImageReader: an image must be readable; got .*x"):
        ImageReader(8).pixels(file)


def test_bytes_of_any_kind_are_read_or_refused_by_name(tmp_path):
    good = save(tmp_path / "x.png", RNG.integers(0, 256, (8, 8, 3), np.uint8)).read_bytes()
    rng = np.random.default_rng(1)
    for number in range(60):
        damaged = bytearray(good)
        for place in rng.integers(0, len(good), 1 + number % 5):
            damaged[place] = rng.integers(256)
        file = Path(tmp_path / "y.png")
        file.write_bytes(bytes(damaged))
        try:
            assert ImageReader(8).pixels(file).shape == (8, 8, 3)
        except ValueError as error:
            assert str(error).startswith("ImageReader: an image must be readable; got ")  # noqa: PT017
