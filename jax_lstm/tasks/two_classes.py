"""Two classes told by the first steps, in noise (Hochreiter & Schmidhuber 1997, experiment 3c).

    x_t = +1 or −1, the class, plus N(0, 0.2)     t = 1, 2, 3
    x_t = N(0, 0.2)                               after them
    y   = 0.2 or 0.8, the class                   wanted after the last step; in training plus N(0, 0.1)

0.2 and 0.1 in N are variances. A sequence has between T and 1.1 T steps. In training even the target is noisy: what has
to be learned is its mean. That the three telling steps are noisy too is from the paper's experiment 3b.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from jax_lstm.tasks.base import Batch
from jax_lstm.tasks.fresh import Fresh

TELLING = 3
NOISE, TARGET_NOISE = 0.2**0.5, 0.1**0.5


@dataclass(frozen=True)
class TwoClasses(Fresh):
    """The two-sequence problem with noisy inputs and targets.

    Args:
        shortest: T, the least length, at least 10; the longest is 1.1 T.

    Raises:
        ValueError: a shorter T.
    """

    shortest: int = 100

    input_size = 1
    output_size = 1
    loss = "mse"
    metric = "within_0.1"
    maximise = True
    baseline = 0.5  # a constant can be near one class's target only

    def __post_init__(self):
        if self.shortest < 10:
            raise ValueError(f"TwoClasses: length must be at least 10, but is {self.shortest}")

    @property
    def length(self) -> int:
        """1.1 T, the longest."""
        return self.shortest * 11 // 10

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """`size` fresh sequences with noise-free targets: xs (size, 1.1 T, 1), targets (size, 1), and the mask."""
        key_class, key_x, key_n = jax.random.split(key, 3)
        second = jax.random.bernoulli(key_class, shape=(size,))
        n = jax.random.randint(key_n, (size,), self.shortest, self.length + 1)
        t = jnp.arange(self.length)[None]
        told = jnp.where(t < TELLING, jnp.where(second, -1.0, 1.0)[:, None], 0.0)
        x = told + NOISE * jax.random.normal(key_x, (size, self.length), jnp.float32)
        live = t < n[:, None]
        targets = jnp.where(second, 0.8, 0.2).astype(jnp.float32)
        return Batch(jnp.where(live, x, 0)[..., None], targets[:, None], live)

    def train_batch(self, key: Key[Array, ""], step: ArrayLike, size: int) -> Batch:
        """Fresh sequences at every step, with noisy targets."""
        key_sequences, key_noise = jax.random.split(jax.random.fold_in(key, step))
        batch = self.sequences(key_sequences, size)
        noise = TARGET_NOISE * jax.random.normal(key_noise, batch.targets.shape, jnp.float32)
        return batch._replace(targets=batch.targets + noise)
