"""Classify noisy sequences by their first three steps (Hochreiter & Schmidhuber 1997, experiment 3c).

    x_t = +1 or −1, the class, plus N(0, 0.2)     t = 1, 2, 3
    x_t = N(0, 0.2)                               t > 3
    y   = 0.2 or 0.8, the class                   the target after the last step; in training plus N(0, 0.1)

The second argument of N is a variance. A sequence has T to 1.1 T steps. In training, the targets are noisy too, so the
network has to learn their mean. The noise on the first three steps is from the paper's experiment 3b.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from jax_lstm.tasks.base import Batch, Split
from jax_lstm.tasks.generated import GeneratedTask
from jax_lstm.tasks.registry import register_task

TELLING = 3
NOISE, TARGET_NOISE = 0.2**0.5, 0.1**0.5


@dataclass(frozen=True)
class TwoClasses(GeneratedTask):
    """The two-sequence problem with noisy inputs and targets.

    Args:
        shortest: T, the length of the shortest sequence, at least 10; the longest has 1.1 T steps.

    Raises:
        ValueError: shortest is less than 10.
    """

    shortest: int = 100

    input_size = 1
    output_size = 1
    loss = "mse"
    metric = "within_0.1"
    maximize = True

    def __post_init__(self):
        if self.shortest < 10:
            raise ValueError(f"TwoClasses: shortest must be at least 10, but is {self.shortest}")

    @property
    def length(self) -> int:
        """1.1 T, the steps of the longest sequence."""
        return self.shortest * 11 // 10

    def baselines(self, split: Split) -> dict[str, float]:
        """The score of a constant, which can be within 0.1 of the target of one class only."""
        return {"chance": 0.5}

    def sequences(self, key: Key[Array, ""], size: int) -> Batch:
        """Draw `size` sequences with noise-free targets: xs (size, 1.1 T, 1), targets (size, 1), mask (size, 1.1 T)."""
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
        """New sequences at every step, with noisy targets."""
        key_sequences, key_noise = jax.random.split(jax.random.fold_in(key, step))
        batch = self.sequences(key_sequences, size)
        noise = TARGET_NOISE * jax.random.normal(key_noise, batch.targets.shape, jnp.float32)
        return batch._replace(targets=batch.targets + noise)


register_task("two_classes", TwoClasses)
