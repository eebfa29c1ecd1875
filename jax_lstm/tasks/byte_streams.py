"""Base class of tasks that predict the next byte of a text.

    x_t = byte t of a stream        y_t = byte t + 1, the target at every step

    score = cross entropy / ln 2, in bits per byte

Training streams continue from step to step. At step t, from 0, stream b reads

    text[o_b + t T .. o_b + t T + T], wrapping around at the end        o_b: drawn once from the run's key

So a network that carries its state reads one long text (truncated backpropagation through time, Williams & Peng 1990).
"""

from abc import ABC, abstractmethod

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key, UInt8

from jax_lstm.checks import shown
from jax_lstm.data.text import Texts
from jax_lstm.tasks import ngram
from jax_lstm.tasks.base import Batch, Split

BYTES, ORDER = 256, 3
STREAM = 2_048
STREAMS: dict[Split, int] = {"validation": 32, "test": 128}
COUNTED = 2**25  # the n-gram model is counted on at most so many bytes, because counting needs 40 times the memory


def evenly_spaced(text: UInt8[np.ndarray, " n"], count: int, length: int = STREAM) -> UInt8[np.ndarray, "B T+1"]:
    """`count` streams of length + 1 bytes, evenly spaced in a text, without overlap."""
    starts = np.arange(count) * (len(text) // count)
    return text[starts[:, None] + np.arange(length + 1)]


def byte_entropy(text: UInt8[np.ndarray, " n"]) -> float:
    """The entropy of the bytes of a text, in bits."""
    p = np.bincount(text) / len(text)
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def n_gram(train: UInt8[np.ndarray, " n"], streams: UInt8[np.ndarray, "B T+1"]) -> float:
    """The bits per byte of the order-3 n-gram model on streams; it is counted on the end of a long training text."""
    return ngram.bits_per_byte(train[-COUNTED:], streams, ORDER)


def check_trained(caller: str, trained: int) -> None:
    """Refuse streams of less than one byte per step."""
    if trained < 1:
        raise ValueError(f"{caller}: trained must be at least 1, but is {shown(trained)}")


class ByteStreams(ABC):
    """Base class of next-byte prediction; a subclass is a frozen dataclass with the field `trained`."""

    input_size = BYTES
    output_size = BYTES
    vocabulary = BYTES
    continues = True
    loss = "cross_entropy"
    metric = "bits_per_byte"
    maximize = False

    @property
    @abstractmethod
    def trained(self) -> int:
        """T, the bytes per training stream and step."""

    @abstractmethod
    def texts(self) -> Texts:
        """The three parts of the text."""

    @abstractmethod
    def streams(self, split: Split) -> UInt8[np.ndarray, "B T+1"]:
        """The streams of a part that are scored."""

    @abstractmethod
    def n_gram(self, split: Split) -> float:
        """The bits per byte of the n-gram model on the streams of a part."""

    def baselines(self, split: Split) -> dict[str, float]:
        """Two scores in bits per byte, both of models that are counted on the training text.

        byte frequencies: the entropy of the bytes of the training text. order-3 n-gram: the cross entropy of an n-gram
        model (ngram.py) on the streams of the split.
        """
        return {"byte frequencies": byte_entropy(self.texts().train), f"order-{ORDER} n-gram": self.n_gram(split)}

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """The next T bytes of `size` endless streams: xs, targets and weights (size, T)."""
        text = self.texts().train
        starts = jax.random.randint(key, (size, 1), 0, len(text), jnp.int32)
        at = starts + (jnp.asarray(step, jnp.int32) * self.trained) % len(text)
        steps = jnp.arange(self.trained + 1, dtype=jnp.int32)
        return _batch(jnp.asarray(text)[(at + steps[None]) % len(text)])

    def validation(self) -> Batch:
        """The streams of the validation part: xs, targets and weights (B, T)."""
        return _batch(jnp.asarray(self.streams("validation")))

    def test(self) -> Batch:
        """The streams of the test part: xs, targets and weights (B, T)."""
        return _batch(jnp.asarray(self.streams("test")))


def _batch(text: UInt8[Array, "B T+1"]) -> Batch:
    tokens = text.astype(jnp.int32)
    weights = jnp.ones((len(text), text.shape[1] - 1), jnp.float32)
    return Batch(tokens[:, :-1], tokens[:, 1:], weights=weights)
