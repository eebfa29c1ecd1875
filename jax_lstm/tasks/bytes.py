"""Predict the next byte of the source code of Python's standard library.

    x_t = byte t of a stream        y_t = byte t + 1, the target at every step

The text is the .py files of the running interpreter's standard library, without tests, installed packages and
pydoc_data (the manual as strings). The SHA-256 of a file's name decides its split: 8 of 10 hash values are training, 1
validation, 1 test. A split is its files in the order of their names. Another version of Python has other files, so its
scores differ, but a file stays in its split.

    score = cross entropy / ln 2, in bits per byte

Training streams continue from step to step. At step t, from 0, stream b reads

    text[o_b + t T .. o_b + t T + T], wrapping around at the end        o_b: drawn once from the run's key

So a network that carries its state reads one long text (truncated backpropagation through time, Williams & Peng 1990).
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
from jax_lstm.tasks.registry import register_task

BYTES, ORDER = 256, 3
LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "pydoc_data",
}  # names of folders, at any depth
STREAM = 2_048
STREAMS: dict[Split, int] = {"validation": 32, "test": 128}


class Texts(NamedTuple):
    """The bytes of the three splits."""

    train: UInt8[np.ndarray, " n"]
    validation: UInt8[np.ndarray, " v"]
    test: UInt8[np.ndarray, " m"]


def split_of(name: str) -> str:
    """The split of a file, from its path relative to the standard library; independent of all other files."""
    tenth = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % 10
    return {0: "validation", 1: "test"}.get(tenth, "train")


@cache
def library() -> dict[str, bytes]:
    """The source files of the standard library, by relative path, in the order of the paths."""
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
        FileNotFoundError: the interpreter has no source of its standard library, or too little of it.
    """
    parts = {split: [] for split in Texts._fields}
    for name, content in library().items():
        parts[split_of(name)].append(content)
    made = Texts(**{split: np.frombuffer(b"".join(part), np.uint8) for split, part in parts.items()})
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
    text, count = getattr(texts(), split), STREAMS[split]
    starts = np.arange(count) * (len(text) // count)
    return text[starts[:, None] + np.arange(STREAM + 1)]


@cache
def _ngram(split: Split) -> float:
    return ngram.bits_per_byte(texts().train, streams(split), ORDER)


@dataclass(frozen=True)
class Bytes:
    """Next-byte prediction on Python source.

    Validation has 32 streams and test 128 streams of 2,048 bytes, each from a state of zero. A run can read up to 2³¹
    bytes of a training stream.

    Args:
        trained: T, the bytes per training stream and step; at least 1.

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
    maximize = False

    def __post_init__(self):
        if self.trained < 1:
            raise ValueError(f"Bytes: trained must be at least 1, but is {self.trained}")

    @property
    def length(self) -> int:
        """2,048, the bytes of a validation or test stream."""
        return STREAM

    def baselines(self, split: Split) -> dict[str, float]:
        """Two scores in bits per byte, both of models that are counted on the training text.

        byte frequencies: the entropy of the bytes of the training text. order-3 n-gram: the cross entropy of an n-gram
        model (ngram.py) on the streams of the split.
        """
        p = np.bincount(texts().train) / len(texts().train)
        return {
            "byte frequencies": float(-(p[p > 0] * np.log2(p[p > 0])).sum()),
            f"order-{ORDER} n-gram": _ngram(split),
        }

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """The next T bytes of `size` endless streams: xs, targets and weights (size, T)."""
        text = texts().train
        starts = jax.random.randint(key, (size, 1), 0, len(text), jnp.int32)
        at = starts + (jnp.asarray(step, jnp.int32) * self.trained) % len(text)
        steps = jnp.arange(self.trained + 1, dtype=jnp.int32)
        return _batch(jnp.asarray(text)[(at + steps[None]) % len(text)])

    def validation(self) -> Batch:
        """32 streams: xs, targets and weights (32, 2048)."""
        return _batch(jnp.asarray(streams("validation")))

    def test(self) -> Batch:
        """128 streams: xs, targets and weights (128, 2048)."""
        return _batch(jnp.asarray(streams("test")))


def _batch(text: UInt8[Array, "B T+1"]) -> Batch:
    tokens = text.astype(jnp.int32)
    weights = jnp.ones((len(text), text.shape[1] - 1), jnp.float32)
    return Batch(tokens[:, :-1], tokens[:, 1:], weights=weights)


register_task("bytes", Bytes)
