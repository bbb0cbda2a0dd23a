"""Tables: reading them, and what becomes of their rows."""

import datetime
import gzip
import json
import math
import random

import numpy as np
import pytest

from ddbp.data import table as tables
from ddbp.data.kinds import preprocessing
from ddbp.data.table import Table, read_table
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


# Reading.


def test_cells_and_lines_of_a_csv_file(tmp_path):
    text = 'a,b\n1,"x, y"\n\n2,"two\nlines"\n3,"say ""hi"""\n'
    table = read_table(write(tmp_path, text))
    assert table.columns == {"a": ["1", "2", "3"], "b": ["x, y", "two\nlines", 'say "hi"']}
    assert table.lines == [2, 4, 6]
    assert table.place(1).endswith("people.csv, line 4")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_that_of_the_first_line(tmp_path, delimiter):
    file = write(tmp_path, f"a{delimiter}b c\r\n1{delimiter}2\r\n")
    assert read_table(file).columns == {"a": ["1"], "b c": ["2"]}


def test_marks_of_order_and_gzip_are_taken_off(tmp_path):
    text = "\ufeffname,x\nMüller,1\n".encode()
    for content in (text, gzip.compress(text)):
        assert read_table(write(tmp_path, content)).columns == {"name": ["Müller"], "x": ["1"]}


def test_lines_may_end_with_a_carriage_return(tmp_path):
    rows = "".join(f"{n},{n * n}\r" for n in range(5000))
    table = read_table(write(tmp_path, f"a,b\r{rows}"))
    assert table.columns["b"] == [str(n * n) for n in range(5000)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "größe,y\n1,2\n3,4\n".encode("latin1"),
            "must be known (`file -i` guesses): iconv -f latin1",
        ),
        ("a,b\n1,2\n3,4\n".encode("utf-16"), "iconv -f utf-16 -t utf-8"),
        ("a,b\n1,2\n3,4\n".encode("utf-16-le"), "iconv -f utf-16 -t utf-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\xfe" * 300, "This is no text: check the path"),
        (b'a,"b\nc\xff"\n1,2\n', "the names in the first line must be CSV in UTF-8"),
        (b'a,"b"c\n1,2\n3,4\n', "the names in the first line must be CSV in UTF-8"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_names_that_cannot_be_read_are_never_left_out(tmp_path, content, said, skip_bad):
    with pytest.raises(ValueError, match=r"people\.csv") as caught:
        read_table(write(tmp_path, content), skip_bad=skip_bad)
    assert said in str(caught.value)
    assert "skip_bad" not in str(caught.value)


def test_the_index_that_pandas_writes_is_left_out(tmp_path):
    table = read_table(write(tmp_path, ",a,b\n0,1,2\n1,3,4\n"))
    assert table.columns == {"a": ["1", "3"], "b": ["2", "4"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n3\n", "line 3: 1 cells, where there are 2 names"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4: 3 cells"),
        ('a,b\n1,"2\n3,4\n', "line 2: unexpected end of data"),
        ('a,b\n1,"2"x\n', "line 2: "),
        (b"a,b\n1,2\n\xff,4\n", "line 3: .*udcff"),
        ("a,b\n1," + "x" * 200_000 + "\n", "line 2: field larger than field limit"),
    ],
)
def test_lines_that_are_no_rows_are_named(tmp_path, text, said):
    with pytest.raises(ValueError, match=said) as caught:
        read_table(write(tmp_path, text))
    assert "skip_bad=True leaves it out" in str(caught.value)


@pytest.mark.parametrize("bad", [[49], [49, 199], [48, 49, 50, 298], range(300)])
def test_a_quote_that_is_not_closed_costs_its_own_line(tmp_path, bad):
    cells = [('"12 inch' if row in bad else f'"{row}, in"') + f",{row}" for row in range(300)]
    text = "\n".join(["size,x", *cells, '"two\nlines",300', ""])
    with pytest.raises(ValueError, match=f"line {2 + min(bad)}: "):
        read_table(write(tmp_path, text))
    table = read_table(write(tmp_path, text), skip_bad=True)
    good = [str(row) for row in range(301) if row not in bad]
    assert table.columns["x"] == good
    assert table.columns["size"][-1] == "two\nlines"
    assert table.lines == [int(row) + 2 for row in good]
    assert table.rows == [*map(int, good)]
    lines = [int(each.place.rpartition(" ")[2]) for each in table.skipped]
    assert lines == [row + 2 for row in bad]


def test_a_quote_that_is_closed_far_away_says_how_much_it_held(tmp_path):
    text = 'size,x\n"12 inch,1\nb,2\nc,3\nd 12",4,5\ne,6\n'
    table = read_table(write(tmp_path, text), skip_bad=True)
    assert table.columns["x"] == ["6"]
    assert table.skipped[0].reason == "3 cells, where there are 2 names, up to line 5"


def test_lines_that_are_no_rows_are_left_out_and_listed(tmp_path):
    table = read_table(write(tmp_path, b"a,b\n1,2\n3\n\xff,4\n5,6\n"), skip_bad=True)
    assert table.columns == {"a": ["1", "5"], "b": ["2", "6"]}
    assert [each.place[-6:] for each in table.skipped] == ["line 3", "line 4"]
    assert table.place(1)[-6:] == "line 5"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must have names in its first line"),
        ("\n1,2\n", "must have names in its first line"),
        ("a,a\n1,2\n", "with 'a'"),
        ("a,\n1,2\n", "with ''"),
        (",a,\n1,2,3\n", "with ''"),
        ("a,b\n", "there must be a row below the names"),
        ("a,b\n1\n", "2 names"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        read_table(write(tmp_path, text))


def test_a_compressed_file_that_is_cut_is_refused(tmp_path):
    content = gzip.compress(("a,b\n" + "".join(f"{n},{n * n}\n" for n in range(999))).encode())
    with pytest.raises(ValueError, match="a compressed file must be whole"):
        read_table(write(tmp_path, content[:-100]))


COLUMNS = {
    "n": [1, None, 3],
    "x": [1.5, 2.5, None],
    "t": ["a", None, "c"],
    "b": [True, False, True],
    "d": [datetime.date(2026, 1, 1), None, datetime.date(2026, 1, 3)],
}


def test_some_rows_keep_their_places(tmp_path):
    columns = {"age": ["1", "2", "3", "4"]}
    table = Table(columns)
    table.origin = "people.parquet"
    part = table.subset([1, 3])
    assert part.columns["age"] == ["2", "4"]
    assert part.place(1) == "people.parquet, row 3"
    assert part.subset([1]).place(0) == "people.parquet, row 3"
    path = tmp_path / "people.csv"
    path.write_text("age\n1\n\n2\n3\n")
    assert read_table(path).subset([1, 2]).place(0) == f"{path}, line 4"


def test_parquet_is_read_alike_by_all_libraries(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: ddbp[arrow]")
    from pyarrow import parquet

    file = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table(COLUMNS), file)
    for reader in (tables._by_pyarrow, tables._by_polars, tables._by_pandas):
        pytest.importorskip(reader.__name__[4:], reason="ddbp[arrow]")
        monkeypatch.setattr(tables, "_by_pyarrow", reader)
        assert read_table(file).columns == COLUMNS


@pytest.mark.parametrize("name", [None, "id"])
@pytest.mark.parametrize("without", [(), ("pyarrow",), ("pyarrow", "polars")])
def test_the_index_of_pandas_in_parquet_is_no_data_unless_named(
    tmp_path, monkeypatch, name, without
):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    if "polars" not in without and without:
        pytest.importorskip("polars", reason="polars is not installed")
    rows = {"x": [1.5, 2.5, 4.5, 5.5], "y": ["a", "b", "a", "b"]}
    frame = pandas.DataFrame(rows, index=pandas.Index([9, 7, 5, 3], name=name))
    file = tmp_path / "part.parquet"
    frame.to_parquet(file)
    index = name or "__index_level_0__"
    readers = {"pyarrow": "_by_pyarrow", "polars": "_by_polars"}
    for library in without:
        monkeypatch.setattr(tables, readers[library], _absent)
    table = read_table(file)
    assert table.columns == rows
    assert table.index == {index: [9, 7, 5, 3]}
    assert table.subset([1]).index == {index: [7]}
    assert TableEncoder.fit(file, target="y").features == ["x"]
    encoder = TableEncoder.fit(file, target=index, roles={"y": "ignore"})
    assert encoder.encode(file).y.shape == (4, 1)
    encoder = TableEncoder.fit(file, target="y", roles={index: "number"})
    assert encoder.features == [index, "x"]
    assert encoder.transform(file).shape == (4, 2)


def _absent(file):
    raise ImportError


def test_the_index_of_pandas_in_tables_of_other_libraries_is_no_data():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    columns = {"x": [1, 2], "y": ["a", "b"]}
    frame = pandas.DataFrame(columns, index=pandas.Index([9, 7], name="id"))
    assert Table.of(frame).columns == columns
    assert Table.of(arrow.Table.from_pandas(frame)).columns == columns
    polars = pytest.importorskip("polars", reason="polars is not installed")
    unnamed = polars.DataFrame({**columns, "__index_level_0__": [9, 7]})
    assert Table.of(unnamed).columns == columns


def test_a_table_of_nothing_but_an_index_keeps_it():
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = Table.of(arrow.table({"__index_level_0__": [9, 7]}))
    assert table.columns == {"__index_level_0__": [9, 7]}


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: ddbp[arrow]")
    with pytest.raises(ValueError, match=r"a Parquet file must be readable; got .*x\.parquet"):
        read_table(write(tmp_path, b"PAR1 and nothing else", "x.parquet"))


def test_without_a_library_parquet_says_what_to_install(tmp_path, monkeypatch):
    def lacking(file):
        raise ImportError

    for name in ("_by_pyarrow", "_by_polars", "_by_pandas"):
        monkeypatch.setattr(tables, name, lacking)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ddbp\[arrow\]'"):
        read_table(write(tmp_path, b"PAR1", "x.parquet"))


def test_tables_of_other_libraries_are_tables():
    made = [COLUMNS]
    for name, make in (
        ("pandas", lambda it: it.DataFrame(COLUMNS)),
        ("polars", lambda it: it.DataFrame(COLUMNS)),
        ("pyarrow", lambda it: it.table(COLUMNS)),
    ):
        made.append(make(pytest.importorskip(name, reason="ddbp[arrow]")))
    for each in made:
        assert Table.of(each).columns == COLUMNS
    with pytest.raises(TypeError, match="a table must be a DataFrame"):
        Table.of(3)


# Encoding.


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
