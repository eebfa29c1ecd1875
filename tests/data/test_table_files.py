"""Tables: the same columns from every format, holes, labels, times, and rows grouped into sequences."""

import numpy as np
import pytest
import ragged

from jax_lstm.data.grouping import constants, group_rows
from jax_lstm.data.tables import read_table

FILES = {
    "a.csv": lambda found: ragged.csv(found),
    "holes.csv": lambda found: ragged.csv(found, hole="NA"),
    "semicolon.csv": lambda found: ragged.csv(found, ";", "NaN"),
    "tab.tsv": lambda found: ragged.csv(found, "\t", " null "),
    "mark.csv": lambda found: b"\xef\xbb\xbf" + ragged.csv(found).encode(),
    "windows.csv": lambda found: ragged.csv(found).replace("\n", "\r\n") + "\r\n\r\n",
    "quoted.csv": lambda found: ragged.csv(found).replace("north", '"north"').replace("rain,", '"rain" , '),
    "a.parquet": ragged.parquet,
    "rows.npz": ragged.npz,
}


def labels(table, name):
    """The label of every row, None for a hole."""
    names, codes = table.labels(name)
    return [names[code] if code >= 0 else None for code in codes]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("order", [lambda found: found, ragged.interleaved], ids=["in order", "interleaved"])
def test_every_format_gives_the_same_sequences(name, order, tmp_path):
    found = ragged.columns()
    table = read_table(ragged.write(tmp_path, name, FILES[name](order(found))))
    rows = group_rows(table, "site", "day")
    assert rows.names == list(ragged.LENGTHS)
    assert rows.lengths.tolist() == list(ragged.LENGTHS.values())
    values = table.numbers(["rain", "temp", "flow", "area"])[rows.order]
    np.testing.assert_array_equal(values, np.stack([found[c] for c in ("rain", "temp", "flow", "area")], axis=1))
    np.testing.assert_array_equal(rows.times, found["day"])
    np.testing.assert_array_equal(table.text("day")[rows.order], found["day"].astype(str))
    assert [labels(table, "wet")[k] or "" for k in rows.order] == found["wet"].tolist()


def test_padded_arrays_are_the_same_table(tmp_path):
    found = ragged.columns()
    table = read_table(ragged.write(tmp_path, "a.npz", ragged.npz(ragged.padded(found))))
    for sequence, names in (("site", list(ragged.LENGTHS)), (None, ["0", "1", "2"])):
        rows = group_rows(table, sequence, "day")
        assert rows.names == names
        assert rows.lengths.tolist() == list(ragged.LENGTHS.values())
        np.testing.assert_array_equal(table.numbers(["flow"])[rows.order, 0], found["flow"])
        np.testing.assert_array_equal(constants(table, rows, ["area"])[:, 0], found["area"])


def test_an_array_with_three_axes_is_several_columns(tmp_path):
    x = np.arange(24.0).reshape(2, 3, 4)
    table = read_table(ragged.write(tmp_path, "a.npz", ragged.npz({"x": x, "y": x[:, :, 0]})))
    names = table.expand(["x", "y"])
    assert names == ["x_0", "x_1", "x_2", "x_3", "y"]
    np.testing.assert_array_equal(table.numbers(names[:4]), x.reshape(6, 4))
    assert table.expand(["x_2"]) == ["x_2"]


@pytest.mark.parametrize(
    "times",
    [
        ["2020-01-31", "2020-02-01", "2020-02-02"],
        ["2020-01-31 00:00:00", "2020-02-01 00:00:00", "2020-02-02 00:00:00"],
        ["2020-01-31T00:00", "2020-02-01T00:00", "2020-02-02T00:00"],
        ["2020-01-31T00:00:00.000Z", "2020-02-01T00:00:00Z", "2020-02-02T01:00:00+01:00"],
    ],
)
def test_iso_dates_are_times(times, tmp_path):
    content = "t,x\n" + "".join(f"{t},1\n" for t in times[::-1])
    table = read_table(ragged.write(tmp_path, "a.csv", content))
    rows = group_rows(table, time="t")
    np.testing.assert_array_equal(rows.times, np.arange("2020-01-31", "2020-02-03", dtype="datetime64[D]"))
    assert rows.order.tolist() == [2, 1, 0]
    np.testing.assert_array_equal(table.text("t")[rows.order], times)


def test_months_and_dates_of_other_formats_are_times(tmp_path):
    months = read_table(ragged.write(tmp_path, "a.csv", "t,x\n2020-11,1\n2020-12,2\n2021-01,3\n"))
    times = group_rows(months, time="t").times
    np.testing.assert_array_equal(times, np.arange("2020-11", "2021-02", dtype="datetime64[M]"))
    days = np.arange("2020-01-31", "2020-02-03", dtype="datetime64[D]")
    for name, write in (("a.npz", ragged.npz), ("a.parquet", ragged.parquet)):
        table = read_table(ragged.write(tmp_path, name, write({"t": days})))
        np.testing.assert_array_equal(group_rows(table, time="t").times, days)
        np.testing.assert_array_equal(table.text("t"), days.astype(str))


def test_bools_are_numbers_and_labels_are_text(tmp_path):
    csv = ragged.write(tmp_path, "a.csv", "b,k,s\ntrue,1,x\nFalse,,y\n,2.0,NA\n")
    values = {"b": np.array([True, False, True]), "k": np.array([1.0, np.nan, 2.0]), "s": np.array(["x", "y", ""])}
    for path in (csv, ragged.write(tmp_path, "a.npz", ragged.npz(values))):
        table = read_table(path)
        assert table.numbers(["b"])[:2, 0].tolist() == [1, 0]
        assert labels(table, "b")[:2] == ["1", "0"]
        assert labels(table, "k") == ["1", None, "2"]
        assert labels(table, "s") == ["x", "y", None]


def test_a_column_without_a_name_has_that_of_its_place(tmp_path):
    table = read_table(ragged.write(tmp_path, "a.csv", ",a,\n0,1.5,x\n1,2.5,y\n"))
    np.testing.assert_array_equal(table.numbers(["column 1", "a"]), [[0, 1.5], [1, 2.5]])
    assert labels(table, "column 3") == ["x", "y"]


def test_an_empty_row_of_a_single_column_is_a_hole(tmp_path):
    table = read_table(ragged.write(tmp_path, "a.csv", "x\n1\n\n3\n\n"))
    np.testing.assert_array_equal(table.numbers(["x"])[:, 0], [1, np.nan, 3])


def test_a_static_column_fills_the_holes_of_its_sequence(tmp_path):
    table = read_table(ragged.write(tmp_path, "a.csv", "s,a\nu,\nv,\nu,5\nu,5\n"))
    values = constants(table, group_rows(table, "s"), ["a"])[:, 0]
    np.testing.assert_array_equal(values, [5, 5, 5, np.nan])


def test_large_and_whole_numbers_as_labels_keep_their_text(tmp_path):
    table = read_table(ragged.write(tmp_path, "a.csv", "k,z\n1e300,007\n2.0,012\n"))
    assert labels(table, "k") == ["1e300", "2.0"]
    assert labels(table, "z") == ["007", "012"]
    floats = read_table(ragged.write(tmp_path, "a.npz", ragged.npz({"k": np.array([3.0, np.nan]), "z": [0.5, 1]})))
    assert labels(floats, "k") == ["3", None]
    assert labels(floats, "z") == ["0.5", "1.0"]
