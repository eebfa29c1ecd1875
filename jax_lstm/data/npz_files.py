"""Read a NumPy archive (.npz) as columns.

The name of an array is the name of its column. Three shapes are read:

    (R,)         one value per row, if no array has two or more axes
    (N, T)       N sequences of T steps; an array (N,) then has one value per sequence, such as its label
    (N, T, K)    K columns at once, called NAME_0 to NAME_{K−1}; the name itself selects all of them

An array `lengths` (N,) gives the number of steps of each sequence; the steps after them are padding and are not read.
Archives of Python objects are refused, because reading them runs code.
"""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import IO, Any, NamedTuple

import numpy as np

from jax_lstm.data.places import Places, bad_file

LENGTHS = "lengths"
SEQUENCE = "row of the arrays"  # the column that numbers the sequences of arrays (N, T)

# What zipfile and NumPy raise for files that were cut or changed; MemoryError is a changed shape.
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
    *(ValueError, TypeError, OSError, EOFError, KeyError, RuntimeError, MemoryError, SyntaxError, OverflowError),
)


class Archive(NamedTuple):
    """What an archive has.

    Args:
        columns: for each name, a function that makes the column, (R,). Nothing is copied before.
        height: R, the number of rows.
        places: the names of the rows.
        groups: the columns of each array with three axes, by its name.
        sequence: the column that numbers the sequences; None if all arrays have one axis.
    """

    columns: dict[str, Callable[[], np.ndarray]]
    height: int
    places: Places
    groups: dict[str, list[str]]
    sequence: str | None


def read_npz(path: str) -> Archive:
    """Read an archive.

    Raises:
        ValueError: the file is no archive, holds objects, or its arrays have different lengths.
    """
    arrays = _arrays(path)
    if not arrays:
        raise bad_file(path, "wanted arrays, but the archive has none")
    groups = _split_columns(path, arrays)
    _check_equal(path, arrays, 0)
    if not any(array.ndim == 2 for array in arrays.values()):
        columns: dict[str, Any] = {name: partial(_plain, path, name, array) for name, array in arrays.items()}
        places = Places(path, "position", lambda record: f"[{record}]")
        return Archive(columns, len(next(iter(arrays.values()))), places, groups, None)
    index = _index(path, arrays)
    columns = {name: partial(_plain, path, name, array, index) for name, array in arrays.items()}
    columns[SEQUENCE] = lambda: index[0]
    places = Places(path, "position", lambda record: f"[{index[0][record]}, {index[1][record]}]")
    return Archive(columns, len(index[0]), places, groups, SEQUENCE)


def _arrays(path: str) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        if file.read(2) != b"PK":  # as in every zip file
            raise bad_file(path, "wanted a NumPy archive, but this is none; write it with numpy.savez")
        file.seek(0)
        return _loaded(path, file)


def _loaded(path: str, file: IO[bytes]) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except DAMAGED as error:
        if "allow_pickle" in str(error):
            raise bad_file(
                path,
                "wanted arrays of numbers or text, but the file holds Python objects, and reading those can run code; "
                "save arrays with a dtype such as float32 or <U20",
            ) from None
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise bad_file(path, f"wanted a NumPy archive, but it is damaged ({reason}); write it again") from None


def _split_columns(path: str, arrays: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """Replace each array (N, T, K) by K arrays (N, T), in place; return their names."""
    groups = {}
    for name, array in list(arrays.items()):
        if array.ndim not in (1, 2, 3):
            raise bad_file(path, f"array {name!r}: wanted 1 to 3 axes, but got shape {array.shape}")
        if array.ndim == 3:
            groups[name] = [f"{name}_{k}" for k in range(array.shape[2])]
            del arrays[name]
            arrays |= {column: array[:, :, k] for k, column in enumerate(groups[name])}
    return groups


def _check_equal(path: str, arrays: dict[str, np.ndarray], axis: int) -> None:
    """Check that all arrays that have the axis have the same size on it."""
    sizes = {name: array.shape[axis] for name, array in arrays.items() if array.ndim > axis}
    (first, wanted), *others = sizes.items()
    for name, size in others:
        if size != wanted:
            what = "rows" if axis == 0 else "steps"
            raise bad_file(
                path,
                f"array {name!r}: wanted {wanted} {what}, as in {first!r}, but got {size}; give all arrays the same "
                "length, and pad shorter sequences and name their lengths in an array called lengths",
            )


def _index(path: str, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The two indices of each row: the steps of all sequences without padding. `lengths` is removed from the arrays."""
    _check_equal(path, arrays, 1)
    N, T = next(array.shape for array in arrays.values() if array.ndim == 2)
    lengths = arrays.pop(LENGTHS, np.full(N, T))
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise bad_file(path, f"array {LENGTHS!r}: wanted {N} integers, but got {lengths.dtype} {lengths.shape}")
    if len(wrong := np.flatnonzero((lengths < 1) | (lengths > T))):
        n = int(wrong[0])
        raise bad_file(path, f"array {LENGTHS!r}: wanted lengths from 1 to {T}, but position [{n}] is {lengths[n]}")
    rows, steps = np.nonzero(np.arange(T) < lengths[:, None])
    return rows.astype(np.int32), steps.astype(np.int32)


def _plain(path: str, name: str, array: np.ndarray, index: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """One value per row, of a type that polars has."""
    if array.dtype.kind not in "biufUM":
        raise bad_file(path, f"array {name!r}: wanted numbers, bools, text or dates, but got {array.dtype}")
    if index is not None:
        array = array[index] if array.ndim == 2 else array[index[0]]
    if array.dtype.kind == "M" and np.datetime_data(array.dtype)[0] not in ("D", "ms", "us", "ns"):
        array = array.astype("datetime64[us]")
    return np.ascontiguousarray(array)
