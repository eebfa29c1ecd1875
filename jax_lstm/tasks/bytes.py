"""The next byte of the Python standard library's own source.

    x_t = byte t of a stream        y_t = byte t + 1        wanted at every step

The text is that of the .py files of the running interpreter's library, without tests, without installed packages and
without the manual, which is kept there as strings. Every file is wholly in one split: of ten, by its name's SHA-256,
eight are trained on, one is for validation and one is the test. A split is its files, one after another in the order of
their names. Another version of Python has other files, and so other scores; a file stays in its split.

    score = cross entropy / ln 2, in bits a byte

Training streams continue from step to step. At step t, counted from 0, stream b reads

    text[o_b + t T .. o_b + t T + T], around the end to the beginning        o_b: drawn once from the run's key

so that a network that keeps its state reads one long text (truncated backpropagation through time, Williams & Peng
1990).
"""

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key, UInt8

from jax_lstm.tasks import ngram
from jax_lstm.tasks.base import Batch, Split

BYTES, ORDER = 256, 3
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data"}  # folders, wherever they are
STREAM = 2_048
STREAMS: dict[Split, int] = {"validation": 32, "test": 128}


class Texts(NamedTuple):
    """The bytes of the splits."""

    train: UInt8[np.ndarray, " n"]
    validation: UInt8[np.ndarray, " v"]
    test: UInt8[np.ndarray, " m"]


def split_of(name: str) -> str:
    """The split of a file, by its path from the library's folder: it depends on no other file."""
    tenth = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % 10
    return {0: "validation", 1: "test"}.get(tenth, "train")


@cache
def library() -> dict[str, bytes]:
    """The library's source files, by their paths from its folder, in the order of these."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return {name: path.read_bytes() for name, path in sorted((p.relative_to(root).as_posix(), p) for p in found)}


@cache
def texts() -> Texts:
    """The three splits.

    Raises:
        FileNotFoundError: the interpreter came without its library's source, or with too little of it.
    """
    parts = {split: [] for split in Texts._fields}
    for name, content in library().items():
        parts[split_of(name)].append(content)
    made = Texts(**{split: np.frombuffer(b"".join(part), np.uint8) for split, part in parts.items()})
    for split, count in STREAMS.items():
        if len(getattr(made, split)) < count * (STREAM + 1):
            raise FileNotFoundError(
                f"Bytes: wanted at least {count * (STREAM + 1):,} bytes of library source for {split}, but found "
                f"{len(getattr(made, split)):,} under {sysconfig.get_paths()['stdlib']}"
            )
    return made


@cache
def streams(split: Split) -> UInt8[np.ndarray, "B T+1"]:
    """The streams that are scored: equally far apart in the split's text, and without overlap."""
    text, count = getattr(texts(), split), STREAMS[split]
    starts = np.arange(count) * (len(text) // count)
    return text[starts[:, None] + np.arange(STREAM + 1)]


@cache
def _ngram(split: Split) -> float:
    return ngram.bits_per_byte(texts().train, streams(split), ORDER)


@dataclass(frozen=True)
class Bytes:
    """Bytes of source, and the byte that follows each.

    Args:
        trained: T, the bytes of a training stream at each step; at least 1.

    Scored are 32 validation streams and 128 test streams of 2,048 bytes, each from a state of zero. A run may read up
    to 2³¹ bytes of a training stream.

    Raises:
        ValueError: trained is less than 1.
    """

    trained: int = 128

    input_size = BYTES
    output_size = BYTES
    vocabulary = BYTES
    continues = True
    loss = "cross_entropy"
    metric = "bits_per_byte"
    maximise = False

    def __post_init__(self):
        if self.trained < 1:
            raise ValueError(f"Bytes: length must be at least 1, but is {self.trained}")

    @property
    def baseline(self) -> float:
        """The entropy of the training text's bytes, in bits: what they cost by their frequencies alone."""
        p = np.bincount(texts().train) / len(texts().train)
        return float(-(p[p > 0] * np.log2(p[p > 0])).sum())

    @property
    def length(self) -> int:
        """2,048: a stream that is scored."""
        return STREAM

    def rivals(self, split: Split) -> dict[str, float]:
        """The n-gram model of order 3 (ngram.py): counted in the training text, scored on the same streams."""
        return {f"order-{ORDER} n-gram": _ngram(split)}

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """The part of `size` endless streams that `step` reads."""
        text = texts().train
        starts = jax.random.randint(key, (size, 1), 0, len(text), jnp.int32)
        at = starts + (jnp.asarray(step, jnp.int32) * self.trained) % len(text)
        steps = jnp.arange(self.trained + 1, dtype=jnp.int32)
        return _batch(jnp.asarray(text)[(at + steps[None]) % len(text)])

    def validation(self) -> Batch:
        """32 streams of the validation files."""
        return _batch(jnp.asarray(streams("validation")))

    def test(self) -> Batch:
        """128 streams of the test files."""
        return _batch(jnp.asarray(streams("test")))


def _batch(text: UInt8[Array, "B T+1"]) -> Batch:
    tokens = text.astype(jnp.int32)
    weights = jnp.ones((len(text), text.shape[1] - 1), jnp.float32)
    return Batch(tokens[:, :-1], tokens[:, 1:], weights=weights)
