"""Tables: what becomes of their rows."""

import json
import math
import random

import numpy as np
import pytest

from ddbp.data.kinds import preprocessing
from ddbp.data.table import read_table
from ddbp.data.table_encoder import TableEncoder

PEOPLE = """age,city,joined,score,buys
31,Paris,2026-01-01,1.5,yes
47,Rome,2026-01-03,,no
,Paris,2026-01-05,2.5,yes
25,,2026-01-02,0.5,no
"""


def write(tmp_path, text, name="people.csv"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_roles_are_inferred_and_rows_become_numbers(tmp_path):
    file = write(tmp_path, PEOPLE)
    encoder = TableEncoder.fit(file, target="buys")
    assert encoder.features == [
        *("age", "age is missing", "city=", "city=Paris", "city=Rome"),
        *("joined", "score", "score is missing"),
    ]
    assert encoder.task == "classification"
    assert encoder.classes == ("no", "yes")
    found = encoder.encode(file)
    assert found.y.tolist() == [1, 0, 1, 0]
    assert found.x.dtype == np.float32
    ages = [31, 47, 25]
    mean = sum(ages) / 3
    deviation = math.sqrt(sum((age - mean) ** 2 for age in ages) / 3)
    assert found.x[:, 0].tolist() == pytest.approx(
        [(31 - mean) / deviation, (47 - mean) / deviation, 0, (25 - mean) / deviation], rel=1e-6
    )
    assert found.x[:, 1].tolist() == [0, 0, 1, 0]
    assert found.x[:, 2:5].tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert found.x[:, 5].mean() == pytest.approx(0, abs=1e-6)


def test_a_data_set_of_it_knows_its_preprocessing(tmp_path):
    file = write(tmp_path, PEOPLE)
    encoder = TableEncoder.fit(file, target="buys")
    data = encoder.encode(file).dataset()
    assert len(data) == 4
    assert data.preprocessing is encoder


def test_targets_that_are_numbers_are_standardised_and_come_back(tmp_path):
    table = {"x": [1, 2, 3, 4], "price": [10.5, 20.5, 30.5, 50.5]}
    encoder = TableEncoder.fit(table, target="price")
    assert encoder.task == "regression"
    found = encoder.encode(table)
    assert found.y.shape == (4, 1)
    assert found.y.mean() == pytest.approx(0, abs=1e-6)
    assert encoder.predictions(found.y) == pytest.approx(table["price"])


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        ([0, 1, 0, 1], "classification"),
        (["0", "1", "0", "1"], "classification"),
        (["a", "b", "a", "b"], "classification"),
        ([True, False, True, False], "classification"),
        ([1, 2, 3, 4], "regression"),
        ([0.5, 0.5, 1.5, 1.5], "regression"),
    ],
)
def test_the_task_is_inferred(cells, task):
    encoder = TableEncoder.fit({"x": [1, 2, 3, 4], "y": cells}, target="y")
    assert encoder.task == task


def test_classes_that_are_numbers_are_in_their_order():
    table = {"x": range(40), "y": [n % 12 for n in range(40)]}
    encoder = TableEncoder.fit(table, target="y")
    assert encoder.classes == tuple(str(n) for n in range(12))
    assert encoder.encode(table).y.tolist() == table["y"]


def test_categories_that_are_not_known_are_zero_or_refused():
    training = {"x": ["a", "b", "a", "b"], "y": [0, 1, 0, 1]}
    encoder = TableEncoder.fit(training, target="y")
    assert encoder.transform({"x": ["b", "c", None]}).tolist() == [[0, 1], [0, 0], [0, 0]]
    strict = TableEncoder.fit(training, target="y", unknown="refuse")
    with pytest.raises(ValueError, match="must be among a, b; got the table, row 1: 'c'"):
        strict.transform({"x": ["b", "c"]})


def test_codes_of_categories_are_apart_from_numbers():
    table = {"n": [1, 2, 3, 4], "x": ["b", "a", "b", "a"], "y": [0, 1, 0, 1]}
    encoder = TableEncoder.fit(table, target="y", encoding="index")
    numbers, codes = encoder.encode(table).x
    assert numbers.shape == (4, 1)
    assert codes.tolist() == [[2], [1], [2], [1]]
    assert encoder.sizes == [3]
    assert encoder.transform({"n": [1], "x": ["new"]})[1].tolist() == [[0]]


def test_missing_cells_are_the_mean_or_refused(tmp_path):
    file = write(tmp_path, PEOPLE)
    with pytest.raises(ValueError, match=r"column score must not be missing; got .*line 3"):
        TableEncoder.fit(file, target="buys", missing="refuse")
    encoder = TableEncoder.fit({"x": [1, 2, 3, 4], "y": [0, 1, 0, 1]}, target="y")
    assert encoder.features == ["x"]
    assert encoder.transform({"x": [None, "nan"]}).tolist() == [[0], [0]]


def test_roles_can_be_given(tmp_path):
    table = {"id": [7, 8, 9, 6], "w": [1, 2, 0, 1], "k": [1, 2, 1, 2], "y": [0.5, 1, 2, 3]}
    roles = {"id": "ignore", "w": "weight", "k": "category"}
    encoder = TableEncoder.fit(table, target="y", roles=roles)
    assert encoder.features == ["k=1", "k=2"]
    assert encoder.encode(table).weights.tolist() == [1, 2, 0, 1]
    assert encoder.encode(table).dataset().weights.tolist() == [1, 2, 0, 1]


def test_dates_and_times_are_days():
    table = {"t": ["2026-01-01", "2026-01-02T12:00:00", "2026-01-03T00:00:00+00:00"]}
    (column,) = TableEncoder.fit(table)._columns
    assert column.role == "date"
    assert column.statistics.mean == pytest.approx(20454 + 7 / 6)


def test_cells_of_files_and_of_frames_are_the_same(tmp_path):
    text = "n,k,y\n" + "".join(f"{n / 8},{n % 3},{n % 2}\n" for n in range(30))
    columns = {
        "n": [n / 8 for n in range(30)],
        "k": [n % 3 for n in range(30)],
        "y": [float(n % 2) for n in range(30)],
    }
    roles = {"k": "category"}
    one = TableEncoder.fit(write(tmp_path, text), target="y", roles=roles)
    other = TableEncoder.fit(columns, target="y", roles=roles)
    assert one == other
    assert np.array_equal(one.transform(tmp_path / "people.csv"), other.transform(columns))


def test_statistics_do_not_depend_on_the_order_of_rows():
    values = [random.Random(0).lognormvariate(0, 20) for _ in range(2000)]
    backwards = values[::-1]
    one, other = (TableEncoder.fit({"x": cells}) for cells in (values, backwards))
    assert one == other
    assert one._columns[0].statistics.mean == math.fsum(values) / len(values)


def test_an_encoder_comes_back_from_json(tmp_path):
    file = write(tmp_path, PEOPLE)
    for options in ({"target": "buys"}, {"target": "score", "skip_bad": True}, {}):
        encoder = TableEncoder.fit(file, encoding="index", **options)
        again = preprocessing(json.loads(json.dumps(encoder.state())))
        assert again == encoder
        for mine, theirs in zip(again.transform(file), encoder.transform(file), strict=True):
            assert np.array_equal(mine, theirs)


def csv(*rows):
    return "x,k,y\n" + "".join(f"{row}\n" for row in rows)


GOOD = [f"{n / 2},{'ab'[n % 2]},{n % 2}" for n in range(6)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("oops,a,1", "column x must be of one type; got .*line 8: 'oops' among numbers"),
        ("1_0,a,1", "column x must be of one type; got .*line 8: '1_0'"),
        ("inf,a,1", "column x must be of one type; got .*line 8: 'inf'"),
        ("1e999,a,1", "column x must be of one type; got .*line 8"),
        ("٣,a,1", "column x must be of one type; got .*line 8"),
        ("1,a,", "target y must be there in every row; got .*line 8: it is missing"),
        ("1,a,?", "target y must be there in every row; got .*line 8"),
    ],
)
def test_rows_that_cannot_be_used_are_named_or_left_out(tmp_path, row, said):
    file = write(tmp_path, csv(*GOOD, row, "0.5,b,1"))
    with pytest.raises(ValueError, match=said):
        TableEncoder.fit(file, target="y")
    encoder = TableEncoder.fit(file, target="y", skip_bad=True)
    found = encoder.encode(file, skip_bad=True)
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert [each.place[-6:] for each in found.skipped] == ["line 8"]
    assert encoder == TableEncoder.fit(
        write(tmp_path, csv(*GOOD, "0.5,b,1"), "good.csv"), target="y"
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("oops,a,1", "column x must be a number in every row; got .*line 2: 'oops'"),
        ("1,a,7", "target y must be among 0, 1; got .*line 2: '7'"),
        ("1,a,", "target y must be there"),
    ],
)
def test_rows_to_evaluate_are_checked(tmp_path, row, said):
    encoder = TableEncoder.fit(write(tmp_path, csv(*GOOD)), target="y")
    with pytest.raises(ValueError, match=said):
        encoder.encode(write(tmp_path, csv(row), "new.csv"))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"target": "z"}, ValueError, "must have the column 'z'; got x, k, y"),
        ({"target": 3}, TypeError, "target must be the name of a column"),
        ({"roles": {"z": "ignore"}}, ValueError, "must have the column 'z'"),
        ({"roles": {"x": "numeric"}}, ValueError, "the role of x must be one of number"),
        ({"roles": 3}, TypeError, "roles must be a dictionary"),
        ({"target": "y", "roles": {"x": "target"}}, ValueError, "one column may be the target"),
        ({"task": "guess"}, ValueError, "task must be one of"),
        ({"missing": "guess"}, ValueError, "missing must be one of"),
        ({"unknown": "guess"}, ValueError, "unknown must be one of"),
        ({"encoding": "guess"}, ValueError, "encoding must be one of"),
        ({"roles": dict.fromkeys("xky", "ignore")}, ValueError, "a column of inputs"),
        ({"target": "k", "task": "regression"}, ValueError, "target k must be a number; .*line 2"),
        ({"roles": {"k": "weight"}, "target": "y"}, ValueError, "weight k must be a number"),
        ({"roles": {"k": "number"}}, ValueError, "column k must be a number in every row"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        TableEncoder.fit(write(tmp_path, csv(*GOOD)), **options)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_numbers_that_float32_does_not_hold_are_named_or_left_out(tmp_path, task):
    good = "a,b,w,y\n" + "".join(f"{n % 7},{1e-30 * n},1,{n % 3}\n" for n in range(60))
    options = {"target": "y", "roles": {"w": "weight"}, "task": task}
    encoder = TableEncoder.fit(write(tmp_path, good), **options)
    rows = {"a": "1e300,0,1,1", "b": "1,1e20,1,1", "w": "1,0,1e39,1"}
    rows |= {"y": "1,0,1,-1e300"} if task == "regression" else {}
    for name, row in rows.items():
        file = write(tmp_path, f"{good}{row}\n", f"huge-{name}.csv")
        said = rf"{name} must be no more than float32 holds; got .*huge-{name}.csv, line 62: "
        with pytest.raises(ValueError, match=said):
            encoder.encode(file)
        found = encoder.encode(file, skip_bad=True)
        assert (len(found.rows), len(found.skipped)) == (60, 1)
        if name == "b":
            continue
        with pytest.raises(ValueError, match=said):
            TableEncoder.fit(file, **options)
        again = TableEncoder.fit(file, **options, skip_bad=True)
        assert again.state() == encoder.state()
    with pytest.raises(ValueError, match="column a must be no more than float32 holds"):
        encoder.transform(tmp_path / "huge-a.csv")


def test_columns_that_are_no_inputs_are_refused():
    y = [n % 2 for n in range(60)]
    with pytest.raises(ValueError, match="categories that occur again; got 60 different ones"):
        TableEncoder.fit({"name": [f"p{n}" for n in range(60)], "y": y}, target="y")
    with pytest.raises(ValueError, match="column x must have cells"):
        TableEncoder.fit({"x": [None] * 60, "y": y}, target="y")
    with pytest.raises(ValueError, match="two classes or more; got a alone"):
        TableEncoder.fit({"x": y, "y": ["a"] * 60}, target="y")
    encoder = TableEncoder.fit({"x": range(60), "y": y}, target="y")
    with pytest.raises(ValueError, match="must have the columns x; got the table without x"):
        encoder.transform({"y": y})
    with pytest.raises(ValueError, match=r"scores of 2 classes .*; got shape \(3, 5\)"):
        encoder.predictions(np.zeros((3, 5)))


def test_bytes_of_any_kind_are_a_table_or_refused_in_our_words(tmp_path):
    rng = random.Random(0)
    letters = 'ab,;\t"\n\r 10.-e\0\xff\u00e9?'
    for _ in range(400):
        text = "".join(rng.choices(letters, k=rng.randrange(60)))
        file = write(tmp_path, text.encode("latin1" if rng.random() < 0.3 else "utf-8"))
        for skip_bad in (False, True):
            try:
                encoder = TableEncoder.fit(read_table(file, skip_bad=skip_bad), skip_bad=skip_bad)
                assert np.isfinite(encoder.transform(read_table(file, skip_bad=True))).all()
            except ValueError as error:
                assert "; got " in str(error), text  # noqa: PT017
