"""Predict the next byte of the source code of Python's standard library; byte_streams.py has the equations.

The text is the .py files of the running interpreter's standard library, without tests, installed packages and
pydoc_data (the manual as strings). The SHA-256 of a file's name decides its split: 8 of 10 hash values are training, 1
validation, 1 test. A split is its files in the order of their names. Another version of Python has other files, so its
scores differ, but a file stays in its split.
"""

import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jax_lstm.data.text import Texts, by_file, files_in
from jax_lstm.tasks.base import Split
from jax_lstm.tasks.byte_streams import STREAM, STREAMS, ByteStreams, check_trained, evenly_spaced, n_gram
from jax_lstm.tasks.registry import register_task

LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "pydoc_data",
}  # names of folders, at any depth


@cache
def library() -> dict[str, bytes]:
    """The source files of the standard library, by relative path, in the order of the paths."""
    found = files_in(Path(sysconfig.get_paths()["stdlib"]), (".py",), LEFT_OUT)
    return {name: path.read_bytes() for name, path in found.items()}


@cache
def texts() -> Texts:
    """The three splits.

    Raises:
        FileNotFoundError: the interpreter has no source of its standard library, or too little of it.
    """
    made = by_file(library())
    for split, count in STREAMS.items():
        if len(getattr(made, split)) < count * (STREAM + 1):
            raise FileNotFoundError(
                f"Bytes: wanted at least {count * (STREAM + 1):,} bytes of standard library source for {split}, but "
                f"found {len(getattr(made, split)):,} under {sysconfig.get_paths()['stdlib']}; use a Python that ships "
                "its source"
            )
    return made


@cache
def streams(split: Split) -> UInt8[np.ndarray, "B T+1"]:
    """The streams that are scored: evenly spaced in the split's text, without overlap."""
    return evenly_spaced(getattr(texts(), split), STREAMS[split])


@cache
def _ngram(split: Split) -> float:
    return n_gram(texts().train, streams(split))


@dataclass(frozen=True)
class Bytes(ByteStreams):
    """Next-byte prediction on Python source.

    Validation has 32 streams and test 128 streams of 2,048 bytes, each from a state of zero. A run can read up to 2³¹
    bytes of a training stream.

    Args:
        trained: T, the bytes per training stream and step; at least 1.

    Raises:
        ValueError: trained is less than 1.
    """

    trained: int = 128

    def __post_init__(self):
        check_trained("Bytes", self.trained)

    @property
    def length(self) -> int:
        """2,048, the bytes of a validation or test stream."""
        return STREAM

    def texts(self) -> Texts:
        """The three splits of the standard library."""
        return texts()

    def streams(self, split: Split) -> UInt8[np.ndarray, "B T+1"]:
        """32 streams of the validation text, or 128 of the test text."""
        return streams(split)

    def n_gram(self, split: Split) -> float:
        """The bits per byte of the n-gram model on the streams of a split."""
        return _ngram(split)


register_task("bytes", Bytes)
