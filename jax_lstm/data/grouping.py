"""Group the rows of a table into sequences, each in the order of its times.

    rows with the same value in the sequence column are one sequence, even if they are not next to each other
    within it, rows are in the order of the time column, or of the file

The sequences are in the order of their first rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jax_lstm.data.tables import Table


class Rows(NamedTuple):
    """The rows of a table as N sequences, one after another.

    Args:
        order: the record in the file of every row, (R,).
        starts: the first row of each sequence, and R at the end, (N + 1,).
        names: the name of each sequence; empty without a sequence column.
        times: the time of every row, float64 or datetime64[us]; None without a time column.
    """

    order: Int[np.ndarray, " R"]
    starts: Int[np.ndarray, " N+1"]
    names: list[str]
    times: np.ndarray | None

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """The number of rows of each sequence."""
        return np.diff(self.starts)

    def name(self, n: int) -> str:
        """The name of sequence n, for messages."""
        return f"sequence {self.names[n]!r}" if self.names else "the file"

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """The values of each sequence, from the values of all rows in the order of `order`."""
        return np.split(values, self.starts[1:-1])


def group_rows(table: Table, sequence: str | None = None, time: str | None = None) -> Rows:
    """Group the rows of a table.

    Args:
        table: the table.
        sequence: the column that names the sequence of each row; None: one sequence, or those of the file itself.
        time: the column that orders the rows of a sequence; None: the order in the file.

    Returns:
        The rows of each sequence.

    Raises:
        ValueError: a row has no sequence or no time, or two rows of a sequence have the same time.
    """
    names, number = _numbered(table, table.sequence if sequence is None else sequence)
    times = None if time is None else table.times(time)
    order = np.argsort(number, kind="stable") if times is None else np.lexsort((times, number))
    number = number[order]
    if times is not None:
        _check_times(table, time, times, number, order, names)
    starts = np.concatenate([np.flatnonzero(np.diff(number, prepend=-1)), [len(order)]])
    return Rows(order, starts, names, None if times is None else times[order])


def _numbered(table: Table, sequence: str | None) -> tuple[list[str], Int[np.ndarray, " R"]]:
    """The names of the sequences in the order of their first rows, and the number of the sequence of every row."""
    if sequence is None:
        return [], np.zeros(len(table), np.int32)
    names, number = table.labels(sequence)
    if len(absent := np.flatnonzero(number < 0)):
        raise table.places.bad("wanted the name of a sequence, but it is absent; name it", sequence, int(absent[0]))
    return names, number


def _check_times(
    table: Table, time: str | None, times: np.ndarray, number: np.ndarray, order: np.ndarray, names: list[str]
) -> None:
    ordered = times[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (number[1:] == number[:-1]))
    if len(same):
        first, again = (int(order[same[0] + k]) for k in (0, 1))
        of = f" of sequence {names[number[same[0]]]!r}" if names else "; name the sequence column if there are several"
        raise table.places.bad(
            f"wanted different times in a sequence, but this is also the time of {table.places.row(first)}{of}",
            time,
            again,
        )


def constants(table: Table, rows: Rows, names: Sequence[str], absent: bool = False) -> Float[np.ndarray, "R C"]:
    """Static columns: one number per sequence, repeated in all its rows; NaN if the sequence has only holes.

    `absent` allows columns that have nothing but holes.

    Raises:
        ValueError: a column has two values in one sequence.
    """
    values = table.numbers(names, absent)[rows.order]
    for n in range(len(rows.lengths)):
        part = values[rows.starts[n] : rows.starts[n + 1]]
        known = ~np.isnan(part)
        for k, name in enumerate(names):
            if not known[:, k].any():
                continue
            first = part[known[:, k].argmax(), k]
            if len(wrong := np.flatnonzero(known[:, k] & (part[:, k] != first))):
                record = int(rows.order[rows.starts[n] + wrong[0]])
                raise table.places.bad(
                    f"wanted one value per sequence, but {rows.name(n)} has {first:g} and {part[wrong[0], k]:g}; name "
                    "the column as an input",
                    name,
                    record,
                )
            part[:, k] = first
    return values
