"""Columns of tables: what they are, and what their cells are called, whichever file has them."""

import datetime
from decimal import Decimal

import numpy as np
import pytest

from ddbp.data.cells import name_of, plain_cell
from ddbp.data.table_encoder import TableEncoder

RATED = {
    "flag": [True, False, None, True] * 4,
    "zip": [10003, 10004, 10003, 10005] * 4,
    "zone": [10003.0, None, 10004.0, 2.5] * 4,
    "n": [1, 2, 3, 4] * 4,
    "x": [0.25, None, 1e22, -3.0] * 4,
    "y": [True, False] * 8,
}


def test_what_a_column_is_does_not_depend_on_the_file(tmp_path):
    pandas = pytest.importorskip("pandas", reason="ddbp[arrow]")
    polars = pytest.importorskip("polars", reason="ddbp[arrow]")
    pyarrow = pytest.importorskip("pyarrow", reason="ddbp[arrow]")
    frame = pandas.DataFrame(RATED)
    frame.to_csv(tmp_path / "pandas.csv")
    polars.DataFrame(RATED).write_csv(tmp_path / "polars.csv")
    frame.to_parquet(tmp_path / "pandas.parquet")
    polars.DataFrame(RATED).write_parquet(tmp_path / "polars.parquet")
    nullable = frame.convert_dtypes()
    floats = frame.astype({"zip": float, "n": float})
    tables = [
        *(RATED, frame, nullable, floats, polars.DataFrame(RATED), pyarrow.table(RATED)),
        *(
            tmp_path / f"{name}.{kind}"
            for name in ("pandas", "polars")
            for kind in ("csv", "parquet")
        ),
    ]
    roles = {"zip": "category", "zone": "category"}
    encoders = [TableEncoder.fit(each, target="y", roles=roles) for each in tables]
    assert encoders[0].features == [
        *("flag=", "flag=false", "flag=true", "zip=10003", "zip=10004", "zip=10005"),
        *("zone=", "zone=10003", "zone=10004", "zone=2.5", "n", "x", "x is missing"),
    ]
    assert encoders[0].classes == ("false", "true")
    wanted = encoders[0].encode(RATED)
    for each, encoder in zip(tables, encoders, strict=True):
        assert encoder == encoders[0]
        found = encoder.encode(each)
        assert np.array_equal(found.x, wanted.x)
        assert np.array_equal(found.y, wanted.y)
        assert not found.unknown


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        (("True", "TRUE", " true ", True, np.bool_(True)), "true"),
        (("3", "3.0", 3, 3.0, np.int8(3), Decimal("3.00")), "3"),
        (("-0.0", "0", -0.0), "0"),
        (("2.5", 2.5, Decimal("2.50")), "2.5"),
        (("03.0",), "03.0"),
        (("007",), "007"),
        (("1.10",), "1.10"),
    ],
)
def test_names_of_categories(cells, name):
    assert {name_of(plain_cell(cell)) for cell in cells} == {name}


def test_categories_that_are_not_known_are_counted():
    training = {"x": ["a", "b"] * 4, "n": range(8), "y": [0, 1] * 4}
    for encoding in ("one-hot", "index"):
        encoder = TableEncoder.fit(training, target="y", encoding=encoding)
        found = encoder.encode({"x": ["c", "a", None, "c"], "n": range(4)}, targets=False)
        assert found.unknown == {"x": {"c": 2, "": 1}}
        assert encoder.encode(training).unknown == {}


def test_numbers_with_decimal_commas_are_named():
    commas = ["1,5", "2,5", "3", None] * 4
    for options in ({"target": "y"}, {"target": "size"}):
        with pytest.raises(ValueError, match=r"decimal point; got the table, row 0: '1,5'"):
            TableEncoder.fit({"size": commas, "y": [0, 1] * 8}, **options)
    roles = {"size": "category"}
    encoder = TableEncoder.fit({"size": commas, "y": [0, 1] * 8}, target="y", roles=roles)
    assert "size=1,5" in encoder.features


def test_columns_of_lists_are_refused():
    pyarrow = pytest.importorskip("pyarrow", reason="ddbp[arrow]")
    columns = {"tags": [["a"], ["b", "c"]] * 4, "y": [0, 1] * 4}
    frames = [columns, pyarrow.table(columns)]
    if pandas := pytest.importorskip("pandas", reason="ddbp[arrow]"):
        frames.append(pandas.DataFrame({**columns, "tags": [np.array([1, 2]), None] * 4}))
    for table in frames:
        for options in ({"target": "y"}, {"roles": {"tags": "category"}}, {"target": "tags"}):
            with pytest.raises(ValueError, match="column tags must have one value in every cell"):
                TableEncoder.fit(table, **options)
        assert TableEncoder.fit(table, roles={"tags": "ignore"}).features == ["y"]


def test_a_target_of_dates_is_refused():
    days = [f"2026-01-{1 + n % 9:02}" for n in range(20)]
    for cells in (days, [datetime.date.fromisoformat(day) for day in days]):
        with pytest.raises(ValueError, match="target when must be classes or numbers; got dates"):
            TableEncoder.fit({"x": range(20), "when": cells}, target="when")
    encoder = TableEncoder.fit({"x": range(20), "when": days}, target="when", task="classification")
    assert len(encoder.classes) == 9


def test_a_target_has_no_other_role():
    with pytest.raises(ValueError, match="the target y must have no other role; got ignore"):
        TableEncoder.fit({"x": [1, 2], "y": [1, 2]}, target="y", roles={"y": "ignore"})


@pytest.mark.parametrize(("cells", "said"), [(["a"] * 9, False), ([1] * 9, True)])
def test_one_class_alone_is_refused_with_what_helps(cells, said):
    table = {"x": range(9), "y": cells}
    with pytest.raises(ValueError, match="two classes or more") as caught:
        TableEncoder.fit(table, target="y", task="classification")
    assert ("regression" in str(caught.value)) is said
