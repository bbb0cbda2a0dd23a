"""Time series: their files, and what becomes of them."""

import json
import random

import numpy as np
import pytest

from ddbp.data.kinds import preprocessing
from ddbp.data.series import SeriesReader
from ddbp.data.series_files import read_series_folder, read_series_table, read_ts

TS = """# a comment
@problemName Two
@timeStamps false
@univariate false
@classLabel true up down
@data
1,2,3:4,5,6:up
% another
7,8:9,10:down
"""


def write(tmp_path, text, name="x.ts"):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_series_of_a_ts_file(tmp_path):
    series = read_ts(write(tmp_path, TS))
    assert [each.tolist() for each in series.sequences] == [
        [[1, 4], [2, 5], [3, 6]],
        [[7, 9], [8, 10]],
    ]
    assert series.labels == ("up", "down")
    assert series.classes == ("up", "down")
    assert series.places[1].endswith("x.ts, line 9")


def test_targets_of_a_ts_file_are_numbers(tmp_path):
    text = TS.replace("@classLabel true up down", "@targetlabel true")
    text = text.replace("up", "0.5").replace("down", "2")
    series = read_ts(write(tmp_path, text))
    assert series.labels == (0.5, 2.0)
    assert series.classes == ()
    reader = SeriesReader.fit(series)
    data = reader.dataset(series)
    assert data.y.tolist() == [[-1.0], [1.0]]
    assert reader.predictions(data.y) == [0.5, 2.0]


def test_series_without_labels(tmp_path):
    text = TS.replace("@classLabel true up down", "@classLabel false")
    series = read_ts(write(tmp_path, text.replace(":up", "").replace(":down", "")))
    assert series.labels is None
    assert len(SeriesReader.fit(series).transform(series.sequences)) == 2
    with pytest.raises(ValueError, match="series must have labels"):
        SeriesReader.fit(series).dataset(series)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2:3:up", "line 10: channels of 1, 2 steps"),
        ("1,2:up", "line 10: 1 channels, where others have 2"),
        ("1,2:3,?:up", "line 10: a missing value at step 1 of channel 1"),
        ("1,2:NaN,4:up", "line 10: a missing value at step 0"),
        ("1,x:3,4:up", "line 10: 'x' at step 1 of channel 0"),
        ("1,2:3,4:left", "among up, down; got .*line 10: 'left'"),
        ("(0,1),(1,2):(0,1),(1,2):up", r"line 10: '\(0'"),
        ("up", "line 10: channels of no steps"),
        (":up", "line 10: "),
    ],
)
def test_damaged_series_are_named_or_left_out(tmp_path, line, said):
    file = write(tmp_path, f"{TS}{line}\n")
    with pytest.raises(ValueError, match=said):
        read_ts(file)
    series = read_ts(file, skip_bad=True)
    assert len(series.sequences) == len(series.labels) == 2
    assert [each.place[-7:] for each in series.skipped] == ["line 10"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must have a line @data"),
        ("@classLabel true a b\n", "must have a line @data"),
        ("1,2,3\n", "must begin with @ up to @data; got .*line 1"),
        (
            TS.replace("stamps false", "stamps true").replace("Stamps false", "stamps true"),
            "stamps",
        ),
        ("@classLabel true a b\n@data\n", "there must be a series"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        read_ts(write(tmp_path, text))


def test_channels_get_mean_0_and_deviation_1_over_all_steps(tmp_path):
    series = read_ts(write(tmp_path, TS))
    reader = SeriesReader.fit(series)
    values = np.concatenate(series.sequences)
    found = reader.dataset(series)
    assert found.x.values.dtype == np.float32
    assert np.allclose(found.x.values, (values - values.mean(0)) / values.std(0), atol=1e-6)
    assert found.x.lengths.tolist() == [3, 2]
    assert found.y.tolist() == [0, 1]
    assert found.preprocessing is reader


def test_a_reader_comes_back_from_json(tmp_path):
    series = read_ts(write(tmp_path, TS))
    reader = SeriesReader.fit(series)
    again = preprocessing(json.loads(json.dumps(reader.state())))
    assert again == reader
    assert again.classes == ("up", "down")
    assert np.array_equal(again.transform(series.sequences).values, reader.dataset(series).x.values)
    assert again.predictions([[0.0, 1.0]]) == ["down"]


def test_sequences_of_other_channels_are_refused():
    reader = SeriesReader([0.0, 1.0], [1.0, 2.0])
    for wrong in ([[1.0, 2.0]], [np.zeros((3, 3))], [np.zeros((0, 2))], [[[np.nan, 1]]], "x", 3):
        with pytest.raises((ValueError, TypeError), match="; got "):
            reader.transform(wrong)


def test_names_of_channels_are_kept_and_states_without_them_are_read():
    reader = SeriesReader([0.0, 1.0], [1.0, 2.0], names=["height", "width"])
    state = json.loads(json.dumps(reader.state()))
    assert preprocessing(state).names == ("height", "width")
    del state["names"]
    assert preprocessing(state).names == ()
    for wrong in (["height"], "ab", [1, 2], None):
        with pytest.raises(ValueError, match="names must be texts, one for each of 2 channels"):
            SeriesReader([0.0, 1.0], [1.0, 2.0], names=wrong)


LONG = """id,time,x,y,label
a,2,3,6,up
b,1,7,9,down
a,0,1,4,up
a,1,2,5,up
b,2,8,10,down
"""


def test_rows_of_a_table_are_series_in_the_order_of_time(tmp_path):
    file = write(tmp_path, LONG, "x.csv")
    series = read_series_table(file, series="id", label="label", time="time")
    assert [each.tolist() for each in series.sequences] == [
        [[1, 4], [2, 5], [3, 6]],
        [[7, 9], [8, 10]],
    ]
    assert series.labels == ("up", "down")
    assert series.classes == ("down", "up")
    asis = read_series_table(file, series="id", label="label", values=["x"])
    assert asis.sequences[0].tolist() == [[3], [1], [2]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,3,4,7,down", "one label; got .*series a, from line 2: down, up"),
        (
            "b,soon,4,7,down",
            "column time must be numbers, or dates .*, from line 3: line 9: 'soon'",
        ),
        ("b,3,1e39,7,down", "1e\\+39 at step 2 of channel 0, more than float32 holds"),
        ("b,3,oops,7,down", "'oops' at step 2 of channel 0"),
    ],
)
def test_damaged_rows_are_named_or_left_out(tmp_path, row, said):
    file = write(tmp_path, f"{LONG}c,0,1,1,up\nd,0,2,2,down\n{row}\n", "x.csv")
    options = {"series": "id", "label": "label", "time": "time"}
    with pytest.raises(ValueError, match=said):
        read_series_table(file, **options)
    series = read_series_table(file, **options, skip_bad=True)
    assert len(series.sequences) == 3
    assert len(series.skipped) == 1


def test_times_may_be_dates(tmp_path):
    rows = [("2024-10-09", 2), ("2024-09-30", 1), ("2024-10-09T12:00:00", 3), ("2023-12-31", 0)]
    text = "id,when,x\n" + "".join(f"a,{when},{x}\n" for when, x in rows)
    options = {"series": "id", "time": "when"}
    found = read_series_table(write(tmp_path, text, "x.csv"), **options)
    assert found.sequences[0].ravel().tolist() == [0, 1, 2, 3]
    file = write(tmp_path, f"{text}b,2024-01-01,0\nb,9.10.2024,1\n", "x.csv")
    with pytest.raises(ValueError, match=r"or dates .*series b, from line 6: line 7: '9.10.2024'"):
        read_series_table(file, **options)


def test_channels_are_found_by_their_names(tmp_path):
    options = {"series": "id", "label": "label", "time": "time"}
    series = read_series_table(write(tmp_path, LONG, "x.csv"), **options)
    columns = {"series": "id", "label": "label"}
    reader = SeriesReader.fit(series, columns=columns)
    assert (reader.names, reader.columns) == (("x", "y"), columns)
    state = json.loads(json.dumps(reader.state()))
    assert preprocessing(state) == reader
    assert preprocessing(state).columns == columns
    del state["columns"]
    assert preprocessing(state).columns == {}
    more = [line.split(",") for line in LONG.splitlines()]
    swapped = "\n".join(",".join([a, t, y, x, t, label]) for a, t, x, y, label in more)
    swapped = swapped.replace("time,y,x,time", "time,y,x,z")
    others = read_series_table(write(tmp_path, swapped, "swapped.csv"), **options)
    assert others.names == ("y", "x", "z")
    x = reader.dataset(series).x.values
    assert np.array_equal(reader.dataset(others).x.values, x)
    assert np.array_equal(reader.transform(others).values, x)
    lacking = read_series_table(write(tmp_path, LONG.replace("y", "z"), "x.csv"), **options)
    with pytest.raises(ValueError, match="must have the channels x, y; got none called y"):
        reader.transform(lacking)
    for wrong in ({"values": "x"}, {"time": 3}, "ab"):
        with pytest.raises(ValueError, match="columns must be names of columns for series"):
            SeriesReader.fit(series, columns=wrong)


def test_numbers_that_float32_does_not_hold_once_standardised_are_refused():
    reader = SeriesReader([0.0], [1e-30])
    with pytest.raises(ValueError, match="no more than float32 holds; got others in sequence 1"):
        reader.transform([[0.0], [1e20]])


def test_columns_that_are_not_there_are_refused(tmp_path):
    file = write(tmp_path, LONG, "x.csv")
    for options in (
        {"series": "z"},
        {"series": "id", "label": "z"},
        {"series": "id", "values": []},
    ):
        with pytest.raises(ValueError, match="must have the columns"):
            read_series_table(file, **options)
    with pytest.raises(ValueError, match="two labels or more"):
        read_series_table(
            write(tmp_path, "id,x,l\na,1,u\nb,2,u\n", "one.csv"), series="id", label="l"
        )


def test_files_of_a_folder_are_series(tmp_path):
    write(tmp_path, "x,y\n1,2\n3,4\n", "run/1.csv")
    write(tmp_path, "5,6\n", "run/2.csv")
    write(tmp_path, "7,8\n9,10\n", "walk/1.csv")
    series = read_series_folder(tmp_path)
    assert [each.tolist() for each in series.sequences] == [
        [[1, 2], [3, 4]],
        [[5, 6]],
        [[7, 8], [9, 10]],
    ]
    assert series.labels == ("run", "run", "walk")


@pytest.mark.parametrize("text", ["1,2\n3\n", "", "1,2\nx,4\n", '"1,2\n'])
def test_damaged_files_of_a_folder_are_named_or_left_out(tmp_path, text):
    write(tmp_path, "1,2\n", "run/1.csv")
    write(tmp_path, "1,2\n", "walk/1.csv")
    write(tmp_path, text, "walk/2.csv")
    with pytest.raises(ValueError, match=r"walk.2\.csv"):
        read_series_folder(tmp_path)
    series = read_series_folder(tmp_path, skip_bad=True)
    assert len(series.sequences) == 2
    assert len(series.skipped) == 1


def test_channels_of_files_of_a_folder_are_found_by_their_names(tmp_path):
    for name, text in (("a/1", "u,v\n1,2\n3,4\n"), ("b/1", "v,u\n2,1\n4,3\n"), ("b/2", "1,2\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.csv").write_text(text)
    found = read_series_folder(tmp_path)
    assert found.names == ("u", "v")
    assert [each[0].tolist() for each in found.sequences] == [[1, 2]] * 3
    (tmp_path / "b" / "3.csv").write_text("u,w\n1,2\n")
    with pytest.raises(ValueError, match=r"3.csv: u, w, where others have u, v"):
        read_series_folder(tmp_path)
    assert len(read_series_folder(tmp_path, skip_bad=True).skipped) == 1


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(NotADirectoryError):
        read_series_folder(tmp_path / "gone")
    write(tmp_path, "1\n", "run/1.csv")
    with pytest.raises(ValueError, match="which has 1"):
        read_series_folder(tmp_path)
    (tmp_path / "walk").mkdir()
    with pytest.raises(ValueError, match="walk, which has none"):
        read_series_folder(tmp_path)


def test_lines_of_any_kind_are_series_or_refused_in_our_words(tmp_path):
    rng = random.Random(0)
    for _ in range(300):
        lines = ["".join(rng.choices("12.,:?-e @#up", k=rng.randrange(20))) for _ in range(3)]
        file = write(tmp_path, TS + "\n".join(lines))
        try:
            series = read_ts(file, skip_bad=True)
            assert len(series.sequences) >= 2
            read_ts(file)
        except ValueError as error:
            assert "; got " in str(error)  # noqa: PT017
