"""Read a file of columns: CSV, Parquet or a NumPy archive, chosen by its suffix.

Every format gives the same `Table`. Values that are absent are holes: in a CSV file an empty field, NaN, NA, N/A, null
and None, in any case; in Parquet null and NaN; in NumPy NaN and NaT.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from jax_lstm.data import columns
from jax_lstm.data.csv_files import read_csv
from jax_lstm.data.npz_files import read_npz
from jax_lstm.data.places import Places, bad_file

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".npz")


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one file; all have the same number of rows.

    Args:
        columns: for each name, a function that makes the column, a polars Series. NumPy arrays are copied only then.
        height: the number of rows.
        places: the names of its rows, for messages.
        groups: names that select several columns each.
        sequence: the column that numbers the sequences, if the file itself has sequences.
    """

    columns: dict[str, Callable[[], Any]]
    height: int
    places: Places
    groups: dict[str, list[str]] = field(default_factory=dict)
    sequence: str | None = None

    def __len__(self) -> int:
        return self.height

    def expand(self, names: Sequence[str]) -> list[str]:
        """The columns that the names select; each must be in the file.

        Raises:
            ValueError: the file has no such column, or a column is selected twice.
        """
        found = [column for name in names for column in self.groups.get(name, [name])]
        for k, name in enumerate(found):
            self._find(name)
            if name in found[:k]:
                raise self.places.bad(f"wanted each column once, but {name!r} is selected twice")
        return found

    def column(self, name: str) -> Any:
        """The column as a polars Series.

        Raises:
            ValueError: the file has no such column.
        """
        return self._find(name)()

    def _find(self, name: str) -> Callable[[], Any]:
        if name in self.columns:
            return self.columns[name]
        known = [column for column in self.columns if column != self.sequence]
        close = difflib.get_close_matches(name, known, 1, 0.6)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise self.places.bad(f"wanted a column {name!r}, but the columns are {', '.join(known)}{meant}")

    def numbers(self, names: Sequence[str], absent: bool = False) -> Float[np.ndarray, "R C"]:
        """The columns as numbers, one row each, with NaN for holes; bools are 0 and 1.

        Args:
            names: the columns.
            absent: True allows a column that has nothing but holes.

        Raises:
            ValueError: a value is no finite number, or a column has nothing but holes.
        """
        found = np.empty((len(self), len(names)))
        for k, name in enumerate(names):
            found[:, k] = columns.numbers(self.column(name), self.places, absent)
        return found

    def labels(self, name: str) -> tuple[list[str], Int32[np.ndarray, " R"]]:
        """The different values as text, in the order of their first rows, and the number of each row's; −1 for holes.

        Whole numbers have no decimal point, bools are 0 and 1.

        Raises:
            ValueError: the column has nothing but holes.
        """
        return columns.labels(self.column(name), self.places)

    def times(self, name: str) -> np.ndarray:
        """The column as times: float64, or datetime64[us] for dates.

        Raises:
            ValueError: a value is neither a number nor an ISO date, or is absent.
        """
        return columns.times(self.column(name), self.places)

    def text(self, name: str) -> np.ndarray:
        """The column as the text that a file written from it shows."""
        return columns.text(self.column(name))


def read_table(path: str | Path, separator: str | None = None, least: int = 2) -> Table:
    """Read a file.

    Args:
        path: the file; its suffix is .csv, .tsv, .txt, .parquet or .npz.
        separator: of a CSV file, or its name: comma, semicolon, tab or bar; None: the one that its header contains.
        least: the number of rows that it must have.

    Returns:
        The table.

    Raises:
        ValueError: the file cannot be read; the message has its path, and the row and column where there is one.
    """
    file, path = Path(path), str(path)
    suffix = file.suffix.lower()
    if file.is_dir():
        raise bad_file(path, "wanted a file, but this is a directory; give the path of one file")
    if not file.exists():
        raise bad_file(path, "wanted a file, but there is none; check the path")
    if suffix not in SUFFIXES:
        raise bad_file(path, f"wanted a file with the suffix {', '.join(SUFFIXES)}, but got {suffix or 'none'}")
    try:
        table = _read(path, suffix, separator)
    except OSError as error:
        raise bad_file(path, f"wanted a file that can be read, but got: {error.strerror or error}") from None
    if len(table) < least:
        raise bad_file(path, f"wanted at least {least} row{'s' * (least > 1)}, but got {len(table)}")
    return table


def _read(path: str, suffix: str, separator: str | None) -> Table:
    if Path(path).stat().st_size == 0:
        raise bad_file(path, "wanted data, but the file is empty")
    if suffix == ".npz":
        archive = read_npz(path)
        made = {name: partial(_series, name, column) for name, column in archive.columns.items()}
        return Table(made, archive.height, archive.places, archive.groups, archive.sequence)
    if suffix == ".parquet":
        import polars  # only these readers need it

        try:
            frame = polars.read_parquet(path)
        # polars panics if the file is damaged. `except Exception` would not catch its PanicException.
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
            reason = str(error).partition("\n")[0]
            raise bad_file(path, f"wanted a Parquet file, but it is damaged ({reason}); write it again") from None
        places = Places(path, "row", lambda record: str(record + 1))
    else:
        frame, places = read_csv(path, Path(path).read_bytes(), separator)
    return Table({name: partial(frame.get_column, name) for name in frame.columns}, frame.height, places)


def _series(name: str, column: Callable[[], np.ndarray]) -> Any:
    import polars

    return polars.Series(name, column())
