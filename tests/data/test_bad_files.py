"""Files that cannot be read: one sentence with file, row and column."""

import re

import numpy as np
import pytest
import ragged

from jax_lstm.data.grouping import constants, group_rows
from jax_lstm.data.tables import read_table

GOOD = "s,t,x,y\n" + "".join(f"{'ab'[k // 5]},{k},{k / 2},{k / 4}\n" for k in range(10))
NAN = np.nan
ARRAYS = {"t": np.arange(9.0), "x": np.arange(9.0), "y": np.arange(9.0)}
PARQUET = {"t": np.arange(9), "x": np.arange(9) / 2, "y": np.arange(9) / 4}


def after(row):
    return GOOD + row


TABLE = [
    ("empty.csv", "", "wanted data, but the file is empty"),
    ("blank.csv", "\n \n\n", "but the file is empty"),
    ("late.csv", "\n\n" + GOOD, "row 1: wanted the names of the columns, but it is empty"),
    ("header.csv", "s,t,x,y\n", "but there is only a header"),
    ("one.csv", "s,t,x,y\na,1,2,3\n", "wanted at least 2 rows, but got 1"),
    ("column.csv", GOOD.replace("x", "xs"), "wanted a column 'x', but the columns are s, t, xs, y; did you mean 'xs'"),
    ("far.csv", GOOD.replace("x", "rain"), "wanted a column 'x', but the columns are s, t, rain, y"),
    ("text.csv", GOOD.replace("1.5", "high"), "row 5, column 'x': wanted a number, but got 'high'"),
    ("place.csv", GOOD.replace("1.5", '"a\nb"'), "row 5, column 'x': wanted a number"),
    ("comma.csv", after("b;11;1,5;2\n").replace(",", ";").replace("1;5", "1,5"), "row 12, column 'x': .* with a point"),
    ("holes.csv", re.sub(r",[\d.]+(,[\d.]+)\n", r",NA\1\n", GOOD), "column 'x': .* every value is absent"),
    ("times.csv", after("b,7,1,1\n"), "row 12, column 't': .* also the time of row 9 of sequence 'b'"),
    ("time.csv", after("b,noon,1,1\n"), "row 12, column 't': wanted a number or an ISO date .* but got 'noon'"),
    ("no_time.csv", after("b,,1,1\n"), "row 12, column 't': wanted a time, but it is absent"),
    ("date.csv", GOOD.replace("x", "z").replace("t", "x").replace("4,2", "2020-01-31,2"), "row 6, column 'x'"),
    ("no_name.csv", after(",20,1,1\n"), "row 12, column 's': wanted the name of a sequence, but it is absent"),
    ("static.csv", GOOD, "row 3, column 'y': wanted one value per sequence, but sequence 'a' has 0 and 0.25"),
    ("latin.csv", after("b,é,1,1\n").encode("latin-1"), r"byte 0xe9 at offset \d+ in row 12 is not UTF-8"),
    ("utf16.csv", GOOD.encode("utf-16"), "but the file is UTF-16; save it as UTF-8"),
    ("zero.csv", after("b,1\0,1,1\n"), "wanted text, but the file has zero bytes"),
    ("many.csv", after("b,11,1,1,1\n"), "row 12: wanted 4 fields, as in the header, but it has 5"),
    ("few.csv", after('"b\nc",11,1\n'), "row 12: wanted 4 fields, as in the header, but it has 3"),
    ("gap.csv", after("\nb,11,1,1\n"), "row 12: wanted 4 fields, as in the header, but it is empty"),
    ("twice.csv", GOOD.replace("t,", "x,", 1), "row 1: wanted different names of columns, but 'x' is there twice"),
    ("marks.csv", "t,x;y\n1,2;3\n4,5;6\n", "row 1: wanted one separator, but got comma and semicolon"),
    ("quotes.csv", after('b,11,5",1\nb,12,5"",1\n'), "row 12, column 'x': wanted a number|cannot be read"),
    ("infinite.csv", after("b,11,-inf,1\n"), "row 12, column 'x': wanted a finite number, but got -inf"),
    ("large.csv", after("b,11,1e999,1\n"), "row 12, column 'x': wanted a finite number, but got inf"),
    ("table.xlsx", "PK", "wanted a file with the suffix .csv, .* but got .xlsx"),
    ("table", GOOD, "wanted a file with the suffix .csv, .* but got none"),
    ("cut.parquet", ragged.parquet(PARQUET)[:-9], r"wanted a Parquet file, but it is damaged \(.*\); write it again"),
    ("text.parquet", ragged.parquet(PARQUET | {"x": ["a"] * 9}), "row 1, column 'x': wanted a number, but got 'a'"),
    ("list.parquet", ragged.parquet(PARQUET | {"x": [[1]] * 9}), "column 'x': wanted numbers, .* the type is List"),
    ("one.parquet", ragged.parquet({"x": [1.0]}), "wanted at least 2 rows, but got 1"),
    ("equal.npz", ragged.npz(ARRAYS | {"y": np.ones(8)}), "array 'y': wanted 9 rows, as in 't', but got 8"),
    ("steps.npz", ragged.npz({"x": np.ones((2, 9)), "y": np.ones((2, 8))}), "wanted 9 steps, as in 'x', but got 8"),
    ("objects.npz", ragged.npz(ARRAYS | {"x": np.array([1, "a"], object)}), "the file holds Python objects, and"),
    ("complex.npz", ragged.npz(ARRAYS | {"x": np.ones(9) * 1j}), "array 'x': wanted numbers, .* but got complex128"),
    ("number.npz", ragged.npz({"x": np.float64(3)}), r"array 'x': wanted 1 to 3 axes, but got shape \(\)"),
    ("length.npz", ragged.npz({"x": np.ones((2, 3))}, lengths=[2, 4]), r"from 1 to 3, but position \[1\] is 4"),
    ("infinite.npz", ragged.npz({"x": np.array([[1, 2], [3, np.inf]])}), r"position \[1, 1\], column 'x': .* inf"),
    ("nothing.npz", ragged.npz({}), "wanted arrays, but the archive has none"),
    ("cut.npz", ragged.npz(ARRAYS)[:-30], r"wanted a NumPy archive, but it is damaged \(.*\); write it again"),
    ("array.npz", b"\x93NUMPY", "wanted a NumPy archive, but this is none; write it with numpy.savez"),
]  # fmt: skip


def use(path):
    """Read a file, and use each of its columns."""
    table = read_table(path)
    table.numbers(table.expand(["x"]))
    if "t" in table.columns:
        rows = group_rows(table, "s" if "s" in table.columns else None, "t")
        constants(table, rows, ["y"])


@pytest.mark.parametrize(("name", "content", "message"), TABLE, ids=[row[0] for row in TABLE])
def test_a_bad_file_gets_one_sentence(name, content, message, tmp_path):
    path = ragged.write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        use(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.csv: wanted a file, but there is none"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="wanted a file, but this is a directory"):
        read_table(tmp_path)


def test_the_good_forms_of_the_bad_files_are_read(tmp_path):
    use(ragged.write(tmp_path, "a.csv", re.sub(r",[\d.]+\n", r",1\n", GOOD)))
    use(ragged.write(tmp_path, "a.parquet", ragged.parquet(PARQUET | {"y": np.ones(9)})))
    use(ragged.write(tmp_path, "a.npz", ragged.npz(ARRAYS | {"y": np.ones(9)})))


def test_a_given_separator_is_used(tmp_path):
    path = ragged.write(tmp_path, "a.csv", "t,x;y\n1,2;3\n4,5;6\n")
    assert list(read_table(path, ";").columns) == list(read_table(path, "semicolon").columns) == ["t,x", "y"]
    tabs = ragged.write(tmp_path, "b.tsv", "x\ty\n1\t2\n\t\n\t3\n4\t\n")
    np.testing.assert_array_equal(read_table(tabs).numbers(["x", "y"]), [[1, 2], [NAN, NAN], [NAN, 3], [4, NAN]])
    with pytest.raises(ValueError, match="wanted one of the separators"):
        read_table(path, ":")
