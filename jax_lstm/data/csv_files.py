"""Read a CSV file as columns of text, after checks that name the row as an editor counts it: the header is row 1.

The file is UTF-8, with or without a byte order mark. Its first row names the columns. The separator is a comma, a
semicolon, a tab or a bar |, whichever the header contains. Fields may be in double quotes.
"""

import codecs
import csv
import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

from jax_lstm.data.places import Places, bad_file

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_csv(path: str, content: bytes, separator: str | None = None) -> tuple[Any, Places]:
    """Read the bytes of a CSV file.

    Args:
        path: the path of the file, for messages.
        content: the bytes.
        separator: the separator, or its name: comma, semicolon, tab or bar; None: the one that the header contains.

    Returns:
        A polars DataFrame of strings, in which an empty field is None, and the places of its rows.

    Raises:
        ValueError: the file is not UTF-8, has no rows, repeats a column name, or has a row with too few or too many
            fields.
    """
    import polars  # only these readers need it

    content = _text(path, content)
    try:
        header, separator = _header(path, content, separator)
        _check_fields(path, content, separator, len(header))
        # `infer_schema=False` reads text, so that our own conversion can say which row is not a number.
        frame = polars.read_csv(io.BytesIO(content), separator=separator, infer_schema=False)
    except (csv.Error, polars.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise bad_file(path, f"wanted a CSV file, but it cannot be read ({reason}); write it again") from None
    frame.columns = header
    return frame, Places(path, "row", lambda record: _line_of(content, separator, record))


def _text(path: str, content: bytes) -> bytes:
    """The content without byte order mark and blank lines at the end, with LF in place of a lone CR."""
    if content.startswith(UTF_16):
        raise bad_file(path, "wanted UTF-8 text, but the file is UTF-16; save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise bad_file(
            path,
            f"wanted UTF-8 text, but byte {content[error.start]:#04x} at offset {error.start} in row {row} is not "
            "UTF-8; save the file as UTF-8",
        ) from None
    if b"\0" in content:
        raise bad_file(path, "wanted text, but the file has zero bytes; give a CSV file")
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    content = content.rstrip(b"\r\n ")  # a tab may be a separator
    if not content:
        raise bad_file(path, "wanted a header and at least two rows, but the file is empty")
    return content + b"\n"


def _header(path: str, content: bytes, separator: str | None) -> tuple[list[str], str]:
    """The names of the columns, and the separator."""
    rows = [row.decode().rstrip("\r") for row in content.split(b"\n", 2)[:2]]
    if not rows[0].strip():
        raise bad_file(path, "row 1: wanted the names of the columns, but it is empty; begin with them")
    if separator is None:
        found = [mark for mark in SEPARATORS if len(_fields(rows[0], mark)) > 1]
        if len(found) > 1 and len(rows) > 1:  # a mark inside a name does not split the rows in the same way
            found = [m for m in found if len(_fields(rows[0], m)) == len(_fields(rows[1], m))] or found
        if len(found) > 1:
            names = " and ".join(SEPARATORS[mark] for mark in found)
            raise bad_file(path, f"row 1: wanted one separator, but got {names}; set the option separator")
        separator = found[0] if found else ","
    else:
        separator = {name: mark for mark, name in SEPARATORS.items()}.get(separator, separator)
        if separator not in SEPARATORS:
            wanted = ", ".join(SEPARATORS.values())
            raise bad_file(path, f"wanted one of the separators {wanted}, but got {separator!r}")
    # pandas writes an index without a name.
    header = [name.strip() or f"column {k}" for k, name in enumerate(_fields(rows[0], separator), 1)]
    if repeated := next((name for k, name in enumerate(header) if name in header[:k]), None):
        raise bad_file(path, f"row 1: wanted different names of columns, but {repeated!r} is there twice; rename one")
    return header, separator


def _fields(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _records(content: bytes, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The row in which each record begins, and its fields; a field in quotes may span rows."""
    reader = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=separator)
    line = 1
    for fields in reader:
        yield line, fields
        line = reader.line_num + 1


def _counts(content: bytes, separator: str) -> Iterator[tuple[int, int]]:
    """The row in which each record begins, and the number of its fields."""
    if b'"' in content:
        for line, fields in _records(content, separator):
            yield line, len(fields)
    else:  # ten times as fast
        mark = separator.encode()
        for line, text in enumerate(io.BytesIO(content), 1):
            yield line, text.count(mark) + 1 if text.strip(b"\r\n ") else 0


def _check_fields(path: str, content: bytes, separator: str, wanted: int) -> None:
    last = 0
    for line, count in _counts(content, separator):
        last = line
        if count != wanted and (count or wanted > 1):  # in a file with one column, an empty row is a hole
            got = f"it has {count}" if count else "it is empty"
            raise bad_file(path, f"row {line}: wanted {wanted} fields, as in the header, but {got}; correct the row")
    if last == 1:
        raise bad_file(path, "wanted a header and at least two rows, but there is only a header")


def _line_of(content: bytes, separator: str, record: int) -> str:
    """The row in which a record begins; record 0 follows the header."""
    return str(next(islice(_counts(content, separator), record + 1, None))[0])
