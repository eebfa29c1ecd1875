"""Handwritten digits, read one pixel at a time.

The data are 1,797 real digits, scanned at 8 x 8 pixels (Alpaydin & Kaynak 1998; the copy that scikit-learn ships).

    x_t = pixel t in reading order, from 0 to 1     t = 1..64
    y   = the digit                                 wanted after the last pixel

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

from jax_lstm.tasks.base import Batch

TRAIN, VALIDATION, TEST = slice(0, 1297), slice(1297, 1497), slice(1497, 1797)


@cache
def _split_order(size: int) -> np.ndarray:
    """A fixed shuffle: the order of the digits' SHA-256, so that no library's random generator can change the split."""
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
    """The digits, 64 steps of one feature, ten classes."""

    input_size = 1
    output_size = 10
    loss = "cross_entropy"
    metric = "accuracy"
    maximise = True
    baseline = 183 / 1797  # the share of the commonest digit

    @property
    def length(self) -> int:
        """64 pixels."""
        return 64

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """Batch number `step` of an endless run of epochs, each shuffled anew.

        A batch does not straddle epochs: the last few digits of a shuffle, fewer than a batch, wait for the next one.

        Raises:
            ValueError: size is more than the 1,297 training digits.
        """
        batches = TRAIN.stop // size
        if batches == 0:
            raise ValueError(
                f"Digits.train_batch: size must be at most {TRAIN.stop}, the training digits, but is {size}"
            )
        step = jnp.asarray(step)
        order = jax.random.permutation(jax.random.fold_in(key, step // batches), TRAIN.stop)
        chosen = jax.lax.dynamic_slice_in_dim(order, (step % batches) * size, size)
        train = _part(TRAIN)
        return Batch(train.xs[chosen], train.targets[chosen])

    def validation(self) -> Batch:
        """200 digits."""
        return _part(VALIDATION)

    def test(self) -> Batch:
        """300 digits."""
        return _part(TEST)
