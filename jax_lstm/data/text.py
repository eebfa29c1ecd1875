"""Read text as bytes, from a file or a folder, and split it into training, validation and test text.

    by position: the first 8 tenths of the bytes, the next tenth, the last tenth
    by file:     8 of 10 values of the SHA-256 of a file's name are training, 1 validation, 1 test

The files of a folder are read in the order of their paths. By file, a file stays in its part when others come or go.
"""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jax_lstm.data.places import bad_file

LEAST, MOST = 1_000, 2**30  # bytes; positions in a text are int32


class Texts(NamedTuple):
    """The bytes of the three parts."""

    train: UInt8[np.ndarray, " n"]
    validation: UInt8[np.ndarray, " v"]
    test: UInt8[np.ndarray, " m"]


def split_of(name: str) -> str:
    """The part of a file, from its path relative to the folder; independent of all other files."""
    tenth = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % 10
    return {0: "validation", 1: "test"}.get(tenth, "train")


def files_in(root: Path, suffixes: tuple[str, ...] = (), left_out: Collection[str] = ()) -> dict[str, Path]:
    """The files of a folder by their path relative to it, in the order of these paths.

    Args:
        root: the folder.
        suffixes: the suffixes of the files; empty: every file. Files and folders whose names begin with a point are
            left out.
        left_out: names of folders that are left out, at any depth.
    """
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in left_out and not name.startswith(".")]
        found += [Path(folder, name) for name in files if not name.startswith(".") and name.endswith(suffixes or "")]
    return dict(sorted((path.relative_to(root).as_posix(), path) for path in found))


def by_file(contents: dict[str, bytes]) -> Texts:
    """Split files by the hash of their names."""
    parts: dict[str, list[bytes]] = {part: [] for part in Texts._fields}
    for name, content in contents.items():
        parts[split_of(name)].append(content)
    return Texts(**{part: np.frombuffer(b"".join(pieces), np.uint8) for part, pieces in parts.items()})


def by_position(contents: dict[str, bytes]) -> Texts:
    """Split all bytes, file after file, at 8 and 9 tenths."""
    text = np.frombuffer(b"".join(contents.values()), np.uint8)
    tenth = len(text) // 10
    return Texts(text[: len(text) - 2 * tenth], text[len(text) - 2 * tenth : len(text) - tenth], text[-tenth:])


def text_files(path: str, suffixes: tuple[str, ...] = ()) -> dict[str, Path]:
    """The file, or the files of a folder.

    Raises:
        ValueError: there is no such file or folder, or the folder has no such files.
    """
    root = Path(path)
    if not root.exists():
        raise bad_file(path, "wanted a file or a folder, but there is none; check the path")
    found = files_in(root, suffixes) if root.is_dir() else {root.name: root}
    if not found:
        raise bad_file(
            path, f"wanted files {' or '.join(suffixes)} in this folder, but there are none; change suffixes"
        )
    return found


def read_texts(path: str, files: dict[str, Path], split_by: str) -> Texts:
    """Read and split files.

    Args:
        path: the file or folder, for messages.
        files: its files, from `text_files`.
        split_by: "position" or "file".

    Raises:
        ValueError: the text is empty, too short or too long, or a part of the split has no file.
    """
    size = sum(file.stat().st_size for file in files.values())
    if not LEAST <= size <= MOST:
        what = "is empty" if size == 0 else f"has {size:,}"
        raise bad_file(path, f"wanted a text of {LEAST:,} to {MOST:,} bytes, but it {what}")
    try:
        contents = {name: file.read_bytes() for name, file in files.items()}
    except OSError as error:
        raise bad_file(str(error.filename), f"wanted a file that can be read, but got: {error.strerror}") from None
    texts = by_file(contents) if split_by == "file" else by_position(contents)
    for part, text in texts._asdict().items():
        if len(text) < LEAST // 10:
            raise bad_file(
                path,
                f"wanted at least {LEAST // 10} bytes in the {part} part, but its files have {len(text)}; set split_by "
                "to position",
            )
    return texts
