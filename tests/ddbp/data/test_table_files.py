"""Tables: reading them from files and from tables of other libraries."""

import datetime
import gzip

import pytest

from ddbp.data import table as tables
from ddbp.data.table import Table, read_table
from ddbp.data.table_encoder import TableEncoder


def write(tmp_path, text, name="people.csv"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


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


def test_columns_of_one_name_are_refused(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    cells = [pyarrow.array([1, 2]), pyarrow.array([3, 4])]
    table = pyarrow.Table.from_arrays(cells, names=["x", "x"])
    parquet.write_table(table, tmp_path / "a.parquet")
    for given, name in (
        (table, "x"),
        (tmp_path / "a.parquet", "x"),
        (pandas.DataFrame([[1, 2]], columns=["x", "x"]), "x"),
        (pandas.DataFrame([[1, 2]], columns=[0, "0"]), "0"),
    ):
        with pytest.raises(ValueError, match=f"must be all different; got {name} twice"):
            Table.of(given)
