"""Predict the next byte of a text of your own: a file or a folder; byte_streams.py has the equations.

Every file can be read, because a byte is a byte: text in UTF-8, source code, binary files. The default is the source of
Python's standard library, as in the task `bytes`.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from jax_lstm.checks import one_of
from jax_lstm.data.text import Texts, read_texts, text_files
from jax_lstm.tasks import bytes as library
from jax_lstm.tasks.base import Split
from jax_lstm.tasks.byte_streams import STREAM, STREAMS, ByteStreams, check_trained, evenly_spaced, n_gram
from jax_lstm.tasks.registry import register_task
from jax_lstm.tasks.series_options import Columns, names_of


@dataclass(frozen=True)
class Text(ByteStreams):
    """Next-byte prediction on a text file, or on the files of a folder.

    Validation and test are streams of up to 2,048 bytes, each from a state of zero: at most 32 and 128 of them, evenly
    spaced in their part of the text.

    Args:
        path: A file or a folder. null: the source of Python's standard library.
        suffixes: The suffixes of the files of a folder, such as ".txt,.md" or a list. null: every file whose name does
            not begin with a point.
        split_by: position: the last tenth of all bytes is test, the tenth before is validation. file: a hash of its
            name decides the part of each file. auto: file for the standard library, else position.
        trained: T, the bytes per training stream and step; at least 1.

    Raises:
        ValueError: an option is wrong. The files are read later, by the first batch.
    """

    path: str | None = None
    suffixes: Columns = None
    split_by: Literal["auto", "position", "file"] = "auto"
    trained: int = 128

    section = "data"

    def __post_init__(self):
        check_trained("Text", self.trained)
        one_of("Text", "split_by", self.split_by, ("auto", "position", "file"))
        suffixes = tuple(s if s.startswith(".") else f".{s}" for s in names_of("Text", "suffixes", self.suffixes))
        if self.path is None and (suffixes or self.split_by == "position"):
            raise ValueError(
                "Text: suffixes must be None and split_by auto or file for the standard library, but path is None and "
                f"they are {suffixes or None} and {self.split_by}; give your text with --data.path"
            )
        object.__setattr__(self, "suffixes", suffixes)
        object.__setattr__(self, "path", None if self.path is None else str(self.path))

    @property
    def length(self) -> int:
        """The bytes of a validation or test stream: 2,048, or all of a part that is shorter."""
        return min(STREAM, *(len(getattr(self.texts(), split)) - 1 for split in STREAMS))

    def texts(self) -> Texts:
        """The three parts of the text; read again only if a file has changed."""
        if self.path is None:
            return library.texts()
        files = text_files(self.path, names_of("Text", "suffixes", self.suffixes))
        stats = [path.stat() for path in files.values()]
        split_by = "file" if self.split_by == "file" else "position"
        return _read(self.path, split_by, tuple(files.items()), tuple((s.st_mtime_ns, s.st_size) for s in stats))

    def streams(self, split: Split) -> UInt8[np.ndarray, "B T+1"]:
        """The streams of a part that are scored."""
        text, length = getattr(self.texts(), split), self.length
        return evenly_spaced(text, min(STREAMS[split], len(text) // (length + 1)), length)

    def n_gram(self, split: Split) -> float:
        """The bits per byte of the n-gram model on the streams of a part."""
        if self.path is None:
            return library.Bytes().n_gram(split)
        return n_gram(self.texts().train, self.streams(split))


@lru_cache(maxsize=2)
def _read(path: str, split_by: str, files: tuple[tuple[str, Path], ...], stamps: Any) -> Texts:
    return read_texts(path, dict(files), split_by)


register_task("text", Text)
