"""Objects that other processes make again, by names of modules and data."""

import copy
import datetime
import enum
import functools
import shutil
import threading
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import ddbp
import layers
from ddbp.job import objects
from layers import Linear, Sequential

from ..data.sources import KINDS


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    one: int
    other: object


@dataclass(frozen=True)
class Facts:
    name: str
    of: tuple = ()


class Slots:
    __slots__ = ("a", "b")


def twice(value):
    return 2 * value


def squares():
    for number in range(5):
        yield np.ones(2, np.float32), number**2


def there_and_back(value, folder):
    objects.write("Test", {"value": value}, folder)
    return objects.read(folder)["value"]


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 2**80, 0.1, float("inf"), "text", b"\0\xff"),
        *([1, [2]], (1, (2,)), {1, 2}, frozenset({3}), {"a": 1}, {1: "a", (2, 3): None}),
        *(np.float32, np.dtype("<i2"), np.float32(0.1), np.exp, len, twice, layers.ReLU),
        *(Path("a/b"), Colour.RED, Pair(1, [2]), Facts("n", (1,)), datetime.date(2026, 1, 2)),
        *(OrderedDict(a=1), defaultdict(list, a=[1]), slice(1, 2), 1 + 2j, range(3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_comes_back(value, tmp_path):
    back = there_and_back(value, tmp_path)
    assert type(back) is type(value)
    assert back == value


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (4,)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "?", "u1"])
def test_array_comes_back_and_may_be_written_to(dtype, shape, tmp_path):
    array = (np.arange(np.prod(shape)) % 2).reshape(shape).astype(dtype)
    back = there_and_back(array, tmp_path)
    assert back.__class__ is np.ndarray
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)
    back[...] = 1
    np.testing.assert_array_equal(objects.read(tmp_path)["value"], array)


def test_what_is_there_twice_is_one_again(tmp_path):
    array, shared = np.arange(3), [1]
    slots = Slots()
    slots.a = slots.b = shared
    circle = [slots, array]
    circle.append(circle)
    back = there_and_back({"x": circle, "again": circle, "array": array}, tmp_path)
    assert back["x"] is back["again"] is back["x"][2]
    assert back["x"][0].a is back["x"][0].b
    assert back["array"] is back["x"][1]


def test_model_comes_back_with_shared_and_frozen_parameters(tmp_path):
    rng = np.random.default_rng(1)
    one = Linear(3, 3, rng=rng)
    model = Sequential(one, layers.Dropout(0.5), one, layers.BatchNorm(3), Linear(3, 2, rng=rng))
    model[4].freeze()
    back = there_and_back(model, tmp_path)
    assert repr(back) == repr(model)
    assert back[0] is back[2]
    assert [p.trainable for p in back.parameters()] == [p.trainable for p in model.parameters()]
    x = rng.standard_normal((4, 3)).astype(np.float32)
    np.testing.assert_array_equal(back(x), model(x))


NAMED = Facts("constant")


def test_constant_of_a_module_is_that_of_the_module(tmp_path):
    assert there_and_back([NAMED], tmp_path)[0] is NAMED
    assert there_and_back([Facts("constant")], tmp_path)[0] is not NAMED


def test_generator_goes_on_where_it_was(tmp_path):
    rng = np.random.default_rng(3)
    rng.standard_normal(5)
    back = there_and_back(rng, tmp_path)
    np.testing.assert_array_equal(back.standard_normal(4), rng.standard_normal(4))


def test_partial_and_method_come_back(tmp_path):
    partial, method = there_and_back((functools.partial(twice, 4), Pair(1, 2)._asdict), tmp_path)
    assert partial() == 8
    assert method() == {"one": 1, "other": 2}


def test_mapped_array_stays_where_it_is(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(3, 4))
    whole = np.load(tmp_path / "x.npy", mmap_mode="r")
    back = there_and_back([np.asarray(whole), whole[1:]], tmp_path)
    np.testing.assert_array_equal(back[0], whole)
    np.testing.assert_array_equal(back[1], whole[1:])
    assert len([*tmp_path.glob("*.npy")]) == 2, "a part of a mapping is written anew"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_mapped_array_of_a_file_that_another_has_replaced_is_written_anew(tmp_path):
    path, folder = tmp_path / "an x.npy", tmp_path / "job"
    for change in (lambda: np.save(tmp_path / "new.npy", np.ones(4)), lambda: None):
        folder.mkdir()
        np.save(path, np.arange(4.0))
        mapped = np.load(path, mmap_mode="r")
        change()
        if (tmp_path / "new.npy").exists():
            (tmp_path / "new.npy").replace(path)
        else:
            path.unlink()
        np.testing.assert_array_equal(there_and_back(mapped, folder), np.arange(4.0))
        shutil.rmtree(folder)


def test_generator_comes_back_at_its_beginning(tmp_path):
    source = ddbp.data.GeneratorSource(squares, samples=5)
    source.take(np.arange(3))
    for each in (there_and_back(source, tmp_path), copy.deepcopy(source)):
        np.testing.assert_array_equal(each.take(np.arange(5)).y, np.arange(5) ** 2)
    np.testing.assert_array_equal(source.take(np.arange(3, 5)).y, [9, 16])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("a map", "hdf5")])
def test_source_comes_back_and_what_is_in_files_stays_there(kind, tmp_path):
    source = KINDS[kind](tmp_path)
    numbers, folder = np.array([5, 0, 33]), tmp_path / "job"
    folder.mkdir()
    back = there_and_back(source, folder)
    assert repr(back) == repr(source)
    for array, other in zip(source.take(numbers)[:2], back.take(numbers)[:2], strict=True):
        np.testing.assert_array_equal(array, other)
    in_files = ("npy", "paths", "npz", "safetensors", "other byte order, by columns")
    if kind in in_files or "arrow" in kind or "parquet" in kind:
        assert not [*folder.glob("*.npy")]


def test_open_file_of_hdf5_is_refused(tmp_path):
    source = KINDS["hdf5"](tmp_path)
    with pytest.raises(TypeError, match=r"got a Dataset\. Leave it out"):
        there_and_back(source, tmp_path)


class Made:
    def __init__(self, one, *, two):
        self.of = one, two
        self.lock = threading.Lock()

    def __reduce__(self):
        return functools.partial(Made, two=self.of[1]), (self.of[0],)


def test_object_that_says_how_it_is_made_is_made_so(tmp_path):
    assert there_and_back(Made([1], two=2), tmp_path).of == ([1], 2)


def test_map_that_is_only_read_is_so_elsewhere(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    for mode, writeable in (("r", False), ("r+", True)):
        back = there_and_back(np.load(tmp_path / "x.npy", mmap_mode=mode), tmp_path)
        assert back.flags.writeable is writeable
        assert isinstance(back.base, np.memmap)


def test_mapped_array_that_is_private_is_written_anew(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    private = np.load(tmp_path / "x.npy", mmap_mode="c")
    private[0] = 5
    np.testing.assert_array_equal(there_and_back(private, tmp_path), [5, 0, 0])


class OfNotebook:
    pass


OfNotebook.__module__ = "__main__"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            lambda: 0,
            r"value\.a\[0\], for other processes, .*; got .*<lambda> of .*Move it to a mod",
        ),
        (
            OfNotebook(),
            r"value\.a\[0\].*; got OfNotebook of __main__. Move it to a module and import",
        ),
        (threading.Lock(), r"value\.a\[0\].*; got a lock"),
        ((each for each in ()), r".*; got a generator"),
        (np.array([None]), r".*; got a ndarray"),
    ],
    ids=["function", "class of a notebook", "lock", "generator", "objects"],
)
def test_what_cannot_be_had_elsewhere_is_refused_by_its_place(value, said, tmp_path):
    slots = Slots()
    slots.a = [value]
    with pytest.raises(TypeError, match=f"^Test: {said}"):
        objects.write("Test", {"value": slots}, tmp_path)


def test_tuple_that_holds_itself_is_refused(tmp_path):
    inner = []
    outer = (inner,)
    inner.append(outer)
    with pytest.raises(TypeError, match="a part of itself"):
        objects.write("Test", {"value": outer}, tmp_path)
