"""Handwritten digits, read one pixel at a time.

The data are 1,797 handwritten digits of 8 x 8 pixels (Alpaydin & Kaynak 1998), in scikit-learn's copy.

    x_t = pixel t in reading order, from 0 to 1     t = 1..64
    y   = the digit                                 the target after the last pixel

The split is fixed: 1,297 training, 200 validation and 300 test digits.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.registry import register_task

TRAIN, VALIDATION, TEST = slice(0, 1297), slice(1297, 1497), slice(1497, 1797)


@cache
def _split_order(size: int) -> np.ndarray:
    """A fixed shuffle, by the SHA-256 of the digits' indices: independent of any library's random generator."""
    return np.array(sorted(range(size), key=lambda n: hashlib.sha256(f"digit {n}".encode()).digest()))


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 64, 1) in [0, 1] and labels (1797,), in the order of the split."""
    from sklearn.datasets import load_digits  # seconds to import, and only this task needs it

    images, labels = load_digits(return_X_y=True)
    order = _split_order(len(labels))
    return (images[order, :, None] / 16).astype(np.float32), labels[order].astype(np.int32)


def _part(part: slice) -> Batch:
    pixels, labels = _digits()
    return Batch(jnp.asarray(pixels[part]), jnp.asarray(labels[part]))


@dataclass(frozen=True)
class Digits:
    """Classify a handwritten digit: 64 steps of 1 feature, 10 classes."""

    input_size = 1
    output_size = 10
    loss = "cross_entropy"
    metric = "accuracy"
    maximize = True

    @property
    def length(self) -> int:
        """64, the pixels of a digit."""
        return 64

    def baselines(self, split: Split) -> dict[str, float]:
        """The share of the most frequent digit."""
        return {"always the most frequent digit": 183 / 1797}

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """Batch number `step` of an endless sequence of epochs, each with a new shuffle.

        A batch never spans two epochs: the digits left at the end of an epoch, fewer than a batch, are skipped.

        Returns:
            xs (size, 64, 1) in [0, 1], and targets (size,), the digits 0 to 9.

        Raises:
            ValueError: size is larger than the number of training digits, 1,297.
        """
        batches = TRAIN.stop // size
        if batches == 0:
            raise ValueError(
                f"Digits.train_batch: size must be at most {TRAIN.stop}, the number of training digits, but is {size}"
            )
        step = jnp.asarray(step)
        order = jax.random.permutation(jax.random.fold_in(key, step // batches), TRAIN.stop)
        chosen = jax.lax.dynamic_slice_in_dim(order, (step % batches) * size, size)
        train = _part(TRAIN)
        return Batch(train.xs[chosen], train.targets[chosen])

    def validation(self) -> Batch:
        """200 digits: xs (200, 64, 1), targets (200,)."""
        return _part(VALIDATION)

    def test(self) -> Batch:
        """300 digits: xs (300, 64, 1), targets (300,)."""
        return _part(TEST)


register_task("digits", Digits)
