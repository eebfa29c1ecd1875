"""Convert a column of a file to numbers, labels or times, and say which row cannot be converted."""

import re
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from jax_lstm.data.places import Places

HOLES = ("", "nan", "na", "n/a", "null", "none")  # in lower case
BOOLS = {"false": "0", "true": "1"}
# Date formats, tried in this order on the first value; the same format is then used for all.
DATES = tuple(
    f"%Y-%m-%d{time}{zone}"
    for time in ("", "T%H:%M:%S%.f", " %H:%M:%S%.f", "T%H:%M", " %H:%M")
    for zone in ("", "%#z")
    if time or not zone
)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def numbers(column: Any, places: Places, absent: bool = False) -> Float[np.ndarray, " R"]:
    """A polars Series as float64, with NaN for holes.

    Raises:
        ValueError: a value is no finite number, or all are holes and `absent` is False.
    """
    import polars

    # Most columns of text are numbers without holes. To look for holes takes most of the time.
    quick = column.cast(polars.Float64, strict=False) if column.dtype == polars.String else column
    read = quick if quick.null_count() == column.null_count() else column
    read = _without_holes(read, places)
    if read.dtype == polars.String:
        read = _bools_as_digits(read)
        given, read = read, read.cast(polars.Float64, strict=False)
        if len(wrong := (given.is_not_null() & read.is_null()).arg_true()):
            _refuse_text(column.name, given[wrong[0]], wrong[0], places)
    elif read.dtype.is_temporal():
        raise places.bad("wanted numbers, but this column has dates; name it as time, or give numbers", column.name)
    values = read.cast(polars.Float64).fill_null(np.nan).to_numpy()
    if len(wrong := np.flatnonzero(np.isinf(values))):
        raise places.bad(
            f"wanted a finite number, but got {values[wrong[0]]}; correct the value or leave it empty",
            column.name,
            int(wrong[0]),
        )
    if not absent and np.isnan(values).all():
        raise places.bad("wanted numbers, but every value is absent; leave this column out", column.name)
    return values


def _refuse_text(name: str, value: str, record: int, places: Places) -> None:
    advice = "correct the value or leave it empty; if the column has names, replace them by columns of 0 and 1"
    if DECIMAL_COMMA.fullmatch(value):
        advice = "write decimals with a point"
    raise places.bad(f"wanted a number, but got {value[:40]!r}; {advice}", name, int(record))


def labels(column: Any, places: Places) -> tuple[list[str], Int32[np.ndarray, " R"]]:
    """The different values of a polars Series as text, and the number of the value of each row; −1 for a hole.

    The values are in the order of their first rows. The same value is the same text in every format: a whole number
    has no decimal point, and bools are 0 and 1.

    Raises:
        ValueError: all are holes.
    """
    import polars

    read = _without_holes(column, places)
    values = read.drop_nulls().unique(maintain_order=True)
    if not len(values):
        raise places.bad("wanted labels, but every value is absent; choose another column", column.name)
    codes = read.replace_strict(values, np.arange(len(values), dtype=np.int32), return_dtype=polars.Int32)
    numbers: dict[str, int] = {}  # of the names: two values, such as "1" and "1.0", may have the same
    new = np.array([numbers.setdefault(name, len(numbers)) for name in _names(values)] + [-1], np.int32)
    return list(numbers), new[codes.fill_null(len(values)).to_numpy()]


def _names(values: Any) -> list[str]:
    """Different values as text."""
    import polars

    if values.dtype == polars.Boolean:
        values = values.cast(polars.UInt8)
    if values.dtype.is_float() and _whole(values):
        values = values.cast(polars.Int64)
    found = _bools_as_digits(values.cast(polars.String))
    if found.str.contains(".", literal=True).any():  # "1.0" in one file and 1 in another are the same label
        parsed = found.cast(polars.Float64, strict=False)
        if not parsed.null_count() and _whole(parsed):
            found = parsed.cast(polars.Int64).cast(polars.String)
    return found.to_list()


def _whole(values: Any) -> bool:
    """True if all floats are whole numbers that float64 has exactly."""
    return bool(((values == values.round()) & (values.abs() < 2**53)).all())


def times(column: Any, places: Places) -> np.ndarray:
    """A polars Series as float64 or datetime64[us].

    Raises:
        ValueError: a value is absent, or is neither a number nor an ISO date.
    """
    import polars

    read = _without_holes(column, places)
    if len(wrong := read.is_null().arg_true()):
        raise places.bad("wanted a time, but it is absent; give one or leave the row out", column.name, int(wrong[0]))
    if read.dtype == polars.String:
        numeric = read.cast(polars.Float64, strict=False)
        if numeric.null_count() < len(read):
            if len(wrong := numeric.is_null().arg_true()):
                _refuse_time(column.name, read[wrong[0]], wrong[0], places)
            read = numeric
        else:
            read = _dates(read, places)
    if read.dtype.is_temporal():
        if read.dtype in (polars.Time, polars.Duration):
            return read.to_physical().cast(polars.Float64).to_numpy()
        return read.cast(polars.Datetime("us")).to_numpy()
    values = read.cast(polars.Float64).to_numpy()
    if len(wrong := np.flatnonzero(np.isinf(values))):
        _refuse_time(column.name, str(values[wrong[0]]), int(wrong[0]), places)
    return values


def _dates(read: Any, places: Places) -> Any:
    if (read.str.len_chars() == len("2020-01")).all():  # months
        read = read + "-01"
    for format in DATES:
        found = read.str.to_datetime(format, time_unit="us", strict=False)
        if found[0] is not None:
            if len(wrong := found.is_null().arg_true()):
                _refuse_time(read.name, read[wrong[0]], wrong[0], places)
            return found
    return _refuse_time(read.name, read[0], 0, places)


def _refuse_time(name: str, value: str, record: int, places: Places) -> None:
    raise places.bad(
        f"wanted a number or an ISO date such as 2020-01-31 or 2020-01-31 12:30:00, in the same form in all rows, but "
        f"got {value[:40]!r}; correct the value",
        name,
        int(record),
    )


def text(column: Any) -> np.ndarray:
    """A polars Series as text: dates in ISO form, without a time of day if all are at midnight."""
    import polars

    read = column
    if read.dtype == polars.Datetime and (read.dt.truncate("1d") == read).all():
        read = read.cast(polars.Date)
    return read.cast(polars.String).fill_null("").to_numpy().astype(str)


def _without_holes(column: Any, places: Places) -> Any:
    """The Series with null at every hole, and text without blanks at its ends."""
    import polars

    read = column
    if isinstance(read.dtype, polars.Categorical | polars.Enum):
        read = read.cast(polars.String)
    if read.dtype == polars.String:
        read = read.str.strip_chars()
        absent = read.str.to_lowercase().is_in(HOLES)
        return read.set(absent.fill_null(True), None) if absent.any() else read
    if read.dtype.is_float():
        return read.fill_nan(None)
    if read.dtype.is_numeric() or read.dtype.is_temporal() or read.dtype in (polars.Boolean, polars.Null):
        return read
    raise places.bad(f"wanted numbers, bools, text or dates, but the type is {read.dtype}", column.name)


def _bools_as_digits(read: Any) -> Any:
    """Text with 0 and 1 in place of false and true, if there is no other value."""
    lower = read.str.to_lowercase()
    given = lower.drop_nulls()
    return lower.replace(BOOLS) if len(given) and given.is_in(list(BOOLS)).all() else read
