"""The names of places in a file, for messages: file, row and column."""

from collections.abc import Callable
from typing import NamedTuple


class Places(NamedTuple):
    """How a file names its rows.

    Args:
        path: the path of the file.
        what: what a row is called.
        number: the name of record k, from 0, as a person counts in this file.
    """

    path: str
    what: str
    number: Callable[[int], str]

    def row(self, record: int) -> str:
        """The name of a row, such as "row 7"."""
        return f"{self.what} {self.number(record)}"

    def bad(self, message: str, column: str | None = None, record: int | None = None) -> ValueError:
        """The error of a file: its path, then the row and the column where they are known, then the message."""
        where = [] if record is None else [self.row(record)]
        where += [] if column is None else [f"column {column!r}"]
        return bad_file(self.path, f"{', '.join(where)}: {message}" if where else message)


def bad_file(path: str, message: str) -> ValueError:
    """The error of a file: its path, then the message."""
    return ValueError(f"{path}: {message}")
